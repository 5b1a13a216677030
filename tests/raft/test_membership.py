"""Changes of the group: who refuses them when, and where they lead."""

from __future__ import annotations

import pytest

from kritad.raft.configuration import Change, ChangeKind
from kritad.raft.core import ProposalRefused, Raft, Refusal
from kritad.raft.messages import AppendReply, Heartbeat, TimeoutNow
from kritad.raft.progress import ProgressState
from kritad.raft.types import Role
from tests.raft.cluster import SHARD, Cluster
from tests.raft.lone import Lone, boot_of, one, only

ADD_VOTER, ADD_LEARNER, REMOVE = ChangeKind.ADD_VOTER, ChangeKind.ADD_LEARNER, ChangeKind.REMOVE


def propose(raft: Raft, *changes: tuple[ChangeKind, int], version: int | None = None) -> None:
    wanted = [Change(kind, replica) for kind, replica in changes]
    nodes = {replica: 100 + replica for _, replica in changes}
    expected = raft.configuration.version if version is None else version
    raft.propose_conf(wanted, nodes, expected)


def change(cluster: Cluster, *changes: tuple[ChangeKind, int]) -> None:
    """Proposes to the leader and lets the group do it, as often as it takes."""
    leader = cluster.leader()
    propose(leader, *changes)
    cluster.pump(leader.replica)
    cluster.settle(ticks=6)


def refusal(raft: Raft, *changes: tuple[ChangeKind, int], version: int | None = None) -> Refusal:
    last = raft.last_index
    with pytest.raises(ProposalRefused) as refused:
        propose(raft, *changes, version=version)
    assert raft.last_index == last, "refused, but appended"
    return refused.value.reason


def test_a_group_of_one_grows_to_three_without_losing_anything() -> None:
    cluster = Cluster(1, extra=2)
    leader = cluster.until_leader()
    cluster.propose(leader, b"first")
    change(cluster, (ADD_LEARNER, 2), (ADD_LEARNER, 3))
    change(cluster, (ADD_VOTER, 2), (ADD_VOTER, 3))
    assert leader.configuration.voters == {1, 2, 3}
    assert leader.configuration_committed
    assert leader.configuration.nodes == {1: 101, 2: 102, 3: 103}
    cluster.propose(leader, b"second")
    assert cluster.commands(3) == [b"first", b"second"]
    cluster.crash(1)
    assert cluster.commands(cluster.until_leader().replica) == [b"first", b"second"]


def test_a_change_of_learners_is_one_entry_and_never_joint() -> None:
    cluster = Cluster(1, extra=1)
    leader = cluster.until_leader()
    last = leader.last_index
    change(cluster, (ADD_LEARNER, 2))
    assert (leader.last_index, leader.configuration.version) == (last + 1, 2)
    assert leader.configuration.learners == {2}


def test_a_change_of_voters_is_joint_and_left_by_the_leader_itself() -> None:
    cluster = Cluster(3, extra=1)
    leader = cluster.elect(1)
    change(cluster, (ADD_LEARNER, 4))
    last = leader.last_index
    propose(leader, (ADD_VOTER, 4), (REMOVE, 3))
    assert leader.configuration.joint
    cluster.settle(ticks=6)
    assert (leader.last_index, leader.configuration.joint) == (last + 2, False)
    assert leader.configuration.voters == {1, 2, 4}
    assert 3 not in leader.configuration.nodes


def test_a_joint_configuration_needs_both_majorities() -> None:
    cluster = Cluster(3, extra=2)
    leader = cluster.elect(1)
    change(cluster, (ADD_LEARNER, 4), (ADD_LEARNER, 5))
    propose(leader, (ADD_VOTER, 4), (ADD_VOTER, 5), (REMOVE, 2), (REMOVE, 3))
    cluster.isolate(2, 3)
    cluster.settle(ticks=8)
    assert leader.configuration.joint  # 1, 4, 5 are a majority of the new half only
    assert not leader.configuration_committed


def test_a_demoted_voter_stays_a_learner_and_is_followed_on() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.propose(leader, b"x")
    progress = leader.progress[3]
    change(cluster, (ADD_LEARNER, 3))
    assert leader.configuration.learners == {3}
    assert leader.progress[3] is progress
    cluster.propose(leader, b"y")
    assert cluster.commands(3) == [b"x", b"y"]


def test_a_new_leader_finishes_the_joint_change_it_finds() -> None:
    cluster = Cluster(3, extra=1)
    leader = cluster.elect(1)
    change(cluster, (ADD_LEARNER, 4))
    propose(leader, (ADD_VOTER, 4), (REMOVE, 3))
    cluster.pump(1)
    cluster.deliver_all()
    for replica in (2, 3, 4):
        cluster.sync(replica)
    cluster.network.clear()
    cluster.crash(1)
    new = cluster.until_leader()
    cluster.settle(ticks=10)
    assert new.configuration.voters == {1, 2, 4}
    assert new.configuration_committed


@pytest.mark.parametrize("version", [0, 2])
def test_a_change_meant_for_another_version_is_refused(version: int) -> None:
    leader = Cluster(1, extra=1).until_leader()
    assert refusal(leader, (ADD_LEARNER, 2), version=version) is Refusal.VERSION


def test_one_change_at_a_time() -> None:
    cluster = Cluster(3, extra=2)
    leader = cluster.elect(1)
    propose(leader, (ADD_LEARNER, 4))
    assert refusal(leader, (ADD_LEARNER, 5)) is Refusal.CONF_PENDING


@pytest.mark.parametrize(
    "changes",
    [
        [(ADD_VOTER, 2)],
        [(REMOVE, 9)],
        [(REMOVE, 1), (REMOVE, 2), (REMOVE, 3)],
    ],
    ids=["no change", "a stranger", "everybody"],
)
def test_a_change_that_makes_no_sense_is_refused(changes: list[tuple[ChangeKind, int]]) -> None:
    leader = Cluster(3).elect(1)
    assert refusal(leader, *changes) is Refusal.ILLEGAL


def test_a_new_replica_without_a_node_is_refused() -> None:
    leader = Cluster(1, extra=1).until_leader()
    with pytest.raises(ProposalRefused, match="nodes of replicas"):
        leader.propose_conf([Change(ADD_LEARNER, 2)], {}, 1)


def test_who_is_no_learner_yet_is_not_made_a_voter() -> None:
    leader = Cluster(1, extra=1).until_leader()
    assert refusal(leader, (ADD_VOTER, 2)) is Refusal.LAGGING


def test_a_learner_far_behind_is_not_made_a_voter() -> None:
    cluster = Cluster(1, extra=1, promotion_lag_max=5)
    leader = cluster.until_leader()
    change(cluster, (ADD_LEARNER, 2))
    cluster.isolate(2)
    cluster.propose(leader, *[b"x"] * 9)
    assert refusal(leader, (ADD_VOTER, 2)) is Refusal.LAGGING
    cluster.heal()
    cluster.settle(ticks=10)
    change(cluster, (ADD_VOTER, 2))
    assert leader.configuration.voters == {1, 2}


def test_a_learner_that_was_not_told_that_it_is_one_is_not_made_a_voter() -> None:
    """However close it is: its node may delete a replica that knows of no membership."""
    cluster = Cluster(1, extra=1, append_bytes_max=1, inflight_messages_max=1)
    leader = cluster.until_leader()
    cluster.propose(leader, *[b"x"] * 5)
    propose(leader, (ADD_LEARNER, 2))
    learner = leader.progress[2]
    while learner.match < 3:
        for replica in (leader.replica, 2):
            cluster.pump(replica)
            cluster.sync(replica)
        cluster.deliver_all()
        if not cluster.network and learner.match < 3:
            cluster.tick()
    assert leader.configuration_committed
    assert learner.state is ProgressState.REPLICATE
    assert learner.match < leader.log.configuration_index
    assert refusal(leader, (ADD_VOTER, 2)) is Refusal.LAGGING
    cluster.settle(ticks=10)
    change(cluster, (ADD_VOTER, 2))
    assert leader.configuration.voters == {1, 2}


def test_a_change_to_a_group_without_a_live_majority_is_refused() -> None:
    cluster = Cluster(5)
    leader = cluster.elect(1)
    cluster.isolate(4, 5)
    cluster.settle(ticks=25)
    assert refusal(leader, (REMOVE, 2)) is Refusal.UNHEALTHY  # would leave 1, 3 of 1, 3, 4, 5
    assert leader.role is Role.LEADER
    change(cluster, (REMOVE, 4))
    assert leader.configuration.voters == {1, 2, 3, 5}


def test_a_joint_configuration_is_left_only_once_it_is_committed_itself() -> None:
    lone = Lone(boot_of())
    raft = lone.lead(2)
    lone.ack(2, 1)
    raft.propose(b"before it")
    propose(raft, (REMOVE, 3))
    lone.flush()
    lone.ack(2, 2)
    assert (raft.commit, raft.last_index, raft.configuration.joint) == (2, 3, True)
    lone.ack(2, 3)
    assert (raft.commit, raft.last_index, raft.configuration.joint) == (3, 4, False)


def test_a_read_whose_quorum_becomes_the_leader_alone_waits_for_nobody() -> None:
    lone = Lone(boot_of(voters=(1, 2)))
    raft = lone.lead(2)
    lone.ack(2, 1)
    propose(raft, (REMOVE, 2))
    raft.read_index(7)
    lone.flush()
    raft.step(AppendReply(SHARD, 2, 1, 1, True, 2, 0, 0, 0))  # from before that round
    assert not raft.configuration.joint
    assert [read.token for read in lone.ready().reads] == [7]


def test_a_leader_that_leaves_tells_what_is_committed_and_who_is_to_lead() -> None:
    lone = Lone(boot_of(voters=range(1, 5)))
    raft = lone.lead(2, 3)
    for follower in (2, 3, 4):
        lone.ack(follower, 1)
    propose(raft, (REMOVE, 1))
    lone.flush()
    for index in (2, 3):  # the joint configuration, and the one behind it
        lone.ack(4, index)
        sent = lone.ack(3, index)
    assert [(b.recipient, b.commit) for b in only(sent, Heartbeat)] == [(2, 1), (3, 3), (4, 3)]
    assert one(sent, TimeoutNow).recipient in (3, 4)
    assert raft.role is Role.FOLLOWER


def test_a_learner_that_cannot_be_reached_is_not_made_a_voter() -> None:
    cluster = Cluster(1, extra=1)
    leader = cluster.until_leader()
    change(cluster, (ADD_LEARNER, 2))
    leader.unreachable(2)
    assert refusal(leader, (ADD_VOTER, 2)) is Refusal.LAGGING


def test_a_change_to_a_group_whose_majority_would_need_a_snapshot_is_refused() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(leader, *[b"x"] * 9)
    cluster.compact(1, leader.commit)
    assert refusal(leader, (REMOVE, 2)) is Refusal.LAGGING  # would leave 1 and 3


def test_a_removed_replica_that_goes_on_disturbs_nobody() -> None:
    cluster = Cluster(4)
    leader = cluster.elect(1)
    cluster.isolate(4)  # it never hears of its removal
    change(cluster, (REMOVE, 4))
    cluster.heal()
    cluster.settle(ticks=100)
    assert (cluster.leader().replica, leader.term) == (1, 1)
    cluster.propose(leader, b"x")


def test_a_replica_added_behind_a_compacted_log_gets_a_snapshot() -> None:
    cluster = Cluster(1, extra=1)
    leader = cluster.until_leader()
    cluster.propose(leader, *[b"%d" % number for number in range(20)])
    cluster.compact(1, leader.commit)
    change(cluster, (ADD_LEARNER, 2))
    cluster.settle(ticks=10)
    assert cluster.states_agree([1, 2])
    assert cluster[2].configuration.learners == {2}
    assert cluster[2].log.snapshot.index > 0
