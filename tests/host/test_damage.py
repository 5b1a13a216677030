"""Disks that are damaged, fail, stall or are full: what it costs, and whom."""

from __future__ import annotations

import pytest

from krita.errors import Status
from kritad.storage.errors import Corrupt, StoreFailed
from tests.host.cluster import Grow, key_in, write_some


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


def test_what_a_turn_has_to_say_is_not_said_when_the_disk_fails_in_that_turn(
    grow: Grow, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = grow()
    write_some(cluster, 2)
    victim = cluster.leader(1)
    assert victim is not None

    def fails(_key: bytes) -> None:
        raise StoreFailed("the disk is gone")

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
    assert isinstance(victim.host.failure, StoreFailed)
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
