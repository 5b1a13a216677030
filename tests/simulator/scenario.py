"""A directed scenario as a text file: what is done, and what then happened.

::

    # A comment. The first ones say which bug or figure this is, where it comes
    # from, and what would be seen if the rule were broken.

    propose 1 a
    deliver to=2 kind=Append
    ----
    1 -> 2 Append t1 after 1@1 commit=1 [2@1=a]
    ...

Rules:
* A block is one or more command lines, ``----``, and the output of them all up
  to a blank line. Output has no blank lines; a block with nothing to say says ``ok``.
* A command line is a name, words, and ``name=value`` pairs; a value in brackets
  is a list: ``load 2 term=3 log=(1,1,2)``.
* ``rewritten`` replaces the outputs only: every other line stays as it is, so
  that a change of behaviour is read as a diff.

What the commands are is directed.py's business; nothing here knows Raft.

Sources: the data-driven tests of etcd raft and of CockroachDB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

RULE = "----"
SILENCE = "ok"


class ScenarioMalformed(Exception):
    """The text is no scenario: our mistake in a file, named with its line."""


@attrs.frozen
class Command:
    """One command line."""

    line: int  # of its file, from 1
    name: str
    words: tuple[str, ...]
    pairs: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        return f"line {self.line}: {self.name}"

    @property
    def replicas(self) -> list[int]:
        """The words, every one of which is a replica's id."""
        return [int(word) for word in self.words]

    def number(self, pair: str, default: int) -> int:
        """The value of ``pair``, if it was given."""
        return int(self.pairs[pair][0]) if pair in self.pairs else default

    def numbers(self, pair: str) -> list[int]:
        """The values of ``pair``; none if it was not given."""
        return [int(value) for value in self.pairs.get(pair, ())]


@attrs.frozen
class Block:
    """Commands and the output expected of them."""

    head: tuple[str, ...]  # as in the file: comments, blank lines, commands
    commands: tuple[Command, ...]
    line: int  # of the first line of the output
    expected: tuple[str, ...]


@attrs.frozen
class Scenario:
    """A whole file."""

    name: str  # of the file, without its suffix
    comment: str  # what the file says before its first command, without the signs
    blocks: tuple[Block, ...]
    tail: tuple[str, ...]  # what follows the last block


def read_scenario(path: Path) -> Scenario:
    """Reads a file. Raises ScenarioMalformed."""
    return parse(path.stem, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Scenario:
    """The scenario that ``text`` is. Raises ScenarioMalformed."""
    blocks: list[Block] = []
    head: list[str] = []
    commands: list[Command] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if line == RULE:
            if not commands:
                raise ScenarioMalformed(f"{name}:{number}: an output without a command")
            expected = itertools.takewhile(str.strip, (output for _, output in lines))
            blocks.append(Block(tuple(head), tuple(commands), number + 1, tuple(expected)))
            head, commands = [], []
            continue
        head.append(line)
        if line.strip() and not line.startswith("#"):
            commands.append(_command(name, number, line))
        elif commands:
            raise ScenarioMalformed(f"{name}:{number}: {RULE} is missing after {commands[-1]}")
    if commands:
        raise ScenarioMalformed(f"{name}: {RULE} is missing at the end")
    first = blocks[0].head if blocks else head
    comment = [line.lstrip("# ") for line in first if line.startswith("#")]
    return Scenario(name, "\n".join(comment), tuple(blocks), tuple(head))


def _command(name: str, line: int, text: str) -> Command:
    """``transfer 1 2 count=3 log=(1,1)``, split."""
    if text.count("(") != text.count(")"):
        raise ScenarioMalformed(f"{name}:{line}: a bracket is open")
    first, *rest = text.split()
    words = [word for word in rest if "=" not in word]
    pairs = {}
    for pair in rest:
        key, sign, value = pair.partition("=")
        if sign:
            pairs[key] = tuple(part for part in value.strip("()").split(",") if part)
    return Command(line, first, tuple(words), pairs)


def rewritten(scenario: Scenario, outputs: Sequence[Iterable[str]]) -> str:
    """The file's text with ``outputs``, one for each block, in place of the old."""
    assert len(outputs) == len(scenario.blocks), "an output for every block"
    lines: list[str] = []
    for block, output in zip(scenario.blocks, outputs, strict=True):
        lines += [*block.head, RULE, *output, ""]
    lines += scenario.tail
    return "\n".join(lines).rstrip("\n") + "\n"
