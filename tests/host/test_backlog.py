"""What is committed while there is no room in memory for more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad.host.request import Request
from kritad.raft.messages import Append, Heartbeat, SnapshotInstalled
from kritad.raft.types import Entry, EntryKind, SnapshotMeta
from kritad.state.command import pack_command
from kritad.storage.errors import Corrupt
from tests.host.flushing import Make, benches
from tests.host.lone import SHARD, LoneNode, Replies, configuration

OTHER = 2


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path, voters=1, shards=2)
    for shard in (SHARD, OTHER):
        lone.lead(shard)
    lone.settle()
    yield lone
    lone.close()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with benches(tmp_path) as make:
        yield make


def submit(node: LoneNode, op: Op, key: bytes, shard: int = SHARD) -> Replies:
    replies = Replies()
    fields = (b"v",) if op == Op.PUT else ()
    body = encode_body(op, 0, 0, 0, key, *fields) if op != Op.GET else b""
    request = Request(op, body, key, shard, replies, 1e12, write=op != Op.GET)
    replica = node.replicas[shard]
    if request.write:
        replica.propose(request, node.clock.wall_ms())
    else:
        replica.read(request)
    node.drive.mark(replica)
    return replies


def test_committed_entries_wait_for_room_in_their_order(node: LoneNode) -> None:
    node.has_room = lambda: False
    replies = [submit(node, Op.PUT, b"k%d" % number) for number in range(5)]
    node.settle()
    assert [len(each.all) for each in replies] == [1, 0, 0, 0, 0], "it is asked behind each"
    replies.append(submit(node, Op.PUT, b"k5"))
    node.settle()
    node.has_room = lambda: True
    node.settle()
    assert [len(each.all) for each in replies] == [1, 0, 0, 0, 0, 0], "nobody has said so"
    assert not node.drive.idle
    node.drive.resume()
    node.settle()
    assert [each.one[0] for each in replies] == [Status.OK] * 6
    assert node.replica.state.index == node.raft.commit
    assert node.drive.idle


def test_a_read_waits_for_the_entries_that_it_has_to_see(node: LoneNode) -> None:
    node.has_room = lambda: False
    for number in range(2):
        submit(node, Op.PUT, b"k%d" % number)
    node.settle()
    read = submit(node, Op.GET, b"k1")
    node.settle()
    assert read.all == []
    node.drive.resume()
    node.settle()
    status, body = read.one
    assert status == Status.OK
    assert isinstance(body, list)
    assert b"v" in body


def test_while_one_shard_finds_no_room_no_other_applies_anything(node: LoneNode) -> None:
    node.has_room = lambda: False
    submit(node, Op.PUT, b"a")
    node.settle()
    waiting = submit(node, Op.PUT, b"b", OTHER)
    node.settle()
    assert waiting.all == []
    node.drive.resume()
    node.settle()
    assert waiting.one[0] == Status.OK


def test_what_waits_of_a_replica_that_is_gone_is_dropped(node: LoneNode) -> None:
    node.has_room = lambda: False
    for number in range(3):
        submit(node, Op.PUT, b"k%d" % number)
    waiting = submit(node, Op.PUT, b"other", OTHER)
    node.settle()
    applied = node.replica.state.index
    node.raft.poison("it was found damaged")
    node.drive.forget([node.replica])
    assert waiting.all == []
    node.drive.resume()
    node.settle()
    assert node.replica.state.index == applied
    assert waiting.one[0] == Status.OK
    assert node.drive.idle


def test_a_replica_that_turns_out_to_be_damaged_leaves_nothing_waiting(node: LoneNode) -> None:
    for number in range(3):
        submit(node, Op.PUT, b"k%d" % number)

    def damaged(_entry: object) -> None:
        raise Corrupt(SHARD, "a row is damaged")

    node.replica.state.apply = damaged  # type: ignore[assignment, method-assign]
    node.settle()
    assert len(node.world.damage) == 1
    assert node.drive.idle


def test_an_installed_snapshot_takes_the_place_of_all_that_waited(tmp_path: Path) -> None:
    node = LoneNode(tmp_path)
    node.has_room = lambda: False
    data = [pack_command(1_000, Op.PUT, encode_body(Op.PUT, 0, 0, 0, b"k", b"v"))] * 4
    entries = [Entry(n, 1, EntryKind.COMMAND, each) for n, each in enumerate(data, 1)]
    node.step(Append(SHARD, 2, 1, 1, 0, 0, 4, 0, entries))
    node.settle()
    assert node.replica.state.index == 1
    meta = SnapshotMeta(50, 1, configuration(3), generation=7)
    node.step(SnapshotInstalled(SHARD, 2, 1, 1, meta))
    node.settle()
    assert "installed" in node.world.order
    node.drive.resume()
    node.step(Heartbeat(SHARD, 2, 1, 1, 50, 0))
    node.settle()
    assert node.replica.state.index == 1, "an entry of the log was applied behind the snapshot"
    assert node.drive.idle
    node.close()


def test_what_a_log_brings_at_once_is_flushed_in_pieces_where_there_is_little_room(
    make: Make,
) -> None:
    bench = make(memtable_bytes=64 << 20)
    node = bench.node
    bench.flusher.room_bytes = 0  # 4 MiB of pages: some 340 rows
    node.has_room = bench.flusher.has_room
    replies = [submit(node, Op.PUT, b"k%d" % number) for number in range(3_000)]
    node.settle()
    assert bench.flusher.busy, "it begins without waiting for a tick"
    answered = sum(len(each.all) for each in replies)
    assert 660 <= answered <= 690, "as much again may come while it is written"
    while bench.worker.run_one():
        node.settle()
    assert all(each.one[0] == Status.OK for each in replies)
    assert 330 <= bench.database.rows_max <= 345


def test_while_a_checkpoint_goes_before_the_flush_nothing_more_is_applied(make: Make) -> None:
    bench = make(memtable_bytes=5 << 10)  # less than a row here; and the WAL holds one or two
    node, before = bench.node, bench.applied
    node.has_room = bench.flusher.has_room
    bench.write(4, 10 << 10)
    assert bench.applied == before + 2, "one is being flushed, one is in memory"
    bench.worker.run_one()
    assert bench.flusher.busy
    node.settle()
    assert bench.applied == before + 2
    bench.worker.run_one()
    assert bench.database.did == [f"flush {before + 1}", "checkpoint"]
    node.settle()
    assert bench.applied == before + 3


def test_a_memtable_that_was_flushed_is_looked_at_again_when_it_has_grown_as_much(
    node: LoneNode,
) -> None:
    node.replica._look_bytes = 600  # three rows
    asked = []

    def has_room() -> bool:
        asked.append(node.replica.state.table.rows_changed)
        return True

    node.has_room = has_room
    for _ in range(2):
        for number in range(3):
            submit(node, Op.PUT, b"k%d" % number)
            node.settle()
        node.replica.state.freeze()
        node.replica.state.table.flushed()
    assert asked == [3, 3]


def test_with_room_enough_nothing_waits(make: Make) -> None:
    bench = make(memtable_bytes=64 << 20)
    bench.node.has_room = bench.flusher.has_room
    replies = [submit(bench.node, Op.PUT, b"k%d" % number) for number in range(1_000)]
    bench.node.settle()
    assert all(len(each.all) == 1 for each in replies)
    assert not bench.flusher.busy
