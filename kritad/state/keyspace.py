"""The rows of one shard together with what they add up to.

The hash is the sum of all rows' digests modulo 2**64: each change costs one
addition and one subtraction, the order of the rows does not matter, and a full
scan gives the same number. It finds diverged replicas and damaged disks; it is
no defence against somebody who forges rows. It is kept by cells of the shard's arc,
with the numbers of keys and bytes (storage/extent.py).
"""

from __future__ import annotations

from kritad.storage.digests import row_digest
from kritad.storage.extent import Extent
from kritad.storage.rows import Row, Stamp
from kritad.storage.table import Table


class Keyspace:
    """A Table whose every change is counted into ``extent``.

    Writers say in which ``cell`` of the extent the key is: they have asked for it
    anyway, to see whether the key is the shard's own.
    """

    def __init__(self, table: Table, extent: Extent) -> None:
        self.table = table
        self.extent = extent

    def __repr__(self) -> str:
        return f"<Keyspace {self.extent!r} {self.table!r}>"

    def get(self, key: bytes) -> Row | None:
        """The row, or None. Raises storage's Corrupt when the stored one is damaged."""
        return self.table.get(key)

    def stamp(self, key: bytes) -> Row | Stamp | None:
        """What a writer has to know of the row: revision, digest, size. None: absent."""
        return self.table.stamp(key)

    def put(
        self,
        key: bytes,
        value: bytes,
        content_type: str | None,
        revision: int,
        before: Row | Stamp | None,
        cell: int,
    ) -> None:
        """Set a key. ``before`` is what ``stamp(key)`` gives now: a writer has
        asked for it anyway, and asking twice would cost a second read."""
        digest = row_digest(key, revision, value, content_type)
        extent = self.extent
        # In place and not by a method: every write of every replica comes by here.
        if before is None:
            extent.cell_hashes[cell] += digest
            extent.cell_keys[cell] += 1
            extent.cell_bytes[cell] += len(key) + len(value)
        else:
            extent.cell_hashes[cell] += digest - before.digest
            size = len(before.value) if type(before) is Row else before.value_bytes  # type: ignore[union-attr]
            if size != len(value):
                extent.cell_bytes[cell] += len(value) - size
        self.table.put(key, Row(revision, value, content_type, digest))

    def delete(self, key: bytes, before: Row | Stamp, cell: int) -> None:
        """Remove a key that is there; ``before`` as for put."""
        size = len(before.value) if isinstance(before, Row) else before.value_bytes
        extent = self.extent
        extent.cell_hashes[cell] -= before.digest
        extent.cell_keys[cell] -= 1
        extent.cell_bytes[cell] -= len(key) + size
        self.table.delete(key)
