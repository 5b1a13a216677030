"""The scan of the write-ahead log: what a crash tore, told from what was damaged afterwards."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from kritad.raft.types import HardState, Save, SnapshotMeta
from kritad.storage import walscan
from kritad.storage.errors import Corrupt, StoreFailed
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.walscan import Verdict, judge_wal, scan_wal
from tests.storage.model import configuration, copy_store, run

SECTOR = 512


class Recording:
    """A raft.db to which saves are made, and its WAL after each of them."""

    def __init__(self, path: Path, *, warm_up: int = 0) -> None:
        self.path = path
        self.wal_path = path.with_name("raft.db-wal")
        self._db = RaftDatabase.open(path)
        self._db.create_replica(1, 1, SnapshotMeta(0, 0, configuration(1)))
        self.last_index = 0
        for _ in range(warm_up):  # so that frames of an older WAL lie behind the new one's
            self.save(3)
        if warm_up:
            self._db._checkpoint()
        self.wals = [self.wal_path.read_bytes()]
        self.indexes = [self.last_index]

    def save(self, count: int) -> None:
        entries = run(self.last_index + 1, self.last_index + count, data_bytes=400)
        self._db.save([(1, Save(1, HardState(1, 1, 0), None, 0, entries))])
        self.last_index += count

    def record(self, count: int) -> None:
        self.save(count)
        self.wals.append(self.wal_path.read_bytes())
        self.indexes.append(self.last_index)

    def close(self) -> None:
        self._db.close()


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    made = Recording(tmp_path / "raft.db")
    for count in (1, 4, 2, 9, 1, 5):
        made.record(count)
    return made


def boot_last_index(path: Path) -> int:
    db = RaftDatabase.open(path)
    try:
        return db.load(1, 0).last_index
    finally:
        db.close()


def test_no_file_and_an_empty_file_are_absent(tmp_path: Path) -> None:
    assert scan_wal(tmp_path / "none") is Verdict.ABSENT
    (tmp_path / "empty").touch()
    assert scan_wal(tmp_path / "empty") is Verdict.ABSENT


def test_a_whole_wal_is_clean_after_every_save(recording: Recording) -> None:
    assert [judge_wal(wal) for wal in recording.wals] == [Verdict.CLEAN] * 7
    recording.close()


def test_a_wal_that_began_again_over_an_older_one_is_clean(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "raft.db", warm_up=20)
    recording.record(2)
    recording.record(3)
    assert [judge_wal(wal) for wal in recording.wals[1:]] == [Verdict.CLEAN] * 2
    recording.close()


@pytest.mark.parametrize("seed", range(4))
def test_every_single_flipped_bit_in_the_wal_is_corrupt(recording: Recording, seed: int) -> None:
    recording.close()
    chance = random.Random(seed)
    wal = recording.wals[-1]
    for _ in range(60):
        bit = chance.randrange(len(wal) * 8)
        damaged = bytearray(wal)
        damaged[bit // 8] ^= 1 << bit % 8
        assert judge_wal(bytes(damaged)) is Verdict.CORRUPT, f"bit {bit} of {len(wal) * 8}"


@pytest.mark.parametrize("part", ["header", "frame header", "last page"])
def test_every_bit_of_the_parts_that_matter_most_is_guarded(
    recording: Recording, part: str
) -> None:
    recording.close()
    wal = recording.wals[-1]
    last = len(wal) - 4096 - 24
    start, size = {"header": (0, 32), "frame header": (last, 24), "last page": (last + 24, 12)}[
        part
    ]
    for bit in range(start * 8, (start + size) * 8):
        damaged = bytearray(wal)
        damaged[bit // 8] ^= 1 << bit % 8
        assert judge_wal(bytes(damaged)) is Verdict.CORRUPT, f"bit {bit - start * 8} of the {part}"


def test_a_zeroed_page_before_the_last_transaction_is_corrupt(recording: Recording) -> None:
    recording.close()
    wal = bytearray(recording.wals[-1])
    wal[32 + 24 : 32 + 24 + 4096] = bytes(4096)
    assert judge_wal(bytes(wal)) is Verdict.CORRUPT


@pytest.mark.parametrize("seed", range(4))
def test_a_wal_cut_anywhere_is_never_corrupt_and_boots_with_whole_saves(
    recording: Recording, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    whole = recording.wals[-1]
    created = len(recording.wals[0])
    for _ in range(15):
        size = chance.randrange(created, len(whole))
        assert judge_wal(whole[:size]) in (Verdict.TORN, Verdict.CLEAN), size
        path = copy_store(recording.path, tmp_path / "crashed")
        path.with_name("raft.db-wal").write_bytes(whole[:size])
        saved = sum(len(wal) <= size for wal in recording.wals) - 1
        assert boot_last_index(path) == recording.indexes[saved]
    recording.close()


def test_a_wal_cut_within_its_header_is_torn(recording: Recording) -> None:
    recording.close()
    assert {judge_wal(recording.wals[-1][:size]) for size in range(1, 32)} == {Verdict.TORN}


@pytest.mark.parametrize("warm_up", [0, 30])
def test_a_last_transaction_of_which_only_some_sectors_arrived_is_never_corrupt(
    tmp_path: Path, warm_up: int
) -> None:
    recording = Recording(tmp_path / "raft.db", warm_up=warm_up)
    for count in (2, 4, 12):
        recording.record(count)
    recording.close()
    before, after = recording.wals[-2:]
    before = before.ljust(len(after), b"\0")
    chance = random.Random(warm_up)
    verdicts = set()
    for _ in range(200):
        torn = b"".join(
            (after if chance.random() < 0.5 else before)[start : start + SECTOR]
            for start in range(0, len(after), SECTOR)
        )
        verdicts.add(judge_wal(torn))
    assert Verdict.CORRUPT not in verdicts
    assert Verdict.TORN in verdicts


def test_a_node_with_a_damaged_wal_refuses_to_start_and_says_what_may_be_lost(
    recording: Recording, tmp_path: Path
) -> None:
    path = copy_store(recording.path, tmp_path / "crashed")
    recording.close()
    wal = bytearray(recording.wals[-1])
    wal[5000] ^= 4
    path.with_name("raft.db-wal").write_bytes(wal)
    with pytest.raises(Corrupt) as caught:
        RaftDatabase.open(path)
    assert caught.value.shard is None
    assert "raft.db-wal is damaged" in caught.value.message
    assert "must not vote" in caught.value.hint
    assert "rebuilds its replicas" in caught.value.hint


def test_sqlite_alone_would_have_forgotten_saves_behind_the_damage(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The reason for all this; when this test fails, SQLite has learnt to notice.
    path = copy_store(recording.path, tmp_path / "crashed")
    recording.close()
    wal = bytearray(recording.wals[-1])
    wal[len(recording.wals[2]) + 100] ^= 4
    path.with_name("raft.db-wal").write_bytes(wal)
    monkeypatch.setattr("kritad.storage.walscan.judge_wal", lambda _: Verdict.CLEAN)
    assert boot_last_index(path) == recording.indexes[2] < recording.indexes[-1]


def test_a_wal_is_rewritten_in_blocks_that_the_system_takes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, most = tmp_path / "data.db-wal", 1000
    written: list[int] = []

    def pwrite(file: int, data: bytes, offset: int) -> int:
        written.append(offset)
        return _pwrite(file, data[:most], offset)  # as Linux does with 2 GiB

    content = random.Random(1).randbytes(2_500)
    path.write_bytes(content)
    _pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(walscan, "_BLOCK_BYTES", most)
    walscan.rewrite_wal(path)
    assert path.read_bytes() == content
    assert written == [0, 1000, 2000]
    monkeypatch.setattr(walscan, "_BLOCK_BYTES", most + 1)
    with pytest.raises(StoreFailed, match="cannot write all of"):
        walscan.rewrite_wal(path)


def test_a_file_that_is_not_there_has_no_size(tmp_path: Path) -> None:
    path = tmp_path / "data.db-wal"
    assert walscan.bytes_of(path) == 0
    path.write_bytes(b"12345")
    assert walscan.bytes_of(path) == 5
    with pytest.raises(StoreFailed, match="cannot ask for the size"):
        walscan.bytes_of(path / "x")
