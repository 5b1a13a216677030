"""Reads the histories of Porcupine's test data, and models what they were made on.

The files stand beside the checkout (``../shared/oracles``) and are no part of it:
``verdicts.txt`` names each history and whether it is linearizable. Two formats,
both one event a line, invocation and completion joined by the process number:

* Jepsen's logs of a register in etcd: ``INFO  jepsen.util - 3 :invoke :cas [1 2]``.
  A read that failed or a read without completion says nothing; a failed
  compare-and-set says that the value was another one; ``:info`` says nothing
  about the outcome, and that process never speaks again.
* A store of strings: ``{:process 0, :type :invoke, :f :append, :key "1", :value "x"}``.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.simulator.search import UNKNOWN, Call, Model

PORCUPINE = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "porcupine"

_JEPSEN = re.compile(r"^INFO\s+jepsen\.util - (\d+)\s+:(\w+)\s+:(\w+)\s+(.*)$")
_STRINGS = re.compile(
    r'^\{:process (\d+), :type :(\w+), :f :(\w+), :key "([^"]*)", :value (?:"([^"]*)"|nil)\}$'
)


@attrs.frozen
class Verdicts:
    """One history of the test data: its name, and the verdict to be given."""

    name: str
    linearizable: bool

    def objects(self) -> list[tuple[Model, list[Call]]]:
        """The history's independent objects: a model and its operations for each."""
        text = (PORCUPINE / self.name).read_text()
        if self.name.startswith("jepsen/"):
            return [(JepsenRegister(), list(jepsen_calls(text)))]
        return [(Strings(), calls) for calls in string_calls(text).values()]


def require() -> list[Verdicts]:
    """Every history; skips the test where they are absent."""
    file = PORCUPINE / "verdicts.txt"
    if not file.exists():
        pytest.skip("Porcupine's histories are not beside this checkout")
    lines = [line.split() for line in file.read_text().splitlines() if line]
    return [Verdicts(name, {"true": True, "false": False}[verdict]) for name, verdict in lines]


class JepsenRegister:
    """A number or None; inputs ("read",), ("write", x) and ("cas", x, y).

    Outputs: what was read; True for a write; whether a compare-and-set took place.
    """

    initial: Hashable = None

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        if input[0] == "read":
            return output is UNKNOWN or output == state, state
        if input[0] == "write":
            return True, input[1]
        _, expected, new = input
        if output is False:
            return state != expected, state
        return state == expected, new

    def only_reads(self, input: Any, output: Any) -> bool:
        return input[0] == "read" or output is False

    def pin(self, state: Any) -> Hashable:  # noqa: ARG002
        return None


class Strings:
    """A string, at first empty; inputs ("get",), ("put", x) and ("append", x)."""

    initial: Hashable = ""

    def step(self, state: Any, input: Any, output: Any) -> tuple[bool, Any]:
        if input[0] == "get":
            return output is UNKNOWN or output == state, state
        return True, input[1] if input[0] == "put" else state + input[1]

    def only_reads(self, input: Any, output: Any) -> bool:  # noqa: ARG002
        return bool(input[0] == "get")

    def pin(self, state: Any) -> Hashable:  # noqa: ARG002
        return None


def jepsen_calls(text: str) -> Iterator[Call]:
    """The operations of a Jepsen log. Raises ValueError for a line that is none."""
    pending: dict[int, tuple[int, tuple[object, ...]]] = {}
    for line, (process, phase, function, argument) in _events(text, _JEPSEN):
        if phase == "invoke":
            assert int(process) not in pending, f"line {line}: the process is busy"
            pending[int(process)] = (line, (function, *_numbers(function, argument)))
            continue
        start, input = pending.pop(int(process))
        if phase == "ok" and function == "read":
            output: object = None if argument == "nil" else int(argument)
        elif phase in ("ok", "fail"):
            output = phase == "ok"
        if phase == "info" or (phase == "fail" and function == "read"):
            yield Call(input, UNKNOWN, (start, 0), None)
        else:
            assert phase == "ok" or function == "cas", f"line {line}: {function} failed"
            yield Call(input, output, (start, 0), (line, 0))
    for start, input in pending.values():
        yield Call(input, UNKNOWN, (start, 0), None)


def _numbers(function: str, argument: str) -> list[int]:
    return [] if function == "read" else [int(number) for number in argument.strip("[]").split()]


def string_calls(text: str) -> dict[str, list[Call]]:
    """The operations of each key of a store of strings. Raises ValueError for a
    line that is no event."""
    pending: dict[str, tuple[int, tuple[str, ...]]] = {}
    calls: dict[str, list[Call]] = {}
    for line, (process, phase, function, key, value) in _events(text, _STRINGS):
        if phase == "invoke":
            input: tuple[str, ...] = (function,) if function == "get" else (function, value)
            pending[process] = (line, input)
            continue
        assert phase == "ok", f"line {line}: {phase}"
        start, asked = pending.pop(process)
        output = value if function == "get" else True
        calls.setdefault(key, []).append(Call(asked, output, (start, 0), (line, 0)))
    assert not pending, "this format has an answer to everything"
    return calls


def _events(text: str, form: re.Pattern[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        match = form.match(line)
        if match is None:
            raise ValueError(f"line {number} is no event: {line!r}")
        yield number, match.groups()
