"""A shard's rows as plain bytes by key, for handlers that keep records in them.

The meta shard's records live in the same table as a data shard's values, so
that flush, hash and snapshot need to know nothing about them.
"""

from __future__ import annotations

from kritad.state.keyspace import Keyspace


class Records:
    """get, put, delete and scan during one entry, whose index is the revision of
    whatever is put. Errors: storage's Corrupt; anything else is our bug."""

    def __init__(self, keyspace: Keyspace, revision: int) -> None:
        self._keyspace = keyspace
        self._revision = revision

    def get(self, key: bytes) -> bytes | None:
        """The record, or None."""
        row = self._keyspace.get(key)
        return None if row is None else row.value

    def put(self, key: bytes, value: bytes) -> None:
        """Set a record."""
        before = self._keyspace.get(key)
        self._keyspace.put(key, value, None, self._revision, before, _CELL)

    def delete(self, key: bytes) -> None:
        """Remove a record; without effect when it is absent."""
        before = self._keyspace.get(key)
        if before is not None:
            self._keyspace.delete(key, self._revision, before, _CELL)

    def scan(self, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
        """All records whose key begins with ``prefix``, in key order. Cost: it
        reads every key of the shard that is not below ``prefix`` up to the end
        of the range, in batches."""
        found: list[tuple[bytes, bytes]] = []
        # `after` is exclusive, and the prefix may itself be a key.
        exact = self._keyspace.get(prefix) if prefix else None
        if exact is not None:
            found.append((prefix, exact.value))
        after: bytes | None = prefix or None
        while batch := list(self._keyspace.table.scan(after, _SCAN_ROWS)):
            for key, row in batch:
                if not key.startswith(prefix):
                    return found
                found.append((key, row.value))
            after = batch[-1][0]
        return found


_SCAN_ROWS = 1024
_CELL = 0  # the only one of a shard that keeps records: Extent.everything()
