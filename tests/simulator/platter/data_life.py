"""What data.db goes through in a node, drawn at random, and what has to be left of it.

Rule: ``history`` lists the states after each transaction, the newest last; ``floor``
is the newest that is promised to be durable. A later start finds one of the states
from there on, whole.
"""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import attrs

from krita.ring import token
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt
from kritad.storage.extent import Extent
from kritad.storage.rows import Applied, Row, ShardFlush
from kritad.storage.snapshots import SnapshotReader, SnapshotWriter
from tests.storage.state import StateModel, applied, row, scanned

SHARDS = (1, 2, 3)
_NO_LIMIT = 1 << 30


@attrs.define
class DataState:
    """What can be seen in the file."""

    applied: dict[int, Applied] = attrs.field(factory=dict)
    models: dict[int, StateModel] = attrs.field(factory=dict)
    arrived: dict[int, tuple[Applied, StateModel]] = attrs.field(factory=dict)  # not installed

    def copy(self) -> DataState:
        """Independent of this one, as long as models are replaced and not changed."""
        return DataState(dict(self.applied), dict(self.models), dict(self.arrived))


class DataLife:
    """One data.db from start to start. Any call of ``boot`` and ``step`` may raise StorageError:
    then the next is ``boot``."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self.history = [DataState()]
        self.floor = 0
        self.forgotten = 0  # transactions that power cuts took, in all
        self._chance = chance
        self._db: DataDatabase | None = None
        self._reader: tuple[SnapshotReader, StateModel] | None = None
        self._index = 0  # the log index given last
        self._transfers = 0
        self._shards_count = len(SHARDS)  # the numbers above are those of halves

    def __deepcopy__(self, memo: dict[int, Any]) -> DataLife:
        """The same life, to be booted elsewhere."""
        life = DataLife(self.path, copy.deepcopy(self._chance, memo))
        life.history, life.floor = [state.copy() for state in self.history], self.floor
        life._index, life._transfers = self._index, self._transfers
        life._shards_count = self._shards_count
        return life

    @property
    def db(self) -> DataDatabase:
        """The open store."""
        assert self._db is not None
        return self._db

    def boot(self) -> None:
        """Open the store and compare. AssertionError: it is none of those that it may be."""
        self._reader = self._db = None
        self._db = DataDatabase.open(self.path)
        problems = []
        for number in range(len(self.history) - 1, self.floor - 1, -1):
            problem = self.difference(self.history[number])
            if not problem:
                self.forgotten += len(self.history) - 1 - number
                self.history, self.floor = [self.history[number]], 0
                return
            problems.append(problem)
        raise AssertionError("none of the states that may be: " + "; ".join(problems))

    def close(self) -> None:
        """A clean stop."""
        self._close_reader()
        self._checkpoint()
        self.db.close()
        self._db = None

    def difference(self, state: DataState) -> str:
        """How the store differs from ``state``; "" if it does not. Raises Corrupt."""
        db = self.db
        for shard, problem in db.damaged.items():
            raise Corrupt(shard, problem)
        if db.applied() != state.applied:
            return f"{db.applied()} instead of {state.applied}"
        for shard, at in state.applied.items():
            if not self._holds(at, state.models[shard]):
                return f"other rows in shard {shard} at {at.index}"
            _read_all(self.path, at)
        for at, model in state.arrived.values():
            if db.received(at.generation) != at or not self._holds(at, model):
                return f"what was received for {at} is not there"
        return ""

    def _holds(self, at: Applied, model: StateModel) -> bool:
        rows = scanned(self.db, at.rows, None, _NO_LIMIT, at.arc)
        sessions = self.db.scan_sessions(at.generation, -1, _NO_LIMIT)
        return rows == model.items() and sessions == sorted(model.sessions.items())

    def step(self) -> None:
        """Do one thing that a node does."""
        draw = self._chance.random()
        if draw < 0.50:
            self._flush()
        elif draw < 0.55:
            self._split()
        elif draw < 0.75:
            self._checkpoint()
        elif draw < 0.83:
            self._transfer()
        elif draw < 0.87:
            self._install()
        elif draw < 0.92:
            self.db.sweep(self._chance.randrange(1, 60))
        elif draw < 0.94:
            self._drop()
        else:
            self._read()

    def _checkpoint(self) -> None:
        if self.db.checkpoint():
            assert self._reader is None or not self._reader_is_behind()
            self.floor = len(self.history) - 1

    def _begin(self) -> DataState:
        """A state to be changed, which the store may hold from now on."""
        state = self.history[-1].copy()
        self.history.append(state)
        return state

    def _flush(self) -> None:
        batch = []
        state = self.history[-1].copy()
        shards = sorted({*SHARDS, *state.applied})
        for shard in sorted(self._chance.sample(shards, self._chance.randrange(1, 3))):
            at = state.applied.get(shard) or applied(shard, self.db.create_generation())
            old = state.models.get(shard, StateModel())
            model = StateModel(dict(old.rows), dict(old.sessions))
            self._index += 1
            rows: dict[bytes, Row | None] = {}
            for _ in range(self._chance.randrange(9)):
                key = b"key-%d" % self._chance.randrange(40)
                value = self._chance.randbytes(self._chance.choice((10, 200, 6000)))
                if not at.hash_lo <= token(key) < at.hash_hi:
                    continue
                if self._chance.random() < 0.25:
                    rows[key] = None
                    model.rows.pop(key, None)
                else:
                    rows[key] = model.rows[key] = row(key, self._index, value)
            session = self._chance.randrange(9)
            model.sessions[session] = blob = self._chance.randbytes(20)
            now = attrs.evolve(at, index=self._index, state_hash=model.state_hash)
            state.applied[shard], state.models[shard] = now, model
            batch.append(ShardFlush(now, rows, [(session, blob)]))
        self.history.append(state)
        self.db.flush(batch)

    def _split(self) -> None:
        """Cut a shard in two, and store both halves durably, or only the one that stays."""
        known = self.history[-1].applied
        shard = self._chance.choice([*SHARDS, *known])
        at = known.get(shard)
        extent = None if at is None else Extent.decode(*at.arc, at.cells).emptied()
        edge = None if extent is None else extent.halving()
        if at is None or extent is None or edge is None:
            return
        state = self.history[-1].copy()
        old = state.models[shard]
        halves = [
            StateModel(
                {key: one for key, one in old.rows.items() if (token(key) >= edge) is upper},
                dict(old.sessions),
            )
            for upper in (False, True)
        ]
        behind = extent.cut(edge)
        self._shards_count += 1
        lower = attrs.evolve(
            at, hash_hi=edge, cells=extent.encode(), state_hash=halves[0].state_hash
        )
        upper = attrs.evolve(
            at, shard=self._shards_count, generation=self.db.reserve_generation(), hash_lo=edge,
            cells=behind.encode(), state_hash=halves[1].state_hash,
        )  # fmt: skip
        batch = [ShardFlush(lower)]
        state.applied[shard], state.models[shard] = lower, halves[0]
        if self._chance.random() < 0.8:
            batch.append(ShardFlush(upper, {}, list(old.sessions.items())))
            state.applied[upper.shard], state.models[upper.shard] = upper, halves[1]
        self.history.append(state)
        self.db.flush(batch, durable=True)
        self.floor = len(self.history) - 1

    def _transfer(self) -> None:
        """Send one shard's state to another's place, perhaps not to the end."""
        known = self.history[-1].applied
        if not known:
            return
        source = self._chance.choice(sorted(known))
        target = self._chance.choice(SHARDS)
        reader = SnapshotReader(self.path, known[source])
        try:
            wanted = attrs.evolve(reader.applied, shard=target)
            writer = SnapshotWriter(self.db, wanted)
            self._begin().arrived.pop(target, None)
            self._transfers += 1
            writer.begin(b"%d" % self._transfers)
            while True:
                if self._chance.random() < 0.1:
                    return
                chunk = reader.next_chunk(self._chance.choice((500, 20_000)))
                writer.write(chunk)
                if chunk.last:
                    break
        finally:
            reader.close()
        state = self._begin()
        state.arrived[target] = (writer.applied, state.models[source])
        writer.finish()
        self.floor = len(self.history) - 1

    def _install(self) -> None:
        for shard in sorted(self.history[-1].arrived):
            state = self._begin()
            at, model = state.arrived.pop(shard)
            state.applied[shard], state.models[shard] = at, model
            self.db.install(at)
            self.floor = len(self.history) - 1

    def _drop(self) -> None:
        shard = self._chance.choice([*SHARDS, *self.history[-1].applied])
        state = self._begin()
        for place in (state.applied, state.models, state.arrived):
            place.pop(shard, None)
        self.db.drop(shard)

    def _read(self) -> None:
        """Begin to read a snapshot, or end it: meanwhile nothing of it may change."""
        if self._reader is not None:
            reader, model = self._reader
            rows = [item for item in _items(reader) if isinstance(item[0], bytes)]
            assert [item[0] for item in rows] == [key for key, _ in model.items()]
            assert [item[2] for item in rows] == [row.value for _, row in model.items()]
            self._close_reader()
        elif self.history[-1].applied:
            shard = self._chance.choice(sorted(self.history[-1].applied))
            reader = SnapshotReader(self.path, self.history[-1].applied[shard])
            self._reader = (reader, self.history[-1].models[shard])

    def _reader_is_behind(self) -> bool:
        assert self._reader is not None
        at = self._reader[0].applied
        return self.history[-1].applied.get(at.shard) != at

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader[0].close()
            self._reader = None


def _items(reader: SnapshotReader) -> list[list[object]]:
    items = []
    while True:
        chunk = reader.next_chunk(1 << 20)
        items += chunk.rows
        if chunk.last:
            return items


def _read_all(path: Path, at: Applied) -> None:
    """Raises Corrupt if the rows do not add up to the state hash."""
    reader = SnapshotReader(path, at)
    try:
        _items(reader)
    finally:
        reader.close()
