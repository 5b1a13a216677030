"""Power cuts and kills at every kind of moment: what was acknowledged is there afterwards.

KRITA_POWER_CUTS=100000 in the environment makes that many cuts of each kind of store
instead of a few hundred (about 300 a second on one core).
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import pytest

from kritad.storage import database, raft_db, walscan
from kritad.storage.errors import StorageError
from tests.simulator.platter.connection import DiskConnection
from tests.simulator.platter.node_life import NodeLife
from tests.simulator.platter.power import MAKERS, Maker, Tally, live, raft_life, running
from tests.simulator.platter.vfs import Disk, Operation

CUTS = int(os.environ.get("KRITA_POWER_CUTS", "400"))
CUTS_PER_SEED = 20


def lose_by(make: Maker, directory: Path, seeds: int = 8, **options: object) -> int:
    """In how many of ``seeds`` lives a start did not find what it had to find."""
    lost = 0
    for seed in range(seeds):
        try:
            live(make, directory, seed, CUTS_PER_SEED, **options)  # type: ignore[arg-type]
        except (AssertionError, StorageError):
            lost += 1
    return lost


@pytest.mark.slow
@pytest.mark.parametrize("store", MAKERS)
@pytest.mark.parametrize("power", [True, False], ids=["power", "kill"])
def test_nothing_acknowledged_is_lost_and_nothing_torn_is_read(
    store: str, power: bool, tmp_path: Path
) -> None:
    total = Tally()
    for seed in range(-(-CUTS // CUTS_PER_SEED)):
        tally = live(MAKERS[store], tmp_path, seed, CUTS_PER_SEED, power=power)
        total.stops += tally.stops
        total.stops_in_boot += tally.stops_in_boot
        total.steps += tally.steps
    assert total.stops >= CUTS
    assert total.stops_in_boot > CUTS // 10, total
    assert total.steps > 3 * CUTS, total


def test_the_same_seed_does_the_same_operations(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        disk = Disk(random.Random(4))
        with running(disk):
            life = raft_life(tmp_path, random.Random(5))
            life.boot()
            for _ in range(50):
                life.step()
            contents = [bytes(file.content) for file in disk.files.values()]
            counts.append((disk.counts, contents, disk.chance.random()))
    assert counts[0] == counts[1]
    assert counts[0][0][Operation.SYNC] > 20


# What the tests above are worth: planted bugs, which must be seen.


def test_synchronous_normal_on_raft_db_would_be_seen(tmp_path: Path) -> None:
    def open_careless(path: Path, _: object) -> object:
        return database.open_writer(path, "NORMAL")

    with mock.patch.object(raft_db, "open_writer", open_careless):
        assert lose_by(raft_life, tmp_path) == 8


@pytest.mark.parametrize("store", MAKERS)
def test_a_disk_whose_sync_does_nothing_would_be_seen(store: str, tmp_path: Path) -> None:
    def lie(disk: Disk) -> None:
        disk.lying = True

    assert lose_by(MAKERS[store], tmp_path, prepare=lie) >= 7


def test_a_log_cut_before_the_checkpoint_would_be_seen(tmp_path: Path) -> None:
    def careless(directory: Path, chance: random.Random) -> NodeLife:
        return NodeLife(directory, chance, careless=True)

    assert lose_by(careless, tmp_path) >= 7


def test_a_checkpoint_that_promises_too_much_would_be_seen(tmp_path: Path) -> None:
    with mock.patch("kritad.storage.database.CheckpointResult.complete", True):
        assert lose_by(MAKERS["data.db"], tmp_path, seeds=30) >= 1


def test_an_install_that_is_not_durable_would_be_seen(tmp_path: Path) -> None:
    def forgetful(self: DiskConnection, statement: str, values: Sequence[object] = ()) -> object:
        return real(self, statement.replace("synchronous=FULL", "synchronous=NORMAL"), values)

    real = DiskConnection.execute
    with mock.patch.object(DiskConnection, "execute", forgetful):
        assert lose_by(MAKERS["data.db"], tmp_path, seeds=30) >= 1


def test_a_lost_sector_one_bit_away_from_what_it_should_hold_is_a_tear(tmp_path: Path) -> None:
    """As found by seed 2 of both stores: the first transaction of another round of the WAL
    lost its end, and a sector of page 1, where only the file's size had changed."""
    with running(Disk(random.Random(1))) as disk:
        connection = disk.connect(tmp_path / "raft.db")
        for statement in ("journal_mode=WAL", "synchronous=FULL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {statement}").fetchall()
        connection.execute("CREATE TABLE log (records BLOB)")
        connection.execute("INSERT INTO log VALUES (randomblob(20000))")
        data = bytearray(disk.files[str(tmp_path / "raft.db-wal")].content)
    assert walscan.judge_wal(bytes(data)) is walscan.Verdict.CLEAN
    # The last transaction begins with page 1; its size field is at 28..31.
    step = walscan.FRAME_HEADER_BYTES + 4096
    starts = range(walscan.HEADER_BYTES, len(data), step)
    last = max(start for start in starts if data[start : start + 4] == b"\0\0\0\1")
    data[last + walscan.FRAME_HEADER_BYTES + 31] ^= 1
    assert walscan.judge_wal(bytes(data)) is walscan.Verdict.CORRUPT, "all else is there"
    del data[-4096:]
    data += bytes(4096)  # the commit frame's page, lost
    assert walscan.judge_wal(bytes(data)) is walscan.Verdict.TORN
