"""A slice of a snapshot as it travels, and what makes it one that may be believed.

A session is ``[id, blob]``, a row ``[key, revision, value, content_type, digest]``, with
``expires_ms, lease`` in front of the digest if it ends by itself; sessions come first. A
row that the receiver may have from an earlier transfer can be sent as its digest alone, a
number. The last item of a slice never is: up to its key the receiver has to look.

``crc`` covers the slice's number, how much came before it, and every digest in it, so
slices of different transfers, lost, repeated or out of order, do not pass for each other.
It is the same whether rows are whole or not.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Any
from zlib import crc32

import attrs

from kritad.storage.digests import row_digest, session_digest
from kritad.storage.errors import StorageError
from kritad.storage.rows import Row

_CRC_HEAD = struct.Struct(">QQ?")


@attrs.define
class SnapshotChunk:
    """One slice. ``number`` counts from 0."""

    number: int
    rows: list[Any]  # sessions, rows and digests, as above
    crc: int
    last: bool

    @property
    def digests(self) -> list[int]:
        """Those of the rows that are not sent."""
        return [item for item in self.rows if isinstance(item, int)]

    @property
    def value_bytes(self) -> int:
        """The bytes of its keys and values, as the shard's extent counts them."""
        size_bytes = 0
        for item in self.rows:
            match item:
                case [bytes(key), _, bytes(value), *_]:
                    size_bytes += len(key) + len(value)
        return size_bytes

    def shortened(self, known_to: bytes, whole: Collection[int] = ()) -> SnapshotChunk:
        """The slice without the rows up to that key, but for those at the places ``whole``."""
        rows = list(self.rows)
        for place, item in enumerate(self.rows[:-1]):
            match item:
                case [bytes(key), _, *_, int(digest)] if key <= known_to and place not in whole:
                    rows[place] = digest
        return attrs.evolve(self, rows=rows)

    def completed(self, known: Mapping[int, list[object]]) -> SnapshotChunk:
        """The slice with the rows of these digests; others stay digests."""
        rows = [known.get(item, item) if isinstance(item, int) else item for item in self.rows]
        return attrs.evolve(self, rows=rows)


class SnapshotRefused(StorageError):
    """A chunk or a whole snapshot is not what its sender announced: begin again."""


def row_item(key: bytes, row: Row) -> list[object]:
    """A row as it is sent; its digest is the last element."""
    bond = (row.expires_ms, row.lease) if row.expires_ms or row.lease else ()
    return [key, row.revision, row.value, row.content_type, *bond, row.digest]


def chunk_crc(number: int, count_before: int, digests: list[int], last: bool) -> int:
    """What ``SnapshotChunk.crc`` has to be."""
    head = _CRC_HEAD.pack(number, count_before, last)
    return crc32(struct.pack(f">{len(digests)}q", *digests), crc32(head))


def verify(
    chunk: SnapshotChunk, count_before: int
) -> tuple[list[tuple[bytes, Row]], list[tuple[int, bytes]], list[int]]:
    """The rows, sessions and digests of a whole chunk, computed anew. Raises SnapshotRefused."""
    rows: list[tuple[bytes, Row]] = []
    sessions: list[tuple[int, bytes]] = []
    digests: list[int] = []
    for item in chunk.rows:
        match item:
            case [int(session), bytes(blob)] if not rows:
                sessions.append((session, blob))
                digests.append(session_digest(session, blob))
            case [
                bytes(key), int(revision), bytes(value), str() | None as content_type, *bond, int(),
            ]:  # fmt: skip
                expires_ms, lease = _bond(chunk, bond)
                digest = row_digest(key, revision, value, content_type, expires_ms, lease)
                rows.append((key, Row(revision, value, content_type, digest, expires_ms, lease)))
                digests.append(digest)
            case _:
                raise SnapshotRefused(f"chunk {chunk.number} has an item of unknown shape")
    if chunk_crc(chunk.number, count_before, digests, chunk.last) != chunk.crc:
        raise SnapshotRefused(f"chunk {chunk.number} does not match its checksum")
    return rows, sessions, digests


def _bond(chunk: SnapshotChunk, fields: list[object]) -> tuple[int, int]:
    """The deadline and the lease of a row that ends by itself."""
    match fields:
        case []:
            return 0, 0
        case [int(expires_ms), int(lease)]:
            return expires_ms, lease
    raise SnapshotRefused(f"chunk {chunk.number} has a row that ends in an unknown way")
