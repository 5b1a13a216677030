"""A crash between any two steps: what was acknowledged is there, and the state adds up.

The steps of one node are done one by one (a turn, a save's work, its report, a
flush's work, its report), and the node is crashed behind each of them in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from kritad.host.bootstrap import fresh_applied
from kritad.host.opening import HostSettings
from kritad.raft.types import Configuration, EntryKind
from kritad.state.machine import ShardState
from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS, row_digest
from kritad.storage.table import Table
from tests.host.cluster import Cluster, Node
from tests.host.lone import Replies

# Flush and checkpoint whenever possible, keep next to no log: every rule about what
# may be cut is put to the test all the time.
HASTY = HostSettings(memtable_bytes=1, log_tail_bytes=1)

PUTS = 12
VALUE = b"v" * 20_000  # a few of them make a mark in the log's bytes


@attrs.define
class Written:
    """A put that was asked for, and what was answered before the crash."""

    key: bytes
    replies: Replies

    @property
    def acknowledged(self) -> bool:
        return bool(self.replies.all) and self.replies.one[0] == 0


def steps(cluster: Cluster, node: Node, written: list[Written]) -> Iterator[str]:
    """Everything the node does for ``PUTS`` puts, a step at a time."""
    for number in range(PUTS):
        key = b"key %d" % (number % 7)
        written.append(Written(key, cluster.put(node, key, VALUE + b"%d" % number)))
        yield "put"
        for _ in range(3):
            node.host.turn()
            yield "turn"
            for worker in (node.log, node.data):
                if any(job.finished is None for job in worker.jobs):
                    worker.work()
                    yield "work"
                if worker.jobs and worker.jobs[0].finished is not None:
                    worker.report()
                    yield "report"
        cluster.clock.advance(50)
        node.host.tick()
        yield "tick"


def rows_of(node: Node) -> dict[bytes, tuple[int, bytes]]:
    state = node.replica(1).state
    return {key: (row.revision, row.value) for key, row in state.table.scan(None, 10_000)}


def check(cluster: Cluster, node: Node, written: list[Written], where: str) -> None:
    """After a restart."""
    cluster.run_until(lambda: cluster.leader(1) is node)
    cluster.run_until(lambda: node.replica(1).state.index == node.replica(1).raft.last_index)
    rows = rows_of(node)
    newest: dict[bytes, int] = {}
    for write in written:
        if write.acknowledged:
            body = write.replies.one[1]
            assert isinstance(body, list)
            newest[write.key] = body[0]
    for key, revision in newest.items():
        assert key in rows, f"{where}: the acknowledged {key!r} is lost"
        assert rows[key][0] >= revision, f"{where}: {key!r} went back to {rows[key][0]}"
    digests = (row_digest(key, revision, value, None) for key, (revision, value) in rows.items())
    assert sum(digests) % HASH_MODULUS == node.replica(1).state.state_hash, where


@pytest.mark.parametrize("power", [False, True], ids=["kill -9", "power cut"])
def test_no_crash_between_two_steps_loses_what_was_acknowledged(
    tmp_path: Path, power: bool
) -> None:
    crash_at, finished, cuts = 0, False, 0
    while not finished:
        crash_at += 3 if crash_at < 60 else 7
        cluster = Cluster(tmp_path / str(crash_at), shards=1, factor=1, settings=HASTY)
        node, written = cluster.nodes[0], list[Written]()
        finished, where = True, ""
        for count, step in enumerate(steps(cluster, node, written)):
            where = f"crash behind step {count} ({step})"
            if count == crash_at:
                finished = False
                break
        cuts = max(cuts, node.replica(1).raft.log.snapshot.index)
        cluster.crash(node, power=power)
        node.restart()
        check(cluster, node, written, where)
        cluster.close()
    assert cuts > 0, "no log was ever cut: the test shows nothing about that"


def test_state_made_again_from_the_log_has_the_same_hash(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1, factor=1)
    node = cluster.nodes[0]
    for _ in steps(cluster, node, []):
        pass
    cluster.settle()
    replica = node.replica(1)
    entries = node.raft_db.entries(1, 1, replica.raft.last_index, 1 << 30)
    assert {entry.kind for entry in entries} >= {EntryKind.NOOP, EntryKind.COMMAND}
    other_db = DataDatabase.open(tmp_path / "again.db")
    arc = replica.state.extent.arc
    applied = fresh_applied(other_db, 1, replica.id, Configuration(), arc)
    again = ShardState(1, Table(other_db, applied.generation, RowCache(1 << 20)), applied)
    for entry in entries[: replica.state.index]:
        again.apply(entry)
    assert again.state_hash == replica.state.state_hash
    other_db.close()
    cluster.close()


def flushed_up_to(node: Node) -> int:
    return node.data_db.applied()[1].index


@pytest.mark.parametrize("reported", [False, True])
def test_a_crash_between_the_save_and_the_flush_replays_what_the_flush_had_not(
    tmp_path: Path, reported: bool
) -> None:
    cluster = Cluster(tmp_path, shards=1, factor=1)
    node = cluster.nodes[0]
    cluster.run(11_000)  # flushed so far
    before = flushed_up_to(node)
    replies = cluster.put(node, b"k", b"v")
    node.host.turn()
    node.log.work()
    if reported:
        node.log.report()
        cluster.settle()
        assert replies.one[0] == 0
    cluster.crash(node)
    node.restart()
    assert node.replica(1).state.index == before
    cluster.run_until(lambda: cluster.leader(1) is node)
    assert cluster.read(node, b"k") == b"v"
    cluster.close()


def test_a_flush_that_was_done_and_not_reported_is_not_applied_twice(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1, factor=1)
    node = cluster.nodes[0]
    replies = cluster.put(node, b"k", b"v")
    cluster.settle()
    assert replies.one[0] == 0
    node.host.flusher.when_flushed(lambda: None)
    node.data.work()
    index, state_hash = node.replica(1).state.index, node.replica(1).state.state_hash
    cluster.crash(node)
    node.restart()
    assert (node.replica(1).state.index, node.replica(1).state.state_hash) == (index, state_hash)
    cluster.close()


def test_the_log_is_cut_only_behind_what_a_checkpoint_has_made_durable(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=1, factor=1, settings=HASTY)
    node = cluster.nodes[0]
    node.data_db.checkpoint = lambda: False  # type: ignore[method-assign]
    for _ in steps(cluster, node, []):
        pass
    cluster.run(5000)
    assert flushed_up_to(node) > 1
    assert node.replica(1).raft.log.snapshot.index == 0
    del node.data_db.checkpoint
    cluster.run(5000)
    assert 0 < node.replica(1).raft.log.snapshot.index <= flushed_up_to(node)
    assert node.raft_db.load(1, flushed_up_to(node)).snapshot.index > 0
    cluster.close()


def interrupted_snapshot(tmp_path: Path, at: Callable[[Node], bool]) -> tuple[Cluster, Node]:
    """A follower that is crashed while it receives or installs a snapshot."""
    cluster = Cluster(tmp_path, shards=1, settings=HASTY)
    follower = cluster.join()
    cluster.run_until(lambda: cluster.grown(2))
    third = cluster.join()
    cluster.run_until(lambda: cluster.grown(3))
    cluster.crash(follower)
    cluster.run(3000)  # until it is not heard from any more: it would pin the log
    replies = [cluster.put(third, b"f%d" % n, VALUE) for n in range(12)]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    cluster.run(8000)
    follower.restart()
    follower.log.held = follower.data.held = True
    for _ in range(10_000):
        if at(follower):
            break
        _crawl(cluster, follower)
    assert at(follower)
    return cluster, follower


def _crawl(cluster: Cluster, follower: Node) -> None:
    """Let everybody else run, and the follower do one piece of work."""
    cluster.settle()
    if follower.log.jobs:
        follower.log.work() if follower.log.jobs[0].finished is None else follower.log.report()
    elif follower.data.jobs:
        follower.data.work() if follower.data.jobs[0].finished is None else follower.data.report()
    else:
        cluster.tick()


def is_received(node: Node) -> bool:
    return bool(node.host.effects.received)


def is_in_log(node: Node) -> bool:
    applied = node.data_db.applied().get(1)
    first = node.raft_db._catalog.firsts[1]
    return first.generation > 0 and (applied is None or applied.index < first.index)


def is_installed(node: Node) -> bool:
    first = node.raft_db._catalog.firsts[1]
    applied = node.data_db.applied().get(1)
    told = node.replica(1).raft.durable_index
    return first.generation > 0 and applied is not None and applied.index >= first.index > told


@pytest.mark.parametrize("at", [is_received, is_in_log, is_installed])
def test_a_crash_anywhere_within_an_installation_is_completed_at_the_next_start(
    tmp_path: Path, at: Callable[[Node], bool]
) -> None:
    cluster, follower = interrupted_snapshot(tmp_path, at)
    cluster.crash(follower)
    follower.restart()
    assert not follower.host.damaged
    cluster.run_until(cluster.converged)
    assert len(rows_of(follower)) == 12
    cluster.close()
