"""Disks that are damaged, fail, stall or are full: what it costs, and whom."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad.cluster.view import MetaView
from kritad.host.bootstrap import META_SHARD
from kritad.raft.messages import Append
from kritad.storage.errors import Corrupt, StoreFailed
from tests.host.cluster import (
    SETTINGS,
    Cluster,
    Grow,
    Node,
    check_written,
    grown_cluster,
    key_in,
    write_some,
)


def test_a_damaged_row_poisons_its_replica_and_the_node_serves_the_others(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow()
    victim = cluster.leader(1)
    assert victim is not None

    def damaged(*_: object) -> None:
        raise Corrupt(1, "key b'k' does not match its digest")

    waiting = cluster.put(victim, key_in(victim, 1), b"v")
    monkeypatch.setattr(victim.replica(1).state, "apply", damaged)
    cluster.settle()
    on_disk = victim.data_db.applied().get(1)
    victim.host.flusher.when_flushed(lambda: None)
    cluster.settle()
    assert victim.data_db.applied().get(1) == on_disk, "half an entry was flushed"
    cluster.run_until(lambda: cluster.leader(1) not in (None, victim))
    assert victim.host.failure is None
    assert "does not match" in victim.host.damaged[1]
    assert victim.replica(1).raft.poisoned
    assert waiting.one[0] == Status.UNKNOWN
    monkeypatch.undo()
    write_some(cluster, 4)
    replies = cluster.put(victim, key_in(victim, 2), b"y")
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK


def test_a_failing_disk_ends_the_node_and_nothing_more_leaves_it(grow: Grow) -> None:
    cluster = grow()
    victim = cluster.leader(1)
    assert victim is not None
    victim.log.fails_with = StoreFailed("I/O error")
    replies = cluster.put(victim, b"k", b"v")
    cluster.settle()
    assert isinstance(victim.host.failure, StoreFailed)
    for _ in range(40):
        cluster.tick()
        assert not [f for f in cluster.network.frames if f.sender == victim.number]
    assert replies.all == [] or replies.one[0] == Status.UNKNOWN
    cluster.run_until(lambda: cluster.leader(1) not in (None, victim))


def test_a_store_that_fails_while_reading_ends_the_node_too(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow()
    write_some(cluster, 2)
    victim = cluster.leader(1)
    assert victim is not None

    def fails(_key: bytes) -> None:
        raise StoreFailed("the disk is gone")

    monkeypatch.setattr(victim.replica(1).state, "read", fails)
    replies = cluster.get(victim, key_in(victim, 1))
    cluster.settle()
    assert isinstance(victim.host.failure, StoreFailed)
    assert replies.one[0] == Status.UNAVAILABLE


def read_that_meets(problem: Exception, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Node:
    """The leader of shard 1, behind a turn in which it had entries to send and a read met
    ``problem``. Nothing else is on the network."""
    victim = cluster.leader(1)
    assert victim is not None

    def fails(_key: bytes) -> None:
        raise problem

    monkeypatch.setattr(victim.replica(1).state, "read", fails)
    key = key_in(victim, 1)
    cluster.get(victim, key)
    while not any(frame.recipient == victim.number for frame in cluster.network.frames):
        for node in cluster.nodes:
            node.step()
        if not any(frame.recipient == victim.number for frame in cluster.network.frames):
            cluster.network.deliver()
    cluster.network.deliver()  # the followers have confirmed that it leads
    cluster.put(victim, key, b"v")  # entries for them, in the turn that reads
    victim.step()
    return victim


def test_what_a_turn_has_to_say_is_not_said_when_the_disk_fails_in_that_turn(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow()
    write_some(cluster, 2)
    victim = read_that_meets(StoreFailed("the disk is gone"), cluster, monkeypatch)
    assert isinstance(victim.host.failure, StoreFailed)
    assert not cluster.network.frames


def test_what_a_damaged_replica_was_about_to_say_in_that_turn_is_not_said(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow()
    write_some(cluster, 2)
    victim = read_that_meets(Corrupt(1, "a row is damaged"), cluster, monkeypatch)
    assert victim.host.failure is None
    assert "a row is damaged" in victim.host.damaged[1]
    assert not cluster.network.frames


def test_a_leader_whose_disk_stalls_hands_over(grow: Grow) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    write_some(cluster, 3)
    leader.log.held = True
    cluster.put(leader, b"stalled", b"v")
    cluster.run_until(lambda: cluster.leader(1) not in (None, leader), 10_000)
    leader.log.held = False
    cluster.run_until(cluster.converged)


def test_a_full_disk_gives_leadership_away(grow: Grow) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    leader.host.note_space(5, True)
    cluster.settle()
    assert cluster.leader(1) not in (None, leader)


def test_a_put_that_comes_while_leadership_is_given_away_goes_where_there_is_room(
    grow: Grow,
) -> None:
    cluster = grow()
    leader = cluster.leader(1)
    assert leader is not None
    leader.host.note_space(5, True)
    replies = cluster.put(leader, key_in(leader, 1), b"v")
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK
    assert cluster.leader(1) not in (None, leader)


def test_when_all_disks_are_full_leadership_does_not_go_round_in_circles(grow: Grow) -> None:
    cluster = grow()
    moves, before = 0, cluster.leader(1)
    for _ in range(100):
        for node in cluster.nodes:
            node.host.note_space(5, True)
        cluster.tick()
        now = cluster.leader(1)
        moves, before = moves + (now is not before), now
    assert moves <= 4
    assert cluster.read(cluster.nodes[0], b"k") is None, "reads go on"


def test_a_node_whose_disk_is_nearly_full_takes_no_entries_and_catches_up_later(
    grow: Grow,
) -> None:
    cluster = grow()
    write_some(cluster, 4)
    poor = next(n for n in cluster.nodes if not n.replica(1).leads and not n.replica(2).leads)
    poor.host.note_space(5, True, nearly_full=True)
    before = [poor.replica(shard).raft.last_index for shard in (1, 2)]
    write_some(cluster, 20)
    assert [poor.replica(shard).raft.last_index for shard in (1, 2)] == before
    assert cluster.leader(1) is not poor, "it hears its leaders all the same"
    poor.host.note_space(1 << 40, False)
    cluster.run_until(cluster.converged)
    check_written(cluster, poor, 20)


# --- made anew -------------------------------------------------------------------------------


def damage(node: Node, shard: int) -> None:
    node.host.on_damage(node.replica(shard), Corrupt(shard, "a row is damaged"))


def is_rebuilt(cluster: Cluster, node: Node, shard: int, old: int) -> bool:
    """Whether the shard has a sound voter on the node, another than it was."""
    record = cluster.nodes[0].host.view.shards[shard]
    voters = {member.replica for member in record.report.replicas if member.voter}
    found = node.host.replicas.get(shard)
    return (
        not record.in_motion
        and old not in voters
        and found is not None
        and found.id in voters
        and shard not in node.host.damaged
    )


def test_a_damaged_replica_is_made_anew_on_its_node_under_another_id(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    victim = cluster.leader(1)
    assert victim is not None
    old = victim.replica(1).id
    damage(victim, 1)
    cluster.run_until(lambda: is_rebuilt(cluster, victim, 1, old))
    cluster.run_until(cluster.converged)
    check_written(cluster, victim, 20)
    assert victim.host.residence.remade == {1: 1}
    cluster.run(3000)
    assert victim.host.residence.remade == {1: 1}, "it is made anew again and again"


def test_one_that_is_found_damaged_at_a_start_is_made_anew_too(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    victim = cluster.nodes[2]
    old = victim.replica(1).id
    cluster.crash(victim)
    with closing(sqlite3.connect(victim.path / "raft.db")) as connection, connection:
        connection.execute("UPDATE hard SET vote=vote+1 WHERE shard=1")
    victim.restart()
    cluster.run_until(lambda: 1 in victim.host.damaged)
    cluster.run_until(lambda: is_rebuilt(cluster, victim, 1, old) and cluster.converged())
    check_written(cluster, victim, 20)


def test_one_that_seems_well_after_a_restart_is_replaced_nevertheless(grow: Grow) -> None:
    """The row that was damaged is still there, and nobody may read it for long."""
    cluster = grow()
    write_some(cluster, 20)
    victim = cluster.nodes[2]
    old = victim.replica(1).id
    damage(victim, 1)
    cluster.run_until(lambda: cluster.nodes[0].host.view.shards[1].in_motion)
    cluster.crash(victim)
    victim.restart()
    assert victim.host.damaged == {}
    cluster.run_until(lambda: is_rebuilt(cluster, victim, 1, old) and cluster.converged())
    check_written(cluster, victim, 20)


def test_nothing_is_let_go_while_another_of_the_shards_nodes_is_down(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    victim, other = cluster.nodes[2], cluster.nodes[1]
    old = victim.replica(1).id
    cluster.crash(other)
    damage(victim, 1)
    cluster.run(20_000)
    assert old in {row.replica for row in victim.raft_db.replicas()}
    assert not cluster.nodes[0].host.view.shards[1].in_motion
    other.restart()
    cluster.run_until(lambda: is_rebuilt(cluster, victim, 1, old) and cluster.converged())


def test_of_two_replicas_neither_is_made_anew(tmp_path: Path) -> None:
    cluster = grown_cluster(tmp_path, 2)
    damage(cluster.nodes[1], 1)
    cluster.run(10_000)
    assert not cluster.nodes[0].host.view.shards[1].in_motion
    assert 1 in cluster.nodes[1].host.damaged
    cluster.close()


def test_an_id_that_is_wanted_and_dead_here_is_replaced_by_another(grow: Grow) -> None:
    """Nobody else can know that the node will never have it."""
    cluster = grow()
    victim = cluster.nodes[2]
    old = victim.replica(1).id
    victim.raft_db.remove_replica(1, old)
    cluster.crash(victim)
    victim.restart()
    cluster.run_until(lambda: (1, old) in victim.host.residence.unsound())
    cluster.run_until(lambda: is_rebuilt(cluster, victim, 1, old) and cluster.converged())


def test_a_damaged_replica_that_moves_away_leaves_nothing_behind(grow: Grow) -> None:
    cluster = grow(4)
    record = cluster.nodes[0].host.view.shards[1]
    victim = next(
        n for n in cluster.nodes if n.number in record.nodes and n is not cluster.nodes[0]
    )
    old = victim.replica(1).id
    spare = next(node.number for node in cluster.nodes if node.number not in record.nodes)
    body = encode_body(Op.SHARD_MOVE, 1, victim.number, spare)
    moved = cluster.submit(cluster.nodes[0], Op.SHARD_MOVE, body, META_SHARD)
    damage(victim, 1)
    cluster.run_until(lambda: bool(moved.all) and cluster.grown_shard(1, 3))
    cluster.run_until(lambda: 1 not in victim.host.damaged)
    cluster.run(1000)
    assert old not in {row.replica for row in victim.raft_db.replicas()}
    assert victim.number not in cluster.nodes[0].host.view.shards[1].nodes


# --- the meta shard's ------------------------------------------------------------------------


def is_whole_again(cluster: Cluster, node: Node, old: int) -> bool:
    """Whether the node has another, sound replica of the meta shard and hears by it."""
    found = node.host.replicas.get(META_SHARD)
    other = next(n for n in cluster.alive if n is not node)
    members = {member.replica for member in other.host.view.shards[META_SHARD].report.replicas}
    return (
        found is not None
        and found.id != old
        and found.id in members
        and old not in members
        and META_SHARD not in node.host.damaged
        and node.host.view.version == other.host.view.version
    )


@pytest.mark.parametrize("leads", [True, False])
def test_a_damaged_replica_of_the_meta_shard_is_made_anew(grow: Grow, leads: bool) -> None:
    cluster = grow()
    write_some(cluster, 20)
    victim = next(n for n in cluster.nodes if n.replica(META_SHARD).leads is leads)
    old = victim.replica(META_SHARD).id
    damage(victim, META_SHARD)
    cluster.run_until(lambda: is_whole_again(cluster, victim, old))
    cluster.run_until(cluster.converged)
    check_written(cluster, victim, 20)
    assert victim.host.residence.remade == {META_SHARD: 1}
    voters = victim.host.view.shards[META_SHARD].report.voters
    assert sorted(voters) == [1, 2, 3]
    cluster.run(3000)
    assert victim.host.residence.remade == {META_SHARD: 1}, "it is made anew again and again"


def test_a_node_that_finds_it_damaged_at_its_start_hears_of_the_cluster_again(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    victim = cluster.nodes[0]  # which began the cluster
    old = victim.replica(META_SHARD).id
    cluster.crash(victim)
    with closing(sqlite3.connect(victim.path / "raft.db")) as connection, connection:
        connection.execute("UPDATE hard SET vote=vote+1 WHERE shard=0")
    victim.restart()
    assert META_SHARD in victim.host.damaged
    assert not victim.host.view.cluster_id
    cluster.run_until(lambda: is_whole_again(cluster, victim, old) and cluster.converged())
    check_written(cluster, victim, 20)


def test_one_that_only_learns_is_made_anew(grow: Grow) -> None:
    cluster = grow(4)
    record = cluster.nodes[0].host.view.shards[META_SHARD]
    cluster.run_until(lambda: len(record.report.voters) == 3)
    record = cluster.nodes[0].host.view.shards[META_SHARD]
    learner = next(n for n in cluster.nodes if n.number not in record.report.voters)
    old = learner.replica(META_SHARD).id
    damage(learner, META_SHARD)
    cluster.run_until(lambda: is_whole_again(cluster, learner, old))


def test_what_was_wanted_before_it_was_made_anew_is_history(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log tells the whole life of the cluster once more. Whoever leads a shard there must
    not do again what was wanted first: to have one copy, on the node that began it all."""
    piecemeal = {"append_bytes_max": 1, "inflight_messages_max": 1}  # an entry a message
    cluster = grow(settings=attrs.evolve(SETTINGS, raft_limits=piecemeal))
    victim = cluster.nodes[0]
    old = victim.replica(META_SHARD).id
    cluster.crash(victim)
    with closing(sqlite3.connect(victim.path / "raft.db")) as connection, connection:
        connection.execute("UPDATE hard SET vote=vote+1 WHERE shard=0")
    victim.restart()
    given = cluster.nodes[1].host.view.replica_next
    followed = []
    follow = victim.host.residence.follow

    def noting(view: MetaView) -> None:
        followed.append(view)
        follow(view)

    monkeypatch.setattr(victim.host.residence, "follow", noting)
    cluster.run_until(lambda: is_whole_again(cluster, victim, old))
    assert followed
    assert all(view.replica_next > given for view in followed)
    versions = [view.version for view in followed]
    assert versions == sorted(set(versions))


def test_a_crash_between_the_old_one_and_the_new_one_is_made_good(grow: Grow) -> None:
    cluster = grow()
    write_some(cluster, 20)
    victim = cluster.nodes[2]
    old = victim.replica(META_SHARD).id
    damage(victim, META_SHARD)
    victim.data.held = True  # the old log goes, its rows do not yet
    cluster.run_until(lambda: META_SHARD in victim.host.upkeep.leaving)
    cluster.run_until(lambda: META_SHARD not in {r.shard for r in victim.raft_db.replicas()})
    cluster.crash(victim)
    victim.data.held = False
    victim.restart()
    assert META_SHARD not in victim.host.replicas
    cluster.run_until(lambda: is_whole_again(cluster, victim, old) and cluster.converged())
    check_written(cluster, victim, 20)


def test_an_old_message_brings_no_dead_replica_of_the_meta_shard_back(grow: Grow) -> None:
    cluster = grow()
    victim = cluster.nodes[2]
    old = victim.replica(META_SHARD).id
    damage(victim, META_SHARD)
    cluster.run_until(lambda: is_whole_again(cluster, victim, old))
    now = victim.replica(META_SHARD).id
    victim.host.step(1, Append(META_SHARD, 1, old, 9, 0, 0, 0, 0, []))
    assert victim.replica(META_SHARD).id == now
    damage(victim, META_SHARD)
    victim.host.step(1, Append(META_SHARD, 1, old, 9, 0, 0, 0, 0, []))
    victim.host.step(1, Append(META_SHARD, 1, now, 9, 0, 0, 0, 0, []))
    assert META_SHARD in victim.host.damaged
    cluster.run_until(lambda: is_whole_again(cluster, victim, now))


def test_one_of_the_meta_shard_that_seems_well_after_a_restart_is_replaced_nevertheless(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seed 601824: its group went on without it before its node had heard of the other."""
    cluster = grow()
    victim = cluster.nodes[2]
    old = victim.replica(META_SHARD).id
    damage(victim, META_SHARD)
    monkeypatch.setattr(victim.host.residence, "make_meta", lambda _: None)
    others = cluster.nodes[:2]
    cluster.run_until(
        lambda: all(old not in n.replica(META_SHARD).raft.configuration.members for n in others)
    )
    cluster.crash(victim)
    victim.restart()
    assert victim.host.damaged == {}
    left = victim.replica(META_SHARD)
    cluster.run_until(lambda: is_whole_again(cluster, victim, old))
    assert left.raft.poisoned
