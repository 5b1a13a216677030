"""One replica of one shard over a real data.db, and the log that it was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from krita.codec import encode_body
from krita.errors import KritaError, from_wire
from krita.operations import OPERATIONS, LeaseChange, Op
from kritad.raft.configuration import encode_configuration
from kritad.raft.types import Configuration, Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.machine import Handler, ShardState
from kritad.state.results import Result
from kritad.storage.cache import RowCache
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS, row_digest, session_digest
from kritad.storage.extent import WHOLE_RING, Arc, Extent
from kritad.storage.rows import Applied
from kritad.storage.table import Table
from tests.storage.state import scanned

SHARD = 1
REPLICA = 7
_BEFORE_ALL = -(1 << 63)
# Of the group that the replica begins with.
FIRST = encode_configuration(
    Configuration(3, voters=frozenset({7, 8, 9}), nodes={7: 1, 8: 2, 9: 3})
)


def error(result: Result) -> KritaError:
    """The error that a refused command is answered with."""
    assert not result.ok, f"expected an error, got {result}"
    return from_wire(result.status, result.body)


def empty_state(shard: int, generation: int, extent: Extent) -> Applied:
    return Applied(
        shard, REPLICA, generation, 0, 0, 0, 0, FIRST, generation,
        extent.hash_lo, extent.hash_hi, extent.encode(),
    )  # fmt: skip


class Shard:
    """Applies entries, flushes, and crashes when it is told to."""

    def __init__(
        self,
        path: Path,
        shard: int = SHARD,
        handlers: Mapping[int, Handler] | None = None,
        arc: Arc = WHOLE_RING,
    ) -> None:
        self.path = path
        self.shard = shard
        self.handlers = handlers
        self.log: list[Entry] = []
        self.clock_ms = 0
        self.db = DataDatabase.open(path)
        if shard not in self.db.applied():
            extent = Extent.of(arc) if handlers is None else Extent.everything()
            self.db.install(empty_state(shard, self.db.create_generation(), extent))
        self._restore()

    def close(self) -> None:
        self.db.close()

    def apply(self, entry: Entry) -> Result:
        self.log.append(entry)
        return self.state.apply(entry)

    def command(self, data: bytes) -> Result:
        """Apply a command of any bytes."""
        return self.apply(Entry(self.state.index + 1, 1, EntryKind.COMMAND, data))

    def call(self, op: Op, *fields: object) -> Result:
        """Apply an operation, stamped with ``clock_ms``."""
        return self.command(pack_command(self.clock_ms, op, encode_body(op, *fields)))

    def do(self, op: Op, key: bytes, **fields: object) -> Result:
        """Apply a write of a key, its other fields by their names; those left out are null."""
        given = {"session": 0, "sequence": 0, "acked_to": 0, "key": key, **fields}
        names = OPERATIONS[op].fields
        assert set(given) <= set(names), f"{op.name} has only {names}"
        return self.call(op, *[given.get(name) for name in names])

    def pass_time(self, ms: int) -> Result:
        """So much time passes, and an entry says so."""
        self.clock_ms += ms
        return self.call(Op.EXPIRE, self.shard)

    def lease(self, lease: int, change: LeaseChange, ttl_ms: int | None = None) -> Result:
        return self.call(Op.LEASE_CHANGE, self.shard, lease, int(change), ttl_ms)

    def retain(self, prefix: bytes, retention_ms: int) -> Result:
        return self.call(Op.RETENTION_CHANGE, self.shard, prefix, retention_ms)

    def value(self, key: bytes) -> bytes | None:
        """What a reader finds now."""
        row = self.state.read(key)
        return None if row is None else row.value

    def put(self, key: bytes, value: bytes, if_revision: int | None = None) -> Result:
        return self.call(Op.PUT, 0, 0, 0, key, value, None, if_revision)

    def delete(self, key: bytes, if_revision: int | None = None) -> Result:
        return self.call(Op.DELETE, 0, 0, 0, key, if_revision)

    def open_session(self) -> int:
        result = self.call(Op.SESSION_OPEN, self.shard)
        assert isinstance(result.body, list)
        session: int = result.body[0]
        return session

    def split(self, shard_new: int, at: int, conf_version: int = 3) -> Result:
        replicas = [[7, 70 + shard_new, 1], [8, 80 + shard_new, 2], [9, 90 + shard_new, 3]]
        return self.call(Op.SPLIT, self.shard, shard_new, at, conf_version, replicas)

    def flush(self) -> None:
        """Store what changed."""
        self.db.flush([self.state.freeze()])
        self.table.flushed()

    def crash(self) -> None:
        """Lose what is in memory; read what was flushed; replay the rest of the log."""
        self.db.close()
        self.db = DataDatabase.open(self.path)
        self._restore()
        for entry in self.log[self.state.index :]:
            self.state.apply(entry)
            self.state.take_offspring()

    def scanned_hash(self) -> int:
        """The state hash of what is stored, computed from every byte of it."""
        applied = self.db.applied()[self.shard]
        rows = scanned(self.db, applied.rows, None, 1 << 20, applied.arc)
        total = sum(
            row_digest(key, r.revision, r.value, r.content_type, r.expires_ms, r.lease)
            for key, r in rows
        )
        for session, blob in self.stored_sessions(applied.generation):
            total += session_digest(session, blob)
        return total % HASH_MODULUS

    def stored_sessions(self, generation: int) -> list[tuple[int, bytes]]:
        """Notes among them."""
        return self.db.scan_sessions(generation, _BEFORE_ALL, 1 << 20)

    def _restore(self) -> None:
        applied = self.db.applied()[self.shard]
        self.table = Table(self.db, applied.rows, RowCache(1 << 20), self.shard)
        sessions = self.stored_sessions(applied.generation)
        self.state = ShardState(self.shard, self.table, applied, sessions, self.handlers)


@contextmanager
def open_shard(
    path: Path,
    shard: int = SHARD,
    handlers: Mapping[int, Handler] | None = None,
    arc: Arc = WHOLE_RING,
) -> Iterator[Shard]:
    opened = Shard(path, shard, handlers, arc)
    try:
        yield opened
    finally:
        opened.close()
