"""The values that go between the state above and data.db below."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from kritad.storage.extent import WHOLE_RING, Arc


@attrs.define
class Row:
    """What a key holds. Never changed after it was made (``define`` for its speed)."""

    revision: int  # the log index at which the key changed
    value: bytes
    content_type: str | None
    digest: int  # digests.row_digest of key and all else; signed
    expires_ms: int = 0  # by the shard's clock; 0: never
    lease: int = 0  # it ends with this lease; 0: with none


@attrs.define
class Stamp:
    """What a writer has to know of the row that it replaces."""

    revision: int
    digest: int
    value_bytes: int
    expires_ms: int = 0
    lease: int = 0


@attrs.frozen
class Applied:
    """How far one replica's state is; stored in the same transaction as the state.

    After a split two shards have their rows in one generation, each those of its arc.
    """

    shard: int
    replica: int
    generation: int  # names the sessions of the state within this data.db
    index: int
    term: int
    clock_ms: int  # the shard's clock: the highest proposed wall clock so far
    state_hash: int  # sum of all row and session digests modulo 2**64
    configuration: bytes  # encode_configuration(), in force at `index`
    rows: int  # the generation that its rows are in
    hash_lo: int  # its arc of the ring; both 0: not known yet
    hash_hi: int  # exclusive
    cells: bytes  # what is in the arc: extent.py; b"": not counted yet
    lineage: bytes = b""  # where the arc comes from; b"": it was never split

    @property
    def arc(self) -> Arc:
        """What the rows are in: the whole ring as long as the arc is not known."""
        return (self.hash_lo, self.hash_hi) if self.hash_hi else WHOLE_RING


@attrs.define
class ShardFlush:
    """What one shard changed since its previous flush."""

    applied: Applied
    rows: Mapping[bytes, Row | None] = attrs.field(factory=dict)  # None: deleted
    sessions: list[tuple[int, bytes | None]] = attrs.field(factory=list)  # None: ended
