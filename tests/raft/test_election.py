"""Elections, check-quorum and the handing over of leadership."""

from __future__ import annotations

import pytest

from kritad.raft.core import ProposalRefused, Refusal
from kritad.raft.messages import (
    Append,
    Heartbeat,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
)
from kritad.raft.types import Configuration, Role
from tests.raft.cluster import SHARD, Cluster, configuration_entry
from tests.raft.lone import Lone, boot_of, one, only


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7])
def test_a_group_of_any_size_elects_one_leader_and_serves(size: int) -> None:
    cluster = Cluster(size)
    leader = cluster.until_leader()
    cluster.propose(leader, b"x")
    assert all(cluster.commands(replica) == [b"x"] for replica in cluster.nodes)


def test_a_single_replica_works_without_any_message() -> None:
    lone = Lone(boot_of(voters=[1]))
    raft = lone.lead()
    raft.propose(b"x")
    lone.flush()
    raft.read_index(3)
    assert [(read.token, read.index) for read in lone.ready().reads] == [(3, 2)]
    assert (raft.commit, lone.sent) == (2, [])


def test_a_joiner_without_configuration_never_campaigns_but_votes_and_accepts() -> None:
    lone = Lone(boot_of(voters=()))
    assert not only(lone.tick(100), PreVote)
    assert one(lone.step(lone.vote(2, 1, (0, 0))), VoteReply).granted
    lone.step(lone.append(2, 1, (0, 0), [1]))
    assert lone.raft.last_index == 1


def test_a_dead_leader_is_replaced_within_a_few_election_timeouts() -> None:
    cluster = Cluster(3)
    leader = cluster.until_leader()
    cluster.propose(leader, b"x")
    cluster.crash(leader.replica)
    new = cluster.until_leader(rounds=60)
    assert new.replica != leader.replica
    assert cluster.commands(new.replica) == [b"x"]


def test_election_timeouts_differ_and_stay_within_their_range() -> None:
    lone = Lone(boot_of())
    drawn = set()
    for _ in range(200):
        lone.raft.reset_election_timer()
        drawn.add(lone.raft.timeout_ticks)
    assert drawn == set(range(10, 20))


def test_a_vote_that_disturbs_a_healthy_group_is_as_if_it_never_came() -> None:
    lone = Lone(boot_of())
    lone.step(lone.append(2, 1, (0, 0)))
    assert lone.step(lone.vote(3, 9, (9, 9))) == []
    assert (lone.raft.term, lone.raft.leader) == (1, 2)
    lone.tick(10)
    assert one(lone.step(lone.vote(3, 9, (9, 9))), VoteReply).granted


def test_a_leader_is_not_deposed_by_a_stranger_with_a_higher_term() -> None:
    lone = Lone(boot_of())
    lone.lead(2)
    assert lone.step(lone.vote(9, 50, (99, 49))) == []
    assert lone.raft.role is Role.LEADER


def test_a_leader_that_hears_no_majority_steps_down_in_its_term() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    lone.tick(9)
    assert raft.role is Role.LEADER
    lone.tick(1)
    assert (raft.role, raft.term, raft.vote) == (Role.FOLLOWER, 1, 1)


def test_a_new_leader_has_a_whole_election_timeout_to_hear_its_followers() -> None:
    lone = Lone(boot_of())
    lone.raft.campaign()
    lone.flush()
    lone.step(PreVoteReply(SHARD, 2, 1, 1, True))
    lone.tick(9)  # its votes are long in coming
    lone.step(VoteReply(SHARD, 2, 1, 1, True))
    lone.tick(9)
    assert lone.raft.role is Role.LEADER


def test_a_leader_that_hears_a_majority_stays() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    for _ in range(50):
        lone.tick()
        lone.beat_back(3)
    assert raft.role is Role.LEADER


@pytest.mark.parametrize("cut", [{(1, 2), (2, 1)}, {(1, 2)}, {(2, 1)}], ids=["both", "to", "from"])
def test_a_broken_link_between_two_of_three_does_not_stop_the_group(
    cut: set[tuple[int, int]],
) -> None:
    """Without pre-vote and check-quorum the leadership flaps for ever."""
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.cut = cut
    cluster.settle(ticks=60)
    terms = cluster.until_leader().term
    cluster.settle(ticks=100)
    leader = cluster.until_leader()
    assert leader.term == terms
    cluster.propose(leader, b"x")
    assert b"x" in cluster.commands(3)


def test_an_isolated_replica_does_not_raise_its_term() -> None:
    cluster = Cluster(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.settle(ticks=200)
    assert cluster[3].term == 1
    cluster.heal()
    cluster.settle(ticks=10)
    assert (cluster.leader().replica, cluster[3].leader) == (1, 1)


def test_a_leader_that_gave_up_may_ask_those_who_just_heard_it_for_votes() -> None:
    lone = Lone(boot_of())
    lone.step(lone.append(2, 1, (0, 0)))
    assert one(lone.step(lone.vote(2, 2, (0, 0))), VoteReply).granted


def test_an_election_that_nobody_answers_is_tried_again_after_another_timeout() -> None:
    lone = Lone(boot_of())
    requests = only(lone.tick(200), PreVote)
    assert 10 <= len(requests) / 2 <= 20  # of two peers; a timeout is 10 to 19 ticks


def test_a_learner_that_hears_no_leader_knows_none_and_stands_in_nobodys_way() -> None:
    lone = Lone(boot_of(voters=(2, 3)))
    lone.step(lone.append(2, 1, (0, 0)))
    for _ in range(30):
        lone.tick()
    assert lone.raft.leader == 0
    assert one(lone.step(lone.vote(3, 2, (0, 0))), VoteReply).granted


@pytest.mark.parametrize(
    ("committed", "asks"), [(1, True), (2, False)], ids=["not yet", "committed"]
)
def test_who_was_removed_campaigns_only_until_that_is_known_to_be_committed(
    committed: int, asks: bool
) -> None:
    """Thesis 4.2.2: before, its log may be the only one that is long enough."""
    without = Configuration(2, frozenset({2, 3}), nodes={2: 2, 3: 3})
    boot = boot_of([1, 1], commit=committed, configurations=[(2, without)])
    boot.entries[1] = configuration_entry(2, 1, without)
    lone = Lone(boot)
    lone.raft.campaign()
    assert bool(only(lone.flush(), PreVote)) is asks


def test_refusals_of_a_pre_vote_that_come_late_are_nothing_to_a_candidate() -> None:
    lone = Lone(boot_of(voters=range(1, 6)))
    lone.raft.campaign()
    lone.flush()
    for voter in (2, 3):
        lone.step(PreVoteReply(SHARD, voter, 1, 1, True))
    for voter in (4, 5, 2):
        lone.step(PreVoteReply(SHARD, voter, 1, 1, False))
    assert lone.raft.role is Role.CANDIDATE


def test_pre_votes_that_were_given_for_an_earlier_election_do_not_count() -> None:
    lone = Lone(boot_of(term=4))
    lone.raft.campaign()
    lone.flush()
    for asked in (3, 4):  # of it was term 5
        lone.step(PreVoteReply(SHARD, 2, 1, asked, True))
        assert (lone.raft.role, lone.raft.term) == (Role.PRE_CANDIDATE, 4)


def test_a_candidate_that_a_majority_refuses_is_none_any_more() -> None:
    lone = Lone(boot_of())
    lone.raft.campaign()
    lone.flush()
    lone.step(PreVoteReply(SHARD, 2, 1, 1, True))
    for voter in (2, 3):
        lone.step(VoteReply(SHARD, voter, 1, 1, False))
    assert (lone.raft.role, lone.raft.term, lone.raft.vote) == (Role.FOLLOWER, 1, 1)


def test_votes_that_come_late_change_nothing_for_a_leader_nor_for_one_that_stepped_down() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    for role in (Role.LEADER, Role.FOLLOWER):
        last = raft.last_index
        for voter in (2, 3):
            lone.step(VoteReply(SHARD, voter, 1, 1, True))
        assert (raft.role, raft.last_index) == (role, last)
        raft.step_down()


# --- heartbeats -------------------------------------------------------------


def test_an_idle_leader_sends_a_heartbeat_to_each_follower_each_interval_and_no_more() -> None:
    lone = Lone(boot_of(), heartbeat_ticks=3)
    lone.lead(2)
    for follower in (2, 3):
        lone.ack(follower, 1)
    lone.tick(3)
    sent = []
    for _ in range(30):
        sent += lone.tick()
        for follower in (2, 3):
            lone.beat_back(follower)
    beats = only(sent, Heartbeat)
    assert len(beats) == len(sent) == 20
    assert [beat.recipient for beat in beats] == [2, 3] * 10


# --- transfer ---------------------------------------------------------------


def test_leadership_moves_to_a_replica_that_has_the_whole_log() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(leader, b"x")
    leader.transfer(2)
    cluster.pump(1)
    cluster.settle()
    assert cluster.leader().replica == 2
    assert (leader.role, leader.transferring) == (Role.FOLLOWER, 0)


def test_the_target_of_a_transfer_first_gets_what_it_lacks() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    raft.propose(b"x")
    raft.transfer(2)
    sent = lone.flush()
    assert not only(sent, TimeoutNow)
    assert only(lone.ack(2, 1), Append)
    assert one(lone.ack(2, 2), TimeoutNow).recipient == 2


def test_commands_are_refused_during_a_transfer_and_taken_after_it_failed() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    lone.ack(2, 1)
    for _ in range(2):
        raft.transfer(3)
        for _ in range(10):  # an election timeout
            with pytest.raises(ProposalRefused) as refused:
                raft.propose(b"x")
            assert refused.value.reason is Refusal.TRANSFERRING
            lone.tick()
            lone.beat_back(2)
        assert raft.role is Role.LEADER
        raft.propose(b"x")


@pytest.mark.parametrize("target", [1, 4, 9], ids=["itself", "a learner", "a stranger"])
def test_leadership_goes_to_another_voter_only(target: int) -> None:
    lone = Lone(boot_of())
    lone.lead(2)
    with pytest.raises(ProposalRefused) as refused:
        lone.raft.transfer(target)
    assert refused.value.reason is Refusal.ILLEGAL


def test_only_a_leader_hands_leadership_over() -> None:
    lone = Lone(boot_of())
    with pytest.raises(ProposalRefused) as refused:
        lone.raft.transfer(2)
    assert refused.value.reason is Refusal.NOT_LEADER


def test_whoever_is_asked_to_lead_campaigns_at_once_and_is_believed() -> None:
    lone = Lone(boot_of())
    lone.step(lone.append(2, 1, (0, 0)))
    requests = only(lone.step(TimeoutNow(SHARD, 2, 1, 1)), Vote)
    assert [(vote.term, vote.transfer) for vote in requests] == [(2, True), (2, True)]
    other = Lone(boot_of(), replica=3)
    other.step(other.append(2, 1, (0, 0)))
    assert one(other.step(other.vote(1, 2, (0, 0), transfer=True)), VoteReply).granted


def test_a_request_to_lead_from_an_old_leader_is_ignored() -> None:
    lone = Lone(boot_of(term=5))
    assert lone.step(TimeoutNow(SHARD, 2, 1, 4)) == []
    assert lone.raft.role is Role.FOLLOWER


def test_a_leader_with_a_stalled_disk_can_give_up_at_once() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    raft.read_index(4)
    raft.step_down()
    assert raft.role is Role.FOLLOWER
    assert lone.ready().reads_lost == [4]
