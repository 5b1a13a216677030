"""How far a shard's replica is, as data.db keeps it: a row of ``applied`` or ``receiving``.

A seal stands beside what everything else hangs on (digests.py), the cells included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs

from kritad.storage.digests import HASH_MODULUS, seal, to_signed
from kritad.storage.errors import Corrupt
from kritad.storage.rows import Applied

# In the order of Applied's fields.
APPLIED_COLUMNS = (
    "shard, replica, generation, log_index, term, clock_ms, state_hash, configuration,"
    " rows_in, hash_lo, hash_hi, cells, lineage, seal"
)


def applied_row(applied: Applied) -> tuple[Any, ...]:
    """The values of APPLIED_COLUMNS."""
    row = attrs.astuple(attrs.evolve(applied, state_hash=to_signed(applied.state_hash)))
    return (*row, seal(*row))


def read_applied(path: Path, row: tuple[Any, ...]) -> Applied:
    """The value of APPLIED_COLUMNS. Raises Corrupt(shard) if its seal is broken."""
    *fields, crc = row
    applied = Applied(*fields)
    if seal(*fields) != crc:
        raise Corrupt(
            applied.shard,
            f"how far shard {applied.shard} is does not match its checksum in {path}",
            "its state is made again from the log or fetched from the other replicas",
        )
    return attrs.evolve(applied, state_hash=applied.state_hash % HASH_MODULUS)
