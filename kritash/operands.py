"""What the words of a read or write stand for: its value, its conditions, how long it lasts."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from krita.limits import VALUE_BYTES_MAX_CEILING
from krita.operations import KEEP_TTL
from kritash.times import Moment
from kritash.words import ParseError, Word

if TYPE_CHECKING:
    from krita.values import Value
    from kritash.context import Context
    from kritash.grammar import Invocation

PREVIOUS_CHARS_MAX = 60  # of a value that a sentence shows in passing


class Guard(TypedDict):
    """What has to hold for a write to happen, as the client's writes take it."""

    if_revision: int | None
    if_lock: tuple[bytes, int] | None
    idempotency: bytes | None


class Life(TypedDict):
    """How long what is written lasts, likewise."""

    ttl_ms: int | None
    lease: int | None


def guard_of(invocation: Invocation) -> Guard:
    """The conditions of a write."""
    return Guard(
        if_revision=invocation.count("if-revision"),
        if_lock=held_of(invocation),
        idempotency=invocation.bytes("idempotency"),
    )


def held_of(invocation: Invocation) -> tuple[bytes, int] | None:
    """The lock that is to be held."""
    held = invocation.options["if-lock"]
    assert held is None or isinstance(held, tuple)
    return held


def life_of(invocation: Invocation, *, keeps: bool = False) -> Life:
    """How long it lasts. ``keeps``: as long as before, when nothing is said."""
    ttl_ms, lease = invocation.count("ttl"), invocation.count("lease")
    if keeps and ttl_ms is None and lease is None:
        ttl_ms = KEEP_TTL
    return Life(ttl_ms=ttl_ms, lease=lease)


def then_of(context: Context, moment: object) -> tuple[int | None, int | None]:
    """What a MOMENT stands for: a revision, or a time in milliseconds; one is None."""
    if isinstance(moment, Moment):
        return None, moment.resolved(round(context.wall_s() * 1000))
    assert moment is None or isinstance(moment, int)
    return moment, None


def value_document(value: Value | None) -> dict[str, object] | None:
    """A value for programs, without what every one lacks."""
    if value is None:
        return None
    document: dict[str, object] = {
        "value": value.data, "revision": value.revision, "content_type": value.content_type,
    }  # fmt: skip
    if value.expires_in_ms is not None:
        document["expires_in_ms"] = value.expires_in_ms
    if value.lease is not None:
        document["lease"] = str(value.lease)
    return document


def in_passing(value: Value) -> str:
    """A value within a sentence."""
    from kritash.cells import shortened

    return shortened(value.data, PREVIOUS_CHARS_MAX)


def read_value(context: Context, invocation: Invocation) -> bytes:
    """The bytes that a VALUE argument stands for: itself, ``-``, or ``@file``.

    Raises ParseError when they cannot be read or no cluster would take them.
    """
    word = invocation.arguments["VALUE"]
    assert isinstance(word, Word)
    if word.quoted or invocation.flag("literal"):
        return word.data
    if word.data == b"-":
        if context.stdin is None:
            hint = "give it as an argument of kritash, or use @file"
            raise ParseError("'-' cannot read a value here", word.column, hint)
        value = context.stdin.read(VALUE_BYTES_MAX_CEILING + 1)
    elif word.data.startswith(b"@"):
        try:
            with open(word.data[1:], "rb") as file:
                value = file.read(VALUE_BYTES_MAX_CEILING + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            hint = "to store this text itself, quote it or add --literal"
            raise ParseError(
                f"cannot read {word.text[1:]!r}: {reason}", word.column, hint
            ) from error
    else:
        return word.data
    if len(value) > VALUE_BYTES_MAX_CEILING:
        message = (
            f"the value is longer than {VALUE_BYTES_MAX_CEILING} bytes, which no cluster takes"
        )
        raise ParseError(message, word.column)
    return value
