"""What raft.db goes through in a node, drawn at random, and what has to be left of it.

Rule: every call is one transaction. What it was to bring is written down before the
call, as ``doubtful``, and becomes ``state`` when the call has returned. What a later
start finds is all of one or all of the other.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import attrs

from kritad.raft.types import Save, SnapshotMeta
from kritad.storage.catalog import Identity
from kritad.storage.errors import Corrupt, Tombstoned
from kritad.storage.raft_db import RaftDatabase, ReplicaRow
from tests.storage.model import ReplicaModel, configuration, random_save

SHARDS = (1, 2, 3)
_FIRST = SnapshotMeta(0, 0, configuration(1))


@attrs.define
class RaftState:
    """What the file holds."""

    identity: Identity | None = None
    replicas: dict[int, int] = attrs.field(factory=dict)  # shard -> replica id
    models: dict[int, ReplicaModel] = attrs.field(factory=dict)  # by shard
    tombstones: dict[int, int] = attrs.field(factory=dict)

    def copy(self) -> RaftState:
        """Independent of this one."""
        models = {shard: model.copy() for shard, model in self.models.items()}
        return RaftState(self.identity, dict(self.replicas), models, dict(self.tombstones))


class RaftLife:
    """One raft.db from start to start. Any call of ``boot`` and ``step`` may raise StorageError:
    then the next is ``boot``."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self.state = RaftState()
        self.doubtful: RaftState | None = None
        self._chance = chance
        self._db: RaftDatabase | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> RaftLife:
        """The same life, to be booted elsewhere."""
        life = RaftLife(self.path, copy.deepcopy(self._chance, memo))
        life.state = self.state.copy()
        return life

    @property
    def db(self) -> RaftDatabase:
        """The open store."""
        assert self._db is not None
        return self._db

    def boot(self) -> None:
        """Open the store and compare. AssertionError: it is neither of the two that it may be."""
        self._db = None
        self._db = RaftDatabase.open(self.path)
        if self.doubtful is not None:
            try:
                problem = self.difference(self.state)
            except Corrupt as error:  # load() was told what only fits the other
                problem = error.message
            if problem:
                self.state = self.doubtful
        problem = self.difference(self.state)
        assert not problem, problem
        self.doubtful = None

    def close(self) -> None:
        """A clean stop."""
        self.db.close()
        self._db = None

    def difference(self, state: RaftState) -> str:
        """How the store differs from ``state``; "" if it does not. Raises what ``load`` does."""
        db = self.db
        if db.identity() != state.identity:
            return f"identity {db.identity()} instead of {state.identity}"
        rows = [ReplicaRow(*item) for item in sorted(state.replicas.items())]
        if db.replicas() != rows:
            return f"{db.replicas()} instead of {rows}"
        for shard, model in state.models.items():
            boot = db.load(shard, model.first.index)
            if boot != model.boot(model.first.index):
                return (
                    f"shard {shard} ends at {boot.last_index} with {boot.hard_state}, not {model}"
                )
        for shard, dead in state.tombstones.items():
            if shard not in state.replicas:
                try:
                    db.create_replica(shard, dead, _FIRST)
                except Tombstoned:
                    continue
                return f"the tombstone of replica {dead} of shard {shard} is gone"
        return ""

    def step(self) -> None:
        """Do one thing that a node does."""
        state = self.state.copy()
        if state.identity is None:
            state.identity = Identity(b"c" * 16, 1, b"u" * 16, 0)
            self._promise(state)
            self.db.initialise(b"c" * 16, 1, b"u" * 16)
        elif len(state.replicas) < len(SHARDS):
            self._create(state)
        else:
            draw = self._chance.random()
            if draw < 0.6:
                self._save(state)
            elif draw < 0.75:
                self._compact(state)
            elif draw < 0.87:
                self.db.maybe_checkpoint()
            elif draw < 0.92:
                self._read()
            elif draw < 0.96:
                nonce = self._chance.randbytes(16)
                state.identity = state.identity.booted(nonce)
                self._promise(state)
                self.db.count_boot(nonce)
            else:
                self._remove(state)
        if self.doubtful is not None:
            self.state, self.doubtful = self.doubtful, None

    def _promise(self, state: RaftState) -> None:
        """From now on the store may hold ``state``."""
        self.doubtful = state

    def _create(self, state: RaftState) -> None:
        shard = next(each for each in SHARDS if each not in state.replicas)
        replica = state.tombstones.get(shard, 0) + 1
        state.replicas[shard] = replica
        state.models[shard] = ReplicaModel(_FIRST)
        self._promise(state)
        self.db.create_replica(shard, replica, _FIRST)

    def _remove(self, state: RaftState) -> None:
        shard = self._chance.choice(SHARDS)
        replica = state.replicas.pop(shard)
        del state.models[shard]
        state.tombstones[shard] = replica
        self._promise(state)
        self.db.remove_replica(shard, replica)

    def _save(self, state: RaftState) -> None:
        batch: list[tuple[int, Save]] = []
        for _ in range(self._chance.choice((1, 1, 2, 5))):
            shard = self._chance.choice(SHARDS)
            model = state.models[shard]
            save = random_save(self._chance, model)
            batch.append((shard, save))
            model.apply(save)
        self._promise(state)
        self.db.save(batch)

    def _compact(self, state: RaftState) -> None:
        shard = self._chance.choice(SHARDS)
        model = state.models[shard]
        if not model.entries:
            return
        entry = self._chance.choice(model.entries)
        meta = SnapshotMeta(entry.index, entry.term, configuration(entry.index))
        model.compact(meta)
        self._promise(state)
        self.db.compact([(shard, meta)])

    def _read(self) -> None:
        shard = self._chance.choice(SHARDS)
        entries = self.state.models[shard].entries
        if entries:
            first, last = entries[0].index, entries[-1].index
            assert self.db.entries(shard, first, last, 1 << 20) == entries
