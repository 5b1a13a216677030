"""The stores in memory are worth what they equal the real ones: both are driven, and compared.

A pair (raft_pair.py, data_pair.py) does everything twice and compares what comes back or is
raised, to the letter. What only the stores in memory can do (power cuts at will, failures
and damage on request) is tested in test_store_crashes.py.
"""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import attrs
import pytest

from kritad.raft.types import HardState, Save
from kritad.storage import data_db, log_writer, raft_db
from kritad.storage.data_db import DataDatabase
from kritad.storage.database import open_writer
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.snapshots import SnapshotReader, SnapshotWriter
from tests.simulator.data_pair import DataPair
from tests.simulator.data_store import MemoryDataDatabase
from tests.simulator.raft_pair import RaftPair
from tests.simulator.raft_store import MemoryRaftDatabase
from tests.simulator.snapshot_store import MemorySnapshotReader, MemorySnapshotWriter
from tests.storage.model import entry
from tests.storage.state import fill, row

SEEDS = range(20)


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here, and a busy disk would make this take a minute."""

    def open_unsynced(path: Path, _synchronous: str) -> sqlite3.Connection:
        return open_writer(path, "OFF")  # type: ignore[arg-type]

    for module in (raft_db, data_db):
        monkeypatch.setattr(module, "open_writer", open_unsynced)


@pytest.mark.parametrize("seed", SEEDS)
def test_raft_db_in_memory_does_what_the_real_one_does(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(raft_db, "COMPACT_ROWS_MAX", chance.choice([2, 256]))
    monkeypatch.setattr(log_writer, "RUN_BYTES_MAX", chance.choice([500, 512 << 10]))
    path = tmp_path / "raft.db"
    pair = RaftPair(tmp_path, chance, RaftDatabase.open(path), MemoryRaftDatabase(path))
    pair.both("identity")
    pair.both("initialise", b"", 0, b"u" * 16)
    pair.both("initialise", b"c" * 16, 3, b"u" * 16)
    pair.both("initialise", b"c" * 16, 4, b"u" * 16)
    pair.both("remove_replica", 6, 3)
    pair.both("remove_replica", 6, 1)
    pair.both("create_replica", 6, 2, None)
    pair.create()
    pair.create()
    for _ in range(50):
        pair.step()
    pair.check()
    # Our bugs end both of them in the same way, and leave the same behind.
    bad = save_at(10_000)
    good = [(shard, save_at(model.last_index + 1)) for shard, model in pair.models.items()]
    pair.both("save", [*good, (chance.choice([99, *pair.models]), bad)])
    pair.both("replicas")
    pair.crash()
    for _ in range(15):
        pair.step()
    pair.check()
    pair.real.close()


def save_at(index: int) -> Save:
    return Save(9, HardState(99, 1, 0), None, 0, [entry(index, 99)])


@pytest.mark.parametrize("seed", SEEDS)
def test_data_db_in_memory_does_what_the_real_one_does(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    path = tmp_path / "data.db"
    pair = DataPair(tmp_path, chance, DataDatabase.open(path), MemoryDataDatabase(path))
    for _ in range(150):
        pair.step()
        pair.both("applied")
    pair.check()
    pair.crash()
    pair.check()
    while pair.both("sweep", 7):
        pass
    pair.check_swept()
    pair.check()
    pair.both("create_generation")
    pair.real.close()


def test_a_recovery_leaves_the_same_in_both(tmp_path: Path) -> None:
    path = tmp_path / "raft.db"
    pair = RaftPair(tmp_path, random.Random(1), RaftDatabase.open(path), MemoryRaftDatabase(path))
    pair.both("initialise", b"c" * 16, 3, b"u" * 16)
    pair.both("create_replica", 1, 2, None)
    pair.both("save", [(1, Save(1, HardState(1, 2), entries=[entry(1, 1), entry(2, 1)]))])
    forced = [(1, Save(0, HardState(9, commit=1), entries=[entry(3, 9), entry(4, 9)]))]
    pair.both("recover", forced, b"record")
    for _ in range(2):
        assert pair.both("recoveries") == [b"record"]
        boot = pair.both("load", 1, 0)
        assert (boot.last_index, boot.hard_state) == (4, HardState(9, commit=1))
        pair.crash()
    pair.real.close()


def test_what_a_dropped_shard_was_receiving_is_swept_in_both(tmp_path: Path) -> None:
    path = tmp_path / "data.db"
    pair = DataPair(tmp_path, random.Random(1), DataDatabase.open(path), MemoryDataDatabase(path))
    at, _ = fill(pair.real, 1, 30)
    fill(pair.memory, 1, 30)
    at = attrs.evolve(at, shard=4)
    for writer in (SnapshotWriter(pair.real, at), MemorySnapshotWriter(pair.memory, at)):
        writer.begin(b"t")
    pair.both("write_rows", 2, [(b"k", row(b"k", 1, b"v"))])
    pair.both("sweep", 100)
    pair.both("drop", 4)
    assert pair.both("sweep", 100) == 1
    pair.real.close()


@pytest.mark.parametrize(
    ("real", "memory", "inherited"),
    [
        (
            RaftDatabase,
            MemoryRaftDatabase,
            {
                "identity",
                "initialise",
                "count_boot",
                "acknowledge_boot",
                "recoveries",
                "replicas",
                "entries",
                "load",
            },
        ),
        (
            DataDatabase,
            MemoryDataDatabase,
            {
                "applied",
                "inhabited",
                "flush",
                "install",
                "drop",
                "sweep",
                "write_rows",
                "create_generation",
                "reserve_generation",
                "release",
                "hold",
                "receiving",
                "kept",
                "keep",
            },
        ),
        (SnapshotReader, MemorySnapshotReader, {"seek", "next_chunk"}),
        (SnapshotWriter, MemorySnapshotWriter, {"begin", "write", "finish"}),
    ],
)
def test_nothing_is_inherited_without_our_knowledge(
    real: type, memory: type, inherited: set[str]
) -> None:
    public = {name for name in vars(real) if not name.startswith("_")}
    assert public - set(vars(memory)) == inherited, "does it need SQLite? Then override it"
