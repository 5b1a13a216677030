"""Counting again what the replicas count as they go: at the end of a life.

A shard's extent is kept by additions alone, through splits, snapshots and restarts.
Here every row is looked at: what is in the arc adds up to the extent, and what is not
is either another shard's or nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable

from krita.ring import META_SHARD
from kritad.host.replica import Replica
from kritad.storage.extent import OUTSIDE
from tests.simulator.invariants import Violation

_ROWS = 1_000


def take_census(replicas: Iterable[Replica]) -> None:
    """Raises Violation("census") for a replica whose rows and extent differ."""
    for replica in replicas:
        if replica.shard != META_SHARD and not replica.raft.poisoned:
            _count(replica)


def _count(replica: Replica) -> None:
    state = replica.state
    counted = state.extent.emptied()
    after: bytes | None = None
    while rows := state.table.scan(after, _ROWS):
        for key, row in rows:
            cell = counted.cell_of(key)
            if cell != OUTSIDE:
                counted.count_row(cell, key, row.digest, len(row.value))
        after = rows[-1][0]
    if counted != state.extent:
        raise Violation("census", f"{replica!r} keeps {state.extent!r}, and has {counted!r}")
