"""A transaction in lines that can be read aloud.

    if stock revision = 7
    if order:1 absent
    then put stock 4 --ttl 1h
    else get stock

``if`` compares: ``KEY absent``, ``KEY exists``, ``KEY = VALUE``, ``KEY revision = N``; besides =
there are !=, < and >. ``then`` and ``else`` are followed by what the shell knows as ``key
get``, ``put``, ``delete``, ``add``, ``append``, ``touch`` or ``persist``, with the options
that make sense where all of it is one step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from krita import steps
from krita.steps import Comparison, Step
from kritash.operands import life_of, read_value
from kritash.parser import parse
from kritash.transaction import HINT, RELATIONS, Named, Transaction
from kritash.words import ParseError, Word, split

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Command, Invocation


def read_lines(context: Context, lines: Iterable[str], commands: Sequence[Command]) -> Transaction:
    """The transaction that the lines say; blank ones and comments say nothing. Raises
    ParseError, which names the line, and KritaError for what no cluster takes."""
    compare: list[Comparison] = []
    branches: dict[str, list[Named]] = {"then": [], "else": []}
    for number, line in enumerate(lines, 1):
        try:
            words = split(line)
            if not words:
                continue
            if words[0].text == "if":
                compare.append(_comparison(words[1:]))
            elif words[0].text in branches:
                branches[words[0].text].append(_step(context, words[1:], commands))
            else:
                raise ParseError(f"a line begins with if, then or else, not {words[0].text!r}")
        except ParseError as error:
            message = f"line {number} of the transaction: {error.message}"
            raise ParseError(message, hint=error.hint or HINT) from error
    return Transaction(tuple(compare), tuple(branches["then"]), tuple(branches["else"]))


def _comparison(words: Sequence[Word]) -> Comparison:
    match [word.text for word in words[1:]]:
        case ["absent"]:
            return steps.absent(words[0].data)
        case ["exists"]:
            return steps.exists(words[0].data)
        case ["revision", relation, number] if relation in RELATIONS:
            if not re.fullmatch("[0-9]{1,15}", number):
                raise ParseError(f"a revision is a whole number, not {number!r}")
            return steps.revision(words[0].data, RELATIONS[relation], int(number))
        case [relation, _] if relation in RELATIONS:
            return steps.value(words[0].data, RELATIONS[relation], words[2].data)
    raise ParseError(
        "a comparison is KEY absent, KEY exists, KEY = VALUE or KEY revision = N; = may be != < >"
    )


def _step(context: Context, words: Sequence[Word], commands: Sequence[Command]) -> Named:
    known = [
        attrs.evolve(
            command,
            path=(command.path[1],),
            aliases=(),
            options=tuple(each for each in command.options if each.name in _OPTIONS),
        )
        for command in commands
        if command.path[0] == "key" and command.path[-1] in _VERBS
    ]
    invocation = parse(words, known, ())
    do = invocation.command.name
    return Named(do, _VERBS[do](context, invocation))


def _put(context: Context, invocation: Invocation) -> Step:
    return steps.put(
        invocation.key(),
        read_value(context, invocation),
        content_type=invocation.text("content-type"),
        **life_of(invocation),
    )


def _add(_: Context, invocation: Invocation) -> Step:
    by = 1 if invocation.arguments["N"] is None else invocation.integer("N")
    return steps.add(invocation.key(), by, **life_of(invocation, keeps=True))


def _append(context: Context, invocation: Invocation) -> Step:
    value = read_value(context, invocation)
    return steps.append(invocation.key(), value, **life_of(invocation, keeps=True))


def _touch(_: Context, invocation: Invocation) -> Step:
    life = life_of(invocation)
    if life["ttl_ms"] is None and life["lease"] is None:
        raise ParseError("touch needs --ttl or --lease")
    return steps.touch(invocation.key(), life["ttl_ms"], lease=life["lease"])


_OPTIONS = frozenset({"ttl", "lease", "content-type", "literal"})
_VERBS: dict[str, Callable[[Context, Invocation], Step]] = {
    "get": lambda _, invocation: steps.get(invocation.key()),
    "put": _put,
    "delete": lambda _, invocation: steps.delete(invocation.key()),
    "add": _add,
    "append": _append,
    "touch": _touch,
    "persist": lambda _, invocation: steps.touch(invocation.key(), None),
}
