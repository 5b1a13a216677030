"""The two files of a node together: a log, and the state that is made of it.

Rule (data_db.py): the log is cut only below an index for which data.db's checkpoint has
returned True. Then the log always reaches back to what the state has forgotten.
"""

from __future__ import annotations

import random
from pathlib import Path

from kritad.raft.types import HardState, Save, SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import HASH_MODULUS
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.rows import Row, ShardFlush
from tests.storage.model import configuration, entry
from tests.storage.state import applied, row, scanned

_SHARD = 1
_KEYS = 12
_FIRST = SnapshotMeta(0, 0, configuration(1))


class NodeLife:
    """One shard's entries: number ``i`` puts a value of its own at key ``i`` modulo _KEYS.
    Any call of ``boot`` and ``step`` may raise StorageError: then the next is ``boot``."""

    def __init__(self, directory: Path, chance: random.Random, *, careless: bool = False) -> None:
        """``careless``: cut the log without waiting for the checkpoint (a mutant)."""
        self._directory = directory
        self._chance = chance
        self._careless = careless
        self._acknowledged = 0  # the last entry whose save returned
        self._attempted = 0
        self._applied = 0
        self._compacted = 0
        self._generation = 0
        self._raft: RaftDatabase | None = None
        self._data: DataDatabase | None = None

    def boot(self) -> None:
        """Open both files as the host does, and apply what the log holds beyond the state."""
        raft = self._raft = RaftDatabase.open(self._directory / "raft.db")
        data = self._data = DataDatabase.open(self._directory / "data.db")
        if not raft.replicas():
            assert self._acknowledged == 0, "the replica is gone"
            raft.create_replica(_SHARD, 1, _FIRST)
        at = data.applied().get(_SHARD)
        self._applied = at.index if at else 0
        boot = raft.load(_SHARD, self._applied)  # Corrupt if the log begins too late
        assert self._acknowledged <= boot.last_index <= self._attempted
        assert [each.index for each in boot.entries] == list(
            range(self._applied + 1, boot.last_index + 1)
        )
        assert all(each.data == _value(each.index) for each in boot.entries)
        self._acknowledged = self._attempted = boot.last_index
        self._compacted = boot.snapshot.index
        if at is None:
            self._generation = data.create_generation()
        else:
            self._generation = at.generation
            assert at.state_hash == _hash(at.index)
            assert scanned(data, at.generation, None, 100) == sorted(_rows(at.index).items())

    def step(self) -> None:
        """Do one thing that a node does."""
        assert self._raft is not None
        assert self._data is not None
        draw = self._chance.random()
        if draw < 0.5:
            first, last = self._acknowledged + 1, self._acknowledged + self._chance.randrange(1, 5)
            entries = [entry(index, 1, _value(index)) for index in range(first, last + 1)]
            self._attempted = last
            self._raft.save([(_SHARD, Save(1, HardState(1, 1, first - 1), None, 0, entries))])
            self._acknowledged = last
        elif draw < 0.75:
            old, new = self._applied, self._chance.randint(self._applied, self._acknowledged)
            rows: dict[bytes, Row | None] = {
                key: row for key, row in _rows(new).items() if row.revision > old
            }
            if new:
                at = applied(_SHARD, self._generation, new, _hash(new))
                self._data.flush([ShardFlush(at, rows)])
                self._applied = new
        elif draw < 0.85:
            self._raft.maybe_checkpoint()
        else:
            self._compact(self._raft, self._data)

    def _compact(self, raft: RaftDatabase, data: DataDatabase) -> None:
        safe = self._applied
        if (self._careless or data.checkpoint()) and safe > self._compacted:
            raft.compact([(_SHARD, SnapshotMeta(safe, 1, configuration(1)))])
            self._compacted = safe

    def close(self) -> None:
        """A clean stop."""
        assert self._raft is not None
        assert self._data is not None
        self._raft.close()
        self._data.close()
        self._raft = self._data = None


def _value(index: int) -> bytes:
    return b"value of entry %d " % index * 12


def _rows(last: int) -> dict[bytes, Row]:
    """The state after entries 1 to ``last``."""
    return {
        b"key-%d" % (index % _KEYS): row(b"key-%d" % (index % _KEYS), index, _value(index))
        for index in range(max(1, last - _KEYS + 1), last + 1)
    }


def _hash(last: int) -> int:
    return sum(row.digest for row in _rows(last).values()) % HASH_MODULUS
