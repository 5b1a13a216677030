"""From the configuration that is to the one that is wanted."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kritad.cluster.reconcile import PROMOTE_LAG_ENTRIES_MAX, next_change, successor
from kritad.raft.configuration import Change, ChangeKind, enter_joint, leave_joint
from kritad.raft.types import Configuration

LAST = 100_000
BEHIND = LAST - PROMOTE_LAG_ENTRIES_MAX - 1
CLOSE = LAST - PROMOTE_LAG_ENTRIES_MAX


def wanted(*replicas: int) -> dict[int, int]:
    return {replica: replica for replica in replicas}


def configuration(voters: set[int], learners: set[int] = frozenset()) -> Configuration:  # type: ignore[assignment]
    return Configuration(voters=frozenset(voters), learners=frozenset(learners))


def voter(*replicas: int) -> list[Change]:
    return [Change(ChangeKind.ADD_VOTER, replica) for replica in replicas]


def learner(*replicas: int) -> list[Change]:
    return [Change(ChangeKind.ADD_LEARNER, replica) for replica in replicas]


def remove(*replicas: int) -> list[Change]:
    return [Change(ChangeKind.REMOVE, replica) for replica in replicas]


# name, wanted voters, wanted learners, configuration, matches, leader, changes
_CASES = [
    ("all is as wanted", {1, 2, 3}, {4}, configuration({1, 2, 3}, {4}), {}, 1, None),
    ("missing ones learn first", {1, 2, 3}, {4}, configuration({1}), {}, 1, learner(2, 3, 4)),
    ("a learner far behind waits", {1, 2}, set(), configuration({1}, {2}), {2: BEHIND}, 1, None),
    ("an unheard learner waits", {1, 2}, set(), configuration({1}, {2}), {}, 1, None),
    ("a close learner votes", {1, 2}, set(), configuration({1}, {2}), {2: CLOSE}, 1, voter(2)),
    (
        "those who are ready do not wait for the others",
        {1, 2, 3}, set(), configuration({1}, {2, 3}), {2: LAST, 3: BEHIND}, 1, voter(2),
    ),
    (
        "a move swaps in one change",
        {1, 2, 4}, set(), configuration({1, 2, 3}, {4}), {3: LAST, 4: LAST}, 1,
        voter(4) + learner(3),
    ),
    (
        "nobody is demoted before the new one is ready",
        {1, 2, 4}, set(), configuration({1, 2, 3}, {4}), {3: LAST, 4: BEHIND}, 1, None,
    ),
    (
        "of two moves the ready one goes, for the voter that is missed the least",
        {1, 4, 5}, set(), configuration({1, 2, 3}, {4, 5}), {2: LAST, 3: 7, 4: LAST, 5: 0}, 1,
        voter(4) + learner(3),
    ),
    (
        "a demoted replica is removed",
        {1, 2, 4}, set(), configuration({1, 2, 4}, {3}), {}, 1, remove(3),
    ),
    (
        "a demoted replica is not removed before the next move is done",
        {1, 4, 5}, set(), configuration({1, 2, 4}, {3, 5}), {5: LAST}, 1,
        voter(5) + learner(2),
    ),
    (
        "a voter that shall learn stays as a learner",
        {1, 2, 3}, {4}, configuration({1, 2, 3, 4}), {}, 1, learner(4),
    ),
    (
        "a leader that is not wanted is not demoted",
        {2, 3, 4}, set(), configuration({1, 2, 3, 4}), {}, 1, None,
    ),
    (
        "the new one is promoted while the unwanted leader still leads",
        {2, 3, 4}, set(), configuration({1, 2, 3}, {4}), {4: LAST}, 1, voter(4),
    ),
    (
        "the old leader is demoted once another leads",
        {2, 3, 4}, set(), configuration({1, 2, 3, 4}), {}, 2, learner(1),
    ),
    (
        "a learner whose plan was dropped is removed",
        {1, 2, 3}, set(), configuration({1, 2, 3}, {9}), {9: BEHIND}, 1, remove(9),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("voters", "learners", "now", "matches", "leader", "changes"),
    [case[1:] for case in _CASES],
    ids=[case[0] for case in _CASES],
)
def test_the_next_change_is_the_one_that_the_situation_asks_for(
    voters: set[int],
    learners: set[int],
    now: Configuration,
    matches: dict[int, int],
    leader: int,
    changes: list[Change] | None,
) -> None:
    assert next_change(wanted(*voters), wanted(*learners), now, matches, LAST, leader) == changes


def test_nothing_is_proposed_while_the_configuration_is_joint() -> None:
    joint = enter_joint(configuration({1, 2, 3}, {4}), voter(4) + learner(3))
    assert next_change(wanted(1, 2, 5), {}, joint, {}, LAST) is None
    assert successor(wanted(2, 3), joint, {}, 1) == 0


def test_an_unwanted_leader_hands_over_to_the_wanted_voter_that_is_furthest() -> None:
    now = configuration({1, 2, 3, 4})
    matches = {1: LAST, 2: 5, 3: LAST - 1, 4: 6}
    assert successor(wanted(2, 3, 4), now, matches, 1) == 3


def test_a_wanted_leader_has_no_successor() -> None:
    assert successor(wanted(1, 2, 3), configuration({1, 2, 3}), {}, 1) == 0


def test_an_unwanted_leader_without_wanted_voters_stays() -> None:
    assert successor(wanted(4), configuration({1}, {4}), {}, 1) == 0


_REPLICAS = st.sets(st.integers(1, 7), min_size=1, max_size=5)


@settings(derandomize=True)
@given(voters=_REPLICAS, learners=_REPLICAS, old_voters=_REPLICAS, old_learners=_REPLICAS)
def test_whatever_is_there_step_by_step_it_becomes_what_is_wanted(
    voters: set[int], learners: set[int], old_voters: set[int], old_learners: set[int]
) -> None:
    learners -= voters
    now = configuration(old_voters, old_learners - old_voters)
    leader = min(old_voters)
    matches = dict.fromkeys(range(1, 8), LAST)
    fewest = min(len(old_voters), len(voters))
    for _ in range(20):
        leader = successor(wanted(*voters), now, matches, leader) or leader
        changes = next_change(wanted(*voters), wanted(*learners), now, matches, LAST, leader)
        if changes is None:
            break
        joint = enter_joint(now, changes)
        removed = now.members - joint.members
        assert removed.isdisjoint(now.voters), "a voter was removed without being demoted"
        now = leave_joint(joint)
        assert len(now.voters) >= fewest
    assert attrs.evolve(now, nodes={}) == configuration(voters, learners)
