"""Replicas that stop themselves: what contradicts itself, a bug, a log that was set back."""

from __future__ import annotations

import shutil

import pytest

from krita.errors import Status
from kritad.host.bootstrap import META_SHARD
from kritad.raft.messages import Append, Heartbeat
from kritad.raft.types import Role
from kritad.storage.errors import Corrupt
from tests.host.cluster import Grow, check_written, key_in, write_some


def test_a_bug_met_while_applying_stops_the_replica_and_the_node_serves_the_others(
    grow: Grow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All replicas would meet it, and again at each start."""
    cluster = grow()
    victim = cluster.leader(1)
    assert victim is not None

    def has_a_bug(_entry: object) -> None:
        raise KeyError("no such field")

    monkeypatch.setattr(victim.replica(1).state, "apply", has_a_bug)
    waiting = cluster.put(victim, key_in(victim, 1), b"v")
    cluster.settle()
    assert victim.host.failure is None
    assert waiting.one[0] == Status.UNKNOWN, "nobody waits for the deadline"
    assert "cannot be applied: KeyError('no such field')" in victim.host.damaged[1]
    assert "no such field" in caplog.text
    assert "Traceback" in caplog.text
    cluster.run_until(lambda: cluster.leader(1) not in (None, victim))
    write_some(cluster, 4)
    cluster.crash(victim)
    victim.restart()
    cluster.run_until(cluster.converged)
    assert victim.host.damaged == {}, "a release without the bug reads the same disk"


def test_a_core_that_finds_itself_broken_is_told_like_damage_and_kept(
    grow: Grow, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = grow()
    victim = cluster.leader(1)
    assert victim is not None
    raft = victim.replica(1).raft
    replies = cluster.put(victim, key_in(victim, 1), b"v")
    victim.host.step(2, Heartbeat(1, 999, raft.replica, raft.term, 0, 0))
    cluster.settle()
    assert replies.one[0] == Status.UNKNOWN
    assert "999 leads term" in victim.host.damaged[1]
    assert "shard 1 is damaged here" in caplog.text
    assert victim.host.failure is None
    cluster.run_until(lambda: cluster.leader(1) not in (None, victim))
    cluster.run(5_000)
    assert victim.replica(1).raft is raft, "what it has may be what is right"
    assert all(node.host.leadership.damaged() == set() for node in cluster.nodes)


def test_one_whose_log_has_lost_what_it_had_acknowledged_is_made_anew(grow: Grow) -> None:
    """Its disk was set back to a moment within the node's newest life. A leader that has
    counted on what it lacks tells it."""
    cluster = grow()
    victim = cluster.nodes[2]
    old = shutil.copytree(victim.path, victim.path.with_name("old"))
    write_some(cluster, 10)
    cluster.run_until(cluster.converged)
    before = {shard: replica.id for shard, replica in victim.host.replicas.items()}
    cluster.crash(victim)
    victim.path = old
    victim.restart()
    cluster.run_until(lambda: bool(victim.host.damaged))
    (lost, *_) = victim.host.damaged
    cluster.run_until(lambda: not victim.host.damaged and cluster.converged())
    assert victim.replica(lost).id > before[lost]
    check_written(cluster, victim, 10)


def test_one_that_is_well_again_stays_when_its_successor_is_only_about_to_be_added(
    grow: Grow,
) -> None:
    """Of the meta shard, whose replicas come by messages alone. The leader's entries for the
    successor are on a connection of their own, and here before its heartbeats: the replica,
    just started again, votes still, and hears nobody yet."""
    cluster = grow()
    leader = cluster.leader(META_SHARD)
    assert leader is not None
    victim = next(node for node in cluster.nodes if node is not leader)
    others = [node for node in cluster.nodes if node is not victim]
    cluster.crash(victim)
    victim.restart()
    cluster.cut(victim, *others)
    replica = victim.replica(META_SHARD)
    cluster.run_until(lambda: replica.raft.role is Role.PRE_CANDIDATE)
    sender, term = leader.replica(META_SHARD).id, leader.replica(META_SHARD).raft.term
    victim.host.step(leader.number, Append(META_SHARD, sender, 99, term, 0, 0, 0, 0, []))
    cluster.heal()
    cluster.run_until(cluster.converged)
    assert victim.replica(META_SHARD) is replica


def test_damage_of_a_replica_that_has_gone_is_not_laid_to_its_successor(grow: Grow) -> None:
    """Who sends a snapshot reads in a thread of its own, and may find it late."""
    cluster = grow()
    victim = cluster.nodes[0]
    gone = victim.replica(1)
    victim.host.on_damage(gone, Corrupt(1, "a row is damaged"))
    cluster.run_until(lambda: 1 in victim.host.replicas and victim.replica(1) is not gone)
    cluster.run_until(cluster.converged)
    victim.host.on_damage(gone, Corrupt(1, "another row is damaged"))
    assert victim.host.damaged == {}
    assert not victim.replica(1).raft.poisoned
