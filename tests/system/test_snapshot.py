"""A node that was away for longer than the log is kept gets the state instead."""

from __future__ import annotations

import random

import pytest

from krita import Client
from tests.system.cluster import META_SHARD, Cluster
from tests.system.conftest import MakeCluster
from tests.system.load import Key, check_kept
from tests.system.node import Node, wait_until

pytestmark = pytest.mark.slow

# So little that a few hundred kilobytes are flushed, checkpointed and cut off.
SMALL = ("--log_tail_bytes=0", "--memtable_bytes=65536")


def logs(cluster: Cluster, node: Node) -> dict[int, tuple[int, int]]:
    """shard -> (first, last) index of the node's log, data shards only."""
    return {
        replica["shard"]: (replica["log_first"], replica["last"])
        for replica in cluster.node_status(node)["replicas"]
        if replica["shard"] != META_SHARD
    }


def fill(client: Client, name: str, count: int, keys: dict[str, Key]) -> None:
    """Write ``count`` values of about a kilobyte, and remember them."""
    chance = random.Random(name)
    values = {f"{name}:{n}": chance.randbytes(chance.randrange(2000)) for n in range(count)}
    with client.pipeline() as pipeline:
        for key, value in values.items():
            pipeline.put(key, value)
    assert not pipeline.errors
    keys.update({key: Key(value) for key, value in values.items()})


def test_a_follower_for_which_the_log_was_cut_catches_up_by_snapshot(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(flags=SMALL)
    cluster.start()
    keys: dict[str, Key] = {}
    with cluster.client() as db:
        fill(db, "before", 200, keys)
        cluster.settle()
        away = cluster.nodes[2]
        missed_from = {shard: last for shard, (_, last) in logs(cluster, away).items()}
        away.kill()
        cluster.wait_leaders(without=[away])

        def all_cut() -> bool:
            fill(db, f"while {len(keys)}", 100, keys)
            return all(
                first > missed_from[shard] + 1
                for node in cluster.nodes[:2]
                for shard, (first, _) in logs(cluster, node).items()
            )

        wait_until("every shard's log is cut above what the dead node has", all_cut)
        for n in range(0, 200, 3):
            db.delete(f"before:{n}")
            keys[f"before:{n}"] = Key(None)

        away.restart()
        fill(db, "after", 50, keys)
        cluster.settle()
    for shard, (first, _) in logs(cluster, away).items():
        assert first > missed_from[shard] + 1, f"shard {shard} got entries that were cut off"
    check_kept(keys, [node.address for node in cluster.nodes])

    # What a snapshot brought is as durable as what the log brought.
    for node in cluster.nodes:
        node.kill()
    cluster.start_all()
    cluster.settle()
    check_kept(keys, [node.address for node in cluster.nodes])


def test_a_new_node_gets_everything_though_the_log_no_longer_reaches_back(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(count=1, flags=SMALL)
    cluster.start()
    keys: dict[str, Key] = {}
    with cluster.client() as db:

        def all_cut() -> bool:
            fill(db, f"early {len(keys)}", 100, keys)
            return all(first > 1 for first, _ in logs(cluster, cluster.nodes[0]).values())

        wait_until("every shard's log is cut", all_cut)
    cluster.add_node().restart()
    cluster.add_node().restart()
    cluster.wait_grown(3)
    cluster.settle()
    check_kept(keys, [node.address for node in cluster.nodes])
