"""What became of transactions over several shards: each is decided in one place.

The place is the shard of the transaction's home key. A transaction has happened from the
moment that its record is in the log there, and with the record is everything that the other
shards have to do. If nobody has written one and somebody asks, the attempt is decided against, for
good: a *tombstone* keeps a late coordinator from deciding otherwise.

Records and tombstones are inner rows beside the home key, so they go where it goes. A record
is kept as it is until all shards have done their part (``forget``), and its answer for an
hour behind that, for whoever sends the same transaction again. ``open`` are the records
that are not forgotten.

Source: presumed abort, of two-phase commit; the coordinator's record is replicated.
"""

from __future__ import annotations

import enum

import attrs

from krita.codec import decode, encode
from kritad.state.keyspace import Keyspace
from kritad.storage.places import INNER_PREFIX, inner_key, stored_token

RECORD = b"d"
TOMBSTONE = b"x"
KEPT_MS = 3_600_000
# No coordinator lives for so long. It is far less than a tombstone is kept.
COMMIT_WITHIN_MS = 600_000


class Verdict(enum.IntEnum):
    """What was decided about an attempt. Sent: never renumber."""

    ABORTED = 0
    COMMITTED = 1
    BY_ANOTHER = 2  # another attempt of the same transaction has committed


@attrs.frozen
class Record:
    """A transaction that has happened."""

    attempt: int
    home: bytes
    plan: list[object]  # what all shards have to do; empty once they have
    results: object  # what its client is told
    index: int  # of the entry that has decided it
    at_ms: int  # by the shard's clock then


class Decisions:
    """See the module's docstring."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self.open: dict[bytes, Record] = {}
        start, stop = INNER_PREFIX + RECORD, INNER_PREFIX + bytes([RECORD[0] + 1])
        for key, row in keyspace.table.between(start, stop):
            record = _read(row.value)
            if record.plan:
                self.open[key] = record

    def __repr__(self) -> str:
        return f"<Decisions {len(self.open)} open>"

    def decide(
        self,
        home: bytes,
        txn: bytes,
        attempt: int,
        index: int,
        wish: tuple[list[object], object] | None,
    ) -> tuple[Verdict, Record | None]:
        """The verdict about an attempt, which is made now if there is none yet: commit, with
        the ``wish``'s plan and results, or (None) abort."""
        keyspace = self._keyspace
        key = inner_key(RECORD, txn, stored_token(home))
        row = None if keyspace.bonds.is_over(key, keyspace.clock_ms) else keyspace.get(key)
        if row is not None:
            record = _read(row.value)
            same = record.attempt == attempt
            return Verdict.COMMITTED if same else Verdict.BY_ANOTHER, record
        tombstone = inner_key(TOMBSTONE, attempt.to_bytes(8, "big"), stored_token(home))
        if keyspace.get(tombstone) is not None:
            return Verdict.ABORTED, None
        if wish is None:
            keyspace.put_inner(tombstone, b"", index, keyspace.clock_ms + KEPT_MS)
            return Verdict.ABORTED, None
        record = Record(attempt, home, wish[0], wish[1], index, keyspace.clock_ms)
        self._write(key, record, index, 0)
        return Verdict.COMMITTED, record

    def forget(self, home: bytes, txn: bytes, index: int) -> None:
        """All shards have done their part."""
        keyspace = self._keyspace
        key = inner_key(RECORD, txn, stored_token(home))
        record = self.open.get(key)
        if record is not None:
            done = attrs.evolve(record, plan=[])
            self._write(key, done, index, keyspace.clock_ms + KEPT_MS)

    def cut(self, at: int) -> None:
        """The shard was split: what is at and behind ``at`` is not ours any more."""
        self.open = {key: record for key, record in self.open.items() if stored_token(key) < at}

    def _write(self, key: bytes, record: Record, index: int, expires_ms: int) -> None:
        fields = [
            record.attempt, record.home, record.plan, record.results, record.index, record.at_ms,
        ]  # fmt: skip
        self._keyspace.put_inner(key, encode(fields), index, expires_ms)
        if record.plan:
            self.open[key] = record
        else:
            self.open.pop(key, None)


def txn_of(key: bytes) -> bytes:
    """The transaction whose record has this key."""
    return key[2:-4]


def _read(data: bytes) -> Record:
    match decode(data):
        case [int(attempt), bytes(home), list(plan), results, int(index), int(at_ms)]:
            return Record(attempt, home, plan, results, index, at_ms)
    raise AssertionError("a decision's record is none, and matches its digest")
