"""Completion: what is on the line, and what could come next. Pure.

The cursor's word is what will be replaced; words behind the cursor are not
looked at. Nothing is offered inside a comment or behind a malformed escape.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from kritash.grammar import Command, Kind, Option
from kritash.parser import KEEP
from kritash.recent import Recent
from kritash.words import Scan, Word, quote, scan

SUGGESTIONS_MAX = 50


@attrs.frozen
class Suggestion:
    """Replace what stands from ``start`` to the cursor by ``text``; ``meta`` is
    shown beside it in the menu."""

    text: str
    start: int
    meta: str = ""


def suggest(
    text: str,
    cursor: int,
    commands: Sequence[Command],
    common: Sequence[Option],
    recent: Recent,
) -> list[Suggestion]:
    """What may stand at the cursor, best first, at most SUGGESTIONS_MAX."""
    before = text[:cursor]
    cursor = len(before)
    found = scan(before)
    if found.error is not None or _in_comment(found, before):
        return []
    done = found.words[:-1] if found.open else found.words
    typed = found.words[-1] if found.open else Word(b"", cursor)
    start = cursor if typed.column is None else typed.column
    candidates = _candidates(done, typed, commands, common, recent)
    return [Suggestion(candidate, start, meta) for candidate, meta in _matching(candidates, typed)][
        :SUGGESTIONS_MAX
    ]


def _in_comment(found: Scan, before: str) -> bool:
    return not found.open and before != "" and not before[-1].isspace()


def _matching(candidates: Iterable[tuple[str, str]], typed: Word) -> Iterator[tuple[str, str]]:
    """Candidates that begin with what was typed, then those that contain it."""
    wanted = typed.text.lower()
    rest: list[tuple[str, str]] = []
    for candidate, meta in candidates:
        plain = candidate.strip('"').lower()
        if plain.startswith(wanted):
            yield candidate, meta
        elif len(wanted) > 1 and wanted in plain:
            rest.append((candidate, meta))
    yield from rest


def _candidates(
    done: Sequence[Word],
    typed: Word,
    commands: Sequence[Command],
    common: Sequence[Option],
    recent: Recent,
) -> Iterator[tuple[str, str]]:
    command, width = _command_at(done, commands)
    if command is None:
        yield from _command_words(done, commands)
        return
    options = (*command.options, *common)
    behind = done[width:]
    awaited = _awaiting(behind, options)
    if awaited is not None:
        yield from ((choice, "") for choice in awaited.choices)
        yield from _values(awaited.kind, recent)
        return
    if typed.data.startswith(b"-") and not typed.quoted:
        yield from _unused_options(behind, options)
        return
    yield from _arguments(command, behind, options, commands, recent)
    if not typed.data:
        yield from _unused_options(behind, command.options)


def _command_at(done: Sequence[Word], commands: Sequence[Command]) -> tuple[Command | None, int]:
    """The command that the finished words name, and how many words that took."""
    typed = tuple(word.text for word in done[:2])
    for command in commands:
        if typed[: len(command.path)] == command.path:
            return command, len(command.path)
        if typed and typed[0] in command.aliases:
            return command, 1
    return None, 0


def _command_words(done: Sequence[Word], commands: Sequence[Command]) -> Iterator[tuple[str, str]]:
    if len(done) == 1:
        for command in commands:
            if len(command.path) == 2 and command.path[0] == done[0].text:
                yield command.path[1], command.summary
        return
    if done:
        return
    nouns: dict[str, list[str]] = {}
    for command in commands:
        if len(command.path) == 2:
            nouns.setdefault(command.path[0], []).append(command.path[1])
    for noun, verbs in nouns.items():
        yield noun, ", ".join(verbs)
    for command in commands:
        if len(command.path) == 1:
            yield command.path[0], command.summary
        for alias in command.aliases:
            if alias.isalpha():
                yield alias, command.summary


def _awaiting(behind: Sequence[Word], options: Sequence[Option]) -> Option | None:
    """The option whose value has to come next, if the last word was one."""
    if not behind or behind[-1].quoted:
        return None
    name = behind[-1].text.replace("_", "-")
    for option in options:
        if option.metavar and name == f"--{option.name}":
            return option
    return None


def _unused_options(behind: Sequence[Word], options: Sequence[Option]) -> Iterator[tuple[str, str]]:
    used = {word.text.replace("_", "-").partition("=")[0] for word in behind if not word.quoted}
    for option in options:
        if option.repeated or f"--{option.name}" not in used:
            default = f" (default {option.default})" if option.default is not None else ""
            yield f"--{option.name}", option.summary + default


def _arguments(
    command: Command,
    behind: Sequence[Word],
    options: Sequence[Option],
    commands: Sequence[Command],
    recent: Recent,
) -> Iterator[tuple[str, str]]:
    position = _positionals(behind, options)
    if position >= len(command.arguments):
        if not command.arguments or not command.arguments[-1].rest:
            return
        position = len(command.arguments) - 1
    kind = command.arguments[position].kind
    if kind is Kind.COMMAND:
        yield from _command_words(behind, commands)
    else:
        yield from _values(kind, recent)


def _values(kind: Kind, recent: Recent) -> Iterator[tuple[str, str]]:
    """What an argument or an option's value may be; nothing for numbers and texts, which
    nobody can guess."""
    if kind in (Kind.KEY, Kind.PREFIX):
        for key in reversed(recent.keys):
            yield quote(key), "recent key"
    elif kind is Kind.SHARD:
        yield from ((str(shard), recent.shards[shard]) for shard in sorted(recent.shards))
    elif kind is Kind.NODE:
        yield from ((str(node), recent.nodes[node]) for node in sorted(recent.nodes))
    elif kind is Kind.ZONE:
        yield from ((quote(zone.encode()), "zone") for zone in recent.zones)
    elif kind is Kind.LEASE:
        yield from ((str(lease), about) for lease, about in recent.leases.items())
    elif kind in (Kind.LOCK, Kind.TOKEN, Kind.HELD):
        yield from _locks(kind, recent)
    else:
        yield from _TYPICAL.get(kind, ())


# What durations and moments look like: nobody can guess which one is meant.
_TYPICAL = {
    Kind.DURATION: (("30s", "seconds"), ("5m", "minutes"), ("1h30m", "hours"), ("7d", "days")),
    Kind.TTL: (
        ("30s", "seconds"), ("5m", "minutes"), ("1h30m", "hours"), ("7d", "days"),
        (KEEP, "as long as it would have"),
    ),
    Kind.MOMENT: (("-10m", "ten minutes ago"), ("-1h", "an hour ago"), ("-1d", "a day ago")),
}  # fmt: skip


def _locks(kind: Kind, recent: Recent) -> Iterator[tuple[str, str]]:
    for name, token in reversed(recent.locks.items()):
        if kind is Kind.LOCK:
            yield quote(name), f"token {token}" if token else "recent lock"
        elif token:
            word = str(token) if kind is Kind.TOKEN else f"{quote(name)}@{token}"
            yield word, f"the token of {quote(name)}" if kind is Kind.TOKEN else "recent lock"


def _positionals(behind: Sequence[Word], options: Sequence[Option]) -> int:
    """How many of these words are arguments, not options or their values."""
    count, at = 0, 0
    while at < len(behind):
        if behind[at].data.startswith(b"-") and not behind[at].quoted:
            at += 1 if _awaiting(behind[at : at + 1], options) is None else 2
        else:
            count += 1
            at += 1
    return count
