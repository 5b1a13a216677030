"""From the configuration that is to the one that is wanted."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kritad.cluster.reconcile import PROMOTE_LAG_ENTRIES_MAX, next_change, successor
from kritad.raft.configuration import Change, ChangeKind, enter_joint, leave_joint
from kritad.raft.quorum import quorum_reached
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
        "of too few nobody is demoted, whoever is wanted",
        {3, 4, 5, 6}, set(), configuration({1, 2, 7}, {3, 4, 5, 6}), {}, 1, None,
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


def test_a_replica_that_is_made_anew_on_its_node_comes_when_the_damaged_one_has_gone() -> None:
    """Of the two on node 3 the disk can hold one. The log is short: a learner that has
    nothing of it would count as close."""
    places = {1: 1, 2: 2, 3: 3, 9: 3}
    voters = {1: 1, 2: 2, 9: 3}
    now = attrs.evolve(configuration({1, 2, 3}), nodes=places)
    steps: list[list[Change]] = []
    while changes := next_change(voters, {}, now, {1: 7, 2: 7}, 7, 1):
        steps.append(changes)
        now = leave_joint(enter_joint(now, changes))
        if now.members == {1, 2, 9}:
            break
    assert steps == [learner(9), learner(3), remove(3)]
    assert next_change(voters, {}, now, {1: 7, 2: 7, 9: 7}, 7, 1) == voter(9)


def test_a_damaged_replica_is_not_let_go_while_another_does_not_answer() -> None:
    now = attrs.evolve(configuration({1, 2, 3}, {9}), nodes={1: 1, 2: 2, 3: 3, 9: 3})
    assert next_change({1: 1, 2: 2, 9: 3}, {}, now, {}, 7, 1, reachable={1, 3, 9}) is None


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


def change(
    voters: set[int],
    now: Configuration,
    reachable: set[int] | None,
    matches: dict[int, int] | None = None,
    held: bool = False,
) -> list[Change] | None:
    """What replica 1, which leads, changes next."""
    known = dict.fromkeys(range(1, 9), LAST) if matches is None else matches
    return next_change(wanted(*voters), {}, now, known, LAST, 1, reachable=reachable, held=held)


def test_nobody_is_promoted_who_does_not_answer() -> None:
    now = configuration({1, 2, 3}, {4})
    assert change({1, 2, 4}, now, {1, 2, 3}) is None
    assert change({1, 2, 4}, now, {1, 2, 3, 4}) == voter(4) + learner(3)


def test_nobody_who_answers_is_demoted_when_that_would_cost_the_majority() -> None:
    # 4 votes and does not answer: with 1 alone of {1, 4} nothing could be committed.
    assert change({1, 4}, configuration({1, 2, 4}), {1, 2}) is None
    assert change({1, 4}, configuration({1, 2, 4}), {1, 2, 4}) == learner(2)
    # The same with five: 2 and 3 are both surplus, 4 does not answer.
    assert change({1, 4, 5}, configuration({1, 2, 3, 4, 5}), {1, 2, 3, 5}) == learner(2, 3)
    assert change({1, 4, 5}, configuration({1, 2, 3, 4, 5}), {1, 2, 3}) is None


def test_one_is_demoted_when_two_would_be_too_many() -> None:
    # {1, 3, 4} of which 1 and 3 answer can do without 2, but not without both.
    now = configuration({1, 2, 3, 4})
    assert change({1, 4}, now, {1, 2, 3}, {1: LAST, 2: 5, 3: 6}) == learner(2)


def test_who_does_not_answer_is_demoted_first_and_always() -> None:
    now = configuration({1, 2, 3, 4}, set())
    assert change({1, 4}, now, {1, 4, 3}, {1: LAST, 3: 1, 2: LAST}) == learner(2, 3)
    assert change({1, 2, 4}, configuration({1, 2, 3, 4}), {1, 4}) == learner(3)


def test_those_who_are_added_need_not_answer_yet() -> None:
    assert change({1, 2, 4}, configuration({1, 2, 3}), {1, 2, 3}) == learner(4)


def test_a_held_move_goes_no_further_but_lets_go_of_who_is_not_wanted() -> None:
    assert change({1, 2, 4}, configuration({1, 2, 3}), None, held=True) is None
    assert change({1, 2, 4}, configuration({1, 2, 3}, {4}), None, held=True) is None
    assert change({1, 2, 3}, configuration({1, 2, 3}, {4}), None, held=True) == remove(4)
    assert change({1, 2, 5}, configuration({1, 2, 3}, {4}), None, held=True) == remove(4)


@settings(derandomize=True)
@given(
    voters=st.sets(st.integers(1, 6), min_size=1, max_size=5),
    old=st.sets(st.integers(1, 6), min_size=1, max_size=5),
    learners=st.sets(st.integers(1, 6), max_size=3),
    reachable=st.sets(st.integers(1, 6)),
)
def test_a_healthy_group_is_never_made_unhealthy(
    voters: set[int], old: set[int], learners: set[int], reachable: set[int]
) -> None:
    now = configuration(old | {1}, learners - old - {1})
    alive = reachable | {1}
    if not quorum_reached(now, alive):
        return
    for _ in range(20):
        changes = change(voters, now, alive)
        if changes is None:
            break
        joint = enter_joint(now, changes)
        assert quorum_reached(joint, alive)
        now = leave_joint(joint)
        assert quorum_reached(now, alive)


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
