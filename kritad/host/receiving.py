"""The receiving end of a snapshot (see snapshots.py): one writer a shard, on disk.

Each slice is stored durably before it is answered, together with which comes next; the
finished snapshot is stepped into the replica's core, which alone decides whether it is
wanted (raft/replication.py).

Rules:
* At most ``RECEIVES_MAX`` come in at a time, the meta shard's not counted: who wants to
  send another is told BUSY. A place that nothing has come for since ``_SILENT_MS`` is
  given to the next who asks; what it has brought stays, and goes on if it comes back.
* The answer to an opening says up to which key an earlier transfer has brought rows: those
  that are the same still need not be sent again (storage/snapshots.py). The answer to a
  slice names the rows that are to be sent whole after all.
* One transfer a shard: the next takes the place of the one before, unless that is a later
  leader's. A leader that does not know yet that it is none any more gives way.
* While a received snapshot waits for its installation, no other is taken up: its
  generation is the only one that nobody sweeps away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import attrs

from krita.codec import decode_body
from krita.errors import (
    Busy,
    InternalError,
    Outcome,
    ProtocolError,
    Status,
    Unavailable,
    to_wire,
)
from krita.operations import Op
from kritad.buggify import buggify
from kritad.host.bootstrap import META_SHARD
from kritad.host.host import Host
from kritad.host.replica import Replica
from kritad.host.request import Respond
from kritad.host.snapshot_meta import parse_meta
from kritad.host.writer import Finished
from kritad.raft.configuration import decode_configuration
from kritad.raft.messages import SnapshotInstalled
from kritad.raft.types import SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.rows import Applied
from kritad.storage.snapshots import SnapshotChunk, SnapshotRefused, SnapshotWriter

log = logging.getLogger(__name__)

T = TypeVar("T")

RECEIVES_MAX = 2
_SILENT_MS = 60_000.0
_NUMBER_MAX = (1 << 63) - 1  # what SQLite keeps


def _fit(*values: object) -> bool:
    """Whether all numbers among ``values`` are such as SQLite can keep."""
    return all(not isinstance(n, int) or -_NUMBER_MAX - 1 <= n <= _NUMBER_MAX for n in values)


def _is_digest(row: object) -> bool:
    return isinstance(row, int) and _fit(row)


@attrs.define
class _Receiving:
    """A snapshot on its way in."""

    replica: Replica
    transfer: bytes
    sender: int  # replica id of the leader that sends it
    term: int  # that leader's
    writer: SnapshotWriter
    heard_ms: float  # when something of it came last


class SnapshotReceiver:
    """See the module's docstring. Every step is done on data.db's thread.

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
                int(shard), int(replica_id), int(sender), int(term), bytes(transfer), meta,
            ] if _fit(sender, term):  # fmt: skip
                pass
            case _:
                raise ProtocolError("a malformed snapshot_open")
        replica = self._replica(shard, replica_id)
        applied = parse_meta(meta, replica.state.applied)
        # A copy, made in one go: data.db's thread takes them away when they are installed.
        received = tuple(self._host.effects.received.values())
        # Of this replica: one that went before its snapshot was saved has left it there for good.
        installing = any(known.shard == shard and known.replica == replica_id for known in received)
        if installing or buggify("snapshots.busy"):
            raise Unavailable(f"shard {shard} is about to install a snapshot", hint="ask again")
        known = self._writers.get(shard)
        if known is not None and known.replica is replica and known.term > term:
            raise Unavailable(f"a leader of term {known.term} sends this snapshot of shard {shard}")
        self._make_room(shard)
        writer = self._make_writer(self._data_db, applied)
        self._writers[shard] = _Receiving(
            replica, transfer, sender, term, writer, self._host.clock.monotonic_ms()
        )
        log.info("shard %d: receiving a snapshot at index %d", shard, applied.index)
        self._do(
            lambda: writer.begin(transfer),
            lambda number: respond(Status.OK, [number, writer.known_to]),
            respond,
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
        # What came in for a replica that was here before is swept away.
        if known is None or known.transfer != transfer or known.replica is not replica:
            raise Unavailable(f"no snapshot of shard {shard} is being received", hint="open it")
        known.heard_ms = self._host.clock.monotonic_ms()
        if self._host.disk_nearly_full:
            raise Busy(f"the disk of node {self._host.node} is nearly full", hint="ask again")
        writer = known.writer
        piece = SnapshotChunk(number, rows, crc, last)

        def store() -> int:
            if not all(_fit(*row) if isinstance(row, list) else _is_digest(row) for row in rows):
                raise SnapshotRefused(f"chunk {number} has a number that no disk keeps")
            next_chunk = writer.write(piece)
            if piece.last and next_chunk == piece.number + 1:
                writer.finish()
            return next_chunk

        def stored(next_chunk: int) -> None:
            if piece.last and next_chunk == piece.number + 1:
                self._finished(replica, transfer, writer)
            respond(Status.OK, [next_chunk, writer.missing])

        self._do(store, stored, respond)

    def _make_room(self, shard: int) -> None:
        """Raises Busy when as many are coming in as may."""
        if shard == META_SHARD:
            return
        host, silent_ms = self._host, self._host.clock.monotonic_ms() - _SILENT_MS
        others = [other for other in self._writers if other not in (shard, META_SHARD)]
        for other in others if len(others) >= RECEIVES_MAX else ():
            known = self._writers[other]
            if host.replicas.get(other) is not known.replica or known.heard_ms <= silent_ms:
                del self._writers[other]
                return
        if len(others) >= RECEIVES_MAX:
            raise Busy(f"node {host.node} is receiving {len(others)} snapshots", hint="ask again")

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
        self._host.effects.received[applied.generation] = applied
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
            del self._host.effects.received[applied.generation]
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
