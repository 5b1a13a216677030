"""data.db twice, in SQLite and in memory: everything is done with both, and compared."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import attrs

from krita.ring import token
from kritad.storage.data_db import DataDatabase
from kritad.storage.extent import WHOLE_RING, Arc, Extent
from kritad.storage.rows import Applied, Row, ShardFlush
from kritad.storage.snapshots import SnapshotReader, SnapshotWriter
from tests.simulator.data_store import MemoryDataDatabase
from tests.simulator.raft_pair import Pair, same
from tests.simulator.snapshot_store import MemorySnapshotReader, MemorySnapshotWriter
from tests.storage.model import copy_store
from tests.storage.state import StateModel, applied, row, scanned


@attrs.define
class DataPair(Pair):
    """data.db twice, with the state that each shard should have."""

    directory: Path
    chance: random.Random
    real: DataDatabase
    memory: MemoryDataDatabase
    models: dict[int, StateModel] = attrs.field(factory=dict)
    readers: list[tuple[SnapshotReader, MemorySnapshotReader]] = attrs.field(factory=list)
    chunks: list[int] = attrs.field(factory=list)  # read by each reader, for seek
    writers: tuple[SnapshotWriter, MemorySnapshotWriter] | None = None
    last: Any = None  # the chunk read last
    crashes: int = 0
    shards_count: int = 4  # the numbers above are those of halves

    def step(self) -> None:
        """One random operation."""
        names = [
            *["flush"] * 4, *["read"] * 3, *["next_chunk"] * 4, *["write"] * 4, "install", "drop",
            "sweep", "sweep", "checkpoint", "checkpoint", "open_reader", "open_reader",
            "close_reader", "begin", "begin", "abandon", "release", "write_rows", "crash", "split",
            "drop_half",
        ]  # fmt: skip
        getattr(self, self.chance.choice(names))()

    def key(self) -> bytes:
        return b"k%02d" % self.chance.randrange(40)

    def rows(self, index: int, arc: Arc = WHOLE_RING) -> dict[bytes, Row | None]:
        found: dict[bytes, Row | None] = {}
        for _ in range(self.chance.randrange(15)):
            key, value = self.key(), self.chance.randbytes(self.chance.randrange(60))
            kind = self.chance.choice([None, "text/plain"])
            if not arc[0] <= token(key) < arc[1]:
                continue
            bond = self.chance.choice([(0, 0), (0, 0), (5, 0), (0, 6), (7, 8)])
            found[key] = row(key, index, value, kind, *bond) if self.chance.random() < 0.7 else None
        return found

    def changed(self, at: Applied, model: StateModel) -> ShardFlush:
        """A random flush of a shard."""
        index = at.index + 1
        rows = self.rows(index, at.arc)
        sessions: dict[int, bytes | None] = {
            self.chance.randrange(9): self.chance.choice([None, b"s%d" % index]) for _ in range(3)
        }
        for key, new in rows.items():
            model.rows.pop(key, None)
            if new is not None:
                model.rows[key] = new
        for session, blob in sessions.items():
            model.sessions.pop(session, None)
            if blob is not None:
                model.sessions[session] = blob
        at = attrs.evolve(at, index=index, state_hash=model.state_hash)
        return ShardFlush(at, rows, list(sessions.items()))

    def flush(self) -> None:
        batch = []
        for shard in [1, 2, 3, *(shard for shard in sorted(self.models) if shard > 4)]:
            if self.chance.random() < 0.5:
                continue
            at = self.real.applied().get(shard)
            if at is None:
                self.models[shard] = StateModel()
                at = applied(shard, self.both("create_generation"), 1)
            batch.append(self.changed(at, self.models[shard]))
        self.both("flush", batch, self.chance.random() < 0.2)

    def split(self) -> None:
        """Cut a shard in two, and flush both halves; or the one, if the other is not here."""
        known = {s: at for s, at in self.real.applied().items() if s in self.models and s != 4}
        if not known:
            return
        shard = self.chance.choice(sorted(known))
        at, model = known[shard], self.models[shard]
        extent = Extent.decode(*at.arc, at.cells)
        edge = extent.halving()
        if edge is None:
            return
        behind = extent.cut(edge)
        self.shards_count += 1
        rows = {key: one for key, one in model.rows.items() if token(key) >= edge}
        for key in rows:
            del model.rows[key]
        child = StateModel(rows, dict(model.sessions))
        old = attrs.evolve(at, state_hash=model.state_hash, hash_hi=edge, cells=extent.encode())
        new = attrs.evolve(
            at, shard=self.shards_count, generation=self.both("reserve_generation"),
            state_hash=child.state_hash, hash_lo=edge, cells=behind.encode(),
        )  # fmt: skip
        batch = [ShardFlush(old)]
        if self.chance.random() < 0.8:
            batch.append(ShardFlush(new, {}, list(child.sessions.items())))
            self.models[self.shards_count] = child
        self.both("flush", batch, True)

    def drop_half(self) -> None:
        """Let one of two that share their rows go, to nowhere or to a generation of its own."""
        known = self.real.applied()
        rows = [at.rows for at in known.values()]
        shared = sorted(s for s, at in known.items() if rows.count(at.rows) > 1 and s != 4)
        if not shared:
            return
        shard = self.chance.choice(shared)
        if self.chance.random() < 0.5:
            del self.models[shard]
            self.both("drop", shard)
        else:
            generation = self.both("create_generation")
            model = self.models[shard] = StateModel()
            at = attrs.evolve(
                known[shard], generation=generation, rows=generation, state_hash=model.state_hash
            )
            self.both("install", at)
        self.sweep()

    def write_rows(self) -> None:
        self.both("write_rows", self.both("create_generation"), list(self.rows(1).items()))

    def install(self) -> None:
        generation = self.both("create_generation")
        shard = self.chance.randint(1, 4)
        model = self.models[shard] = StateModel()
        flush = self.changed(applied(shard, generation, 50), model)
        self.both("write_rows", generation, list(flush.rows.items()))
        model.sessions.clear()
        at = attrs.evolve(flush.applied, state_hash=model.state_hash)
        self.both("install", at)

    def drop(self) -> None:
        shard = self.chance.choice([1, 2, 3, 4, 4])
        self.models.pop(shard, None)
        self.both("drop", shard)
        if shard == 4:  # nobody goes on with what came in for a replica that is gone
            self.writers = None
        self.sweep()

    def sweep(self) -> None:
        self.both("sweep", self.chance.choice([3, 1000]))
        real, memory = (database.scrub(0, 1 << 20) for database in (self.real, self.memory))
        assert (real.rows, real.unsound) == (memory.rows, memory.unsound)

    def release(self) -> None:
        self.both("release", self.chance.randint(1, 12))

    def checkpoint(self) -> None:
        self.both("checkpoint")

    def read(self) -> None:
        known = self.real.applied()
        used = [number for at in known.values() for number in (at.generation, at.rows)]
        generation, key = self.chance.choice([*used, self.chance.randint(1, 12)]), self.key()
        limit = self.chance.choice([1, 7, 1000])
        self.both("get", generation, key)
        self.both("stamp", generation, key)
        self.scan(generation, self.chance.choice([None, key]), limit)
        edges = sorted(self.chance.sample(range(0, (1 << 32) + 1, 1 << 24), 2))
        arc = edges[0], edges[1]
        self.scan(generation, self.chance.choice([None, key]), limit, arc)
        self.read_range(generation, limit, arc)
        same(
            lambda: self.real.count(generation, Extent.of(arc)),
            lambda: self.memory.count(generation, Extent.of(arc)),
            f"count of {generation} in {arc}",
        )
        self.both("scan_sessions", generation, self.chance.randint(-1, 9), limit)
        self.both("received", generation)

    def read_range(self, generation: int, limit: int, arc: Arc) -> None:
        """Between two keys, forwards and backwards; and what ends by itself."""
        start, stop = self.key(), self.chance.choice([None, self.key()])
        for reverse in (False, True):
            bytes_max = self.chance.choice([None, 0, 1, 100])
            same(
                lambda b=bytes_max, r=reverse: self.real.between(  # type: ignore[misc]
                    generation, start, stop, limit, arc, reverse=r, bytes_max=b
                ),
                lambda b=bytes_max, r=reverse: self.memory.between(  # type: ignore[misc]
                    generation, start, stop, limit, arc, reverse=r, bytes_max=b
                ),
                f"between {start!r} and {stop!r} of {generation}, {reverse=} {bytes_max=}",
            )
            same(
                lambda r=reverse: self.real.keys(  # type: ignore[misc]
                    generation, start, stop, limit, arc, reverse=r
                ),
                lambda r=reverse: self.memory.keys(  # type: ignore[misc]
                    generation, start, stop, limit, arc, reverse=r
                ),
                f"keys from {start!r} to {stop!r} of {generation}, {reverse=}",
            )
        self.both("ending", generation, arc, self.chance.randrange(3), 1 << 60, limit)

    def scan(
        self, generation: int, after: bytes | None, limit: int, arc: Arc = WHOLE_RING
    ) -> list[tuple[bytes, Row]]:
        found: list[tuple[bytes, Row]] = same(
            lambda: scanned(self.real, generation, after, limit, arc),
            lambda: scanned(self.memory, generation, after, limit, arc),
            f"scan of {generation} behind {after!r}",
        )
        return found

    def open_reader(self) -> None:
        known = self.real.applied()
        if len(self.readers) == 2 or not known:
            return
        at = known[self.chance.choice(sorted(known))]
        if self.chance.random() < 0.1:
            at = attrs.evolve(at, generation=at.generation + 1)
        pair: list[Any] = []
        same(
            lambda: pair.append(SnapshotReader(self.real.path, at)),
            lambda: pair.append(MemorySnapshotReader(self.memory, at)),
            f"reader of {at}",
        )
        if pair:
            assert pair[0].applied == pair[1].applied
            self.readers.append((pair[0], pair[1]))
            self.chunks.append(0)

    def close_reader(self) -> None:
        if self.readers:
            for reader in self.readers.pop(0):
                reader.close()
            self.chunks.pop(0)

    def next_chunk(self) -> None:
        if not self.readers:
            return
        at = self.chance.randrange(len(self.readers))
        real, memory = self.readers[at]
        if self.chance.random() < 0.2:
            number = self.chance.randint(0, self.chunks[at] + 1)
            same(lambda: real.seek(number), lambda: memory.seek(number), f"seek({number})")
        size = self.chance.choice([10, 400, 1 << 20])
        self.last = same(
            lambda: real.next_chunk(size), lambda: memory.next_chunk(size), f"next_chunk({size})"
        )
        if self.last is not None:
            self.chunks[at] = self.last.number + 1

    def begin(self) -> None:
        """Receive a transfer for shard 4, maybe one that has been begun already."""
        known = self.real.applied()
        if not known:
            return
        at = attrs.evolve(known[self.chance.choice(sorted(known))], shard=4)
        real, memory = SnapshotWriter(self.real, at), MemorySnapshotWriter(self.memory, at)
        self.writers = real, memory
        transfer = self.chance.choice([b"t1", b"t2"])
        same(lambda: real.begin(transfer), lambda: memory.begin(transfer), "begin")
        assert real.known_to == memory.known_to
        if self.chance.random() < 0.6:
            self.transfer_whole(at)

    def transfer_whole(self, at: Applied) -> None:
        """All of the chunks that are missing, and maybe the installation."""
        assert self.writers is not None
        source = next(a for a in self.real.applied().values() if a.generation == at.generation)
        with contextlib.closing(MemorySnapshotReader(self.memory, source)) as reader:
            chunk = reader.next_chunk(300)
            while True:
                self.last = chunk
                self.write()
                if chunk.last or self.writers is None or self.chance.random() < 0.1:
                    break
                chunk = reader.next_chunk(300)

    def write(self) -> None:
        if self.writers is None or self.last is None:
            return
        real, memory = self.writers
        chunk = self.last
        if self.chance.random() < 0.1:
            chunk = attrs.evolve(chunk, crc=chunk.crc ^ 1)
        elif self.chance.random() < 0.7:
            short = chunk.shortened(real.known_to)
            same(lambda: real.write(short), lambda: memory.write(short), "write")
            assert real.missing == memory.missing
        same(lambda: real.write(chunk), lambda: memory.write(chunk), "write")
        assert (real.next_chunk, real.applied) == (memory.next_chunk, memory.applied)
        if chunk.last or self.chance.random() < 0.02:
            self.finish()

    def finish(self) -> None:
        assert self.writers is not None
        real, memory = self.writers
        generation = same(real.finish, memory.finish, "finish")
        if generation is not None and self.chance.random() < 0.7:
            received = self.both("received", generation)
            assert received == real.applied
            self.both("install", received)
            self.models[4] = StateModel()
        self.writers = None

    def abandon(self) -> None:
        if self.writers is not None:
            real, memory = self.writers
            same(real.abandon, memory.abandon, "abandon")
            self.writers = None

    def crash(self) -> None:
        while self.readers:
            self.close_reader()
        self.writers = None
        self.crashes += 1
        path = copy_store(self.real.path, self.directory / f"crash{self.crashes}")
        self.real.close()
        self.real = DataDatabase.open(path)
        self.memory.path = path
        self.memory = self.memory.crash(power=False, chance=self.chance)

    def check_swept(self) -> None:
        """Nothing is in there that is nobody's."""
        known = list(self.real.applied().values())
        receiving = set(self.memory._receiving.values())
        for generation in set(range(1, 90)) - receiving:
            arcs = [at.arc for at in known if at.rows == generation]
            for key, _ in self.scan(generation, None, 1000):
                assert any(lo <= token(key) < hi for lo, hi in arcs), (generation, key)
            if generation not in [at.generation for at in known]:
                assert self.both("scan_sessions", generation, -1, 1000) == []

    def check(self) -> None:
        """All that is in there."""
        known = self.both("applied")
        for shard, at in known.items():
            if shard in self.models and shard != 4:
                found = self.scan(at.rows, None, 1000, at.arc)
                assert found == self.models[shard].items()
                ends, upto_ms = self.both("ending", at.rows, at.arc, 0, 1 << 60, 1_000)
                assert upto_ms == 1 << 60
                assert sorted(ends) == sorted(
                    (one.expires_ms, key) for key, one in found if one.expires_ms
                )
                tied = [(key, one.lease) for key, one in found if one.lease]
                for database in (self.real, self.memory):
                    assert sorted(database.leased(at.rows, at.arc)) == tied
                sessions = self.both("scan_sessions", at.generation, -1, 1000)
                assert sessions == sorted(self.models[shard].sessions.items())
        for generation in range(1, 90):
            self.scan(generation, None, 1000)
            self.both("scan_sessions", generation, -1, 1000)
            self.both("received", generation)
        assert self.memory.damaged == self.real.damaged
