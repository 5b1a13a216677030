"""``kritash key import``: what a file says into the cluster, many puts at once.

A file is read twice: once to check all of it, so that a malformed one changes nothing
and the bar knows where the end is, then to put. Standard input can be read only once;
there what stands before the first error is put, and the error says how much that was.

Puts go out in batches, in which those of one key keep their order: the last one in the
file counts. A batch that fails ends the import. Nothing remembers how far it came, and
nothing has to: repeating it sets what is there already to the same once more.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import attrs

from krita.errors import BadRequest, ConditionFailed, KritaError
from krita.values import PutResult
from kritash.batch import broken_off, shown, worst
from kritash.interruption import NothingSent
from kritash.reply import Reply, sentence
from kritash.transfer.formats import DEFAULT, FORMATS, Format, format_of
from kritash.transfer.record import Record, TransferError, checked
from kritash.transfer.seal import Unsealed
from kritash.units import count_text, size_text
from kritash.words import ParseError

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

STDIN = "-"
ENCODING = "utf-8-sig"  # Windows puts a mark in front
PIECE_CHARS = 1 << 16
BATCH_RECORDS_MAX = 500
BATCH_BYTES_MAX = 8 << 20
CHECKED_AT_A_TIME = 10_000  # records between two looks at the clock


@attrs.frozen
class Order:
    """What was asked for."""

    path: str
    format: Format
    prefix: bytes
    if_absent: bool
    dry_run: bool


@attrs.define
class Counts:
    """What became of the records so far."""

    records: int = 0
    bytes: int = 0  # of keys and values
    new: int = 0
    replaced: int = 0
    kept: int = 0  # existed, and were to be left alone
    whole: bool = False  # by what its last line says
    lost: Counter[str] = attrs.field(factory=Counter)  # what Krita does not keep of them

    def take(self, record: Record) -> None:
        """One record more."""
        self.records += 1
        self.bytes += len(record.key) + len(record.value)
        self.lost.update(record.lost)


def run_import(context: Context, invocation: Invocation) -> Reply:
    """Imports what the invocation names.

    Raises ParseError for a file that cannot be read or whose format nobody knows,
    BadRequest for one that is malformed, KritaError when records cannot be put.
    """
    order = _read_order(invocation)
    total = None
    if order.dry_run or os.path.isfile(order.path):
        total = _check(context, order)
        if order.dry_run:
            return _reply(context, order, total)
    counts = Counts()
    try:
        with _open(context, order, counts) as records:
            for batch in _batches(records):
                _put(context, order, batch, counts)
                if len(batch) == BATCH_RECORDS_MAX:
                    _show(context, order, counts, total)
    except TransferError as error:
        message = f"{order.path}: {error}"
        raise _stopped(BadRequest(message), counts, message) from error
    except NothingSent as interrupt:  # while standard input had no more for us
        if counts.records:
            interrupt.done = f"{count_text(counts.records, 'record')} had been imported"
        raise
    return _reply(context, order, counts)


def _read_order(invocation: Invocation) -> Order:
    path, name = invocation.text("FILE"), invocation.text("format")
    assert path is not None
    format = FORMATS[name] if name else (DEFAULT if path == STDIN else format_of(path))
    if format is None:
        hint = "say it with --format"
        raise ParseError(f"the name {path!r} does not tell the file's format", hint=hint)
    prefix = invocation.options["prefix"] or b""
    assert isinstance(prefix, bytes)
    return Order(path, format, prefix, invocation.flag("if-absent"), invocation.flag("dry-run"))


# -- Reading -------------------------------------------------------------------


@contextmanager
def _open(context: Context, order: Order, counts: Counts) -> Iterator[Iterator[Record]]:
    """The records, as they will be put. Raises ParseError when there is no such file."""
    with _text(context, order.path) as text:
        yield (_prepared(record, order) for record in _read(_decoded(text, order), order, counts))


def _read(pieces: Iterable[str], order: Order, counts: Counts) -> Iterator[Record]:
    if not order.format.sealed:
        yield from order.format.read(pieces)
        return
    unsealed = Unsealed(order.format.read)
    yield from unsealed.records(pieces)
    counts.whole = unsealed.whole


@contextmanager
def _text(context: Context, path: str) -> Iterator[TextIO]:
    if path == STDIN:
        if context.stdin is None:
            raise ParseError("'-' cannot read a file here", hint="give the file's name")
        text = io.TextIOWrapper(context.stdin, ENCODING, newline="")
        try:
            yield text
        finally:
            text.detach()  # or it would close stdin
        return
    try:
        file = open(path, encoding=ENCODING, newline="")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ParseError(f"cannot read {path!r}: {reason}") from error
    with file:
        yield file


def _decoded(text: TextIO, order: Order) -> Iterator[str]:
    """Its lines, or pieces of it. Raises TransferError."""
    in_lines = order.format.in_lines
    pieces: Iterable[str] = text if in_lines else iter(lambda: text.read(PIECE_CHARS), "")
    number = 0
    try:
        for piece in pieces:
            number += 1
            yield piece
    except UnicodeDecodeError as error:
        place = f"behind line {number}" if in_lines and number else "the text"
        raise TransferError(place, "not UTF-8") from error


def _prepared(record: Record, order: Order) -> Record:
    """The record under the key that it gets. Raises TransferError for what cannot be put."""
    if not order.prefix:
        return record
    record = attrs.evolve(record, key=order.prefix + record.key)
    return checked(record, shown(record.key))


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """What is put at once. What stands before an error is given first."""
    batch: list[Record] = []
    size = 0
    try:
        for record in records:
            batch.append(record)
            size += len(record.key) + len(record.value)
            if len(batch) >= BATCH_RECORDS_MAX or size >= BATCH_BYTES_MAX:
                yield batch
                batch, size = [], 0
    except TransferError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


def _check(context: Context, order: Order) -> Counts:
    """Reads all of it. Raises BadRequest."""
    counts = Counts()
    try:
        with _open(context, order, counts) as records:
            for record in records:
                counts.take(record)
                if counts.records % CHECKED_AT_A_TIME == 0:
                    seen = f", {count_text(counts.records, 'record')}"
                    context.display.progress(f"checking {order.path}", None, seen)
    except TransferError as error:
        raise BadRequest(f"{order.path}: {error}", hint="nothing was imported") from error
    return counts


# -- Putting -------------------------------------------------------------------


def _put(context: Context, order: Order, batch: list[Record], counts: Counts) -> None:
    """Puts a batch. Raises the worst of its errors, if there are any."""
    pipeline = context.client.pipeline()
    for record in batch:
        pipeline.put(
            record.key,
            record.value,
            content_type=record.content_type,
            if_revision=0 if order.if_absent else None,
            ttl_ms=record.ttl_ms,
        )
    failed: list[tuple[bytes, KritaError]] = []
    for record, result in zip(batch, pipeline.execute(), strict=True):
        if isinstance(result, ConditionFailed) and order.if_absent:
            counts.kept += 1
        elif isinstance(result, KritaError):
            failed.append((record.key, result))
            continue
        else:
            assert isinstance(result, PutResult)
            counts.replaced += result.existed
            counts.new += not result.existed
        counts.take(record)
    if failed:
        key, error = worst(failed)
        raise _stopped(error, counts, f"{shown(key)} could not be put: {error.message}")


def _stopped(error: KritaError, counts: Counts, message: str) -> KritaError:
    """The error with how far the import came."""
    return broken_off(
        error,
        f"{message}; {count_text(counts.records, 'record')} had been imported",
        happened=bool(counts.records),
        hint="mend it and import again: what is there is set to the same once more",
    )


# -- Telling -------------------------------------------------------------------


def _show(context: Context, order: Order, counts: Counts, total: Counts | None) -> None:
    share = counts.bytes / total.bytes if total and total.bytes else None
    pace = f", {count_text(counts.records, 'record')}, {size_text(counts.bytes)}"
    context.display.progress(f"importing {order.path}", share and min(1.0, share), pace)


def _reply(context: Context, order: Order, counts: Counts) -> Reply:
    for name, number in sorted(counts.lost.items()):
        had = count_text(number, "record")
        context.display.note(f"{had} had {name} in the source, which Krita does not keep")
    if order.format.sealed and not counts.whole and not context.display.as_json:
        context.display.note(
            f"warning: {order.path} has no last line that counts, as an export has: nobody can "
            "tell whether it is whole"
        )
    document: dict[str, object] = {
        "file": order.path, "format": order.format.name, "dry_run": order.dry_run,
        "whole": counts.whole if order.format.sealed else None,
        "records": counts.records, "bytes": counts.bytes, "new": counts.new,
        "replaced": counts.replaced, "kept": counts.kept, "lost": dict(counts.lost),
    }  # fmt: skip
    size = f"{count_text(counts.records, 'record')}, {size_text(counts.bytes)}"
    if order.dry_run:
        return sentence(document, "ok", size, "nothing was put")
    parts = (("new", counts.new), ("replaced", counts.replaced), ("kept", counts.kept))
    return sentence(document, "ok", size, *(f"{number} {name}" for name, number in parts if number))
