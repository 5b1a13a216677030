"""Runs directed scenarios, and says where a run differs from what its file expects.

The commands are in commands.py, the files' form in scenario.py. A proposal that
the core refuses is an outcome like any other and is written down. A broken
invariant ends the run, unless the command is ``broken ...``, which demands one.
Any command with the word ``quiet`` says nothing.

``first_difference`` runs every scenario there is; with a planted bug around it,
``directed_kills`` says which of them sees the bug.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from kritad.raft.core import ProposalRefused
from kritad.raft.errors import InvariantBroken
from tests.simulator.commands import COMMANDS, Stage
from tests.simulator.scenario import SILENCE, Command, Scenario, read_scenario

DIRECTORY = Path(__file__).parent / "scenarios"
QUIET = "quiet"


class Directed:
    """The run of one scenario."""

    def __init__(self) -> None:
        self.stage = Stage()

    def run(self, scenario: Scenario) -> list[list[str]]:
        """Runs all blocks; the output of each.

        Raises AssertionError or InvariantBroken when the cluster contradicts itself.
        """
        return [self.block(block.commands) for block in scenario.blocks]

    def block(self, commands: tuple[Command, ...]) -> list[str]:
        """Runs the commands of one block; their output together."""
        output = [line for command in commands for line in self.one(command)]
        return output or [SILENCE]

    def one(self, command: Command) -> list[str]:
        """Runs one command; its output, nothing if one of its words is ``quiet``."""
        words = tuple(word for word in command.words if word != QUIET)
        try:
            COMMANDS[command.name](self.stage, attrs.evolve(command, words=words))
        except ProposalRefused as refused:
            self.stage.cluster.note(f"{words[0]} refuses: {refused}")
            self.stage.cluster.pump(int(words[0]))
        output = self.stage.cluster.take()
        return output if words == command.words else []


# --- all scenarios --------------------------------------------------------------


def scenario_files() -> list[Path]:
    """The scenarios there are, in the order of their names."""
    return sorted(DIRECTORY.glob("*.txt"))


def difference(scenario: Scenario) -> str | None:
    """Where the scenario's run first differs from its file, or how it broke; else None.

    What is neither an AssertionError nor an InvariantBroken is raised: a planted
    bug that ends in a TypeError proves nothing.
    """
    run = Directed()
    for block in scenario.blocks:
        try:
            found = run.block(block.commands)
        except (AssertionError, InvariantBroken) as error:
            return f"{scenario.name}:{block.line}: {type(error).__name__}: {error}"
        for number in range(max(len(found), len(block.expected))):
            expected = block.expected[number] if number < len(block.expected) else "nothing"
            happened = found[number] if number < len(found) else "nothing"
            if happened != expected:
                line = block.line + number
                return f"{scenario.name}:{line}: expected {expected!r}, found {happened!r}"
    return None


def first_difference() -> str | None:
    """Runs the scenarios until one differs; None when none does. About 0.5 s for all."""
    for file in scenario_files():
        found = difference(read_scenario(file))
        if found is not None:
            return found
    return None


def directed_kills(planting: AbstractContextManager[object]) -> str | None:
    """Which scenario sees the bug planted by ``planting``, and where; None if none does."""
    with planting:
        return first_difference()
