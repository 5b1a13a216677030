"""Bringing a replica to life from what the disk holds of it.

The log's part and the state's part are read and made to agree (bootstrap.py), a
core and a state machine are made from them. What is not right with the disk is
raised: Corrupt concerns this replica alone, other StorageErrors the node.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kritad.cluster.meta import handlers
from kritad.host.bootstrap import (
    META_SHARD,
    all_sessions,
    check_sum,
    counted,
    fresh_applied,
    load_boot,
)
from kritad.raft.config import RaftConfig
from kritad.raft.core import Raft
from kritad.state.machine import ShardState
from kritad.storage.cache import RowCache
from kritad.storage.data_db import Applied, DataDatabase
from kritad.storage.extent import NO_ARC, Arc
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.table import Table

# What a log entry has besides the value: key, content type, session, framing.
_ENTRY_OVERHEAD_BYTES = 128 << 10


@attrs.frozen
class HostSettings:
    """What the host takes from the configuration."""

    tick_ms: int = 50
    heartbeat_ms: int = 200
    election_ms: int = 1000
    cache_bytes: int = 64 << 20
    memtable_bytes: int = 64 << 20
    log_tail_bytes: int = 4 << 20
    value_bytes_max: int = 1 << 20
    flush_interval_ms: float = 10_000.0
    checkpoint_interval_ms: float = 30_000.0
    dead_after_ms: float = 300_000.0
    shard_bytes_max: int = 0  # a shard above it is split by itself; 0: never
    move_bytes_per_s: int = 0  # 0: no limit
    scrub_pass_ms: float = 0.0  # in which all rows of data.db are read once; 0: never
    leader_zones: Sequence[str] = ()  # those that leaders go to, the preferred one first
    leaders_follow_requests_per_s: int = (
        50  # requests that make a shard's leader follow them; 0: never
    )
    # What RaftConfig's limits are to be instead: nobody's business but the simulator's,
    # which finds more bugs with windows of three messages than with those that are fast.
    raft_limits: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def heartbeat_ticks(self) -> int:
        """Rounded down: a heartbeat may come sooner than asked for, never later."""
        return max(1, self.heartbeat_ms // self.tick_ms)

    @property
    def election_ticks(self) -> int:
        """Rounded up: an election may come later than asked for, never sooner."""
        return max(2, -(-self.election_ms // self.tick_ms))


def needs_arc(shard: int, replica: int, applied: Applied | None) -> bool:
    """Whether a replica can be opened only by somebody who knows the shard's birth_arc:
    data.db has nothing of it, or has it from a kritad that did not keep arcs."""
    known = applied is not None and applied.replica == replica and applied.cells
    return shard != META_SHARD and not known


class Opener:
    """Opens the replicas of one node; ``seed`` decides their chances."""

    def __init__(
        self,
        settings: HostSettings,
        raft_db: RaftDatabase,
        data_db: DataDatabase,
        node: int,
        seed: int,
    ) -> None:
        self._settings = settings
        self._raft_db = raft_db
        self._data_db = data_db
        self._node = node
        self._seed = seed
        self._cache = RowCache(settings.cache_bytes)

    def open(
        self, shard: int, replica: int, applied: Applied | None, arc: Arc | None
    ) -> tuple[Raft, ShardState]:
        """The core and the state of a replica that is in raft.db. A core that is
        its group's only voter has been told to campaign.

        ``arc`` is the shard's birth_arc, None: the meta shard's state does not say yet.
        It matters only where ``needs_arc``. Raises Corrupt, another StorageError, or
        ValueError for a log that the core cannot begin with.
        """
        assert arc is not None or not needs_arc(shard, replica, applied), "see needs_arc"
        arc = arc or NO_ARC
        if applied is None or applied.replica != replica:
            first = self._raft_db.load(shard, 0).snapshot.configuration
            applied = fresh_applied(self._data_db, shard, replica, first, arc)
        boot, applied = load_boot(self._raft_db, self._data_db, applied)
        applied = counted(self._data_db, applied, arc)
        chance = random.Random(f"{self._seed}/{self._node}/{shard}/{replica}")
        raft = Raft(self._config(shard, replica), boot, chance)
        if raft.configuration.voters == {replica} and not raft.configuration.joint:
            raft.campaign()  # a group of one: nobody to wait for
        return raft, self.state(shard, applied)

    def state(self, shard: int, applied: Applied) -> ShardState:
        """The state machine as of ``applied``, whose cells are counted. Raises StorageError."""
        table = Table(self._data_db, applied.rows, self._cache, shard)
        sessions = all_sessions(self._data_db, applied.generation)
        check_sum(applied, sessions)
        own = handlers() if shard == META_SHARD else None
        return ShardState(shard, table, applied, sessions, own)

    def _config(self, shard: int, replica: int) -> RaftConfig:
        settings = self._settings
        return RaftConfig(
            shard=shard,
            replica=replica,
            election_ticks=settings.election_ticks,
            heartbeat_ticks=settings.heartbeat_ticks,
            entry_bytes_max=settings.value_bytes_max + _ENTRY_OVERHEAD_BYTES,
            **settings.raft_limits,
        )
