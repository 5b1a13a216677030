"""Elections, check-quorum and the handing over of leadership."""

from __future__ import annotations

import pytest

from kritad.raft.core import ProposalRefused, Refusal
from kritad.raft.messages import Append, PreVote, TimeoutNow, Vote, VoteReply
from kritad.raft.types import Role
from tests.raft.cluster import SHARD, Cluster
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
    raft.read_index(3)
    lone.flush()
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
    raft.transfer(3)
    with pytest.raises(ProposalRefused) as refused:
        raft.propose(b"x")
    assert refused.value.reason is Refusal.TRANSFERRING
    for _ in range(10):
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
