"""What became of transactions over several shards: each is decided in one place.

The place is the shard of the transaction's home key. An attempt has happened from the
moment that its record is in the log there, and with the record is everything that the shards
have to do. If nobody has written one and somebody asks, the attempt is decided against, for
good: a *tombstone* keeps a late coordinator from deciding otherwise.

Records and tombstones are inner rows beside the home key, so they go where it goes. A record
is there until all shards have done their part (``forget``). Who asks behind that is told that
the attempt will not happen: he is late, nothing of it is left to be done, and he may let go
what he holds. What the client of a forgotten one is told when it asks again is kept where it
is for transactions of one group: in its session, or in the memo of its idempotency key
(repeats.py).

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
TOMBSTONE_MS = 3_600_000
# No coordinator lives for so long. It is far less than a tombstone is kept.
COMMIT_WITHIN_MS = 600_000


class Verdict(enum.IntEnum):
    """What was decided about an attempt. Sent: never renumber."""

    ABORTED = 0
    COMMITTED = 1
    BY_ANOTHER = 2  # another attempt of the same transaction was answered


@attrs.frozen
class Record:
    """An attempt that has happened, and that some shard may not know of yet."""

    attempt: int
    home: bytes
    plan: list[object]  # what all shards have to do


class Decisions:
    """See the module's docstring. ``open`` are all records, by their rows' keys; for
    reading."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        start, stop = INNER_PREFIX + RECORD, INNER_PREFIX + bytes([RECORD[0] + 1])
        self.open = {key: _read(row.value) for key, row in keyspace.table.between(start, stop)}

    def __repr__(self) -> str:
        return f"<Decisions {len(self.open)} open>"

    def get(self, home: bytes, attempt: int) -> Record | None:
        """The attempt has happened. None: it has not, or it was forgotten."""
        return self.open.get(_key(RECORD, home, attempt))

    def is_aborted(self, home: bytes, attempt: int) -> bool:
        """Whether it was decided against."""
        return self._keyspace.stamp(_key(TOMBSTONE, home, attempt)) is not None

    def abort(self, home: bytes, attempt: int, index: int) -> None:
        """From now on it will never happen."""
        keyspace = self._keyspace
        tombstone = _key(TOMBSTONE, home, attempt)
        keyspace.put_inner(tombstone, b"", index, keyspace.clock_ms + TOMBSTONE_MS)

    def commit(self, record: Record, index: int) -> None:
        """From now on it has happened."""
        key = _key(RECORD, record.home, record.attempt)
        self._keyspace.put_inner(key, encode([record.attempt, record.home, record.plan]), index, 0)
        self.open[key] = record

    def forget(self, home: bytes, attempt: int, index: int) -> None:
        """All shards have done their part."""
        key = _key(RECORD, home, attempt)
        if self.open.pop(key, None) is not None:
            keyspace = self._keyspace
            stamp = keyspace.stamp(key)
            assert stamp is not None, f"{self!r}: {key!r} is open, and has no row"
            keyspace.delete(key, index, stamp, keyspace.extent.cell_of(key))

    def cut(self, at: int) -> None:
        """The shard was split: what is at and behind ``at`` is not ours any more."""
        self.open = {key: record for key, record in self.open.items() if stored_token(key) < at}


def _key(kind: bytes, home: bytes, attempt: int) -> bytes:
    return inner_key(kind, attempt.to_bytes(8, "big"), stored_token(home))


def _read(data: bytes) -> Record:
    match decode(data):
        case [int(attempt), bytes(home), list(plan)]:
            return Record(attempt, home, plan)
    raise AssertionError("a decision's record is none, and matches its digest")
