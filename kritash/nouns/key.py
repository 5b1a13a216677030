"""``key``: reading and writing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.limits import VALUE_BYTES_MAX_CEILING
from krita.operations import Consistency
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import KEY
from kritash.reply import Reply, View, sentence
from kritash.words import ParseError, Word

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation


def get(context: Context, invocation: Invocation) -> Reply:
    """The value of a key; code NO when it is absent."""
    key = invocation.key()
    context.recent.saw_key(key)
    stale = invocation.flag("stale")
    consistency = Consistency.STALE if stale else Consistency.LINEARIZABLE
    found = context.client.get(key, consistency=consistency)
    document: dict[str, object] = {
        "key": key,
        "value": None if found is None else found.data,
        "revision": 0 if found is None else found.revision,
        "content_type": None if found is None else found.content_type,
    }
    if stale and found is not None:
        document["staleness_ms"] = found.staleness_ms
    if found is None:
        return Reply(View.VALUE, document, "absent: there is no such key", Exit.NO)
    return Reply(View.VALUE, document)


def put(context: Context, invocation: Invocation) -> Reply:
    """Sets a key."""
    key = invocation.key()
    value = read_value(context, invocation)
    content_type = invocation.options["content-type"]
    assert content_type is None or isinstance(content_type, str)
    result = context.client.put(
        key, value, content_type=content_type, if_revision=_revision(invocation)
    )
    context.recent.saw_key(key)
    document = {"key": key, "revision": result.revision, "existed": result.existed}
    how = "replaced" if result.existed else "new"
    return sentence(document, "ok", f"revision {result.revision}", how)


def _revision(invocation: Invocation) -> int | None:
    revision = invocation.options["if-revision"]
    assert revision is None or isinstance(revision, int)
    return revision


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


def delete(context: Context, invocation: Invocation) -> Reply:
    """Removes a key; code NO when there was none."""
    key = invocation.key()
    result = context.client.delete(key, if_revision=_revision(invocation))
    document = {"key": key, "revision": result.revision, "existed": result.existed}
    if result.existed:
        return sentence(document, "ok", f"revision {result.revision}", "deleted")
    return sentence(document, "absent: there was nothing to delete", code=Exit.NO)


_IF_REVISION = Option("if-revision", "only if the key has this revision; 0: if it is absent",
                      "N", Kind.SIZE)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "get"), "read a key", get, aliases=("get",), arguments=(KEY,),
        options=(Option("stale", "take what a node near by has; it may be behind"),),
        details="An absent key is exit code 1 and a line on stderr. Into a pipe the value goes as\n"
        "it is, byte for byte; a newline follows only where several commands are run in one go.",
        example="key get user:1",
    ),
    Command(
        ("key", "put"), "set a key", put, aliases=("put",),
        arguments=(KEY, Argument("VALUE", Kind.VALUE,
                                  "the value; - reads it from stdin, @file from a file")),
        options=(Option("literal", "store - or @… itself"),
                 Option("content-type", "kept with the value", "TYPE"), _IF_REVISION),
        details="Quoting the value on a line ('-', \"@home\") says literal as well. Exit code 1\n"
        "when --if-revision does not hold.",
        example='key put user:1 "Ada Lovelace"',
    ),
    Command(
        ("key", "delete"), "remove a key", delete, aliases=("del", "delete"),
        arguments=(KEY,), options=(_IF_REVISION,),
        details="Exit code 1 when there was no such key.",
        example="key delete user:1",
    ),
)  # fmt: skip
