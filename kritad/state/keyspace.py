"""The rows of one shard together with all that has to change when one of them does.

What they add up to (``extent``: a hash, by cells of the shard's arc, with the numbers of
keys and bytes), which of them end by themselves (``bonds``), what has changed lately
(``feed``) and the older versions that are to be kept. A change that forgot one of these
would be seen by nobody at first, so all changes are made here.

The hash is the sum of all rows' digests modulo 2**64: each change costs one
addition and one subtraction, the order of the rows does not matter, and a full
scan gives the same number. It finds diverged replicas and damaged disks; it is
no defence against somebody who forges rows.
"""

from __future__ import annotations

from krita.operations import Change
from kritad.state.bonds import Bonds
from kritad.state.feed import Feed
from kritad.state.notes import Notes
from kritad.state.retention import Retention
from kritad.state.versions import Version, Versions, is_version, version_of, version_row
from kritad.storage.digests import row_digest
from kritad.storage.extent import Extent
from kritad.storage.places import INNER
from kritad.storage.rows import Row, Stamp
from kritad.storage.table import Table


class Keyspace:
    """See the module's docstring. ``clock_ms``, the shard's clock, is kept by its owner.

    Writers say in which ``cell`` of the extent the key is: they have asked for it
    anyway, to see whether the key is the shard's own.
    """

    def __init__(self, table: Table, extent: Extent, bonds: Bonds, feed: Feed, notes: Notes):
        self.table = table
        self.extent = extent
        self.bonds = bonds
        self.feed = feed
        self.retention = Retention(notes)
        self.versions = Versions(table, self.retention)
        self.clock_ms = 0

    def __repr__(self) -> str:
        return f"<Keyspace {self.extent!r} {self.table!r} {self.bonds!r} {self.feed!r}>"

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
        expires_ms: int = 0,
        lease: int = 0,
    ) -> None:
        """Set a key. ``before`` is what ``stamp(key)`` gives now: a writer has
        asked for it anyway, and asking twice would cost a second read."""
        if self.retention.rules:
            self._keep_version(key, revision)
        digest = row_digest(key, revision, value, content_type, expires_ms, lease)
        row = Row(revision, value, content_type, digest, expires_ms, lease)
        extent = self.extent
        # In place and not by _count: every write of every replica comes by here.
        if before is None:
            extent.cell_hashes[cell] += digest
            extent.cell_keys[cell] += 1
            extent.cell_bytes[cell] += len(key) + len(value)
        else:
            extent.cell_hashes[cell] += digest - before.digest
            size = len(before.value) if type(before) is Row else before.value_bytes  # type: ignore[union-attr]
            if size != len(value):
                extent.cell_bytes[cell] += len(value) - size
        if expires_ms or lease or (before is not None and (before.expires_ms or before.lease)):
            self.bonds.put(key, expires_ms, lease, before)
        self.table.put(key, row)
        self.feed.put(revision, key, row)

    def delete(
        self,
        key: bytes,
        revision: int,
        before: Row | Stamp,
        cell: int,
        kind: Change = Change.DELETE,
    ) -> None:
        """Remove a key that is there; ``before`` as for put, ``kind`` says why it goes."""
        inner = key[0] == INNER
        if self.retention.rules:
            if not inner:
                self._keep_version(key, revision)
            elif is_version(key):
                self.retention.forgot(*version_of(key))
        size = len(before.value) if isinstance(before, Row) else before.value_bytes
        extent = self.extent
        extent.cell_hashes[cell] -= before.digest
        extent.cell_keys[cell] -= not inner
        extent.cell_bytes[cell] -= len(key) + size
        if before.expires_ms or before.lease:
            self.bonds.put(key, 0, 0, before)
        self.table.delete(key)
        if not inner:
            self.feed.gone(revision, key, kind)

    def touch(self, key: bytes, row: Row, cell: int, expires_ms: int, lease: int) -> None:
        """Change how long a key lasts. That is no new revision and no event: whoever
        watches a value is not woken by somebody who keeps it alive."""
        revision, value, content_type = row.revision, row.value, row.content_type
        digest = row_digest(key, revision, value, content_type, expires_ms, lease)
        self._count(key, digest, len(value), row, cell)
        self.bonds.put(key, expires_ms, lease, row)
        self.table.put(key, Row(revision, value, content_type, digest, expires_ms, lease))

    def put_inner(self, key: bytes, value: bytes, revision: int, expires_ms: int) -> None:
        """Set an inner row, of which nobody is told and no version is kept."""
        cell, before = self.extent.cell_of(key), self.table.stamp(key)
        digest = row_digest(key, revision, value, None, expires_ms)
        self._count(key, digest, len(value), before, cell)
        self.bonds.put(key, expires_ms, 0, before)
        self.table.put(key, Row(revision, value, None, digest, expires_ms))

    def _count(
        self, key: bytes, digest: int, size: int, before: Row | Stamp | None, cell: int
    ) -> None:
        extent = self.extent
        if before is None:
            extent.cell_hashes[cell] += digest
            extent.cell_keys[cell] += key[0] != INNER
            extent.cell_bytes[cell] += len(key) + size
        else:
            extent.cell_hashes[cell] += digest - before.digest
            was = len(before.value) if type(before) is Row else before.value_bytes  # type: ignore[union-attr]
            if was != size:
                extent.cell_bytes[cell] += size - was

    def _keep_version(self, key: bytes, until_index: int) -> None:
        """The key is about to change: keep what it is, if that is wanted."""
        rule = self.retention.of(key)
        if rule is None:
            return
        row = self.table.get(key)
        if row is not None:
            revision, value, content_type = row.revision, row.value, row.content_type
        else:
            newest = next(self.versions.newest(key), None)
            # What was before the history is whole is not known, though some of it be left.
            known = 0 if newest is None else newest.until_index
            revision = max(rule.since_index, known)
            value, content_type = None, None
        if revision == until_index:
            return  # it was set by this very entry: nobody can ask for that moment
        version = Version(revision, value, content_type, until_index, self.clock_ms)
        inner, data = version_row(key, version)
        self.put_inner(inner, data, until_index, self.clock_ms + rule.retention_ms)
