"""How many snapshots go at a time, how fast, and what stops or ends them: in virtual time.

The conversation is the real one, without sockets: what the sender asks goes straight to
the receiver of the other host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import attrs
import pytest
import trio
from trio.testing import MockClock

from krita.errors import Busy, KritaError, Status, Unavailable, to_wire
from krita.events import Reply
from krita.operations import Op
from kritad.host import snapshots as module
from kritad.host.receiving import _SILENT_MS, RECEIVES_MAX
from kritad.host.snapshots import SnapshotSender, _is_held, _Transfer
from kritad.host.surroundings import MACHINE
from kritad.storage.snapshots import SnapshotReader
from tests.host.cluster import SETTINGS, Cluster, Node, grown_cluster
from tests.host.lone import Replies

T = TypeVar("T")

SHARD = 1
ROWS = 40
ROW_BYTES = 300


@attrs.define
class Wire:
    """A connection whose other end is the receiver. ``on_ask`` may wait or raise."""

    bench: Bench
    on_ask: Callable[[int], object]
    answers: list[tuple[int, object]] = attrs.field(factory=list)

    def request(self, op: int, body: bytes, _timeout_ms: int) -> tuple[int, tuple[int, bytes]]:
        return 1, (op, body)

    async def send(self, data: tuple[int, bytes]) -> None:
        op, body = data
        bench = self.bench
        number = len(bench.asked)
        bench.asked.append(op)
        waited = self.on_ask(number)
        if isinstance(waited, float):
            await trio.sleep(waited)
        receive = bench.receiver.open if op == Op.SNAPSHOT_OPEN else bench.receiver.chunk
        replies = Replies()
        try:
            receive(body, replies)
        except KritaError as error:
            replies(error.status, to_wire(error))
        bench.target.data.run_all()
        self.answers.append(replies.one)

    async def receive(self) -> bytes:
        return b"an answer"

    def receive_data(self, _data: bytes) -> list[Reply]:
        return [Reply(1, *self.answers.pop(0))]

    def close(self) -> None:
        """Nothing is open."""


@attrs.define
class Bench:
    """A leader, and a follower that has been cut off from it and lacks some rows."""

    cluster: Cluster
    source: Node
    target: Node
    asked: list[int] = attrs.field(factory=list)  # operations, in order
    on_ask: Callable[[int], object] = lambda _number: None

    @property
    def receiver(self):  # type: ignore[no-untyped-def]
        return self.target.receiver

    @property
    def recipient(self) -> int:
        return self.target.replica(SHARD).id

    async def dial(self, *_args: object) -> tuple[Wire, Wire, None]:
        wire = Wire(self, self.on_ask)
        return wire, wire, None

    def send(self, *, move_bytes_per_s: int = 0) -> tuple[bool, float]:
        """Through the real sender, until the core is told: whether it arrived, and how
        many seconds of virtual time that took."""
        host = self.source.host
        host.settings = attrs.evolve(host.settings, move_bytes_per_s=move_bytes_per_s)
        told: list[bool] = []

        def hear(_sender: SnapshotSender, _recipient: int, sent: bool) -> None:
            told.append(sent)

        took_s = self.run_sender(hear)
        (sent,) = told
        return sent, took_s

    def run_sender(self, hear: Callable[[SnapshotSender, int, bool], None]) -> float:
        """Ask for one snapshot; ``hear`` is told what the core is, and may ask for more."""
        host, replica = self.source.host, self.source.replica(SHARD)
        host.transport.address_of = lambda _: "n:1"  # type: ignore[method-assign,assignment]

        async def run() -> float:
            around = attrs.evolve(MACHINE, off_loop=_at_once)
            async with trio.open_nursery() as nursery:
                sender = SnapshotSender(host, self.source.data_db, nursery, around)
                replica.raft.snapshot_sent = partial(hear, sender)  # type: ignore[method-assign]
                host.effects.snapshots_wanted = [(replica, self.recipient)]
                began_s = trio.current_time()
                sender.start_wanted()
            return trio.current_time() - began_s

        return trio.run(run, clock=MockClock(autojump_threshold=0))

    def arrived(self) -> bool:
        """Whether the follower has the leader's rows now."""
        self.cluster.settle()
        one, other = (node.replica(SHARD).state for node in (self.source, self.target))
        return (one.index, one.state_hash) == (other.index, other.state_hash)

    @property
    def opened(self) -> int:
        return self.asked.count(Op.SNAPSHOT_OPEN)


async def _at_once(work: Callable[..., T], *args: object) -> T:
    return work(*args)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cluster = grown_cluster(tmp_path, shards=4)
    cluster.run(2000)
    source = cluster.leader(SHARD)
    assert source is not None
    target = next(node for node in cluster.nodes if node is not source)
    cluster.cut(target, *(node for node in cluster.nodes if node is not target))
    keys = [
        key for key in map(b"k%d".__mod__, range(8 * ROWS)) if source.host.shard_of(key) == SHARD
    ]
    replies = [cluster.put(source, key, b"v" * ROW_BYTES) for key in keys[:ROWS]]
    assert len(replies) == ROWS
    cluster.run_until(lambda: all(reply.all for reply in replies))
    source.host.flusher.when_flushed(lambda: None)
    source.data.run_all()
    made = Bench(cluster, source, target)
    monkeypatch.setattr(module, "dial", made.dial)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    yield made
    cluster.close()


# --- how fast ------------------------------------------------------------------------------


def test_a_transfer_takes_as_long_as_the_rate_says(bench: Bench) -> None:
    sent, took_s = bench.send(move_bytes_per_s=1000)
    assert sent
    assert took_s == pytest.approx(ROWS * ROW_BYTES / 1000, rel=0.35)
    assert bench.arrived()


# --- how long ------------------------------------------------------------------------------


def test_a_transfer_may_take_any_time_as_long_as_something_arrives(bench: Bench) -> None:
    bench.on_ask = lambda _number: 29.0  # a slice; more than ten minutes in all
    sent, took_s = bench.send()
    assert sent
    assert took_s > 600
    assert bench.opened == 1


def test_a_transfer_of_which_nothing_arrives_ends_after_a_minute(bench: Bench) -> None:
    def lost(number: int) -> None:
        if number > 3:
            raise OSError("connection reset")

    bench.on_ask = lost
    sent, took_s = bench.send()
    assert not sent
    assert 60 <= took_s <= 75
    assert bench.source.host.transfers.documents() == []


def test_a_broken_connection_costs_one_slice_and_not_what_came_before(bench: Bench) -> None:
    broken = {5, 11, 12}

    def lost(number: int) -> None:
        if number in broken:
            raise OSError("connection reset")

    bench.on_ask = lost
    assert bench.send()[0]
    assert bench.opened == 1 + len(broken), "12 was an opening, too"
    assert len(bench.asked) == bench.opened + ROWS // 2 + 2, "two rows a slice, two sent again"
    assert bench.arrived()


def test_failures_are_told_later_and_later_so_that_the_core_does_not_spin(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NO_PROGRESS_S", 0.0)

    def lost(_number: int) -> None:
        raise OSError("no route to host")

    bench.on_ask = lost
    times: list[float] = []

    def again(sender: SnapshotSender, recipient: int, sent: bool) -> None:
        assert not sent
        times.append(trio.current_time())
        if len(times) < 7:
            bench.source.host.effects.snapshots_wanted = [(bench.source.replica(SHARD), recipient)]
            sender.start_wanted()

    bench.run_sender(again)
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 1.0
    assert pauses[-1] == pytest.approx(8.0)


def test_a_shard_that_is_written_faster_than_it_is_sent_is_given_up(bench: Bench) -> None:
    marks = bench.source.replica(SHARD).marks

    def written(_number: int) -> None:
        marks.total_bytes += SETTINGS.log_tail_bytes

    bench.on_ask = written
    assert not bench.send()[0]


def test_what_is_written_meanwhile_may_be_as_much_as_the_state(bench: Bench) -> None:
    marks = bench.source.replica(SHARD).marks

    def written(number: int) -> None:
        if number < 3:
            marks.total_bytes += SETTINGS.log_tail_bytes

    bench.on_ask = written
    assert bench.send()[0]


def test_a_leader_that_is_none_any_more_stops_sending(bench: Bench) -> None:
    raft = bench.source.replica(SHARD).raft
    bench.on_ask = lambda number: raft.step_down() if number == 4 else None
    assert not bench.send()[0]
    assert len(bench.asked) == 5


def test_a_transfer_ends_with_the_term_in_which_it_was_asked_for(bench: Bench) -> None:
    """The leader was elected again, and its core asks for another: the two would take each
    other's place at the recipient for ever. What came of the first is none of its business."""
    cluster, replica = bench.cluster, bench.source.replica(SHARD)

    def elect_again(number: int) -> None:
        if number == 4:
            replica.raft.step_down()
            bench.source.host.drive.mark(replica)
            cluster.run(50)
            replica.raft.campaign()
            bench.source.host.drive.mark(replica)
            cluster.run_until(lambda: replica.leads)

    bench.on_ask = elect_again
    told: list[bool] = []
    bench.run_sender(lambda _sender, _recipient, sent: told.append(sent))
    assert told == []
    assert len(bench.asked) == 5
    assert bench.source.host.transfers.documents() == []


# --- people, and the disk ------------------------------------------------------------------


def test_a_transfer_that_is_held_goes_on_where_it_was(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"until": 0.0}
    monkeypatch.setattr(module, "_is_held", lambda *_: trio.current_time() < held["until"])

    def hold(number: int) -> None:
        if number == 4:
            held["until"] = trio.current_time() + 20

    bench.on_ask = hold
    sent, took_s = bench.send()
    assert sent
    assert took_s >= 20
    assert bench.opened == 1


def test_a_transfer_that_is_held_for_long_lets_go_of_the_disk_and_begins_anew(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = {"until": 0.0}
    monkeypatch.setattr(module, "_is_held", lambda *_: trio.current_time() < held["until"])
    closed: list[float] = []
    close = SnapshotReader.close

    def closing(reader: SnapshotReader) -> None:
        closed.append(trio.current_time())
        close(reader)

    monkeypatch.setattr(SnapshotReader, "close", closing)

    def hold(number: int) -> None:
        if number == 4:
            held["until"] = trio.current_time() + 3600

    bench.on_ask = hold
    sent, took_s = bench.send()
    assert sent
    assert took_s >= 3600
    assert closed[1] - closed[0] > 3500, "the first went on holding the file"
    assert len(closed) == 2
    assert bench.arrived()


def test_only_a_move_is_held_and_never_the_meta_shard(bench: Bench) -> None:
    host, replica = bench.source.host, bench.source.replica(SHARD)
    voter, learner = bench.recipient, 99
    assert not _is_held(host, replica, learner)
    view = host.view
    host.view = attrs.evolve(view, paused=True)
    assert _is_held(host, replica, learner)
    assert not _is_held(host, replica, voter), "a voter that lags is no move"
    assert not _is_held(host, bench.source.replica(0), learner)
    record = attrs.evolve(view.shards[SHARD], held=True)
    host.view = attrs.evolve(view, shards={**view.shards, SHARD: record})
    assert _is_held(host, replica, learner)
    assert not _is_held(host, bench.source.replica(2), learner)
    host.view = view
    host.leadership.space_low = True
    assert _is_held(host, replica, voter)
    assert not _is_held(host, bench.source.replica(0), voter)


def test_people_see_how_far_a_transfer_is(bench: Bench) -> None:
    seen: list[dict[str, object]] = []

    def look(_number: int) -> float:
        seen.extend(bench.source.host.transfers.documents())
        bench.cluster.clock.advance(1000)
        return 0.1

    bench.on_ask = look
    assert bench.send()[0]
    last = seen[-1]
    assert (last["shard"], last["replica"], last["node"]) == (
        SHARD, bench.recipient, bench.target.number
    )  # fmt: skip
    assert last["state"] == "sending"
    sent = [document["sent_bytes"] for document in seen]
    assert sent == sorted(sent)  # type: ignore[type-var]
    total = bench.source.replica(SHARD).state.extent.bytes
    assert last["total_bytes"] == total
    assert total * 0.7 < last["sent_bytes"] < total  # type: ignore[operator]
    assert 500 < last["bytes_per_s"] < 2000  # type: ignore[operator]
    assert bench.source.host.transfers.sent_bytes > total


# --- how many ------------------------------------------------------------------------------


@attrs.define
class Doors:
    """Transfers of several shards that knock at the target's door."""

    bench: Bench
    readers: list[SnapshotReader] = attrs.field(factory=list)

    def transfer(self, shard: int) -> _Transfer:
        source, target = self.bench.source, self.bench.target
        reader = SnapshotReader(source.data_db.path, source.data_db.applied()[shard])
        self.readers.append(reader)
        recipient = target.replica(shard).id
        return _Transfer(
            source.host, source.replica(shard), recipient, target.number, "n:1", reader
        )

    def open(self, transfer: _Transfer) -> Replies:
        replies = Replies()
        self.bench.receiver.open(transfer._opening(), replies)
        self.bench.target.data.run_all()
        return replies

    def chunk(self, transfer: _Transfer) -> Replies:
        replies = Replies()
        body = transfer._chunk_body(transfer._reader.next_chunk(100))
        self.bench.receiver.chunk(body, replies)
        self.bench.target.data.run_all()
        return replies


@pytest.fixture
def doors(bench: Bench) -> Iterator[Doors]:
    made = Doors(bench)
    yield made
    for reader in made.readers:
        reader.close()


def test_a_node_takes_two_snapshots_at_a_time(doors: Doors) -> None:
    assert RECEIVES_MAX == 2
    for shard in (1, 2):
        assert doors.open(doors.transfer(shard)).one[0] == Status.OK
    with pytest.raises(Busy, match="is receiving 2 snapshots"):
        doors.open(doors.transfer(3))
    assert doors.open(doors.transfer(0)).one[0] == Status.OK, "the meta shard's is not counted"
    assert doors.open(doors.transfer(2)).one[0] == Status.OK, "another of the same shard is no more"


def test_an_earlier_leaders_transfer_does_not_take_the_place_of_a_later_ones(doors: Doors) -> None:
    raft = doors.bench.source.replica(SHARD).raft
    earlier = doors.transfer(SHARD)
    raft.term += 1
    later, again = doors.transfer(SHARD), doors.transfer(SHARD)
    for transfer in (earlier, later):
        assert doors.open(transfer).one[0] == Status.OK
    with pytest.raises(Unavailable, match=f"a leader of term {raft.term}"):
        doors.open(earlier)
    assert doors.chunk(later).one[0] == Status.OK
    assert doors.open(again).one[0] == Status.OK, "it has begun anew"


def test_a_place_that_nobody_comes_for_goes_to_the_next(doors: Doors) -> None:
    first, second = doors.transfer(1), doors.transfer(2)
    doors.open(first)
    doors.bench.cluster.clock.advance(int(_SILENT_MS / 2))
    doors.open(second)
    doors.bench.cluster.clock.advance(int(_SILENT_MS / 2))
    assert doors.open(doors.transfer(3)).one[0] == Status.OK
    with pytest.raises(Unavailable, match="no snapshot of shard 1"):
        doors.chunk(first)
    with pytest.raises(Busy):
        doors.open(first)
    assert doors.chunk(second).one[0] == Status.OK


def test_a_place_of_a_replica_that_has_left_is_free(doors: Doors) -> None:
    for shard in (1, 2):
        doors.open(doors.transfer(shard))
    third = doors.transfer(3)
    del doors.bench.target.host.replicas[2]
    assert doors.open(third).one[0] == Status.OK


def test_a_receiver_that_is_busy_is_asked_again_and_that_is_no_failure(
    bench: Bench, doors: Doors
) -> None:
    for shard in (2, 3):
        doors.open(doors.transfer(shard))

    def make_room(number: int) -> None:
        if number == 3:
            bench.cluster.clock.advance(int(_SILENT_MS) + 1)

    bench.on_ask = make_room
    sent, took_s = bench.send()
    assert sent
    assert bench.opened == 4
    assert 3 <= took_s <= 12
