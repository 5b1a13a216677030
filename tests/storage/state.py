"""Rows and states for the tests of data.db."""

from __future__ import annotations

import random
from collections.abc import Mapping

import attrs

from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS, row_digest, session_digest
from kritad.storage.extent import WHOLE_RING, Arc, Extent
from kritad.storage.rows import Applied, Row, ShardFlush


def row(
    key: bytes,
    revision: int,
    value: bytes,
    content_type: str | None = None,
    expires_ms: int = 0,
    lease: int = 0,
) -> Row:
    digest = row_digest(key, revision, value, content_type, expires_ms, lease)
    return Row(revision, value, content_type, digest, expires_ms, lease)


def scanned(
    db: DataDatabase,
    generation: int,
    after: bytes | None,
    limit: int | None,
    arc: Arc = WHOLE_RING,
    shard: int | None = None,
) -> list[tuple[bytes, Row]]:
    """At most ``limit`` rows of an arc in key order, behind the key ``after``; None: no bound."""
    start = b"" if after is None else after + b"\0"
    found = db.between(generation, start, None, 1 << 30, arc, shard)
    return [(key, one) for key, one in found if one is not None][:limit]


def applied(
    shard: int,
    generation: int,
    index: int = 1,
    state_hash: int = 0,
    extent: Extent | None = None,
    rows: int = 0,
) -> Applied:
    extent = extent or Extent.of(WHOLE_RING)
    return Applied(
        shard, 1, generation, index, 2, 1_700_000_000_000, state_hash, b"{}",
        rows or generation, extent.hash_lo, extent.hash_hi, extent.encode(),
    )  # fmt: skip


@attrs.define
class StateModel:
    """What a shard's state should hold."""

    rows: dict[bytes, Row] = attrs.field(factory=dict)
    sessions: dict[int, bytes] = attrs.field(factory=dict)

    @property
    def state_hash(self) -> int:
        digests = [row.digest for row in self.rows.values()]
        digests += [session_digest(*item) for item in self.sessions.items()]
        return sum(digests) % HASH_MODULUS

    @property
    def extent(self) -> Extent:
        return extent_of(self.rows)

    def items(self) -> list[tuple[bytes, Row]]:
        return sorted(self.rows.items())


def extent_of(rows: Mapping[bytes, Row], empty: Extent | None = None) -> Extent:
    """A full count, of the whole ring or in the arc and the cells of ``empty``."""
    extent = empty or Extent.of(WHOLE_RING)
    for key, one in rows.items():
        extent.count(extent.cell_of(key), one.digest, 1, len(key) + len(one.value))
    return extent


def fill(
    db: DataDatabase, shard: int, count: int = 300, value_bytes: int = 100, seed: int = 1
) -> tuple[Applied, StateModel]:
    """Flush a state of ``count`` rows and a tenth as many sessions into a new generation."""
    chance = random.Random(seed)
    model = StateModel()
    for number in range(count):
        key = b"key-%d-%d" % (chance.randrange(10**6), number)
        content_type = "text/plain" if number % 3 == 0 else None
        model.rows[key] = row(key, number + 1, chance.randbytes(value_bytes), content_type)
    for number in range(count // 10):
        model.sessions[number * 7 + 1] = chance.randbytes(20)
    at = applied(shard, db.create_generation(), count, model.state_hash, model.extent)
    db.flush([ShardFlush(at, dict(model.items()), list(model.sessions.items()))])
    return at, model
