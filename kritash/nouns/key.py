"""``key``: reading, setting and removing one; ``change`` has the rest of its verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.errors import ConditionFailed
from krita.operations import Consistency
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import (
    GUARD,
    KEY,
    LITERAL,
    PREVIOUS,
    TTL,
    VALUE,
    WITH_LEASE,
)
from kritash.operands import (
    guard_of,
    in_passing,
    life_of,
    read_value,
    then_of,
    value_document,
)
from kritash.reply import Reply, View, sentence
from kritash.words import ParseError

if TYPE_CHECKING:
    from krita.values import DeleteResult, PutResult
    from kritash.context import Context
    from kritash.grammar import Invocation


def get(context: Context, invocation: Invocation) -> Reply:
    """The value of a key; code NO when it is absent."""
    key = invocation.key()
    context.recent.saw_key(key)
    staleness_ms_max = invocation.count("max-staleness")
    stale = invocation.flag("stale") or staleness_ms_max is not None
    revision, time_ms = then_of(context, invocation.options["at"])
    found = context.client.get(
        key,
        consistency=Consistency.STALE if stale else Consistency.LINEARIZABLE,
        staleness_ms_max=staleness_ms_max,
        at_revision=revision,
        at=time_ms,
    )
    document: dict[str, object] = {
        "key": key, "value": None, "revision": 0, "content_type": None,
    }  # fmt: skip
    if found is None:
        now = invocation.options["at"] is None
        said = "there is no such key" if now else "there was no such key then"
        return Reply(View.VALUE, document, f"absent: {said}", Exit.NO)
    document |= value_document(found) or {}
    if stale:
        document["staleness_ms"] = found.staleness_ms
    return Reply(View.VALUE, document)


def put(context: Context, invocation: Invocation) -> Reply:
    """Sets a key."""
    key = invocation.key()
    try:
        result = context.client.put(
            key,
            read_value(context, invocation),
            content_type=invocation.text("content-type"),
            if_absent=invocation.flag("if-absent"),
            previous=invocation.flag("previous"),
            **life_of(invocation),
            **guard_of(invocation),
        )
    except ConditionFailed as error:
        if invocation.flag("if-absent") and error.detail and not error.detail.get("if_lock"):
            # The cluster knows it as if_revision 0, which nobody has said here.
            error.message = f"--if-absent: the key is there, at revision {error.detail['revision']}"
        raise
    context.recent.saw_key(key)
    document: dict[str, object] = {
        "key": key, "revision": result.revision, "existed": result.existed,
    }  # fmt: skip
    parts = [f"revision {result.revision}", "replaced" if result.existed else "new"]
    parts += _previous(invocation, result, document)
    return sentence(document, "ok", *parts)


def delete(context: Context, invocation: Invocation) -> Reply:
    """Removes a key, or all that begin with something; code NO when there was none."""
    if (invocation.arguments["KEY"] is None) == (invocation.options["prefix"] is None):
        raise ParseError("say which: key delete KEY, or key delete --prefix P for many")
    if invocation.options["prefix"] is not None:
        from kritash.deleting import run_delete_all

        return run_delete_all(context, invocation)
    key = invocation.key()
    result = context.client.delete(
        key, previous=invocation.flag("previous"), **guard_of(invocation)
    )
    document: dict[str, object] = {
        "key": key, "revision": result.revision, "existed": result.existed,
    }  # fmt: skip
    said = _previous(invocation, result, document)
    if result.existed:
        return sentence(document, "ok", f"revision {result.revision}", "deleted", *said)
    return sentence(document, "absent: there was nothing to delete", code=Exit.NO)


def _previous(
    invocation: Invocation, result: PutResult | DeleteResult, document: dict[str, object]
) -> list[str]:
    """What the key had, put into the document; the same as parts of a sentence."""
    if not invocation.flag("previous"):
        return []
    document["previous"] = value_document(result.previous)
    return [] if result.previous is None else [f"was {in_passing(result.previous)}"]


COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "get"), "read a key", get, aliases=("get",), arguments=(KEY,),
        options=(
            Option("stale", "take what a node near by has; it may be behind"),
            Option("max-staleness", "likewise, but nothing that is missed is older", "TIME",
                   Kind.DURATION),
            Option("at", "what it was then: a revision, 2026-11-29T10:00, or -10m", "WHEN",
                   Kind.MOMENT),
        ),
        details="An absent key is exit code 1 and a line on stderr. Into a pipe the value goes as\n"
        "it is, byte for byte; a newline follows only where several commands are run in one go.\n"
        "What a key was is known of prefixes that have a retention (`retention set`).",
        example="key get user:1",
    ),
    Command(
        ("key", "put"), "set a key", put, aliases=("put",),
        arguments=(KEY, VALUE),
        options=(LITERAL, Option("content-type", "kept with the value", "TYPE"), TTL, WITH_LEASE,
                 Option("if-absent", "only if there is no such key"), *GUARD, PREVIOUS),
        details="Quoting the value on a line ('-', \"@home\") says literal as well. Without --ttl\n"
        "the key lasts until it is removed, whatever it had before. Exit code 1 when a condition\n"
        "does not hold. A lock's key and this one are of one group: {shop}lock, {shop}stock.",
        example='key put user:1 "Ada Lovelace"',
    ),
    Command(
        ("key", "delete"), "remove a key, or all that begin with something", delete,
        aliases=("del", "delete"),
        arguments=(Argument(KEY.name, KEY.kind, KEY.summary, optional=True),),
        options=(Option("prefix", "all keys that begin with this; asks first, with their number",
                        "P", Kind.KEY), *GUARD, PREVIOUS),
        details="Exit code 1 when there was no such key. With --prefix keys go in groups, many at\n"
        "once: what is written meanwhile may go or stay, and after an error the rest is there;\n"
        "say it again. Locks, elections and what ends with a lease are keys as well.",
        example="key delete user:1",
    ),
)  # fmt: skip
