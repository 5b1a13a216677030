"""The bugs that other Raft implementations had with snapshots: what they replace, when
they are ignored, and how a follower gets out of waiting for one."""

from __future__ import annotations

from kritad.raft.messages import Append, AppendReply, Message, SnapshotInstalled
from kritad.raft.progress import ProgressState
from kritad.raft.types import Configuration, SnapshotMeta
from tests.raft.cluster import SHARD, Cluster
from tests.raft.lone import Lone, boot_of, one


def test_b32_an_installed_snapshot_replaces_the_whole_log_in_one_save() -> None:
    lone = Lone(boot_of([1, 1, 1, 1]))
    meta = SnapshotMeta(3, 2, lone.raft.configuration, generation=5)
    lone.raft.step(SnapshotInstalled(SHARD, 2, 1, 2, meta))
    lone.raft.step(lone.append(2, 2, (3, 2), [2]))
    save = lone.ready().save
    assert save is not None
    assert save.snapshot == meta
    assert save.truncate_from == 0
    assert [(entry.index, entry.term) for entry in save.entries] == [(4, 2)]
    assert save.hard_state is not None
    assert save.hard_state.commit == 3


def test_b32_nothing_of_the_log_that_a_snapshot_replaced_counts_as_durable_behind_it() -> None:
    lone = Lone(boot_of([1] * 6))
    meta = SnapshotMeta(3, 2, lone.raft.configuration)
    lone.raft.step(SnapshotInstalled(SHARD, 2, 1, 2, meta))
    lone.raft.step(lone.append(2, 2, (3, 2), [2, 2], commit=5))
    ready = lone.ready()
    assert (lone.raft.commit, ready.committed) == (5, [])
    assert ready.save is not None
    lone.raft.saved(ready.save.sequence)
    assert [(entry.index, entry.term) for entry in lone.ready().committed] == [(4, 2), (5, 2)]


def test_b32_a_crash_inside_an_install_leaves_the_old_log_or_the_new_one() -> None:
    for synced in (False, True):
        cluster = _with_laggard()
        assert cluster.nodes[1].snapshots_wanted == [3]
        cluster.stream(1, 3)
        if synced:
            cluster.sync(3)
        cluster.crash(3)
        cluster.restart(3)
        cluster.settle(ticks=30)
        assert cluster.states_agree([1, 2, 3])


def _with_laggard() -> Cluster:
    """Replica 3 lacks entries that 1 has compacted, and 1 has found out."""
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.isolate(3)
    cluster.propose(leader, *[b"%d" % number for number in range(9)])
    cluster.compact(1, leader.commit)
    cluster.propose(leader, b"behind the snapshot")
    cluster.heal()
    for _ in range(60):
        if cluster.nodes[1].snapshots_wanted:
            break
        cluster.tick(1)
        for _ in range(4):
            cluster.deliver_all()
            cluster.sync(3)
            cluster.sync(2)
    return cluster


def test_b33_a_stale_snapshot_is_ignored_and_answered_with_what_there_is() -> None:
    lone = Lone(boot_of([1] * 5, commit=5))
    lone.flush()
    meta = SnapshotMeta(3, 1, Configuration(9, frozenset({8}), nodes={8: 8}))
    reply = one(lone.step(SnapshotInstalled(SHARD, 2, 1, 1, meta)), AppendReply)
    assert (reply.accepted, reply.index, reply.recipient) == (True, 5, 2)
    assert lone.raft.configuration.voters == {1, 2, 3}
    assert lone.raft.last_index == 5
    lone.raft.compact(4)  # nor when its place is not known any more
    assert one(lone.step(SnapshotInstalled(SHARD, 2, 1, 1, meta)), AppendReply).index == 5
    assert lone.raft.log.snapshot.index == 4


def test_b33_a_snapshot_whose_last_entry_the_log_has_only_moves_the_commit_index() -> None:
    lone = Lone(boot_of([1] * 5, commit=1))
    lone.flush()
    meta = SnapshotMeta(4, 1, lone.raft.configuration)
    reply = one(lone.step(SnapshotInstalled(SHARD, 2, 1, 1, meta)), AppendReply)
    assert (reply.index, lone.raft.commit, lone.raft.last_index) == (4, 4, 5)
    assert [entry.index for entry in lone.committed] == [1, 2, 3, 4]


def test_a_snapshot_that_a_leader_of_an_earlier_term_sent_is_used_all_the_same() -> None:
    lone = Lone(boot_of([1], term=5))
    meta = SnapshotMeta(4, 3, lone.raft.configuration)
    lone.step(SnapshotInstalled(SHARD, 2, 1, 3, meta))
    assert (lone.raft.term, lone.raft.commit, lone.raft.log.snapshot) == (5, 4, meta)


def test_b34_a_follower_leaves_snapshot_state_when_it_has_an_adequate_one() -> None:
    cluster = _with_laggard()
    progress = cluster[1].progress[3]
    assert (progress.state, progress.match) == (ProgressState.SNAPSHOT, 1)
    meta = cluster[2].snapshot_at(cluster[2].applied_index)  # somebody else's
    cluster[3].step(SnapshotInstalled(SHARD, 2, 3, cluster[1].term, meta))
    cluster.pump(3)
    cluster.sync(3)
    cluster.deliver_all()
    assert progress.state is ProgressState.REPLICATE
    assert progress.match == meta.index


def test_b34_a_follower_that_waits_for_a_snapshot_is_sent_nothing_and_asked_for_once() -> None:
    cluster = _with_laggard()
    sent: list[Message] = []

    def noted(message: Message) -> bool:
        sent.append(message)
        return True

    cluster.filter = noted
    for _ in range(3):
        cluster[1].propose(b"more")
        cluster.pump(1)
        cluster.deliver_all()
    assert [m.recipient for m in sent if isinstance(m, Append)] == [2, 2, 2]
    assert cluster.nodes[1].snapshots_wanted == [3]


def test_b34_a_failed_snapshot_is_offered_again() -> None:
    cluster = _with_laggard()
    node = cluster.nodes[1]
    node.snapshots_wanted.clear()
    cluster.stream(1, 3, ok=False)
    cluster.settle(ticks=10)
    assert cluster.states_agree([1, 2, 3])


def test_b34_no_snapshot_is_offered_to_a_replica_that_does_not_answer() -> None:
    cluster = Cluster(3)
    leader = cluster.elect(1)
    cluster.crash(3)
    cluster.propose(leader, b"x")
    cluster.settle(ticks=25)  # long enough to be known as silent
    cluster.compact(1, leader.commit)
    leader.unreachable(3)
    for _ in range(30):
        cluster.tick(1, 2)
        cluster.deliver_all()
        cluster.deliver_all()
    assert cluster.nodes[1].snapshots_wanted == []
