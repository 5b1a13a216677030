"""From words to an Invocation, by the command table. Pure.

The command's name comes first (options common to all commands may stand
before it), then arguments and options in any order; ``--`` ends the options.
Whatever is wrong is a ParseError that says where, and what was probably meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from krita.limits import LEASE_LIMIT
from krita.operations import KEEP_TTL
from kritash.grammar import Argument, Command, Invocation, Kind, Option
from kritash.times import TimeError, duration_ms, moment_of
from kritash.words import ParseError, Word

KEEP = "keep"  # a ttl: as long as the key would have lasted
INTEGER_MAX = 2**63 - 1  # as a counter has it
WEIGHT_MAX = 100  # as the cluster has it
ZONE_CHARS_MAX = 64  # likewise


def parse(words: Sequence[Word], table: Sequence[Command], common: Sequence[Option]) -> Invocation:
    """The one command that the words say. ``common`` options are understood
    before and behind every command.

    Raises ParseError: unknown command or option (with the nearest known one as
    hint), a missing, superfluous or unfit argument.
    """
    given: dict[str, object] = {}
    start = take_leading_options(words, common, given)
    command, rest = find_command(words[start:], table)
    positionals = _take_options(rest, (*command.options, *common), given, command)
    arguments = _bind(command, positionals, words)
    return Invocation(command, arguments, _with_defaults(given, (*command.options, *common)))


def parse_options(
    words: Sequence[Word], options: Sequence[Option]
) -> tuple[dict[str, object], Sequence[Word]]:
    """The options of kritash itself, wherever they stand, and the words from the
    command on (for ``parse``, which knows the command's own options and judges
    the rest). Raises ParseError."""
    given: dict[str, object] = {}
    start = at = take_leading_options(words, options, given)
    while at < len(words) and words[at].data != b"--":
        name = words[at].text.partition("=")[0]
        known = _is_option(words[at]) and _find_option(name, options) is not None
        at = _take_option(words, at, options, given) if known else at + 1
    return _with_defaults(given, options), words[start:]


def take_leading_options(
    words: Sequence[Word], options: Sequence[Option], given: dict[str, object]
) -> int:
    """Reads options up to the first word that is none, into ``given``; returns
    that word's position. Raises ParseError."""
    at = 0
    while at < len(words) and _is_option(words[at]):
        if words[at].data == b"--":
            return at + 1
        at = _take_option(words, at, options, given)
    return at


def find_command(words: Sequence[Word], table: Sequence[Command]) -> tuple[Command, Sequence[Word]]:
    """The command that the first words name, by full path or short form, and
    the words behind its name. Raises ParseError with a suggestion."""
    if not words:
        raise ParseError("a command is missing", hint="'help' lists them")
    typed = tuple(word.text for word in words[:2])
    for command in table:
        if typed[: len(command.path)] == command.path:
            return command, words[len(command.path) :]
        if typed[0] in command.aliases:
            return command, words[1:]
    second = sorted(command.path[1] for command in table if command.path[0] == typed[0])
    if second:
        raise _unknown_second(typed, second, words)
    names = {command.path[0] for command in table}
    names.update(alias for command in table for alias in command.aliases)
    hint = nearest(typed[0], names) or "'help' lists the commands"
    raise ParseError(f"unknown command {typed[0]!r}", words[0].column, hint)


def _unknown_second(
    typed: tuple[str, ...], known: Sequence[str], words: Sequence[Word]
) -> ParseError:
    choices = ", ".join(known)
    if len(typed) == 1:
        return ParseError(f"{typed[0]!r} needs one of: {choices}", words[0].column)
    hint = nearest(typed[1], known) or f"{typed[0]} knows: {choices}"
    return ParseError(f"unknown command '{typed[0]} {typed[1]}'", words[1].column, hint)


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or nothing."""
    # Imported when it is needed: most starts make no mistake.
    import difflib

    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else ""


def _is_option(word: Word) -> bool:
    return word.data.startswith(b"-") and len(word.data) > 1 and not word.quoted


def _take_options(
    words: Sequence[Word], options: Sequence[Option], given: dict[str, object], command: Command
) -> list[Word]:
    """Sorts the words behind a command into options and the rest, returned."""
    positionals: list[Word] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word.data == b"--" and not word.quoted:
            return positionals + list(words[at + 1 :])
        if _is_option(word) and not _is_number(word, command, len(positionals)):
            try:
                at = _take_option(words, at, options, given)
            except ParseError as error:
                raise _perhaps_foreign(error, word, command, options) from error
        else:
            positionals.append(word)
            at += 1
    return positionals


def _perhaps_foreign(
    error: ParseError, word: Word, command: Command, options: Sequence[Option]
) -> ParseError:
    """The error of an option, with what to do if it is an option of another program's."""
    foreign = next((each for each in command.arguments if each.foreign), None)
    if foreign is None or _find_option(word.text.partition("=")[0], options) is not None:
        return error
    hint = f"{foreign.name} and its options stand behind --"
    return ParseError(error.message, error.column, hint)


def _is_number(word: Word, command: Command, position: int) -> bool:
    """``put temperature -5`` is a value, not an option."""
    if position >= len(command.arguments):
        return False
    may_be = command.arguments[position].kind in (Kind.VALUE, Kind.INTEGER)
    return may_be and re.fullmatch(rb"-[0-9.][0-9.eE+-]*", word.data) is not None


def _take_option(
    words: Sequence[Word], at: int, options: Sequence[Option], given: dict[str, object]
) -> int:
    """Reads the option at ``at`` into ``given``; returns the next position."""
    word = words[at]
    name, equals, attached = word.text.partition("=")
    option = _find_option(name, options)
    if option is None:
        known = [f"--{option.name}" for option in options]
        hint = nearest(name, known) or "known here: " + " ".join(known)
        raise ParseError(f"unknown option {name}", word.column, hint)
    if not option.metavar:
        if equals:
            raise ParseError(f"{name} takes no value", word.column)
        given[option.name] = True
        return at + 1
    if equals:
        value = Word(attached.encode("utf-8", "surrogateescape"), word.column, True)
        at += 1
    elif at + 1 < len(words):
        value = words[at + 1]
        at += 2
    else:
        raise ParseError(f"{name} needs a value: {option.metavar}", word.column)
    converted = convert(value, option.kind, f"--{option.name}")
    if option.choices and converted not in option.choices:
        choices = ", ".join(option.choices)
        message = f"--{option.name} must be one of {choices}, not {value.text!r}"
        raise ParseError(message, value.column, nearest(value.text, option.choices))
    if option.repeated:
        so_far = given.setdefault(option.name, [])
        assert isinstance(so_far, list)
        so_far.append(converted)
    else:
        given[option.name] = converted
    return at


def _find_option(name: str, options: Sequence[Option]) -> Option | None:
    wanted = name.replace("_", "-")
    for option in options:
        if wanted == f"--{option.name}" or (option.short and name == f"-{option.short}"):
            return option
    return None


def _with_defaults(given: dict[str, object], options: Sequence[Option]) -> dict[str, object]:
    return {option.name: given.get(option.name, option.default) for option in options}


def _bind(
    command: Command, positionals: Sequence[Word], words: Sequence[Word]
) -> dict[str, object]:
    bound: dict[str, object] = {}
    left = list(positionals)
    for argument in command.arguments:
        if argument.rest and (left or argument.optional):
            bound[argument.name] = [convert(word, argument.kind, argument.name) for word in left]
            left = []
        elif left:
            bound[argument.name] = convert(left.pop(0), argument.kind, argument.name)
        elif argument.optional:
            bound[argument.name] = None
        else:
            raise _missing(command, argument, words)
    if left:
        hint = f"usage: {command.usage}; a value with blanks needs quotes"
        raise ParseError(f"{command.name} takes no more arguments", left[0].column, hint)
    return bound


def _missing(command: Command, argument: Argument, words: Sequence[Word]) -> ParseError:
    last = words[-1]
    column = None if last.column is None else last.column + len(last.text)
    message = f"{argument.name} is missing: {argument.summary}"
    return ParseError(message, column, f"usage: {command.usage}")


def convert(word: Word, kind: Kind, name: str) -> object:
    """A word's value by its kind (``Kind`` says the types). Raises ParseError."""
    match kind:
        case Kind.KEY | Kind.LOCK | Kind.NAME:
            return _convert_key(word, name)
        case Kind.PREFIX:
            return word.data
        case Kind.VALUE:
            return word
        case Kind.TEXT | Kind.COMMAND:
            return word.text
        case Kind.SECONDS | Kind.RATIO:
            return _convert_float(word, kind, name)
        case Kind.ZONE:
            return _convert_zone(word, name)
        case Kind.DURATION | Kind.TTL | Kind.MOMENT:
            return _convert_time(word, kind, name)
        case Kind.HELD:
            return _convert_held(word, name)
        case Kind.INTEGER | Kind.LEASE:
            return _convert_integer(word, kind, name)
    return _convert_count(word, kind, name)


def _convert_key(word: Word, name: str) -> bytes:
    if not word.data:
        raise ParseError(f"{name} must not be empty", word.column)
    return word.data


def _convert_time(word: Word, kind: Kind, name: str) -> object:
    if kind is Kind.TTL and word.text == KEEP:
        return KEEP_TTL
    try:
        return moment_of(word.text) if kind is Kind.MOMENT else duration_ms(word.text)
    except TimeError as error:
        raise ParseError(f"{name}: {error}", word.column, error.hint) from error


def _convert_held(word: Word, name: str) -> tuple[bytes, int]:
    key, at, token = word.data.rpartition(b"@")
    if not at or not key or not re.fullmatch(rb"[0-9]{1,19}", token) or not int(token):
        message = f"{name} must be a lock and its token like job@17, not {word.text!r}"
        raise ParseError(message, word.column, "'lock acquire' prints the token")
    return key, int(token)


def _convert_integer(word: Word, kind: Kind, name: str) -> int:
    fits = re.fullmatch(rb"[+-]?[0-9]{1,19}", word.data) is not None
    number = int(word.data) if fits else 0
    if kind is Kind.LEASE:
        if not 0 < number < LEASE_LIMIT:
            message = f"{name} must be a lease's number, not {word.text!r}"
            raise ParseError(message, word.column, "'lease grant' prints it")
    elif not fits or abs(number) > INTEGER_MAX:
        message = f"{name} must be a whole number of at most 63 bits, not {word.text!r}"
        raise ParseError(message, word.column)
    return number


def _convert_count(word: Word, kind: Kind, name: str) -> int:
    least = 1 if kind in (Kind.COUNT, Kind.NODE, Kind.WEIGHT, Kind.TOKEN) else 0
    # int() would take "1_000", "٣" and " 3"; this takes digits.
    if not re.fullmatch(rb"[0-9]{1,15}", word.data) or int(word.data) < least:
        message = f"{name} must be a whole number from {least} on, not {word.text!r}"
        raise ParseError(message, word.column)
    if kind is Kind.WEIGHT and int(word.data) > WEIGHT_MAX:
        raise ParseError(f"{name} must be at most {WEIGHT_MAX}, not {word.text!r}", word.column)
    return int(word.data)


def _convert_zone(word: Word, name: str) -> str:
    if len(word.text) > ZONE_CHARS_MAX or not word.text.isprintable():
        message = f"{name} must be text of at most {ZONE_CHARS_MAX} printable characters"
        raise ParseError(message, word.column)
    return word.text


def _convert_float(word: Word, kind: Kind, name: str) -> float:
    if re.fullmatch(rb"[0-9]{0,9}\.?[0-9]{0,9}", word.data) and word.data not in (b"", b"."):
        value = float(word.data)
        if (value > 0) if kind is Kind.SECONDS else (value <= 1):
            return value
    allowed = "a number of seconds above 0" if kind is Kind.SECONDS else "a number from 0 to 1"
    raise ParseError(f"{name} must be {allowed}, not {word.text!r}", word.column)
