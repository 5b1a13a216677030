"""A shard's state on its way to a replica that is too far behind for the log.

The sender flushes the shard, opens a reader of its own on data.db (a read
transaction: writes go on meanwhile), and sends the rows in slices as requests on
a connection of their own, each answered before the next is read. The receiver
(receiving.py) stores each slice durably in a generation of its own, so that a
connection that breaks, or a receiver that is started again, goes on where it stopped.
A sender that is started again, or another leader, begins anew with the state of then, for
its reader is gone; but of the rows that have arrived already it sends only the digests,
and those that have changed since.

Rules:
* At most ``SENDS_MAX`` go out at a time; the rest of those that want one wait. A
  receiver that takes no more for now is asked again later, by a fresh reader, and that
  is no failure. All of a node's share ``move_bytes_per_s``.
* The meta shard's own are neither counted nor slowed down nor held: they are small,
  and every node needs them before it can do anything else.
* A slice is at most ``CHUNK_BYTES``: nothing here holds the loop or the file
  for long, and heartbeats are on another connection anyway.
* A row that turns out to be damaged on its way out costs the sender's replica its life,
  as one that is met while applying does.
* The end of a transfer, good or bad, is reported to the leader's core exactly once; a
  core that still needs the snapshot asks again at once, so a failure is reported only
  after a pause that grows.
* A transfer belongs to the term in which the core has asked for it, and ends with that. A
  leader that is elected again asks again: two that go to one recipient would take each
  other's place there for ever (receiving.py).
* Nothing that arrives for ``_NO_PROGRESS_S`` ends a transfer; how long it takes in all
  does not. While it reads, no checkpoint of data.db ends and so no log is cut (raft.md
  B35): that is what lets the recipient go on from the log afterwards. The price is disk,
  and it is bounded: a transfer ends when the shard's log has grown by more than the
  log may be kept for a follower (flush.py: as much as the state itself has), when
  the disk is below its reserve, and when people hold it for ``_HELD_MAX_S``. (A bound in
  minutes would be none: a shard that takes longer would be begun again for ever.)
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, nullcontext

import trio

from krita.address import parse
from krita.codec import encode_body
from krita.connection import Connection
from krita.errors import Busy, KritaError, Unavailable
from krita.events import Goodbye, Reply
from krita.operations import Op
from kritad.host.bootstrap import META_SHARD
from kritad.host.host import Host
from kritad.host.link import dial, peer_hello
from kritad.host.log_tail import pin_bytes_max
from kritad.host.rate import ByteRate
from kritad.host.receiving import SnapshotReceiver
from kritad.host.replica import Replica
from kritad.host.snapshot_meta import SnapshotAnswer, meta_of
from kritad.host.surroundings import MACHINE, Surroundings
from kritad.host.transfers import Outgoing, Standing
from kritad.host.transport import BULK
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt, StorageError
from kritad.storage.snapshots import SnapshotChunk, SnapshotReader
from kritad.stream import Stream

__all__ = ["SENDS_MAX", "SnapshotReceiver", "SnapshotSender", "is_wanted"]

log = logging.getLogger(__name__)

SENDS_MAX = 2
CHUNK_BYTES = 256 << 10
_CHUNK_BYTES_MIN = 4 << 10
_CHUNK_TIMEOUT_S = 30.0
_NO_PROGRESS_S = 60.0
_HELD_MAX_S = 30.0
_LOOK_S = 0.2  # how often somebody who waits for people looks again
_BUSY_PAUSE_S = 2.0
_PAUSE_S = 0.5
_PAUSE_DOUBLINGS_MAX = 4  # 8 s


class _Later(Exception):
    """Not now, and nobody's fault: it is begun anew in a while."""


class _Outrun(Exception):
    """The shard is written to faster than it is sent: this snapshot would not do."""


def is_wanted(host: Host, replica: Replica, recipient: int, term: int) -> bool:
    """Whether the leader's core still waits for what it has asked for in that term."""
    raft = replica.raft
    here = host.replicas.get(replica.shard) is replica and not raft.poisoned
    leads = replica.leads and raft.term == term
    return here and leads and recipient in raft.configuration.members


def _is_held(host: Host, replica: Replica, recipient: int) -> bool:
    """Whether it has to wait: for people who have stopped the shard's moves (a voter that
    lags is no move: its shard needs it), or for room on the disk."""
    if replica.shard == META_SHARD:
        return False
    conf = replica.raft.configuration
    record = host.view.shards.get(replica.shard)
    stopped = host.view.paused or (record is not None and record.held)
    return host.leadership.space_low or (stopped and recipient not in conf.voters_all)


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
        self._rate = ByteRate(host.settings.move_bytes_per_s)
        self._busy_until_s: dict[int, float] = {}  # nodes that receive enough, as they said
        self._failures: Counter[tuple[int, int]] = Counter()  # (shard, recipient), in a row

    def start_wanted(self) -> None:
        """Start what was asked for since the last call."""
        wanted, self._host.effects.snapshots_wanted = self._host.effects.snapshots_wanted, []
        for replica, recipient in wanted:
            self._nursery.start_soon(self._send_one, replica, recipient, replica.raft.term)

    async def _send_one(self, replica: Replica, recipient: int, term: int) -> None:
        sent = False
        node = replica.raft.configuration.nodes.get(recipient, 0)
        outgoing = self._host.transfers.expect(replica.shard, recipient, node)
        try:
            sent = await self._bring(replica, recipient, term, outgoing)
        except (OSError, trio.TooSlowError) as problem:
            self._note(replica, node, problem)
        except Corrupt as damage:
            # Found here, because nobody has read that row for long. A leader that cannot
            # bring its state to others has to leave that to a sound one.
            self._host.on_damage(replica, damage)
        except (KritaError, StorageError, _Outrun) as problem:
            self._note(replica, node, problem)
        await self._pause_after(replica, recipient, term, sent)
        self._host.transfers.end(outgoing)
        if replica.raft.term == term:
            replica.raft.snapshot_sent(recipient, sent)
            self._host.drive.mark(replica)

    def _note(self, replica: Replica, node: int, problem: Exception) -> None:
        text = str(problem) or type(problem).__name__
        log.warning("shard %d: the snapshot for node %d failed: %s", replica.shard, node, text)

    async def _pause_after(self, replica: Replica, recipient: int, term: int, sent: bool) -> None:
        """Before the core hears of a failure: it asks again at once."""
        key = (replica.shard, recipient)
        if sent or not is_wanted(self._host, replica, recipient, term):
            self._failures.pop(key, None)
            return
        self._failures[key] += 1
        await trio.sleep(_PAUSE_S * 2 ** min(self._failures[key], _PAUSE_DOUBLINGS_MAX))

    async def _bring(self, replica: Replica, recipient: int, term: int, outgoing: Outgoing) -> bool:
        """Send it as soon as that may be, as often as others put it off; whether it arrived."""
        host, shard = self._host, replica.shard
        while is_wanted(host, replica, recipient, term):
            held = _is_held(host, replica, recipient)
            host.transfers.stand(outgoing, Standing.HELD if held else Standing.WAITING)
            if held or trio.current_time() < self._busy_until_s.get(outgoing.node, 0.0):
                await trio.sleep(_LOOK_S)
                continue
            # The meta shard is small, and nothing goes on without it: it need not queue.
            async with nullcontext() if shard == META_SHARD else self._slots:
                if not is_wanted(host, replica, recipient, term):
                    break
                try:
                    return await self._send(replica, recipient, term, outgoing)
                except _Later:
                    continue
                except Busy:
                    pause_s = _BUSY_PAUSE_S * (0.5 + self._surroundings.chance.random())
                    self._busy_until_s[outgoing.node] = trio.current_time() + pause_s
        return False

    async def _send(self, replica: Replica, recipient: int, term: int, outgoing: Outgoing) -> bool:
        address = self._host.transport.address_of(outgoing.node)
        if address is None:
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
            rate = None if replica.shard == META_SHARD else self._rate
            await _Transfer(
                self._host, replica, recipient, outgoing.node, address, reader, around,
                term=term, outgoing=outgoing, rate=rate,
            ).run()  # fmt: skip
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
        *,
        term: int | None = None,
        outgoing: Outgoing | None = None,
        rate: ByteRate | None = None,
    ) -> None:
        self._host = host
        self._replica = replica
        self._recipient = recipient
        self._node = node
        self._address = parse(address)
        self._reader = reader
        self._surroundings = surroundings
        self._id = surroundings.make_uuid()
        self._term = replica.raft.term if term is None else term  # in which it was asked for
        self._outgoing = outgoing or Outgoing(replica.shard, recipient, node, 0.0)
        self._outgoing.total_bytes = replica.state.extent.bytes
        self._rate = rate or ByteRate(0)
        # A second's worth of all that may leave here is two slices of each transfer.
        share = self._rate.bytes_per_s // (2 * SENDS_MAX) or CHUNK_BYTES
        self._chunk_bytes = min(CHUNK_BYTES, max(_CHUNK_BYTES_MIN, share))
        self._bytes_before = [0]  # every chunk that was read, and the next: of keys and values
        self._log_bytes = replica.marks.total_bytes  # when the reader was opened
        self._moved_s = 0.0  # when something arrived, on trio's clock

    async def run(self) -> None:
        """Raises the last attempt's error when nothing arrives any more, Busy when the
        receiver takes no more now, _Later and _Outrun."""
        self._moved_s = trio.current_time()
        while True:
            try:
                await self._attempt()
            except (OSError, trio.TooSlowError, Unavailable):
                stuck = trio.current_time() - self._moved_s >= _NO_PROGRESS_S
                if stuck or not self._is_wanted():
                    raise
                await trio.sleep(_PAUSE_S)
            else:
                return

    def _is_wanted(self) -> bool:
        return is_wanted(self._host, self._replica, self._recipient, self._term)

    async def _attempt(self) -> None:
        transport = self._host.transport
        around = self._surroundings
        hello = peer_hello(transport.identity, BULK, around)
        stream, connection, _ = await dial(self._address, hello, transport.peer_key, around)
        with closing(stream):
            opened = await self._ask(stream, connection, Op.SNAPSHOT_OPEN, self._opening())
            self._reader.seek(opened.next_chunk)
            self._host.transfers.note(self._outgoing, 0, self._bytes_before[opened.next_chunk])
            last = False
            while not last:
                chunk = await around.off_loop(self._reader.next_chunk, self._chunk_bytes)
                last = chunk.last
                sent_bytes = await self._bring(stream, connection, chunk, opened.known_to)
                self._arrived(chunk, sent_bytes)

    async def _bring(
        self, stream: Stream, connection: Connection, chunk: SnapshotChunk, known_to: bytes
    ) -> int:
        """Have the slice stored; how many bytes that took. At first without the rows that the
        recipient may have, then with those that it does not have, at last as it is."""
        sent_bytes = 0
        whole: Sequence[int] = ()
        for form in (chunk.shortened(known_to), None, chunk):
            form = form or chunk.shortened(known_to, whole)
            body = self._chunk_body(form)
            await self._until_it_may_go(len(body))
            answer = await self._ask(stream, connection, Op.SNAPSHOT_CHUNK, body)
            sent_bytes += len(body)
            if answer.next_chunk == chunk.number + 1:
                return sent_bytes
            if answer.next_chunk != chunk.number or not form.digests:
                break
            whole = answer.missing
        raise Unavailable(f"node {self._node} asks for slice {answer.next_chunk} again")

    def _arrived(self, chunk: SnapshotChunk, size_bytes: int) -> None:
        self._moved_s = trio.current_time()
        number, before = chunk.number, self._bytes_before
        before[number + 1 :] = [before[number] + chunk.value_bytes]
        self._host.transfers.note(self._outgoing, size_bytes, before[number + 1])

    async def _until_it_may_go(self, size_bytes: int) -> None:
        """Wait for this slice's turn and for people. That time is no lack of progress."""
        host, replica, recipient = self._host, self._replica, self._recipient
        began_s = trio.current_time()
        await trio.sleep(self._rate.reserve(size_bytes, began_s))
        while _is_held(host, replica, recipient):
            host.transfers.stand(self._outgoing, Standing.HELD)
            if trio.current_time() - began_s >= _HELD_MAX_S:
                raise _Later
            await trio.sleep(_LOOK_S)
        host.transfers.stand(self._outgoing, Standing.SENDING)
        self._moved_s += trio.current_time() - began_s
        if not self._is_wanted():
            raise _Later
        grown_bytes = replica.marks.total_bytes - self._log_bytes
        if grown_bytes > pin_bytes_max(host.settings.log_tail_bytes, self._outgoing.total_bytes):
            raise _Outrun(
                f"{grown_bytes} bytes were written meanwhile, more than there are to send:"
                " raise move_bytes_per_s, or write less"
            )

    def _opening(self) -> bytes:
        replica = self._replica
        return encode_body(
            Op.SNAPSHOT_OPEN,
            replica.shard,
            self._recipient,
            replica.id,
            self._term,
            self._id,
            meta_of(self._reader.applied),
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

    async def _ask(
        self, stream: Stream, connection: Connection, op: Op, body: bytes
    ) -> SnapshotAnswer:
        """One request and its answer."""
        with trio.fail_after(_CHUNK_TIMEOUT_S):
            _, data = connection.request(op, body, int(_CHUNK_TIMEOUT_S * 1000))
            await stream.send(data)
            while data := await stream.receive():
                for event in connection.receive_data(data):
                    if isinstance(event, Goodbye):
                        raise event.error
                    if isinstance(event, Reply):
                        return SnapshotAnswer.of(event)
        raise Unavailable(f"node {self._node} closed the connection")
