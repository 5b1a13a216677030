"""A node's life: what it begins with, and its end where no real disk can be made to behave as
it has to."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio

from kritad import daemon
from kritad.config import Config
from kritad.host.bootstrap import begin_cluster, fresh_applied, store_of
from kritad.host.surroundings import MACHINE
from kritad.host.writer import WorkerThread
from kritad.raft.types import Configuration
from kritad.server.listener import bind
from kritad.storage.data_db import DataDatabase
from kritad.storage.directory import DataDirectory
from kritad.storage.errors import DirectoryRefused
from kritad.storage.extent import WHOLE_RING
from kritad.storage.raft_db import RaftDatabase


class Ended(Exception):
    """What the process does of itself, with this status."""


class HangingThread(WorkerThread):
    """Says that it has not got to its end, as one does whose disk hangs."""

    def close(self, timeout_s: float) -> bool:
        super().close(timeout_s)
        return False


def start_hanging(name: str) -> HangingThread:
    return HangingThread(name, trio.lowlevel.current_trio_token())


def end(status: int) -> None:
    raise Ended(status)


async def test_a_disk_that_hangs_when_the_node_stops_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To close its files would mean to wait for it."""
    config = Config.make(data_dir=tmp_path / "data", shards=1, start_cluster=True)
    surroundings = attrs.evolve(MACHINE, start_worker=start_hanging, end=end)
    sender, signals = trio.open_memory_channel[int](1)
    sender.send_nowait(signal.SIGTERM)
    with pytest.raises(Ended, match="1"):
        await daemon.live(config, bind("127.0.0.1", 0), signals, surroundings)
    assert "the disk hangs: ending without it" in caplog.text


def with_data(path: Path) -> Path:
    """A directory of a node that had a state, without its raft.db."""
    with closing(DataDirectory(path)), closing(DataDatabase.open(path / "data.db")) as data_db:
        data_db.install(fresh_applied(data_db, 3, 30, Configuration(), WHOLE_RING))
    return path


def initialised(path: Path) -> None:
    """A raft.db as a first start leaves it that was ended before it was a node."""
    with closing(RaftDatabase.open(path)) as raft_db:
        store_of(raft_db)


@pytest.mark.parametrize("left", ["nothing", "an empty file", "no identity", "no number"])
async def test_a_directory_that_lost_its_log_is_refused_and_keeps_its_data(
    tmp_path: Path, left: str
) -> None:
    """To found a cluster, or to join one, would drop every state that raft.db does not know."""
    path = with_data(tmp_path / "data")
    raft_path, wal_path = path / "raft.db", path / "raft.db-wal"
    match left:
        case "nothing":
            wal_path.write_bytes(b"what can still be put together")
        case "an empty file":
            raft_path.touch()
        case "no identity":
            RaftDatabase.open(raft_path).close()
        case "no number":
            initialised(raft_path)
    config = Config.make(data_dir=path, shards=1, start_cluster=True)
    sender, signals = trio.open_memory_channel[int](1)
    sender.send_nowait(signal.SIGTERM)
    with pytest.raises(DirectoryRefused, match=r"raft\.db is gone or was emptied.*put raft\.db"):
        await daemon.live(config, [], signals, MACHINE)
    with closing(DataDatabase.open(path / "data.db")) as data_db:
        assert data_db.applied().keys() == {3}
    assert wal_path.exists() == (left == "nothing")


@pytest.mark.parametrize("left", ["data.db alone", "two empty files", "no identity", "no number"])
async def test_a_first_start_that_was_cut_short_is_begun_again(tmp_path: Path, left: str) -> None:
    path = tmp_path / "data"
    DataDirectory(path).close()
    match left:
        case "data.db alone":
            (path / "data.db").touch()
        case "two empty files":
            (path / "raft.db").touch()
            (path / "data.db").touch()
        case "no identity":
            RaftDatabase.open(path / "raft.db").close()
        case "no number":
            initialised(path / "raft.db")
    with daemon.open_stores(path) as stores:
        assert not stores.data_db.inhabited()


async def test_a_node_without_its_data_is_opened_all_the_same(tmp_path: Path) -> None:
    """Its replicas are found damaged one by one, and made anew from the others."""
    path = tmp_path / "data"
    DataDirectory(path).close()
    with closing(RaftDatabase.open(path / "raft.db")) as raft_db:
        begin_cluster(raft_db, store_of(raft_db))
    with daemon.open_stores(path) as stores:
        assert stores.raft_db.identity() is not None
