"""The bugs that other Raft implementations had with changes of the voters: learners,
joint configurations, roll-backs, and leaders that remove themselves."""

from __future__ import annotations

import attrs
import pytest

from kritad.raft.configuration import Change, ChangeKind, decode_configuration, simple_change
from kritad.raft.core import ProposalRefused, Refusal
from kritad.raft.messages import AppendReply, HeartbeatReply, PreVote, TimeoutNow, VoteReply
from kritad.raft.types import Boot, Configuration, EntryKind, Role, SnapshotMeta
from tests.raft.cluster import SHARD, Cluster, configuration_entry
from tests.raft.lone import Lone, boot_of, one, only

ADD_LEARNER, REMOVE = ChangeKind.ADD_LEARNER, ChangeKind.REMOVE


def change(cluster: Cluster, *changes: tuple[ChangeKind, int]) -> None:
    """Proposes changes to the leader and pumps it, no more."""
    leader = cluster.leader()
    wanted = [Change(kind, replica) for kind, replica in changes]
    nodes = {replica: 100 + replica for _, replica in changes}
    leader.propose_conf(wanted, nodes, leader.configuration.version)
    cluster.pump(leader.replica)


def _with_learners() -> Boot:
    configuration = Configuration(
        3, frozenset({1, 2, 3}), learners=frozenset({4, 5}), nodes={n: n for n in range(1, 6)}
    )
    return boot_of(snapshot=SnapshotMeta(configuration=configuration))


def _joint() -> Configuration:
    return Configuration(
        2,
        frozenset({1, 2, 4}),
        frozenset({1, 2, 3}),
        nodes={replica: replica for replica in range(1, 5)},
    )


def _boot_joint() -> Boot:
    boot = boot_of([1], configurations=[(1, _joint())])
    boot.entries[0] = configuration_entry(1, 1, _joint())
    return boot


def test_b11_learners_count_for_nothing() -> None:
    lone = Lone(_with_learners())
    raft = lone.lead(2)
    lone.ack(4, 1)
    lone.ack(5, 1)
    assert raft.commit == 0
    raft.read_index(1)
    lone.flush()
    lone.beat_back(4, read=raft.reads.sequence)
    lone.beat_back(5, read=raft.reads.sequence)
    for _ in range(2):
        for _ in range(10):
            lone.tick()
            lone.beat_back(4)
            lone.beat_back(5)
    assert raft.role is Role.FOLLOWER  # check-quorum heard no voter


def test_b16_no_configuration_is_proposed_before_an_own_entry_is_committed() -> None:
    lone = Lone(boot_of([1], term=1))
    raft = lone.lead(2)
    with pytest.raises(ProposalRefused) as refused:
        raft.propose_conf([Change(ADD_LEARNER, 4)], {4: 4}, 1)
    assert refused.value.reason is Refusal.CONF_PENDING
    lone.ack(2, 2)
    assert raft.propose_conf([Change(ADD_LEARNER, 4)], {4: 4}, 1) == (3, 2)


def test_b17_a_new_leader_leaves_a_joint_configuration_only_once_it_is_committed() -> None:
    lone = Lone(_boot_joint())
    raft = lone.lead(2)
    assert raft.configuration.joint
    assert raft.last_index == 2  # its own first entry, no more
    lone.ack(2, 2)
    assert raft.last_index == 3
    assert not raft.configuration.joint
    assert not raft.configuration_committed


def test_b20_a_restart_finds_the_newest_configuration_committed_or_not() -> None:
    lone = Lone(_boot_joint())
    assert lone.raft.configuration == _joint()
    assert not lone.raft.configuration_committed


def test_b21_a_truncated_configuration_is_rolled_back() -> None:
    lone = Lone(boot_of())
    append = lone.append(2, 1, (0, 0), [1])
    append.entries = [configuration_entry(1, 1, _joint())]
    lone.step(append)
    assert lone.raft.configuration.joint
    lone.step(lone.append(3, 2, (0, 0), [2]))
    assert lone.raft.configuration.voters == {1, 2, 3}
    assert not lone.raft.configuration.joint


def test_b21_a_snapshot_has_the_configuration_of_its_index_not_the_newest() -> None:
    lone = Lone(boot_of([1, 1], commit=2))
    lone.flush()
    append = lone.append(2, 1, (2, 1), [1])
    append.entries = [configuration_entry(3, 1, _joint())]
    lone.step(append)
    assert lone.raft.configuration.joint
    assert not lone.raft.snapshot_at(2).configuration.joint
    lone.raft.compact(2)
    assert lone.raft.configuration.joint
    assert not lone.raft.log.snapshot.configuration.joint


def test_b22_a_replica_that_thinks_it_is_a_learner_votes() -> None:
    """It may have been promoted by an entry that it has not seen."""
    lone = Lone(_with_learners(), replica=4)
    assert one(lone.step(lone.vote(2, 1, (0, 0))), VoteReply).granted


def test_b22_a_learner_does_not_campaign() -> None:
    lone = Lone(_with_learners(), replica=4)
    assert not only(lone.tick(60), PreVote)
    lone.raft.campaign()
    assert not lone.flush()
    lone.step(lone.append(2, 1, (0, 0)))
    assert not lone.step(TimeoutNow(SHARD, 2, 4, 1))


@pytest.mark.parametrize("moment", range(12))
@pytest.mark.parametrize("leader_crashes", [False, True])
def test_b23_a_leader_that_removes_itself_leaves_a_group_that_works(
    moment: int, leader_crashes: bool
) -> None:
    """The leader goes away for good, or restarts, after any number of steps."""
    cluster = Cluster(2)
    cluster.elect(1)
    change(cluster, (REMOVE, 1))
    for _ in range(moment):
        cluster.sync(1, 1)
        cluster.sync(2, 1)
        cluster.deliver_all()
    if leader_crashes:
        cluster.crash(1)
        cluster.restart(1)
    for _ in range(60):
        cluster.settle(ticks=1)
    leader = cluster.leader()
    cluster.propose(leader, b"x")
    assert b"x" in cluster.commands(leader.replica)
    if leader.configuration.voters == {2}:
        assert leader.replica == 2
        assert cluster[1].role is not Role.LEADER
    else:  # the change was lost with the crash, whole
        assert leader_crashes
        assert leader.configuration.voters == {1, 2}


def test_b23_a_leader_that_crashed_while_leaving_is_still_electable() -> None:
    """The other has not got the entry, so only the removed one's log is long enough."""
    cluster = Cluster(2)
    leader = cluster.elect(1)
    change(cluster, (REMOVE, 1))
    while leader.configuration.joint:
        cluster.sync(1)
        cluster.sync(2)
        cluster.deliver_all()
    cluster.network.clear()
    cluster.sync(1)  # the leaving entry is durable here and nowhere else
    cluster.network.clear()
    cluster.crash(1)
    cluster.restart(1)
    assert cluster[1].configuration.voters == {2}
    cluster.settle(ticks=60)
    assert cluster.leader().replica == 2
    assert cluster.leader().configuration_committed


def test_b23_a_removed_leader_leads_until_that_is_committed_and_then_stops() -> None:
    cluster = Cluster(3)
    old = cluster.elect(1)
    change(cluster, (REMOVE, 1))
    cluster.settle()
    assert old.role is Role.FOLLOWER
    assert old.configuration.voters == {2, 3}
    assert old.configuration_committed
    assert cluster.leader().replica in (2, 3)  # it was asked to take over at once
    cluster.settle(ticks=60)
    assert cluster.leader().replica in (2, 3)
    cluster.propose(cluster.leader(), b"x")
    assert cluster.commands(2) == cluster.commands(3) == [b"x"]


def test_b39_a_joint_configuration_confirms_reads_by_both_halves() -> None:
    lone = Lone(_boot_joint())
    raft = lone.lead(2)
    raft.step(AppendReply(SHARD, 2, 1, raft.term, True, 2, 0, 0, 0))
    lone.raft.ready()
    raft.read_index(1)
    lone.raft.ready()
    assert raft.configuration.voters == {1, 2, 4}
    raft.step(HeartbeatReply(SHARD, 3, 1, raft.term, raft.reads.sequence))  # no voter any more
    ready = raft.ready()
    assert ready is None or ready.reads == []
    raft.step(HeartbeatReply(SHARD, 4, 1, raft.term, raft.reads.sequence))
    assert [read.token for read in lone.ready().reads] == [1]


def test_the_conf_entries_of_these_tests_are_what_the_core_writes() -> None:
    entry = configuration_entry(1, 1, _joint())
    assert entry.kind is EntryKind.CONF
    assert decode_configuration(entry.data) == _joint()
    left = simple_change(attrs.evolve(_joint(), voters_outgoing=frozenset()), [])
    assert left.voters == {1, 2, 4}
