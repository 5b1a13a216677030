"""Bringing a replica to life from what the disk holds of it.

The log's part and the state's part are read and made to agree (bootstrap.py), a
core and a state machine are made from them. What is not right with the disk is
raised: Corrupt concerns this replica alone, other StorageErrors the node.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import attrs

from kritad.cluster.meta import handlers
from kritad.host.bootstrap import META_SHARD, all_sessions, fresh_applied, load_boot
from kritad.raft.config import RaftConfig
from kritad.raft.core import Raft
from kritad.state.machine import ShardState
from kritad.storage.cache import RowCache
from kritad.storage.data_db import Applied, DataDatabase
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
    # What RaftConfig's limits are to be instead: nobody's business but the simulator's,
    # which finds more bugs with windows of three messages than with those that are fast.
    raft_limits: Mapping[str, Any] = attrs.field(factory=dict)


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

    def open(self, shard: int, replica: int, applied: Applied | None) -> tuple[Raft, ShardState]:
        """The core and the state of a replica that is in raft.db. A core that is
        its group's only voter has been told to campaign.

        Raises Corrupt, another StorageError, or ValueError for a log that the
        core cannot begin with.
        """
        if applied is None or applied.replica != replica:
            first = self._raft_db.load(shard, 0).snapshot.configuration
            applied = fresh_applied(self._data_db, shard, replica, first)
        boot, applied = load_boot(self._raft_db, self._data_db, applied)
        chance = random.Random(f"{self._seed}/{self._node}/{shard}/{replica}")
        raft = Raft(self._config(shard, replica), boot, chance)
        if raft.configuration.voters == {replica} and not raft.configuration.joint:
            raft.campaign()  # a group of one: nobody to wait for
        return raft, self.state(shard, applied)

    def state(self, shard: int, applied: Applied) -> ShardState:
        """The state machine as of ``applied``. Raises StorageError."""
        table = Table(self._data_db, applied.generation, self._cache)
        sessions = all_sessions(self._data_db, applied.generation)
        own = handlers() if shard == META_SHARD else None
        return ShardState(shard, table, applied, sessions, own)

    def _config(self, shard: int, replica: int) -> RaftConfig:
        settings = self._settings
        return RaftConfig(
            shard=shard,
            replica=replica,
            election_ticks=max(2, settings.election_ms // settings.tick_ms),
            heartbeat_ticks=max(1, settings.heartbeat_ms // settings.tick_ms),
            entry_bytes_max=settings.value_bytes_max + _ENTRY_OVERHEAD_BYTES,
            **settings.raft_limits,
        )
