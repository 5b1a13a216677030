"""A shard's state on its way to another simulated node.

The sending half of host/snapshots.py is a trio task and so belongs to layer B; this is
the same conversation as events. The receiving half is the product's, and so is the question
whether what was asked for is still wanted.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import attrs

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad.host.replica import Replica
from kritad.host.snapshot_meta import meta_of
from kritad.host.snapshots import SENDS_MAX, is_wanted
from kritad.storage.errors import Corrupt, StorageError
from tests.simulator.loop import MS_US
from tests.simulator.snapshot_store import MemorySnapshotReader

if TYPE_CHECKING:
    from tests.simulator.node import SimNode

_ATTEMPTS_MAX = 5
_PAUSE_US = 500 * MS_US


class SnapshotSender:
    """Takes what the node's leaders want sent, two at a time."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self.sent = 0
        self._waiting: deque[tuple[Replica, int, int]] = deque()  # and the term
        self._under_way = 0

    def start_wanted(self) -> None:
        """Take up what was asked for since the last call."""
        host = self.node.host
        wanted, host.effects.snapshots_wanted = host.effects.snapshots_wanted, []
        self._waiting.extend((replica, who, replica.raft.term) for replica, who in wanted)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._under_way < SENDS_MAX:
            asked = self._waiting.popleft()
            self._under_way += 1
            self.node.host.flusher.when_flushed(
                lambda asked=asked: self._open(*asked)  # type: ignore[misc]
            )

    def _open(self, replica: Replica, recipient: int, term: int) -> None:
        node = self.node
        known = node.data_db.applied().get(replica.shard)
        target = replica.raft.configuration.nodes.get(recipient, 0)
        behind = known is None or known.index < replica.raft.log.snapshot.index
        wanted = is_wanted(node.host, replica, recipient, term)
        if behind or not wanted or target not in node.world.network.nodes:
            self.end(replica, recipient, term, ok=False)
            return
        assert known is not None
        try:
            reader = MemorySnapshotReader(node.data_db, known)
        except StorageError:  # the shard has moved on, or is damaged
            self.end(replica, recipient, term, ok=False)
            return
        dice = node.world.chance.stream("snapshot", node.loop.now_us, node.number, target)
        _Transfer(self, replica, recipient, term, target, reader, dice).attempt()

    def end(self, replica: Replica, recipient: int, term: int, *, ok: bool) -> None:
        """Tell the leader's core what came of it, once, in the term in which it asked."""
        self._under_way -= 1
        self.sent += ok
        if replica.raft.term == term:
            replica.raft.snapshot_sent(recipient, ok)
            self.node.host.drive.mark(replica)
        self._next()


@attrs.define(eq=False)
class _Transfer:
    """One snapshot for one replica, over as many connections as it takes."""

    sender: SnapshotSender
    replica: Replica
    recipient: int
    term: int
    target: int
    reader: MemorySnapshotReader
    dice: random.Random
    attempts: int = 0
    id: bytes = b""
    chunk_bytes: int = 0
    known_to: bytes = b""  # up to this key the recipient may have rows

    def attempt(self) -> None:
        """Open it (again)."""
        if not self.id:
            self.id = self.dice.randbytes(16)
            self.chunk_bytes = self.dice.choice([1, 500, 256 << 10])
        self.attempts += 1
        body = encode_body(
            Op.SNAPSHOT_OPEN,
            self.replica.shard, self.recipient, self.replica.id, self.term, self.id,
            meta_of(self.reader.applied),
        )  # fmt: skip
        self._ask(Op.SNAPSHOT_OPEN, body, None, last=False)

    def _send_chunk(self, missing: Collection[int] | None = None) -> None:
        """``missing``: of this chunk these places were asked for, and are sent; or all."""
        if not self._is_wanted():
            self._finish(ok=False)
            return
        self.sender.node.world.invariants.on_chunk(self.sender.node, self.replica, self.term)
        chunk = self.reader.next_chunk(self.chunk_bytes)
        if missing is None or self.dice.random() < 0.8:
            chunk = chunk.shortened(self.known_to, missing or ())
        body = encode_body(
            Op.SNAPSHOT_CHUNK,
            self.replica.shard, self.recipient, self.id, chunk.number, chunk.rows, chunk.crc,
            chunk.last,
        )  # fmt: skip
        self._ask(Op.SNAPSHOT_CHUNK, body, chunk.number, last=chunk.last)

    def _seek(self, number: int) -> None:
        """To the chunk that is wanted, or to one beside it: the receiver has to notice."""
        self.reader.seek(number)
        chance = self.dice.random()
        if chance < 0.05 and number:
            self.reader.seek(number - 1)
        elif chance < 0.1 and self.reader.next_chunk(self.chunk_bytes).last:
            self.reader.seek(number)

    def _ask(self, op: Op, body: bytes, number: int | None, *, last: bool) -> None:
        node, own = self.sender.node, self.sender.node.number

        def on_reply(status: int | None, reply: object, _sent: bool) -> None:
            if status != Status.OK:
                self._failed()
                return
            assert isinstance(reply, list)
            missing = reply[1] if number is not None else None
            if number is None:
                self.known_to = reply[1]
            if number is not None and last and reply[0] == number + 1:
                self._finish(ok=True)
                return
            try:
                if not missing:
                    self._seek(reply[0])
                else:
                    self.reader.seek(reply[0])
                self._send_chunk(missing or None)
            except Corrupt as damage:
                node.host.on_damage(self.replica, damage)
                self._finish(ok=False)
            except StorageError:
                self._finish(ok=False)

        node.world.network.ask(
            own,
            self.target,
            lambda target, respond: target.serve_peer(own, op, body, 30_000.0, respond),
            on_reply,
        )

    def _failed(self) -> None:
        if self.attempts == _ATTEMPTS_MAX or not self._is_wanted():
            self._finish(ok=False)
        else:
            self.sender.node.later(_PAUSE_US, self.attempt)

    def _is_wanted(self) -> bool:
        return is_wanted(self.sender.node.host, self.replica, self.recipient, self.term)

    def _finish(self, *, ok: bool) -> None:
        self.reader.close()
        self.sender.end(self.replica, self.recipient, self.term, ok=ok)
