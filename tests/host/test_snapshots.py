"""Sending and receiving a shard's state: resumed, damaged, overtaken, refused."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from krita.codec import decode_body, encode, encode_body
from krita.errors import KritaError, Outcome, Status, Unavailable, to_wire
from krita.operations import Op
from kritad.access import Principal
from kritad.host import snapshots as snapshots_module
from kritad.host.replica import Replica
from kritad.host.snapshots import SnapshotReceiver, SnapshotSender, _Transfer
from kritad.storage.errors import Corrupt, StoreFailed
from kritad.storage.snapshots import SnapshotChunk, SnapshotReader
from tests.host.cluster import Cluster, Node, grown_cluster, key_in
from tests.host.lone import Replies
from tests.server.service import MemoryService, running
from tests.storage.state import scanned

SHARD = 1


@attrs.define
class Bench:
    """A leader with state, and a follower that has been cut off from it."""

    cluster: Cluster
    source: Node
    target: Node
    reader: SnapshotReader
    transfer: _Transfer

    @property
    def receiver(self) -> SnapshotReceiver:
        return self.target.receiver

    @property
    def recipient(self) -> Replica:
        return self.target.replica(SHARD)

    def open(self, transfer: _Transfer | None = None) -> Replies:
        replies = Replies()
        self.receiver.open((transfer or self.transfer)._opening(), replies)
        self.target.data.run_all()
        return replies

    def chunk(self, chunk: SnapshotChunk, transfer: _Transfer | None = None) -> Replies:
        replies = Replies()
        self.receiver.chunk((transfer or self.transfer)._chunk_body(chunk), replies)
        self.target.data.run_all()
        return replies

    def chunks(self) -> Iterator[SnapshotChunk]:
        while True:
            chunk = self.reader.next_chunk(2000)
            yield chunk
            if chunk.last:
                return

    def another_transfer(self) -> _Transfer:
        return _Transfer(
            self.source.host,
            self.source.replica(SHARD),
            self.recipient.id,
            self.target.number,
            "n:1",
            self.reader,
        )


@pytest.fixture(scope="module")
def bench_for_fuzzing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    yield from make(tmp_path_factory.mktemp("fuzz"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield from make(tmp_path)


def make(path: Path) -> Iterator[Bench]:
    cluster = grown_cluster(path, shards=1)
    source = cluster.leader(SHARD)
    assert source is not None
    target = next(node for node in cluster.nodes if node is not source)
    cluster.cut(target, *(node for node in cluster.nodes if node is not target))
    replies = [cluster.put(source, b"k%d" % n, b"v" * 300) for n in range(30)]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    source.host.flusher.when_flushed(lambda: None)
    source.data.run_all()
    reader = SnapshotReader(source.data_db.path, source.data_db.applied()[SHARD])
    transfer = _Transfer(
        source.host, source.replica(SHARD), target.replica(SHARD).id, target.number, "n:1", reader
    )
    yield Bench(cluster, source, target, reader, transfer)
    reader.close()
    cluster.close()


def is_receiving(bench: Bench) -> bool:
    query = "SELECT count(*) FROM receiving WHERE shard=?"
    return bool(bench.target.data_db._reader.execute(query, (SHARD,)).fetchone()[0])


def test_a_transfer_installs_the_senders_state_at_its_index(bench: Bench) -> None:
    assert bench.open().one == (0, [0, b""])
    numbers = [bench.chunk(chunk).one[1][0] for chunk in bench.chunks()]  # type: ignore[index]
    assert len(numbers) > 3
    assert numbers == list(range(1, len(numbers) + 1))
    bench.cluster.settle()
    assert bench.recipient.state.index == bench.reader.applied.index
    assert bench.recipient.state.state_hash == bench.reader.applied.state_hash
    assert bench.target.host.effects.received == {}


def test_a_transfer_that_was_broken_off_goes_on_where_it_stopped(bench: Bench) -> None:
    bench.open()
    chunks = bench.chunks()
    for _ in range(2):
        bench.chunk(next(chunks))
    assert bench.open().one == (0, [2, b""])
    for chunk in chunks:
        bench.chunk(chunk)
    bench.cluster.settle()
    assert bench.recipient.state.index == bench.reader.applied.index


def test_a_transfer_goes_on_after_the_receiver_was_started_again(bench: Bench) -> None:
    bench.open()
    chunks = bench.chunks()
    for _ in range(2):
        bench.chunk(next(chunks))
    bench.target.host.flusher.when_flushed(lambda: None)  # what the shard's arc is, for one
    bench.target.data.run_all()
    bench.cluster.crash(bench.target)
    bench.target.restart()
    bench.cluster.cut(bench.target, *(n for n in bench.cluster.nodes if n is not bench.target))
    assert bench.open().one == (0, [2, b""])
    for chunk in chunks:
        bench.chunk(chunk)
    bench.cluster.settle()
    assert bench.recipient.state.state_hash == bench.reader.applied.state_hash


def test_a_chunk_that_comes_twice_is_answered_twice_and_stored_once(bench: Bench) -> None:
    bench.open()
    chunk = next(bench.chunks())
    assert bench.chunk(chunk).one == (0, [1, []])
    assert bench.chunk(chunk).one == (0, [1, []])


def test_a_damaged_chunk_is_refused_and_costs_the_node_nothing(bench: Bench) -> None:
    bench.open()
    chunk = next(bench.chunks())
    replies = bench.chunk(attrs.evolve(chunk, crc=chunk.crc ^ 1))
    assert replies.one[0] == Status.BAD_REQUEST
    assert bench.target.host.failure is None
    assert bench.chunk(chunk).one == (0, [1, []])


@pytest.mark.parametrize(
    "row",
    [
        [b"k", 1 << 63, b"v", None, 0],
        [b"k", 1, b"v", None, -(1 << 64)],
        [1 << 63, b"blob"],
        "no row",
        [],
    ],
)
def test_a_row_that_no_disk_could_keep_is_refused_and_costs_the_node_nothing(
    bench: Bench, row: list[object]
) -> None:
    bench.open()
    replies = bench.chunk(SnapshotChunk(0, [row], 0, False))
    assert replies.one[0] == Status.BAD_REQUEST
    assert bench.target.host.failure is None
    bench.target.data_db.checkpoint()  # raises if the store was given up


def test_rows_that_do_not_add_up_to_the_announced_hash_are_not_installed(bench: Bench) -> None:
    fields = decode_body(Op.SNAPSHOT_OPEN, bench.transfer._opening())
    meta = fields[5]
    assert isinstance(meta, list)
    meta[3] ^= 1
    bench.receiver.open(encode_body(Op.SNAPSHOT_OPEN, *fields), Replies())
    bench.target.data.run_all()
    last = [bench.chunk(chunk) for chunk in bench.chunks()][-1]
    assert last.one[0] == Status.BAD_REQUEST
    assert bench.target.host.failure is None
    assert not is_receiving(bench)
    assert bench.recipient.state.index < bench.reader.applied.index


def test_a_chunk_of_a_transfer_that_nobody_opened_asks_to_open_it(bench: Bench) -> None:
    with pytest.raises(KritaError, match="no snapshot of shard 1"):
        bench.chunk(next(bench.chunks()))


def test_a_snapshot_for_a_replica_that_is_not_here_is_refused(bench: Bench) -> None:
    del bench.target.host.replicas[SHARD]
    with pytest.raises(KritaError, match="is not here"):
        bench.open()


def test_a_second_transfer_takes_the_place_of_the_first(bench: Bench) -> None:
    bench.open()
    first = next(bench.chunks())
    second = bench.another_transfer()
    assert bench.open(second).one[1][0] == 0  # type: ignore[index]
    with pytest.raises(KritaError, match="no snapshot of shard 1"):
        bench.chunk(first)
    bench.reader.seek(0)
    for chunk in bench.chunks():
        bench.chunk(chunk, second)
    bench.cluster.settle()
    assert bench.recipient.state.index == bench.reader.applied.index


def test_no_other_transfer_begins_while_a_snapshot_waits_for_its_installation(
    bench: Bench,
) -> None:
    bench.target.log.held = True
    bench.open()
    for chunk in bench.chunks():
        bench.chunk(chunk)
    bench.cluster.settle()
    assert bench.target.host.effects.received, "it is in the log's queue, not installed"
    with pytest.raises(KritaError, match="about to install"):
        bench.open(bench.another_transfer())
    bench.target.log.held = False
    bench.cluster.settle()
    assert bench.recipient.state.index == bench.reader.applied.index
    assert bench.open(bench.another_transfer()).one[1][0] == 0  # type: ignore[index]


def test_one_that_is_damaged_while_its_snapshot_waits_to_be_saved_leaves_its_successor_in_peace(
    tmp_path: Path,
) -> None:
    """What had been received was never installed, and nobody forgot it: the successor was told
    for ever that a snapshot of its shard was about to be installed."""
    cluster = grown_cluster(tmp_path)
    leader = cluster.leader(1)
    assert leader is not None
    victim = next(n for n in cluster.nodes if n not in (leader, cluster.leader(2)))
    cluster.cut(victim, *[node for node in cluster.nodes if node is not victim])
    key = key_in(leader, 1)
    replies = [cluster.put(leader, key, b"x" * 1_500) for _ in range(200)]
    cluster.run_until(lambda: all(reply.all for reply in replies))
    cluster.run(34_000)  # a flush, a checkpoint: the leader cuts its log
    victim.log.held = True
    cluster.heal()
    cluster.put(leader, key_in(leader, 2), b"v")  # the log's disk is busy with that
    cluster.run_until(lambda: bool(victim.host.effects.received))
    before = victim.replica(1).id
    victim.host.on_damage(victim.replica(1), Corrupt(1, "a row is damaged"))
    victim.log.held = False
    cluster.run_until(lambda: 1 in victim.host.replicas and victim.replica(1).id > before)
    cluster.run_until(cluster.converged)
    cluster.close()


def test_a_snapshot_that_the_log_has_overtaken_leaves_nothing_behind(bench: Bench) -> None:
    bench.open()
    chunks = list(bench.chunks())
    for chunk in chunks[:-1]:
        bench.chunk(chunk)
    bench.cluster.heal()
    bench.cluster.run_until(lambda: bench.recipient.state.index >= bench.reader.applied.index)
    index = bench.recipient.state.index
    assert bench.chunk(chunks[-1]).one[0] == Status.OK
    bench.cluster.settle()
    assert bench.recipient.state.index == index
    assert bench.target.host.effects.received == {}
    assert not is_receiving(bench)


def test_a_transfer_for_a_replica_that_leaves_meanwhile_ends_without_harm(bench: Bench) -> None:
    bench.open()
    chunks = list(bench.chunks())
    for chunk in chunks[:-1]:
        bench.chunk(chunk)
    replies = Replies()
    bench.receiver.chunk(bench.transfer._chunk_body(chunks[-1]), replies)
    del bench.target.host.replicas[SHARD]
    bench.target.data.run_all()
    assert len(replies.all) == 1
    assert bench.target.host.effects.received == {}


def test_what_came_in_for_a_replica_that_was_made_anew_meanwhile_is_not_gone_on_with(
    bench: Bench,
) -> None:
    """It was dropped and swept with that replica; the rest would be nobody's for ever."""
    bench.open()
    chunks = list(bench.chunks())
    bench.chunk(chunks[0])
    bench.target.host.replicas[SHARD] = copy.copy(bench.recipient)
    with pytest.raises(KritaError, match="no snapshot of shard 1"):
        bench.chunk(chunks[1])


def test_a_disk_that_fails_while_receiving_ends_the_node_and_answers(bench: Bench) -> None:
    bench.open()
    bench.target.data.fails_with = StoreFailed("I/O error")
    replies = bench.chunk(next(bench.chunks()))
    assert replies.one[0] == Status.INTERNAL
    assert replies.outcome == Outcome.UNKNOWN
    assert isinstance(bench.target.host.failure, StoreFailed)


items = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    op=st.sampled_from(["open", "chunk"]),
    place=st.integers(0, 6),
    inner=st.integers(0, 4),
    item=items,
)
def test_a_malformed_body_is_an_error_of_its_sender_only(
    bench_for_fuzzing: Bench, op: str, place: int, inner: int, item: object
) -> None:
    bench = bench_for_fuzzing
    if op == "open":
        fields = decode_body(Op.SNAPSHOT_OPEN, bench.transfer._opening())
        meta = fields[5]
        assert isinstance(meta, list)
        if place < len(fields):
            fields[place] = item
        else:
            meta[inner] = item
        receive: Callable[[bytes, Replies], None] = bench.receiver.open
    else:
        bench.open()
        bench.reader.seek(0)
        body = bench.transfer._chunk_body(bench.reader.next_chunk(500))
        fields = decode_body(Op.SNAPSHOT_CHUNK, body)
        fields[place] = item
        receive = bench.receiver.chunk
    replies = Replies()
    try:
        receive(encode(fields), replies)
    except KritaError:
        assert replies.all == []
    else:
        bench.target.data.run_all()
        assert len(replies.all) == 1
    assert bench.target.host.failure is None


class Receiving(MemoryService):
    """A server in front of the target's receiver."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        self.identity = bench.target.identity
        self.refusals = 0
        self.opened = 0

    def submit(
        self,
        op: int,
        body: bytes,
        principal: Principal,
        _deadline_ms: float | None,
        _flags: int,
        respond: Callable[[int, object], None],
    ) -> None:
        assert principal.kind == "peer"
        receive = self.bench.receiver.chunk
        if op == Op.SNAPSHOT_OPEN:
            self.opened += 1
            receive = self.bench.receiver.open
        try:
            if self.refusals:
                self.refusals -= 1
                raise Unavailable("not now")
            receive(body, respond)
        except KritaError as error:
            respond(int(error.status), to_wire(error))
        self.bench.target.data.run_all()


async def send(bench: Bench, service: Receiving, port: int) -> tuple[int, bool]:
    """Send through the real sender; whom the core was told of, and what."""
    host, replica = bench.source.host, bench.source.replica(SHARD)
    host.transport.peer_key = service.access.peer_key
    host.transport.address_of = lambda node: f"127.0.0.1:{port}"  # type: ignore[method-assign]  # noqa: ARG005
    told: list[tuple[int, bool]] = []
    replica.raft.snapshot_sent = lambda replica, ok: told.append((replica, ok))  # type: ignore[method-assign]
    host.effects.snapshots_wanted = [(replica, bench.recipient.id)]
    async with trio.open_nursery() as nursery:
        SnapshotSender(host, bench.source.data_db, nursery).start_wanted()
    (result,) = told
    return result


async def test_a_snapshot_travels_over_a_connection_of_its_own(bench: Bench) -> None:
    service = Receiving(bench)
    async with running(service=service) as server:
        assert await send(bench, service, server.port) == (bench.recipient.id, True)
    bench.cluster.settle()
    assert bench.recipient.state.state_hash == bench.reader.applied.state_hash


async def test_a_sender_that_was_started_again_sends_only_what_has_changed(bench: Bench) -> None:
    """The transfer is another one, of a later state; the rows are mostly the same."""
    bench.open()
    for chunk in list(bench.chunks())[:-1]:
        assert bench.chunk(chunk).one[0] == Status.OK
    bench.reader.close()
    source = bench.source
    bench.cluster.crash(source)
    source.restart()
    bench.cluster.run_until(lambda: source.replica(SHARD).leads)
    rows = source.data_db.applied()[SHARD].rows
    keys = [key for key, _ in scanned(source.data_db, rows, None, 9)]
    changed = bench.cluster.put(source, keys[5], b"later")
    bench.cluster.run_until(lambda: bool(changed.all))
    source.host.flusher.when_flushed(lambda: None)
    source.data.run_all()
    anew = source.data_db.applied()[SHARD]
    service = Receiving(bench)
    async with running(service=service) as server:
        assert await send(bench, service, server.port) == (bench.recipient.id, True)
    bench.cluster.settle()
    assert bench.recipient.state.state_hash == anew.state_hash
    assert source.host.transfers.sent_bytes < source.replica(SHARD).state.extent.bytes / 2


async def test_a_transfer_that_is_refused_for_the_moment_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "_PAUSE_S", 0.001)
    service = Receiving(bench)
    service.refusals = 2
    async with running(service=service) as server:
        assert await send(bench, service, server.port) == (bench.recipient.id, True)
    assert service.opened == 3


async def test_a_transfer_that_nobody_takes_is_reported_as_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "_PAUSE_S", 0.001)
    monkeypatch.setattr(snapshots_module, "_NO_PROGRESS_S", 0.01)
    service = Receiving(bench)
    service.refusals = 1 << 30
    async with running(service=service) as server:
        assert await send(bench, service, server.port) == (bench.recipient.id, False)


async def test_a_node_that_cannot_be_reached_is_reported_as_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "_PAUSE_S", 0.001)
    monkeypatch.setattr(snapshots_module, "_NO_PROGRESS_S", 0.01)
    service = Receiving(bench)
    async with running(service=service) as server:
        port = server.port
    assert await send(bench, service, port) == (bench.recipient.id, False)


async def test_a_damaged_row_met_on_its_way_out_silences_the_senders_replica(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_reader: SnapshotReader, _bytes_max: int) -> SnapshotChunk:
        raise Corrupt(SHARD, "a bit was flipped")

    monkeypatch.setattr(SnapshotReader, "next_chunk", damaged)
    service = Receiving(bench)
    async with running(service=service) as server:
        assert await send(bench, service, server.port) == (bench.recipient.id, False)
    assert bench.source.replica(SHARD).raft.poisoned
    assert SHARD in bench.source.host.damaged
