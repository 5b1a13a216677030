"""A failing life is made small, and stays failing."""

from __future__ import annotations

import pytest

from tests.simulator.mutants.registry import planted
from tests.simulator.plan import draw_plan
from tests.simulator.run import live
from tests.simulator.shrink import shrink


def test_a_failing_life_shrinks_to_less_that_breaks_the_same_rule() -> None:
    plan = draw_plan(1)
    said: list[str] = []
    with planted("saves-reported-before-the-disk"):
        rule = live(plan).rule
        smaller = shrink(plan, said.append, lives_max=60)
        assert live(smaller).rule == rule
    assert len(smaller.faults) < len(plan.faults)
    assert not smaller.buggify
    assert said, "nobody was told how far it is"


def test_a_life_that_breaks_nothing_is_not_shrunk() -> None:
    with pytest.raises(AssertionError, match="breaks nothing"):
        shrink(draw_plan(3), lambda _: None)
