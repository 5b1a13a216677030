"""raft.db twice, in SQLite and in memory: everything is done with both, and compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from kritad.raft.types import Boot, Save, SnapshotMeta
from kritad.storage.errors import StorageError
from kritad.storage.raft_db import RaftDatabase
from tests.simulator.raft_store import MemoryRaftDatabase
from tests.storage.model import ReplicaModel, configuration, copy_store, random_save


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call returned or raised, to be compared."""
    try:
        return "returned", call()
    except (StorageError, AssertionError, KeyError) as error:
        shard = getattr(error, "shard", None)
        text = "" if isinstance(error, AssertionError) else str(error)  # names other objects
        return type(error).__name__, (shard, text.partition("broken off")[0])


def same(real: Callable[[], Any], memory: Callable[[], Any], what: str) -> Any:
    """What both give, which is one and the same."""
    expected, found = outcome(real), outcome(memory)
    assert found == expected, what
    return expected[1] if expected[0] == "returned" else None


class Pair:
    """A store twice."""

    real: Any
    memory: Any

    def both(self, name: str, *args: Any) -> Any:
        """A method's outcome, the same in both."""
        return same(
            lambda: getattr(self.real, name)(*args),
            lambda: getattr(self.memory, name)(*args),
            f"{name}{args}",
        )


@attrs.define
class RaftPair(Pair):
    """raft.db twice, and what random saves have to fit."""

    directory: Path
    chance: random.Random
    real: RaftDatabase
    memory: MemoryRaftDatabase
    models: dict[int, ReplicaModel] = attrs.field(factory=dict)
    ids: dict[int, int] = attrs.field(factory=dict)
    crashes: int = 0

    def step(self) -> None:
        """One random operation."""
        names = [
            *["save"] * 8, *["compact"] * 3, *["read"] * 4, *["create"] * 2, "remove", "crash",
        ]  # fmt: skip
        getattr(self, self.chance.choice(names))()

    def create(self) -> None:
        shard, replica = self.chance.randint(1, 4), self.chance.randint(1, 5)
        index = self.chance.choice([0, 5, 9])
        first = SnapshotMeta(index, min(index, 1), configuration(1)) if index != 5 else None
        self.both("create_replica", shard, replica, first)
        self.ids = {row.shard: row.replica for row in self.both("replicas")}
        if shard in self.ids and shard not in self.models:
            self.models[shard] = ReplicaModel(first or SnapshotMeta())

    def remove(self) -> None:
        self.both("remove_replica", self.chance.randint(1, 4), self.chance.randint(1, 3))
        self.ids = {row.shard: row.replica for row in self.both("replicas")}
        self.models = {shard: model for shard, model in self.models.items() if shard in self.ids}

    def save(self) -> None:
        batch = []
        for _ in range(self.chance.randrange(1, 6) if self.models else 0):
            shard = self.chance.choice(list(self.models))
            save = random_save(self.chance, self.models[shard])
            if self.chance.random() < 0.1:
                save = Save(save.sequence, self.models[shard].hard_state)  # nothing to sync
            self.models[shard].apply(save)
            batch.append((shard, save))
        self.both("save", batch)

    def compact(self) -> None:
        items = []
        for shard, model in self.models.items():
            if model.entries and self.chance.random() < 0.5:
                cut = self.chance.choice(model.entries)
                meta = SnapshotMeta(cut.index, cut.term, configuration(cut.index))
                model.compact(meta)
                items.append((shard, meta))
        self.both("compact", items)

    def read(self) -> None:
        shard = self.chance.choice([*self.models, *self.models, 1, 2])
        last = self.models[shard].last_index if shard in self.models else 5
        first, until = self.chance.randint(0, last + 2), self.chance.randint(0, last + 5)
        found = self.both("entries", shard, first, until, 1 << 20)
        some = found[: self.chance.randint(0, len(found))]  # exactly as large as the limit
        self.both("entries", shard, first, until, sum(len(entry.data) for entry in some))
        self.both("load", shard, self.chance.randint(0, last + 1))

    def crash(self) -> None:
        self.crashes += 1
        path = copy_store(self.real.path, self.directory / f"crash{self.crashes}")
        self.real.close()
        self.real = RaftDatabase.open(path)
        self.memory.path = path
        self.memory = self.memory.crash(power=bool(self.crashes % 2), chance=self.chance)
        self.both("count_boot", self.chance.randbytes(16))
        if self.chance.random() < 0.5:
            self.both("acknowledge_boot")

    def check(self) -> None:
        """Everything, and what the invariant checker is told."""
        for name in ("identity", "replicas", "maybe_checkpoint"):
            self.both(name)
        for shard, model in self.models.items():
            boot = self.both("load", shard, model.first.index)
            assert isinstance(boot, Boot)
            memory = self.memory
            assert memory.replica_of(shard) == self.ids[shard]
            assert memory.hard_state(shard) == boot.hard_state
            assert memory.first_index(shard) == boot.snapshot.index
            assert memory.last_index(shard) == boot.last_index
            assert memory.term_at(shard, boot.snapshot.index) == boot.snapshot.term
            for item in boot.entries:
                assert memory.entry_at(shard, item.index) == item
                assert memory.term_at(shard, item.index) == item.term
            for index in (boot.snapshot.index, boot.last_index + 1):
                assert memory.entry_at(shard, index) is None
