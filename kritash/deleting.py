"""``kritash key delete --prefix``: all keys that begin with something, many deletes at once.

The keys are counted, somebody is asked, then they are scanned page by page, and each batch
is deleted before the next one is read: memory is bounded, however many there are. It is no
transaction: a key that is written meanwhile may be deleted or not, and what was deleted
before an error stays deleted. Repeating it deletes the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from krita.errors import KritaError
from krita.values import DeleteResult
from kritash.batch import broken_off, renamed, shown, worst
from kritash.consent import NOT_DONE, may_act
from kritash.exits import Exit
from kritash.reply import Reply, sentence
from kritash.units import count_text
from kritash.words import ParseError

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

BATCH_KEYS_MAX = 500
_OF_ONE_KEY = ("if-revision", "if-lock", "idempotency", "previous")


def run_delete_all(context: Context, invocation: Invocation) -> Reply:
    """Deletes the keys that begin with what the invocation names; code NO when there are none.

    Raises ParseError for options that are about one key, KritaError when some could not be
    deleted.
    """
    prefix = invocation.bytes("prefix")
    assert prefix is not None
    for name in _OF_ONE_KEY:
        if invocation.options[name] is not None:
            raise ParseError(f"--{name} is about one key, and --prefix about many")
    total = context.client.count(prefix=prefix)
    document: dict[str, object] = {"prefix": prefix, "deleted": 0}
    if not total:
        return sentence(document, "absent: there was nothing to delete", code=Exit.NO)
    keys = "key" if total == 1 else "keys"
    question = f"Delete {total:,} {keys} beginning with {shown(prefix)}?"
    if not may_act(context, invocation, question):
        return NOT_DONE
    deleted = _delete_all(context, prefix, total)
    return sentence(document | {"deleted": deleted}, "ok", f"{count_text(deleted, 'key')} deleted")


def _delete_all(context: Context, prefix: bytes, total: int) -> int:
    """How many there were. Raises the error that ended it, with how many came before that."""
    deleted = 0
    keys = (item.key for item in context.client.scan(prefix, keys_only=True))
    try:
        for batch in _batches(keys):
            gone, failed = _delete(context, batch)
            deleted += gone
            if failed:
                key, error = worst(failed)
                raise renamed(error, f"{shown(key)} could not be deleted: {error.message}")
            if len(batch) == BATCH_KEYS_MAX:
                pace = f", {deleted:,} of {total:,}"
                context.display.progress("deleting", min(1.0, deleted / total), pace)
    except KritaError as error:
        raise broken_off(
            error,
            f"{error.message}; {count_text(deleted, 'key')} had been deleted",
            happened=bool(deleted),
            hint="delete again: what is gone is passed over",
        ) from error
    return deleted


def _batches(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for key in keys:
        batch.append(key)
        if len(batch) == BATCH_KEYS_MAX:
            yield batch
            batch = []
    if batch:
        yield batch


def _delete(context: Context, batch: list[bytes]) -> tuple[int, list[tuple[bytes, KritaError]]]:
    """How many of these were there, and those that could not be deleted."""
    pipeline = context.client.pipeline()
    for key in batch:
        pipeline.delete(key)
    gone = 0
    failed: list[tuple[bytes, KritaError]] = []
    for key, result in zip(batch, pipeline.execute(), strict=True):
        if isinstance(result, KritaError):
            failed.append((key, result))
        else:
            assert isinstance(result, DeleteResult)
            gone += result.existed
    return gone, failed
