"""What a command is made of: the words of the command table.

Values only. ``commands.COMMANDS`` is written in them; the parser, completion,
help and dispatch read them, so none of the four can know a command that the
others do not.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.reply import Reply


class Kind(enum.Enum):
    """What an argument or an option's value is: how it is converted (see
    ``parser.convert``) and what completion offers for it."""

    KEY = "key"  # bytes, not empty
    PREFIX = "prefix"  # bytes, perhaps empty
    NAME = "name"  # bytes, not empty: of somebody or something that is no key
    VALUE = "value"  # a Word: its quotes tell "-" from '-'
    SHARD = "shard"  # int >= 0
    NODE = "node"  # int >= 1
    COMMAND = "command"  # text: a word of a command's name
    COUNT = "count"  # int >= 1
    SIZE = "size"  # int >= 0
    SECONDS = "seconds"  # float > 0
    RATIO = "ratio"  # float, 0 to 1
    WEIGHT = "weight"  # int, 1 to 100
    ZONE = "zone"  # str, may be empty
    TEXT = "text"  # str
    INTEGER = "integer"  # int, perhaps negative
    DURATION = "duration"  # int >= 1, milliseconds
    TTL = "ttl"  # the same, or krita.KEEP_TTL
    MOMENT = "moment"  # int, a revision, or times.Moment
    LOCK = "lock"  # bytes, not empty: a lock's key
    TOKEN = "token"  # int >= 1: a lock's fencing token
    HELD = "held"  # (bytes, int): a lock and its token
    LEASE = "lease"  # int, 1 to 2**60 - 1


@attrs.frozen
class Argument:
    """A positional argument. Optional ones and a ``rest`` come last."""

    name: str  # as help shows it, in capitals
    kind: Kind
    summary: str
    optional: bool = False
    rest: bool = False  # takes all remaining words; its value is a list
    foreign: bool = False  # a rest that belongs behind --: its options are not ours


@attrs.frozen
class Option:
    """``--name``, or ``--name METAVAR`` if it has a metavar. Hyphens and
    underscores in names are the same to the parser."""

    name: str
    summary: str
    metavar: str = ""
    kind: Kind = Kind.TEXT
    default: object = None
    short: str = ""  # one letter
    repeated: bool = False  # its value is a list
    choices: tuple[str, ...] = ()  # of a TEXT: all that it may be; none: anything


@attrs.frozen
class Command:
    """One row of the table."""

    path: tuple[str, ...]  # "key", "get"
    summary: str
    action: Callable[[Context, Invocation], Reply]
    aliases: tuple[str, ...] = ()  # short forms, one word each
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    confirm: str = ""  # the question to ask before acting, if any
    details: str = ""  # what `help COMMAND` adds
    example: str = ""

    @property
    def name(self) -> str:
        """The full name as typed: ``key get``."""
        return " ".join(self.path)

    @property
    def usage(self) -> str:
        """``key put KEY VALUE [--literal]``."""
        parts = [self.name]
        behind = [f"-- {argument.name}…" for argument in self.arguments if argument.foreign]
        for argument in self.arguments:
            if argument.foreign:
                continue
            word = argument.name + ("…" if argument.rest else "")
            parts.append(f"[{word}]" if argument.optional else word)
        for option in self.options:
            metavar = f" {option.metavar}" if option.metavar else ""
            parts.append(f"[--{option.name}{metavar}]")
        return " ".join(parts + behind)


@attrs.frozen
class Invocation:
    """One command as the user gave it, converted and complete: every argument
    is present (None when an optional one was left out), and so is every option
    (its default when it was not given)."""

    command: Command
    arguments: Mapping[str, object]
    options: Mapping[str, object]

    def integer(self, name: str) -> int:
        """The argument or option of that name, which is an int by its kind."""
        value = self._value(name)
        assert isinstance(value, int), name
        return value

    def number(self, name: str) -> float:
        """The argument or option of that name, which is a number by its kind."""
        value = self._value(name)
        assert isinstance(value, (int, float)), name
        return float(value)

    def key(self, name: str = "KEY") -> bytes:
        """The argument of that name, which is bytes by its kind."""
        value = self._value(name)
        assert isinstance(value, bytes), name
        return value

    def text(self, name: str) -> str | None:
        """The argument or option of that name, which is text by its kind, if it was given."""
        value = self._value(name)
        assert value is None or isinstance(value, str), name
        return value

    def count(self, name: str) -> int | None:
        """The argument or option of that name, which is an int by its kind, if it was given."""
        value = self._value(name)
        assert value is None or isinstance(value, int), name
        return value

    def bytes(self, name: str) -> bytes | None:
        """The argument or option of that name, which is bytes by its kind, if it was given."""
        value = self._value(name)
        assert value is None or isinstance(value, bytes), name
        return value

    def words(self, name: str) -> list[str]:
        """The words that a rest of texts has taken."""
        value = self._value(name)
        assert isinstance(value, list), name
        return value

    def flag(self, name: str) -> bool:
        """Whether a switch was given."""
        return bool(self.options.get(name))

    def _value(self, name: str) -> object:
        return self.arguments[name] if name in self.arguments else self.options[name]
