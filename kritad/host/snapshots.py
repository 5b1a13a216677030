"""A shard's state on its way to a replica that is too far behind for the log.

The sender flushes the shard, opens a reader of its own on data.db (a read
transaction: writes go on meanwhile), and sends the rows in slices as requests on
a connection of their own, each answered before the next is read. The receiver
stores each slice durably in a generation of its own, so that a connection that
breaks goes on where it stopped, and steps the finished snapshot into the
replica's core, which alone decides whether it is wanted (raft/replication.py).

Rules:
* At most ``SENDS_MAX`` go out at a time; the rest of those that want one wait.
* A slice is at most ``CHUNK_BYTES``: nothing here holds the loop or the file
  for long, and heartbeats are on another connection anyway.
* A row that turns out to be damaged on its way out costs the sender's replica its life,
  as one that is met while applying does.
* The end of a transfer, good or bad, is reported to the leader's core exactly
  once; a core that still needs the snapshot asks again.
* A transfer has ``_TRANSFER_TIMEOUT_S``: while it reads, no checkpoint of data.db
  ends and so no log is cut (raft.md B35).
* While a received snapshot waits for its installation, no other is taken up: its
  generation is the only one that nobody sweeps away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

import attrs
import trio

from krita.address import parse
from krita.codec import decode_body, encode_body
from krita.connection import Connection
from krita.errors import (
    InternalError,
    KritaError,
    Outcome,
    ProtocolError,
    Status,
    Unavailable,
    from_wire,
    to_wire,
)
from krita.events import Goodbye, Reply
from krita.operations import Op
from kritad.buggify import buggify
from kritad.host.host import Host
from kritad.host.link import dial, peer_hello
from kritad.host.replica import Replica
from kritad.host.request import Respond
from kritad.host.surroundings import MACHINE, Surroundings
from kritad.host.transport import BULK
from kritad.host.writer import Finished
from kritad.raft.configuration import decode_configuration
from kritad.raft.messages import SnapshotInstalled
from kritad.raft.types import SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.errors import Corrupt, StorageError
from kritad.storage.rows import Applied
from kritad.storage.snapshots import (
    SnapshotChunk,
    SnapshotReader,
    SnapshotRefused,
    SnapshotWriter,
)
from kritad.stream import Stream

log = logging.getLogger(__name__)

T = TypeVar("T")

SENDS_MAX = 2
CHUNK_BYTES = 256 << 10
_CHUNK_TIMEOUT_S = 30.0
_TRANSFER_TIMEOUT_S = 600.0
_ATTEMPTS_MAX = 5
_PAUSE_S = 0.5
_NUMBER_MAX = (1 << 63) - 1  # what SQLite keeps


class SnapshotSender:
    """Starts a task for every snapshot that a leader's core asks for."""

    def __init__(
        self,
        host: Host,
        data_db: DataDatabase,
        nursery: trio.Nursery,
        surroundings: Surroundings = MACHINE,
    ) -> None:
        self._host = host
        self._data_db = data_db
        self._nursery = nursery
        self._surroundings = surroundings
        self._slots = trio.CapacityLimiter(SENDS_MAX)

    def start_wanted(self) -> None:
        """Start what was asked for since the last call."""
        wanted, self._host.snapshots_wanted = self._host.snapshots_wanted, []
        for replica, recipient in wanted:
            self._nursery.start_soon(self._send_one, replica, recipient)

    async def _send_one(self, replica: Replica, recipient: int) -> None:
        sent = False
        node = replica.raft.configuration.nodes.get(recipient, 0)
        try:
            async with self._slots:
                sent = await self._send(replica, recipient, node)
        except (OSError, trio.TooSlowError) as problem:
            self._note(replica, node, problem)
        except Corrupt as damage:
            # Found here, because nobody has read that row for long. A leader that cannot
            # bring its state to others has to leave that to a sound one.
            self._host.on_damage(replica, damage)
        except (KritaError, StorageError) as problem:
            self._note(replica, node, problem)
        replica.raft.snapshot_sent(recipient, sent)
        self._host.drive.mark(replica)

    def _note(self, replica: Replica, node: int, problem: Exception) -> None:
        text = str(problem) or type(problem).__name__
        log.warning("shard %d: the snapshot for node %d failed: %s", replica.shard, node, text)

    async def _send(self, replica: Replica, recipient: int, node: int) -> bool:
        address = self._host.transport.address_of(node)
        if address is None or not replica.leads:
            return False
        flushed = trio.Event()
        self._host.flusher.when_flushed(flushed.set)
        await flushed.wait()
        known = self._data_db.applied().get(replica.shard)
        if known is None or known.index < replica.raft.log.snapshot.index:
            return False
        around = self._surroundings
        reader = await around.off_loop(SnapshotReader, self._data_db.path, known)
        try:
            transfer = _Transfer(self._host, replica, recipient, node, address, reader, around)
            with trio.fail_after(_TRANSFER_TIMEOUT_S):
                await transfer.run()
        finally:
            reader.close()
        return True


class _Transfer:
    """One snapshot for one replica, over as many connections as it takes."""

    def __init__(
        self,
        host: Host,
        replica: Replica,
        recipient: int,
        node: int,
        address: str,
        reader: SnapshotReader,
        surroundings: Surroundings = MACHINE,
    ) -> None:
        self._host = host
        self._replica = replica
        self._recipient = recipient
        self._node = node
        self._address = parse(address)
        self._reader = reader
        self._surroundings = surroundings
        self._id = surroundings.make_uuid()
        self._term = replica.raft.term

    async def run(self) -> None:
        """Raises the last attempt's error when none succeeded."""
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                await self._attempt()
            except (OSError, trio.TooSlowError, Unavailable):
                if attempt == _ATTEMPTS_MAX or not self._replica.leads:
                    raise
                await trio.sleep(_PAUSE_S)
            else:
                return

    async def _attempt(self) -> None:
        transport = self._host.transport
        around = self._surroundings
        hello = peer_hello(transport.identity, BULK, around)
        stream, connection, _ = await dial(self._address, hello, transport.peer_key, around)
        with closing(stream):
            next_chunk = await self._ask(stream, connection, Op.SNAPSHOT_OPEN, self._opening())
            self._reader.seek(next_chunk)
            while True:
                chunk = await around.off_loop(self._reader.next_chunk, CHUNK_BYTES)
                body = self._chunk_body(chunk)
                await self._ask(stream, connection, Op.SNAPSHOT_CHUNK, body)
                if chunk.last:
                    return

    def _opening(self) -> bytes:
        applied = self._reader.applied
        meta = [
            applied.index,
            applied.term,
            applied.clock_ms,
            applied.state_hash,
            applied.configuration,
        ]
        replica = self._replica
        return encode_body(
            Op.SNAPSHOT_OPEN,
            replica.shard,
            self._recipient,
            replica.id,
            self._term,
            self._id,
            meta,
        )

    def _chunk_body(self, chunk: SnapshotChunk) -> bytes:
        return encode_body(
            Op.SNAPSHOT_CHUNK,
            self._replica.shard,
            self._recipient,
            self._id,
            chunk.number,
            chunk.rows,
            chunk.crc,
            chunk.last,
        )

    async def _ask(self, stream: Stream, connection: Connection, op: Op, body: bytes) -> int:
        """One request and its answer: the number of the chunk to send next."""
        with trio.fail_after(_CHUNK_TIMEOUT_S):
            _, data = connection.request(op, body, int(_CHUNK_TIMEOUT_S * 1000))
            await stream.send(data)
            while data := await stream.receive():
                for event in connection.receive_data(data):
                    if isinstance(event, Goodbye):
                        raise event.error
                    if isinstance(event, Reply):
                        return _next_chunk(event)
        raise Unavailable(f"node {self._node} closed the connection")


def _next_chunk(reply: Reply) -> int:
    if reply.status != Status.OK:
        raise from_wire(reply.status, reply.body)
    match reply.body:
        case [int(next_chunk), *_] if next_chunk >= 0:
            return next_chunk
    raise ProtocolError("the answer to a snapshot's slice is malformed")


def _fit(*values: object) -> bool:
    """Whether all numbers among ``values`` are such as SQLite can keep."""
    return all(not isinstance(n, int) or -_NUMBER_MAX - 1 <= n <= _NUMBER_MAX for n in values)


@attrs.frozen
class _Receiving:
    """A snapshot on its way in."""

    transfer: bytes
    sender: int  # replica id of the leader that sends it
    term: int  # that leader's
    writer: SnapshotWriter


class SnapshotReceiver:
    """The other end: one writer a shard, every step on data.db's thread.

    ``make_writer`` makes these writers: the simulator's data.db is no SQLite file and
    has writers of its own.
    """

    def __init__(
        self,
        host: Host,
        data_db: DataDatabase,
        *,
        make_writer: Callable[[DataDatabase, Applied], SnapshotWriter] = SnapshotWriter,
    ) -> None:
        self._host = host
        self._data_db = data_db
        self._make_writer = make_writer
        self._writers: dict[int, _Receiving] = {}  # by shard

    def open(self, body: bytes, respond: Respond) -> None:
        """``snapshot_open``: answers with the first chunk that is wanted. Raises KritaError."""
        match decode_body(Op.SNAPSHOT_OPEN, body):
            case [
                int(shard), int(replica_id), int(sender), int(term), bytes(transfer),
                [int(index), int(entry_term), int(clock_ms), int(state_hash), bytes(conf), *_],
            ] if _fit(sender, term, index, entry_term, clock_ms):  # fmt: skip
                pass
            case _:
                raise ProtocolError("a malformed snapshot_open")
        try:
            decode_configuration(conf)
        except ValueError as problem:
            raise ProtocolError(f"snapshot_open brings no configuration: {problem}") from problem
        replica = self._replica(shard, replica_id)
        installing = any(applied.shard == shard for applied in self._host.received.values())
        if installing or buggify("snapshots.busy"):
            raise Unavailable(f"shard {shard} is about to install a snapshot", hint="ask again")
        applied = attrs.evolve(
            replica.state.applied,
            index=index,
            term=entry_term,
            clock_ms=clock_ms,
            state_hash=state_hash % HASH_MODULUS,
            configuration=conf,
        )
        writer = self._make_writer(self._data_db, applied)
        self._writers[shard] = _Receiving(transfer, sender, term, writer)
        log.info("shard %d: receiving a snapshot at index %d", shard, index)
        self._do(
            lambda: writer.begin(transfer), lambda number: respond(Status.OK, [number]), respond
        )

    def chunk(self, body: bytes, respond: Respond) -> None:
        """``snapshot_chunk``: answers once it is stored. Raises KritaError."""
        match decode_body(Op.SNAPSHOT_CHUNK, body):
            case [
                int(shard), int(replica_id), bytes(transfer), int(number), list(rows), int(crc),
                bool(last),
            ]:  # fmt: skip
                pass
            case _:
                raise ProtocolError("a malformed snapshot_chunk")
        replica = self._replica(shard, replica_id)
        known = self._writers.get(shard)
        if known is None or known.transfer != transfer:
            raise Unavailable(f"no snapshot of shard {shard} is being received", hint="open it")
        writer = known.writer
        piece = SnapshotChunk(number, rows, crc, last)

        def store() -> int:
            if not all(isinstance(row, list) and _fit(*row) for row in rows):
                raise SnapshotRefused(f"chunk {number} has a number that no disk keeps")
            next_chunk = writer.write(piece)
            if piece.last and next_chunk == piece.number + 1:
                writer.finish()
            return next_chunk

        def stored(next_chunk: int) -> None:
            if piece.last and next_chunk == piece.number + 1:
                self._finished(replica, transfer, writer)
            respond(Status.OK, [next_chunk])

        self._do(store, stored, respond)

    def _replica(self, shard: int, replica_id: int) -> Replica:
        replica = self._host.replicas.get(shard)
        if replica is None or replica.id != replica_id:
            raise Unavailable(f"replica {replica_id} of shard {shard} is not here")
        return replica

    def _finished(self, replica: Replica, transfer: bytes, writer: SnapshotWriter) -> None:
        """Every row is durable: let the core decide."""
        known = self._writers.get(replica.shard)
        if known is None or known.transfer != transfer:
            return  # another transfer has taken the place
        del self._writers[replica.shard]
        if self._host.replicas.get(replica.shard) is not replica:
            return  # removed meanwhile, and with it whatever was received
        applied = writer.applied
        self._host.received[applied.generation] = applied
        meta = SnapshotMeta(
            applied.index,
            applied.term,
            decode_configuration(applied.configuration),
            applied.generation,
        )
        replica.raft.step(
            SnapshotInstalled(replica.shard, known.sender, replica.id, known.term, meta)
        )
        if replica.raft.log.snapshot.generation != applied.generation:
            # The log has overtaken it, or the replica is poisoned.
            del self._host.received[applied.generation]
            self._do(writer.abandon, lambda _: None, lambda _status, _body: None)
        self._host.drive.mark(replica)

    def _do(self, work: Callable[[], T], then: Callable[[T], None], respond: Respond) -> None:
        def done(finished: Finished[T]) -> None:
            if isinstance(finished.error, SnapshotRefused):
                error = ProtocolError(str(finished.error))
                respond(error.status, to_wire(error))
            elif finished.error is not None:
                self._host.fail(finished.error)
                broken = InternalError("the disk of this node has failed", outcome=Outcome.UNKNOWN)
                respond(broken.status, to_wire(broken))
            else:
                then(finished.unwrap())

        self._host.workers.data.submit(work, done)
