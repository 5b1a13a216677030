"""The directed scenarios: each file's commands must put out what the file says.

``pytest tests/simulator/test_scenarios.py --rewrite`` writes the new outputs into
the files; the diff is then to be read, line by line, before it is believed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kritad.raft import election
from kritad.raft.errors import InvariantBroken
from kritad.raft.state import RaftState
from tests.simulator.commands import COMMANDS
from tests.simulator.directed import (
    Directed,
    difference,
    scenario_files,
)
from tests.simulator.scenario import ScenarioMalformed, parse, read_scenario, rewritten

FILES = scenario_files()


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in FILES])
def test_a_scenario_runs_as_its_file_says(file: Path, request: pytest.FixtureRequest) -> None:
    scenario = read_scenario(file)
    if request.config.getoption("--rewrite", default=False):
        file.write_text(rewritten(scenario, Directed().run(scenario)), encoding="utf-8")
        scenario = read_scenario(file)
    found = difference(scenario)
    assert found is None, found


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in FILES])
def test_a_scenario_says_where_it_comes_from_and_what_would_be_seen(file: Path) -> None:
    comment = read_scenario(file).comment
    assert "Source:" in comment
    assert "If broken:" in comment


def test_every_command_says_how_it_is_written() -> None:
    for name, run in COMMANDS.items():
        assert f"``{name}" in (run.__doc__ or ""), name


# --- the files' form --------------------------------------------------------------

SMALL = """\
# A comment.

cluster 1
elect 1 quiet
state
----
1: leader term=1 vote=1 commit=1 applied=1 log=1

# Between.
propose 1 a
----
ok

# The end.
"""


def test_a_rewritten_file_keeps_everything_but_the_outputs() -> None:
    scenario = parse("small", SMALL)
    outputs = Directed().run(scenario)
    assert outputs[1] != ["ok"]
    again = parse("small", rewritten(scenario, outputs))
    assert [list(block.expected) for block in again.blocks] == outputs
    assert rewritten(again, [["1: leader term=1 vote=1 commit=1 applied=1 log=1"], ["ok"]]) == SMALL


def test_a_difference_names_its_file_and_line() -> None:
    found = difference(parse("small", SMALL))
    assert found is not None
    assert found.startswith("small:12: expected 'ok', found '1 saves")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("cluster 1\n\nelect 1\n----\n", "small:2: ---- is missing after line 1: cluster"),
        ("cluster 1\n", "small: ---- is missing at the end"),
        ("----\nok\n", "small:1: an output without a command"),
        ("load 1 log=(1,2\n----\n", "small:1: a bracket is open"),
    ],
)
def test_a_malformed_file_is_refused_with_the_line(text: str, why: str) -> None:
    with pytest.raises(ScenarioMalformed) as refused:
        parse("small", text)
    assert str(refused.value) == why


def test_a_broken_invariant_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(raft: RaftState) -> None:
        raise InvariantBroken(f"replica {raft.replica} must not lead")

    monkeypatch.setattr(election, "become_leader", break_down)
    found = difference(parse("small", SMALL))
    assert found == "small:7: InvariantBroken: replica 1 must not lead"
