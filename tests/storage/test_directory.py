"""The data directory: ours alone and locked, and the reserve of free space on its disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kritad.storage import space
from kritad.storage.directory import DataDirectory
from kritad.storage.errors import DirectoryRefused, StoreFailed
from kritad.storage.space import DiskReserve, decide


def test_a_missing_directory_is_made_for_us_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o277)
    try:
        directory = DataDirectory(tmp_path / "a" / "b") if os.geteuid() == 0 else None
    finally:
        os.umask(before)
    directory = directory or DataDirectory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert directory.raft_path == tmp_path / "a" / "b" / "raft.db"
    directory.close()


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o707, 0o701])
def test_a_directory_open_to_others_is_refused_with_the_command_that_helps(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(DirectoryRefused) as caught:
        DataDirectory(path)
    assert caught.value.hint == f"chmod 700 {path}"
    assert f"{mode:04o}" in caught.value.message
    assert path.stat().st_mode & 0o777 == mode, "a refused directory was changed"
    assert list(path.iterdir()) == []


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(DirectoryRefused, match="symbolic link") as caught:
        DataDirectory(tmp_path / "link")
    assert str(tmp_path / "real") in caught.value.hint


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DirectoryRefused, match="not a directory"):
        DataDirectory(tmp_path / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, -1)
    with pytest.raises(DirectoryRefused, match="belongs to user 12345"):
        DataDirectory(path)


def test_a_directory_in_use_is_refused_with_the_pid_that_uses_it(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "data")
    with pytest.raises(DirectoryRefused, match=f"already used by pid {os.getpid()} "):
        DataDirectory(tmp_path / "data")
    directory.close()
    directory.close()
    DataDirectory(tmp_path / "data").close()


def test_the_lock_ends_with_the_process_however_it_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path;"
        "from kritad.storage.directory import DataDirectory;"
        "held = DataDirectory(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "data"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=False)
    assert done.returncode == -9
    assert (path / "LOCK").read_text().strip().isdigit()
    DataDirectory(path).close()


@pytest.mark.parametrize(
    ("low", "free", "expected"),
    [
        (False, 1000, False),
        (False, 999, True),
        (True, 999, True),
        (True, 1249, True),
        (True, 1250, False),
        (False, 1100, False),
    ],
)
def test_a_node_is_low_below_its_reserve_until_a_quarter_more_is_free(
    low: bool, free: int, expected: bool
) -> None:
    assert decide(low, free, 1000) is expected


def test_what_is_promised_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda _path: 1000)
    reserve = DiskReserve(tmp_path, 400)
    assert not reserve.update(600)
    assert reserve.update(601)
    assert not reserve.nearly_full
    assert reserve.update(900)
    assert not reserve.nearly_full
    assert reserve.update(901)
    assert reserve.nearly_full
    assert not reserve.update(0)
    assert not reserve.nearly_full
    assert (reserve.free_bytes, reserve.room_bytes) == (1000, 600)


def test_free_pages_of_the_file_are_room_for_puts_up_to_half_of_the_reserve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda _path: 1000)
    reserve = DiskReserve(tmp_path, 400)
    assert reserve.update(700)
    assert reserve.update(700, 100), "it has to be a quarter more"
    assert not reserve.update(700, 200)
    assert not reserve.update(800, 1 << 30)
    assert reserve.update(801, 1 << 30)
    assert not reserve.nearly_full
    reserve.update(901, 1 << 30)
    assert reserve.nearly_full, "the WAL cannot grow into free pages of the file"


def test_the_reserve_measures_the_real_disk(tmp_path: Path) -> None:
    assert DiskReserve(tmp_path, 1).update() is False
    reserve = DiskReserve(tmp_path, 1 << 62)
    assert reserve.update() is True
    assert 0 < reserve.free_bytes < 1 << 62
    with pytest.raises(StoreFailed, match="free space"):
        DiskReserve(tmp_path / "missing", 1).update()
