"""Every planted bug is found, each by the quickest way that is known to find it."""

from __future__ import annotations

import pytest

from tests.simulator.directed import directed_kills
from tests.simulator.hunt import TESTS, Kill, fails_a_test, kills, plan_for
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
    if kill.seed is None:
        assert directed_kills(planted(kill.mutant)), f"no scenario sees {kill.mutant}"
        return
    with planted(kill.mutant):
        outcome = live(plan_for(kill.mutant, kill.seed))
    assert not outcome.ok, f"seed {kill.seed} does not find {kill.mutant} any more: hunt for it"
