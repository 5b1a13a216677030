"""A data.db that an older kritad has left: nothing is lost, and what is missing is counted."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import attrs
import pytest

from krita.codec import encode
from krita.operations import Op
from kritad.host.bootstrap import counted
from kritad.host.opening import HostSettings, Opener, needs_arc
from kritad.raft.types import Configuration, SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.database import open_writer
from kritad.storage.digests import seal, session_digest, to_signed
from kritad.storage.errors import Corrupt
from kritad.storage.extent import NO_ARC, WHOLE_RING, Extent
from kritad.storage.inspection import verify_store
from kritad.storage.migrations import DATA, migrate
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.snapshots import SnapshotReader
from tests.storage.state import StateModel, extent_of, row, scanned

VERSION_1 = attrs.evolve(DATA, steps=DATA.steps[:1])
OLD_COLUMNS = (
    "shard, replica, generation, log_index, term, clock_ms, state_hash, configuration, seal"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of version 1: shard 1 with rows and sessions, shard 2 with a damaged seal, a
    snapshot for shard 3 that is complete, and one for shard 4 that is not."""
    path = tmp_path / "data.db"
    with contextlib.closing(open_writer(path, "NORMAL")) as connection:
        assert migrate(connection, path, VERSION_1) == 1
        for generation in (1, 2, 3, 4):
            connection.execute("INSERT INTO generation VALUES (?)", (generation,))
            fill_old(connection, generation)
        for shard in (1, 2):
            connection.execute(
                f"INSERT INTO applied ({OLD_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", old_row(shard)
            )
        connection.execute("UPDATE applied SET log_index=99 WHERE shard=2")
        for shard, complete in ((3, 1), (4, 0)):
            connection.execute(
                f"INSERT INTO receiving ({OLD_COLUMNS}, transfer, next_chunk, row_count,"
                " digest_sum, complete) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                (*old_row(shard), b"t", 1, 33, 0, complete),
            )
    return path


def model() -> StateModel:
    rows = {
        key: row(key, number + 1, bytes(number), None)
        for number, key in enumerate(b"key-%d" % n for n in range(30))
    }
    return StateModel(rows, {number: encode([0, number, 0, []]) for number in (1, 2, 3)})


def old_row(shard: int) -> tuple[object, ...]:
    values = shard, 1, shard, 30, 2, 1_700_000_000_000, to_signed(model().state_hash), b"{}"
    return (*values, seal(*values))


def fill_old(connection: sqlite3.Connection, generation: int) -> None:
    for key, one in model().rows.items():
        connection.execute(
            "INSERT INTO kv (generation, key, revision, value, content_type, digest)"
            " VALUES (?,?,?,?,?,?)",
            (generation, key, one.revision, one.value, one.content_type, one.digest),
        )
    for session, blob in model().sessions.items():
        connection.execute(
            "INSERT INTO sessions (generation, id, blob, digest) VALUES (?,?,?,?)",
            (generation, session, blob, session_digest(session, blob)),
        )


def test_an_upgraded_store_has_what_it_had_and_counts_its_cells(path: Path) -> None:
    db = DataDatabase.open(path)
    (at,) = db.applied().values()
    assert (at.shard, at.index, at.rows, at.cells) == (1, 30, 1, b"")
    assert needs_arc(1, 1, at)
    at = counted(db, at, WHOLE_RING)
    assert Extent.decode(*at.arc, at.cells) == extent_of(model().rows)
    assert not needs_arc(1, 1, at)
    assert scanned(db, at.rows, None, 100, at.arc, 1) == model().items()
    db.close()


def test_what_was_damaged_before_the_upgrade_is_damaged_after_it(path: Path) -> None:
    db = DataDatabase.open(path)
    assert list(db.damaged) == [2]
    db.close()


def test_a_sweep_before_the_arcs_are_known_takes_nothing_that_is_in_use(path: Path) -> None:
    db = DataDatabase.open(path)
    while db.sweep(10):
        pass
    # Of the damaged shard and of the transfer that was given up nothing is left.
    counts = [len(scanned(db, generation, None, 100)) for generation in (1, 2, 3, 4)]
    assert counts == [30, 0, 30, 0]
    db.close()


def test_a_snapshot_that_was_wholly_received_can_still_be_installed(path: Path) -> None:
    db = DataDatabase.open(path)
    received = db.received(3)
    assert received is not None
    assert (received.rows, received.index) == (3, 30)
    db.install(received)
    at = counted(db, db.applied()[3], WHOLE_RING)
    assert Extent.decode(*at.arc, at.cells) == extent_of(model().rows)
    with contextlib.closing(SnapshotReader(path, db.applied()[3])) as reader:
        assert reader.next_chunk(1 << 20).last
    db.close()


def test_an_upgraded_store_is_whole(path: Path, tmp_path: Path) -> None:
    RaftDatabase.open(tmp_path / "raft.db").close()
    (found,) = verify_store(tmp_path / "raft.db", path)
    assert "shard 2" in str(found), "that one was damaged before"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (DATA.version,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def opener(path: Path) -> tuple[Opener, RaftDatabase, DataDatabase]:
    raft = RaftDatabase.open(path.with_name("raft.db"))
    data = DataDatabase.open(path)
    return Opener(HostSettings(), raft, data, 1, 0), raft, data


def test_an_upgraded_replica_is_opened_with_its_arc_and_flushes_it(path: Path) -> None:
    opening, raft, data = opener(path)
    first = SnapshotMeta(30, 2, Configuration(1, voters=frozenset({1}), nodes={1: 1}))
    raft.create_replica(1, 1, first)
    _, state = opening.open(1, 1, data.applied()[1], WHOLE_RING)
    assert state.extent == extent_of(model().rows)
    assert state.state_hash == model().state_hash
    data.flush([state.freeze()])
    assert data.applied()[1].arc == WHOLE_RING
    assert not needs_arc(1, 1, data.applied()[1])
    raft.close()
    data.close()


@pytest.mark.parametrize("query", ["DELETE FROM kv WHERE id=3", "DELETE FROM sessions WHERE id=2"])
def test_what_was_lost_before_the_cells_were_counted_is_damage(path: Path, query: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"{query} AND generation=1")
        connection.commit()
    opening, raft, data = opener(path)
    raft.create_replica(1, 1, SnapshotMeta(30, 2))
    with pytest.raises(Corrupt, match="do not add up") as caught:
        opening.open(1, 1, data.applied()[1], WHOLE_RING)
    assert caught.value.shard == 1
    raft.close()
    data.close()


def test_a_replica_without_an_arc_takes_no_write(path: Path) -> None:
    opening, raft, data = opener(path)
    raft.create_replica(9, 4, None)
    _, state = opening.open(9, 4, None, NO_ARC)
    assert not state.owns(b"k")
    assert state.state_hash == 0
    with pytest.raises(AssertionError, match="has no arc"):
        state.keys.operations[Op.PUT]([0, 0, 0, b"k", b"v", None, None], 1)
    raft.close()
    data.close()
