"""What keys were, and the way back. ``nouns.past`` has the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from krita.errors import Compacted
from krita.operations import KEEP_TTL
from kritash.consent import NOT_DONE, has_consent, may_act
from kritash.differences import ABSENT, Side, difference_document
from kritash.operands import then_of
from kritash.reply import Reply, View, sentence

if TYPE_CHECKING:
    from krita.values import Version
    from kritash.context import Context
    from kritash.grammar import Invocation


@attrs.frozen
class Step:
    """A key's newest change: from what to what."""

    before: Side
    now: Side  # its revision is 0 where the key is absent: what a condition asks for


def newest_step(context: Context, key: bytes) -> Step:
    """Raises Compacted when it is not known what the key was before."""
    versions = context.client.history(key, limit=2).versions
    # An absent key's newest version is the one that was deleted.
    now = _side(versions[0]) if versions and versions[0].until_revision is None else ABSENT
    before = versions[1:2] if now.revision else versions[:1]
    if not before:
        raise Compacted(
            "no version before the newest is kept of this key",
            hint="'retention set' has them kept from then on",
        )
    return Step(_side(before[0]), now)


def _side(version: Version) -> Side:
    return Side(version.revision, version.data, version.content_type)


def run_diff(context: Context, invocation: Invocation) -> Reply:
    """What changed between two moments. Raises Compacted."""
    key = invocation.key()
    first, second = invocation.options["from"], invocation.options["to"]
    if first is None and second is None:
        step = newest_step(context, key)
        before, after = step.before, step.now
    else:
        after = _then(context, key, second)
        before = newest_step(context, key).before if first is None else _then(context, key, first)
    document = difference_document(key, before, after)
    return Reply(View.DIFFERENCE, document)


def _then(context: Context, key: bytes, moment: object) -> Side:
    revision, time_ms = then_of(context, moment)
    found = context.client.get(key, at_revision=revision, at=time_ms)
    return ABSENT if found is None else Side(found.revision, found.data, found.content_type)


def run_undo(context: Context, invocation: Invocation) -> Reply:
    """Puts back what the key was before its newest change, if that is still the newest.

    Raises Compacted, ConditionFailed when it is not any more.
    """
    key = invocation.key()
    step = newest_step(context, key)
    if not context.display.as_json and not has_consent(context, invocation):
        preview = Reply(View.DIFFERENCE, difference_document(key, step.now, step.before))
        context.display.preview(preview)
    question = "Delete it?" if step.before.data is None else "Put this back?"
    if not may_act(context, invocation, question):
        return NOT_DONE
    document: dict[str, object] = {"key": key, "undone_revision": step.now.revision}
    if step.before.data is None:
        gone = context.client.delete(key, if_revision=step.now.revision)
        document |= {"revision": gone.revision, "restored_revision": None}
        return sentence(document, "ok", f"revision {gone.revision}", "deleted")
    put = context.client.put(
        key,
        step.before.data,
        content_type=step.before.content_type,
        if_revision=step.now.revision,
        ttl_ms=KEEP_TTL,
    )
    document |= {"revision": put.revision, "restored_revision": step.before.revision}
    said = f"what it was at revision {step.before.revision}"
    return sentence(document, "ok", f"revision {put.revision}", said)
