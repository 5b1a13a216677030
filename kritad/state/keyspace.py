"""The rows of one shard together with the hash over them.

The hash is the sum of all rows' digests modulo 2**64: each change costs one
addition and one subtraction, the order of the rows does not matter, and a full
scan gives the same number. It finds diverged replicas and damaged disks; it is
no defence against somebody who forges rows.
"""

from __future__ import annotations

from kritad.storage.digests import HASH_MODULUS, row_digest
from kritad.storage.rows import Row, Stamp
from kritad.storage.table import Table

HASH_MASK = HASH_MODULUS - 1


class Keyspace:
    """A Table whose every change is counted into ``rows_hash``."""

    def __init__(self, table: Table, rows_hash: int) -> None:
        self.table = table
        self.rows_hash = rows_hash

    def __repr__(self) -> str:
        return f"<Keyspace rows_hash={self.rows_hash:016x} {self.table!r}>"

    def get(self, key: bytes) -> Row | None:
        """The row, or None. Raises storage's Corrupt when the stored one is damaged."""
        return self.table.get(key)

    def stamp(self, key: bytes) -> Row | Stamp | None:
        """What a writer has to know of the row: revision and digest. None: absent."""
        return self.table.stamp(key)

    def put(
        self,
        key: bytes,
        value: bytes,
        content_type: str | None,
        revision: int,
        before: Row | Stamp | None,
    ) -> None:
        """Set a key. ``before`` is what ``stamp(key)`` gives now: a writer has
        asked for it anyway, and asking twice would cost a second read."""
        digest = row_digest(key, revision, value, content_type)
        replaced = 0 if before is None else before.digest
        self.rows_hash = (self.rows_hash + digest - replaced) & HASH_MASK
        self.table.put(key, Row(revision, value, content_type, digest))

    def delete(self, key: bytes, before: Row | Stamp) -> None:
        """Remove a key that is there; ``before`` as for put."""
        self.rows_hash = (self.rows_hash - before.digest) & HASH_MASK
        self.table.delete(key)
