"""The core as its host sees it: Ready, poison, what is ignored, what it costs idle."""

from __future__ import annotations

import random

import attrs
import pytest

from kritad.raft.configuration import Change, ChangeKind
from kritad.raft.core import ProposalRefused, Raft, RaftConfig, Refusal
from kritad.raft.errors import InvariantBroken
from kritad.raft.messages import AppendReply, Heartbeat, VoteReply
from kritad.raft.types import Role
from tests.raft.cluster import SHARD
from tests.raft.lone import Lone, boot_of, one, only


def quiet(boot_terms: list[int], commit: int = 0) -> Raft:
    """A core as in production: broken invariants poison and do not raise."""
    return Raft(RaftConfig(SHARD, 1), boot_of(boot_terms, commit=commit), random.Random(1))


def test_nothing_to_do_is_none_and_costs_no_look() -> None:
    lone = Lone(boot_of())
    assert lone.raft.ready() is None
    assert not lone.raft.has_ready
    lone.raft.tick()
    assert not lone.raft.has_ready


def test_messages_wait_for_a_save_only_when_there_is_one() -> None:
    lone = Lone(boot_of([1]))
    lone.raft.step(lone.append(2, 1, (0, 0), [1]))  # known and durable already
    ready = lone.ready()
    assert ready.save is None
    assert only(ready.messages, AppendReply)


def test_an_answer_that_needs_nothing_saved_still_waits_for_the_saves_before_it() -> None:
    lone = Lone(boot_of([1]))
    lone.raft.step(lone.append(2, 1, (1, 1), [1]))
    first = lone.ready()
    lone.raft.step(lone.append(2, 1, (0, 0), [1]))
    second = lone.ready()
    assert first.save is not None
    assert second.save is not None
    assert not second.save.must_sync
    assert only(second.messages_after_save, AppendReply)


def test_what_is_committed_is_handed_out_only_once_durable() -> None:
    lone = Lone(boot_of())
    lone.raft.step(lone.append(2, 1, (0, 0), [1, 1], commit=2))
    ready = lone.ready()
    assert (lone.raft.commit, ready.committed) == (2, [])
    assert ready.save is not None
    lone.raft.saved(ready.save.sequence)
    assert [entry.index for entry in lone.ready().committed] == [1, 2]


def test_a_restart_hands_out_what_was_committed_and_not_yet_applied() -> None:
    boot = attrs.evolve(boot_of([1, 1, 1], commit=2), applied_index=1)
    lone = Lone(boot)
    assert [entry.index for entry in lone.ready().committed] == [2]


def test_messages_for_others_are_ignored() -> None:
    lone = Lone(boot_of())
    for message in (
        attrs.evolve(lone.vote(2, 9, (9, 9)), recipient=2),
        attrs.evolve(lone.vote(2, 9, (9, 9)), shard=SHARD + 1),
    ):
        assert lone.step(message) == []
    assert lone.raft.term == 0


def test_answers_of_strangers_are_ignored() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    lone.step(AppendReply(SHARD, 9, 1, 1, True, 1, 0, 0, 0))
    assert raft.commit == 0
    assert 9 not in raft.progress


def test_a_replica_that_lost_acknowledged_entries_poisons_itself() -> None:
    raft = quiet([1])
    raft.step(Heartbeat(SHARD, 2, 1, 1, 5, 0))
    assert "the log ends at 1" in raft.poisoned
    assert "POISONED" in repr(raft)


def test_a_poisoned_replica_neither_votes_nor_acknowledges_nor_leads() -> None:
    raft = quiet([1])
    raft.step(Heartbeat(SHARD, 2, 1, 1, 5, 0))
    lone = Lone(boot_of())
    raft.step(lone.vote(3, 9, (9, 9)))
    raft.step(lone.append(3, 9, (1, 1), [9]))
    for _ in range(100):
        raft.tick()
    raft.campaign()
    assert (raft.ready(), raft.has_ready, raft.role) == (None, False, Role.FOLLOWER)
    change = [Change(ChangeKind.ADD_LEARNER, 9)]
    for attempt in (
        lambda: raft.propose(b"x"),
        lambda: raft.read_index(1),
        lambda: raft.transfer(2),
        lambda: raft.propose_conf(change, {9: 9}, 1),
    ):
        with pytest.raises(ProposalRefused) as refused:
            attempt()
        assert refused.value.reason is Refusal.POISONED


def test_a_conflict_with_what_is_committed_poisons_and_truncates_nothing() -> None:
    raft = quiet([1, 1, 1], commit=3)
    raft.step(Lone(boot_of()).append(2, 2, (1, 1), [2, 2]))
    assert "committed entry 3@1" in raft.poisoned
    assert raft.last_index == 3


def test_two_leaders_of_one_term_poison() -> None:
    raft = quiet([])
    raft.step(Heartbeat(SHARD, 2, 1, 1, 0, 0))
    raft.step(Heartbeat(SHARD, 3, 1, 1, 0, 0))
    assert "both lead term 1" in raft.poisoned
    leader = Lone(boot_of()).lead(2)
    with pytest.raises(InvariantBroken, match="replica 3 leads term 1 too"):
        leader.step(Heartbeat(SHARD, 3, 1, 1, 0, 0))


def test_in_tests_a_broken_invariant_is_raised() -> None:
    lone = Lone(boot_of([1]))
    with pytest.raises(InvariantBroken):
        lone.raft.step(Heartbeat(SHARD, 2, 1, 1, 5, 0))


def test_a_host_that_applies_what_it_was_not_given_poisons_the_replica() -> None:
    raft = quiet([1])
    raft.applied(1)
    assert "handed out up to 0" in raft.poisoned


def test_saves_and_steps_may_interleave_freely() -> None:
    lone = Lone(boot_of())
    lone.raft.step(lone.append(2, 1, (0, 0), [1]))
    saves = [lone.ready().save]
    lone.raft.step(lone.append(2, 1, (1, 1), [1]))
    saves.append(lone.ready().save)
    lone.raft.step(lone.vote(3, 1, (9, 9)))
    sequences = [save.sequence for save in saves if save is not None]
    lone.raft.saved(sequences[1])
    assert lone.raft.durable_index == 2
    lone.raft.saved(sequences[0])  # cumulative: nothing new
    assert lone.raft.durable_index == 2
    assert not one(lone.flush(), VoteReply).granted


def test_repr_is_a_diagnostic() -> None:
    text = repr(Lone(boot_of([1, 1])).raft)
    assert "replica=1 FOLLOWER term=1" in text
    assert "last=2@1" in text
