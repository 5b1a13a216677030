"""Every planted bug is found, each by the quickest way that is known to find it."""

from __future__ import annotations

import pytest

from tests.simulator.directed import directed_kills
from tests.simulator.hunt import (
    ROOT,
    TESTS,
    Kill,
    breaks_its_story,
    fails_a_test,
    kills,
    plan_for,
)
from tests.simulator.mutants.registry import MUTANTS, planted
from tests.simulator.run import live

KILLS = kills()


def test_no_planted_bug_is_alive() -> None:
    alive = [name for name in MUTANTS if name not in KILLS or KILLS[name].alive]
    assert not alive, f"nobody has found these yet: {alive}"


@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS.values(), ids=list(KILLS))
def test_this_planted_bug_is_found(kill: Kill) -> None:
    if kill.rule == "test":
        assert fails_a_test(kill.mutant, TESTS[kill.mutant])
        return
    if kill.rule == "story":
        assert breaks_its_story(kill), f"{kill.scenario} does not see {kill.mutant} any more"
        return
    if kill.seed is None:
        assert directed_kills(planted(kill.mutant)), f"no scenario sees {kill.mutant}"
        return
    with planted(kill.mutant):
        outcome = live(plan_for(kill.mutant, kill.seed))
    assert not outcome.ok, f"seed {kill.seed} does not find {kill.mutant} any more: hunt for it"


def test_the_table_in_the_documents_has_every_planted_bug() -> None:
    text = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    missing = [name for name in MUTANTS if f"| {name} |" not in text]
    assert not missing, f"docs/simulation.md does not say how these are found: {missing}"
