"""``key add``, ``append``, ``touch`` and ``persist``: changes that need no read before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.operations import KEEP_TTL
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind
from kritash.nouns.common import GUARD, IF_REVISION, KEY, LITERAL, TTL, VALUE, WITH_LEASE
from kritash.operands import guard_of, life_of, read_value
from kritash.reply import Reply, sentence
from kritash.times import duration_word
from kritash.units import size_text
from kritash.words import ParseError

if TYPE_CHECKING:
    from krita.values import TouchResult
    from kritash.context import Context
    from kritash.grammar import Invocation


def add(context: Context, invocation: Invocation) -> Reply:
    """Adds to a counter."""
    key = invocation.key()
    result = context.client.add(
        key,
        1 if invocation.arguments["N"] is None else invocation.integer("N"),
        **life_of(invocation, keeps=True),
        **guard_of(invocation),
    )
    context.recent.saw_key(key)
    document = {
        "key": key, "revision": result.revision, "existed": result.existed,
        "number": result.number,
    }  # fmt: skip
    return sentence(document, "ok", f"revision {result.revision}", f"now {result.number}")


def append(context: Context, invocation: Invocation) -> Reply:
    """Puts bytes behind a value."""
    key = invocation.key()
    result = context.client.append(
        key,
        read_value(context, invocation),
        **life_of(invocation, keeps=True),
        **guard_of(invocation),
    )
    context.recent.saw_key(key)
    document = {
        "key": key, "revision": result.revision, "existed": result.existed,
        "length": result.value_bytes,
    }  # fmt: skip
    size = f"now {size_text(result.value_bytes)}"
    return sentence(document, "ok", f"revision {result.revision}", size)


def touch(context: Context, invocation: Invocation) -> Reply:
    """Changes how long a key lasts. Raises ParseError when nothing is said of that."""
    key = invocation.key()
    ttl_ms, lease = invocation.count("ttl"), invocation.count("lease")
    if ttl_ms in (None, KEEP_TTL) and lease is None:
        hint = "to let it last for good: key persist"
        raise ParseError("key touch needs --ttl or --lease", hint=hint)
    result = context.client.touch(key, ttl_ms, lease=lease, **guard_of(invocation))
    lasts = [] if ttl_ms is None or ttl_ms < 0 else [f"lasts {duration_word(ttl_ms)}"]
    return _lives(context, key, result, *lasts, *([f"with lease {lease}"] if lease else []))


def persist(context: Context, invocation: Invocation) -> Reply:
    """Lets a key last for good."""
    key = invocation.key()
    if_revision = invocation.count("if-revision")
    result = context.client.persist(key, if_revision=if_revision)
    return _lives(context, key, result, "lasts until it is removed")


def _lives(context: Context, key: bytes, result: TouchResult, *said: str) -> Reply:
    context.recent.saw_key(key)
    document = {"key": key, "revision": result.revision, "existed": result.existed}
    if not result.existed:
        return sentence(document, "absent: there is no such key", code=Exit.NO)
    return sentence(document, "ok", f"revision {result.revision}", *said)


COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "add"), "add to a counter", add, aliases=("add",),
        arguments=(KEY, Argument("N", Kind.INTEGER, "what to add, perhaps negative; 1 unless given",
                                 optional=True)),
        options=(TTL, WITH_LEASE, *GUARD),
        details="A counter is a value that is a whole number in decimal; an absent one is 0.\n"
        "Exit code 6 for another value, and for a sum of more than 63 bits. It lasts as long as\n"
        "it would have, unless --ttl says otherwise.",
        example="key add visits 1",
    ),
    Command(
        ("key", "append"), "put bytes behind a value", append, aliases=("append",),
        arguments=(KEY, VALUE), options=(LITERAL, TTL, WITH_LEASE, *GUARD),
        details="An absent value is empty. Exit code 6 when it would be too large.",
        example='key append journal "one more line\\n"',
    ),
    Command(
        ("key", "touch"), "change how long a key lasts", touch, arguments=(KEY,),
        options=(TTL, WITH_LEASE, *GUARD),
        details="Nothing else changes: the revision stays, and no watch is told. Exit code 1 when\n"
        "there is no such key.",
        example="key touch session:9 --ttl 30m",
    ),
    Command(
        ("key", "persist"), "let a key last until it is removed", persist, arguments=(KEY,),
        options=(IF_REVISION,),
        details="Without a deadline, and tied to no lease. Exit code 1 when there is no such key.",
        example="key persist session:9",
    ),
)  # fmt: skip
