"""Rows and states for the tests of data.db."""

from __future__ import annotations

import random

import attrs

from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS, row_digest, session_digest
from kritad.storage.rows import Applied, Row, ShardFlush


def row(key: bytes, revision: int, value: bytes, content_type: str | None = None) -> Row:
    return Row(revision, value, content_type, row_digest(key, revision, value, content_type))


def applied(shard: int, generation: int, index: int = 1, state_hash: int = 0) -> Applied:
    return Applied(shard, 1, generation, index, 2, 1_700_000_000_000, state_hash, b"{}")


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

    def items(self) -> list[tuple[bytes, Row]]:
        return sorted(self.rows.items())


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
    at = applied(shard, db.create_generation(), count, model.state_hash)
    db.flush([ShardFlush(at, list(model.items()), list(model.sessions.items()))])
    return at, model
