"""Random lives of small clusters; a failing seed repeats exactly."""

from __future__ import annotations

import pytest

from tests.raft.nemesis import Nemesis


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(15))
def test_no_fault_breaks_an_invariant_and_the_group_recovers(seed: int, size: int) -> None:
    nemesis = Nemesis(seed * 10 + size, size)
    nemesis.run(6000)
    leader = nemesis.recover()
    held = set(nemesis.cluster.commands(leader.replica))
    lost = [data for data in nemesis.acknowledged if data not in held]
    assert not lost, f"acknowledged writes are gone: {lost}"


def test_a_seed_repeats_its_life_exactly() -> None:
    lives = []
    for _ in range(2):
        nemesis = Nemesis(4711)
        nemesis.run(3000)
        lives.append([repr(node.raft) for node in nemesis.cluster.nodes.values()])
    assert lives[0] == lives[1]
