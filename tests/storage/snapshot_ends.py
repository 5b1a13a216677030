"""Both ends of a snapshot, without what is between them: fixtures and what tests ask of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kritad.storage.data_db import DataDatabase
from kritad.storage.rows import Applied
from kritad.storage.snapshots import SnapshotChunk, SnapshotReader
from tests.storage.state import StateModel, scanned


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[DataDatabase]:
    database = DataDatabase.open(tmp_path / "sender.db")
    yield database
    database.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[DataDatabase]:
    database = DataDatabase.open(tmp_path / "receiver.db")
    yield database
    database.close()


def chunks_of(db: DataDatabase, at: Applied, bytes_max: int = 2000) -> list[SnapshotChunk]:
    with contextlib.closing(SnapshotReader(db.path, at)) as reader:
        chunks = [reader.next_chunk(bytes_max)]
        while not chunks[-1].last:
            chunks.append(reader.next_chunk(bytes_max))
    return chunks


def check_state(db: DataDatabase, generation: int, model: StateModel) -> None:
    assert scanned(db, generation, None, 10_000) == model.items()
    assert db.scan_sessions(generation, 0, 10_000) == sorted(model.sessions.items())
