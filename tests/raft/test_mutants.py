"""The fuzz test tested: known bugs planted into the core must be found.

Each is one of raft.md's bugs brought back (tests/simulator/mutants has them all); a
random life (nemesis.py) must break an invariant within SEEDS seeds, or the checkers
are blind to it. What is not in this list needs what a life of cores alone does not
have (a host, clients, disks that fail), or a longer or a directed one.
"""

from __future__ import annotations

import pytest

from kritad.raft.errors import InvariantBroken
from tests.raft.nemesis import Nemesis
from tests.simulator.mutants.registry import planted

SEEDS = 60
STEPS = 3000

FOUND = (
    "votes-again-after-stepping-down",  # raft.md B12
    "votes-for-a-log-behind",
    "pre-vote-taken-for-a-vote",  # B12
    "half-is-a-majority",  # B8
    "sent-before-the-term-is-durable",  # B48
    "leads-before-its-own-vote-is-durable",  # B48
    "no-pre-vote",  # B14
    "leader-without-first-entry",
    "old-terms-committed-by-counting",  # B9
    "truncates-what-matches",  # B10
    "conflicts-are-kept",
    "late-save-attests-replaced-entries",  # B31
    "acknowledges-the-whole-log",
    "commits-an-unverified-tail",
    "heartbeat-commits-beyond-the-match",
    "leader-counts-its-undurable-log",  # B30
    "joint-committed-by-one-half",
    "restart-with-the-committed-configuration",  # B20
    "answers-before-the-save",  # B4
    "entries-saved-before-their-term",  # B3
    "peer-stuck-after-a-failed-snapshot",  # B34
    "reads-before-its-own-commit",  # B39
    "reads-at-the-applied-index",
)


def live(seed: int) -> None:
    """One life, its faults over at the end, and every acknowledged write there."""
    nemesis = Nemesis(seed, 2 + seed % 4)
    nemesis.run(STEPS)
    nemesis.recover()
    held = nemesis.cluster.commands(nemesis.cluster.leader().replica)
    assert set(nemesis.acknowledged) <= set(held)


@pytest.mark.parametrize("mutant", FOUND)
def test_the_fuzz_test_finds_this_bug(mutant: str) -> None:
    with planted(mutant):
        for seed in range(SEEDS):
            try:
                live(seed)
            except (AssertionError, InvariantBroken):
                return
    pytest.fail(f"{SEEDS} seeds did not find it")
