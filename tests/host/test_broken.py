"""Replicas that stop themselves: what contradicts itself, a bug, a log that was set back."""

from __future__ import annotations

import shutil

import pytest

from krita.errors import Status
from kritad.raft.messages import Heartbeat
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
