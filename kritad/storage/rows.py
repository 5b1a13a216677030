"""The values that go between the state above and data.db below."""

from __future__ import annotations

import attrs


@attrs.define
class Row:
    """What a key holds. Never changed after it was made (``define`` for its speed)."""

    revision: int  # the log index at which the key changed
    value: bytes
    content_type: str | None
    digest: int  # digests.row_digest of key and the above; signed


@attrs.define
class Stamp:
    """What a writer has to know of the row that it replaces."""

    revision: int
    digest: int


@attrs.frozen
class Applied:
    """How far one replica's state is; stored in the same transaction as the state."""

    shard: int
    replica: int
    generation: int  # names the rows of the state within this data.db
    index: int
    term: int
    clock_ms: int  # the shard's clock: the highest proposed wall clock so far
    state_hash: int  # sum of all row and session digests modulo 2**64
    configuration: bytes  # encode_configuration(), in force at `index`


@attrs.define
class ShardFlush:
    """What one shard changed since its previous flush."""

    applied: Applied
    rows: list[tuple[bytes, Row | None]] = attrs.field(factory=list)  # None: deleted
    sessions: list[tuple[int, bytes | None]] = attrs.field(factory=list)  # None: ended
