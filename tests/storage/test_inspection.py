"""Looking over a store that is stopped: its rows counted, and its damage found."""

from __future__ import annotations

from pathlib import Path

import pytest

from kritad.raft.types import HardState, Save, SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.inspection import verify_store
from kritad.storage.raft_db import RaftDatabase
from tests.storage.faults import damage
from tests.storage.model import configuration, run
from tests.storage.state import fill


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, Path]:
    """A closed store: shard 1 with 10 entries of which 10 rows came, shard 2 without any."""
    raft_path, data_path = tmp_path / "raft.db", tmp_path / "data.db"
    raft, data = RaftDatabase.open(raft_path), DataDatabase.open(data_path)
    for shard in (1, 2):
        raft.create_replica(shard, 1, SnapshotMeta(0, 0, configuration(1)))
    raft.save([(1, Save(1, HardState(1, 1, 10), None, 0, run(1, 10)))])
    fill(data, 1, 10)
    raft.close()
    data.close()
    return raft_path, data_path


def test_a_whole_store_has_no_findings(paths: tuple[Path, Path]) -> None:
    assert list(verify_store(*paths)) == []


@pytest.mark.parametrize(
    ("file", "query", "finding"),
    [
        (0, "UPDATE log SET records=x'00'", "shard 1 is damaged"),
        (0, "UPDATE hard SET term=9 WHERE shard=2", "shard 2 is damaged"),
        (0, "DELETE FROM log", "saved up to 10"),
        (1, "DELETE FROM kv WHERE id=3", "do not add up"),
        (1, "UPDATE kv SET value=x'00' WHERE id=3", "does not match its digest"),
        (1, "DELETE FROM sessions", "do not add up"),
        (1, "UPDATE applied SET log_index=9", "how far shard 1 is"),
    ],
)
def test_each_kind_of_damage_is_found(
    paths: tuple[Path, Path], file: int, query: str, finding: str
) -> None:
    damage(paths[file], query)
    (found,) = verify_store(*paths)
    assert finding in str(found)


def test_a_file_that_is_no_database_is_a_finding_and_not_a_crash(
    paths: tuple[Path, Path],
) -> None:
    paths[1].write_bytes(b"nonsense" * 1000)
    (found,) = verify_store(*paths)
    assert "not a database" in str(found)
