"""Damage on real disks: a node's as a whole ends it, a replica's is made good by the others."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.conftest import TOKEN, MakeCluster
from tests.system.node import Node, wait_until
from tests.system.shell import kritash

pytestmark = pytest.mark.slow

EXIT_CONFIG = 78


def flip_bit(path: Path, offset: int) -> None:
    """As a disk does on a bad day."""
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def filled_node(make_cluster: MakeCluster) -> Node:
    """A cluster of one node that has written something."""
    cluster = make_cluster(count=1)
    cluster.start()
    (node,) = cluster.nodes
    for number in range(20):
        assert node.http("PUT", f"/v1/kv/{number}", b"x" * 1000)[0] == 201
    return node


def test_a_log_with_a_flipped_bit_in_its_middle_is_not_taken_for_a_shorter_one(
    make_cluster: MakeCluster,
) -> None:
    node = filled_node(make_cluster)
    node.kill()  # a node that stops in order leaves no WAL behind
    wal = node.data_dir / "raft.db-wal"
    flip_bit(wal, wal.stat().st_size // 2)
    node.start()
    assert node.wait_exit() == EXIT_CONFIG
    said = node.log_tail(1)
    assert f"{wal} is damaged: transactions behind the damage are lost" in said
    assert "move the data directory away and start with --join_ip" in said


def test_a_database_that_sqlite_cannot_read_is_left_as_it_is(make_cluster: MakeCluster) -> None:
    node = filled_node(make_cluster)
    assert node.terminate() == 0
    path = node.data_dir / "raft.db"
    flip_bit(path, 100)  # the kind of the first page, behind the header of the file
    damaged = path.read_bytes()
    node.start()
    assert node.wait_exit() == EXIT_CONFIG
    said = node.log_tail(1)
    assert str(path) in said
    assert "the file is damaged: move the data directory away and start with --join_ip" in said
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("shard", [0, 1])
def test_a_replica_that_is_damaged_on_the_disk_is_made_anew_by_the_others(
    make_cluster: MakeCluster, shard: int
) -> None:
    cluster = make_cluster(count=3, extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.start()
    with cluster.client() as client:
        for number in range(50):
            client.put(b"%d" % number, b"x" * 1000)
    victim = cluster.nodes[2]
    assert victim.terminate() == 0
    with closing(sqlite3.connect(victim.data_dir / "raft.db")) as database, database:
        database.execute("UPDATE hard SET vote=vote+1 WHERE shard=?", (shard,))
    victim.restart()
    victim.wait_logged(f"shard {shard} is damaged here")

    def made_anew() -> bool:
        own = cluster.node_status(victim)
        return bool(own["remade"]) and not own["damaged"]

    wait_until("the damaged replica has been let go", made_anew)
    cluster.wait_grown(3)
    cluster.settle(3)
    findings = kritash(cluster, "doctor", expected=1)
    assert [found["code"] for found in findings] == ["disk-suspect"]
    cluster.check_logs()
