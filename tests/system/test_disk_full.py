"""A disk that fills up: writes end with a clear error, nothing else does."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from krita import Client, NoSpace, PutResult, steps
from tests.system.conftest import MakeCluster
from tests.system.load import Key, check_kept
from tests.system.node import wait_until

pytestmark = pytest.mark.slow

MIB = 1 << 20
DISK_BYTES = 128 * MIB
RESERVE_BYTES = 48 * MIB
FILL_BYTES = 16 * MIB  # until it is full: log and data take most of that twice


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system of limited size needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, size_bytes: int) -> None:
    """Make the file system larger."""
    subprocess.run(["mount", "-o", f"remount,size={size_bytes}", str(disk)], check=True)


def put_where_there_is_room(client: Client, name: str, value: bytes) -> None:
    """Put it, again while the shard's leader is about to give way to one with more room."""

    def put() -> bool:
        try:
            client.put(name, value)
        except NoSpace:
            return False
        return True

    wait_until("a leader has room", put)


def fill_up(client: Client, keys: dict[str, Key]) -> NoSpace:
    """Put values until the node says that it is full; what it says."""
    value = b"x" * 8192
    for number in range(2 * DISK_BYTES // len(value)):
        name = f"fill:{number}"
        try:
            client.put(name, value + name.encode())
        except NoSpace as full:
            keys[name] = Key(None)
            return full
        keys[name] = Key(value + name.encode())
    raise AssertionError("twice the disk's size was taken without a complaint")


def test_a_full_disk_refuses_puts_and_goes_on_reading_and_deleting_until_there_is_room(
    make_cluster: MakeCluster, small_disk: Path
) -> None:
    cluster = make_cluster(count=1, flags=[f"--disk_reserve_bytes={RESERVE_BYTES}"])
    (node,) = cluster.nodes
    node.data_dir = small_disk / "node1"
    ballast = small_disk / "ballast"
    cluster.start()
    keys: dict[str, Key] = {}
    with cluster.client() as db:
        ballast.write_bytes(bytes(DISK_BYTES - RESERVE_BYTES - FILL_BYTES))
        full = fill_up(db, keys)
        assert "disk reserve" in str(full)
        assert len(keys) > 100, "it was full before anything had been written"
        status, body = node.http("PUT", "/v1/kv/more", b"v")
        assert (status, b'"no_space"' in body, b'"not applied"' in body) == (507, True, True)
        assert node.http("GET", "/health")[0] == 500
        assert node.http("GET", "/livez")[0] == 200

        assert node.http("GET", "/v1/kv/fill:0")[0] == 200
        assert db.delete("fill:0").existed
        keys["fill:0"] = Key(None)
        check_kept(keys, [node.address])

        ballast.unlink()
        wait_until(
            "puts are taken again", lambda: node.http("PUT", "/v1/kv/more", b"v")[0] in (200, 201)
        )
        keys["more"] = Key(b"v")
        assert node.http("GET", "/health")[0] == 200
        check_kept(keys, [node.address])
    node.kill()
    node.restart()
    check_kept(keys, [node.address])


def test_a_disk_that_is_filled_fast_with_all_defaults_ends_nobody(
    make_cluster: MakeCluster, small_disk: Path
) -> None:
    """What has been taken and is in memory yet needs its room as well."""
    disk_bytes = 320 * MIB  # room for more in memory than there is reserve
    resize(small_disk, disk_bytes)
    cluster = make_cluster(count=1)
    (node,) = cluster.nodes
    node.data_dir = small_disk / "node1"
    cluster.start()
    value = b"x" * 900_000
    kept: dict[str, Key] = {}
    with cluster.client() as db:
        for number in range(2 * disk_bytes // len(value) // 16):
            names = [f"large:{number}:{place}" for place in range(16)]
            answers = db.bulk(steps.put(name, value) for name in names)
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, PutResult):
                    kept[name] = Key(value)
                else:
                    assert isinstance(answer, NoSpace), answer
        assert 16 < len(kept) < disk_bytes // len(value)
        gone = next(iter(kept))
        assert db.delete(gone).existed
        kept[gone] = Key(None)
    check_kept(kept, [node.address])
    node.kill()
    node.restart()
    check_kept(kept, [node.address])


def test_keys_that_all_end_at_once_on_a_full_disk_end_nobody(
    make_cluster: MakeCluster, small_disk: Path
) -> None:
    """Each takes pages on its way out; a start replays all of them at once."""
    resize(small_disk, 192 * MIB)
    cluster = make_cluster(count=1, flags=[f"--disk_reserve_bytes={32 * MIB}"])
    (node,) = cluster.nodes
    node.data_dir = small_disk / "node1"
    cluster.start()
    value, full, number = b"x" * 2000, False, 0
    end = time.monotonic() + 15
    with cluster.client() as db:
        while not full:
            left_ms = int((end - time.monotonic()) * 1000)
            assert left_ms > 0, "the machine is too slow for this test"
            names = [f"soon:{random.random()}:{number + place}" for place in range(1000)]
            answers = db.bulk(steps.put(name, value, ttl_ms=left_ms) for name in names)
            full = any(isinstance(answer, NoSpace) for answer in answers)
            number += len(names)
        assert number > 10_000
        node.kill()
        wait_until("all keys are over", lambda: time.monotonic() > end)
        node.restart()
        wait_until("all rows are gone", lambda: db.count("soon:") == 0)
        wait_until("they are flushed", lambda: time.monotonic() > end + 5)
    assert node.up
    node.kill()
    node.restart()
    assert node.up


def test_a_follower_whose_disk_is_nearly_full_falls_behind_and_lives(
    make_cluster: MakeCluster, small_disk: Path
) -> None:
    cluster = make_cluster(count=3)
    poor = cluster.nodes[2]
    poor.data_dir = small_disk / "node3"
    cluster.start()
    value = b"x" * 100_000
    kept: dict[str, Key] = {}
    with cluster.client() as db:
        for number in range(4 * DISK_BYTES // len(value)):
            put_where_there_is_room(db, f"fill:{number}", value)
            kept[f"fill:{number}"] = Key(value)
            if "entries of others' leaders are no longer taken" in poor.log_text():
                break
        for number in range(50 * MIB // len(value)):
            put_where_there_is_room(db, f"more:{number}", value)
            kept[f"more:{number}"] = Key(value)
    assert poor.up
    assert poor.http("GET", "/livez")[0] == 200
    resize(small_disk, 8 * DISK_BYTES)
    cluster.settle()
    check_kept(kept, [node.address for node in cluster.nodes])
