"""A cluster grows, shrinks, loses a node for good and is split, and nobody notices.

Real processes, and clients that write and read without pause through the public
client. After each step the balance is as promised; in the end the whole history has
to be linearizable, and nothing may be lost.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.system.cluster import META_SHARD, Cluster, Document
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.load import Writers, check_kept
from tests.system.node import Node, wait_until
from tests.system.recorder import Recorder
from tests.system.shell import kritash

pytestmark = pytest.mark.slow

_SHARDS = 8
_STEP_TIMEOUT_S = 90.0
# What a client may be kept waiting at most, the retries of the client included.
_CURED_WITHIN_S = 5.0


def loads(status: Document) -> Counter[int]:
    """Data replicas on each node that is a member and may hold some."""
    held = Counter({n["node"]: 0 for n in status["nodes"] if n["state"] == "up" and not n["dead"]})
    for shard in status["shards"]:
        if shard["shard"] != META_SHARD:
            held.update(replica["node"] for replica in shard["replicas"])
    return held


def is_balanced(cluster: Cluster, nodes: int, copies: int) -> bool:
    """Whether exactly so many nodes hold everything, evenly, and nothing is under way."""
    status = cluster.status()
    if status is None or status["health"] != "healthy":
        return False
    data = [shard for shard in status["shards"] if shard["shard"] != META_SHARD]
    roles = [[replica["role"] for replica in shard["replicas"]] for shard in data]
    whole = all(
        shard["leader"] and len(voices) == copies and set(voices) <= {"leader", "voter"}
        for shard, voices in zip(data, roles, strict=True)
    )
    held = loads(status)
    even = len(held) == nodes and max(held.values()) - min(held.values()) <= 1
    return whole and even and not any(shard["in_motion"] for shard in data)


def wait_balanced(cluster: Cluster, nodes: int, copies: int = 3) -> None:
    wait_until(
        f"{nodes} nodes hold {copies} copies of everything, evenly",
        lambda: is_balanced(cluster, nodes, copies),
        _STEP_TIMEOUT_S,
    )


def start_more(cluster: Cluster, count: int) -> list[Node]:
    added = [cluster.add_node() for _ in range(count)]
    for node in added:
        node.start()
    for node in added:
        node.wait_ready()
    return added


def drain(cluster: Cluster, node: Node) -> None:
    """By the command that people use; then it holds nothing, and may be stopped."""
    number = cluster.id_of(node)
    kritash(cluster, "node", "drain", str(number), "--yes", "--wait")
    status = cluster.wait_status()
    assert all(
        replica["node"] != number
        for shard in status["shards"]
        if shard["shard"] != META_SHARD
        for replica in shard["replicas"]
    )
    assert node.terminate() == 0


def remove(cluster: Cluster, number: int) -> None:
    """For good; the cluster forgets it but for its number."""
    kritash(cluster, "node", "remove", str(number), "--yes", "--wait")
    states = {entry["node"]: entry["state"] for entry in cluster.wait_status()["nodes"]}
    assert states.get(number, "left") == "left"


def split_biggest(cluster: Cluster) -> None:
    shards = [s for s in cluster.wait_status()["shards"] if s["shard"] != META_SHARD]
    biggest = max(shards, key=lambda shard: (shard["bytes"], -shard["shard"]))
    kritash(cluster, "shard", "split", str(biggest["shard"]), "--yes")

    def split() -> bool:
        status = cluster.status()
        return status is not None and len(status["shards"]) == len(shards) + 2  # and the meta shard

    wait_until("the shard is two", split, _STEP_TIMEOUT_S)


def test_one_three_five_nodes_and_back_to_three_under_load(make_cluster: MakeCluster) -> None:
    flags = [f"--shards={_SHARDS}", "--dead_after_s=3", "--move_bytes_per_s=0"]
    cluster = make_cluster(count=1, flags=flags, extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.start()
    addresses = cluster.addresses
    with Recorder(addresses) as recorder, Writers(addresses, 2) as writers:
        recorder.wait_more(200)
        start_more(cluster, 2)
        wait_balanced(cluster, 3)
        fourth, fifth = start_more(cluster, 2)
        wait_balanced(cluster, 5)
        recorder.wait_more(200)

        for node in (fourth, fifth):
            drain(cluster, node)
        gone = [cluster.id_of(fourth), cluster.id_of(fifth)]
        for number in gone:
            remove(cluster, number)
        wait_balanced(cluster, 3)

        victim = cluster.nodes[1]
        lost = cluster.id_of(victim)
        victim.kill()
        start_more(cluster, 1)  # takes its place: everything is healed onto it
        remove(cluster, lost)
        wait_balanced(cluster, 3)

        split_biggest(cluster)
        wait_balanced(cluster, 3)
        recorder.wait_more(200)
    assert recorder.slowest_s < _CURED_WITHIN_S, recorder.slowest_s
    assert writers.slowest_s < _CURED_WITHIN_S, writers.slowest_s
    assert not recorder.errors, recorder.errors[:3]
    assert not writers.errors, writers.errors[:3]
    cluster.settle(3)
    assert recorder.judge() == []
    check_kept(writers.keys, [node.address for node in cluster.nodes if node.up])
    cluster.check_logs()


def test_a_node_that_was_removed_cannot_come_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(count=4, flags=["--dead_after_s=2"], extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.nodes[0].restart()
    for node in cluster.nodes[1:]:
        node.restart()
    wait_balanced(cluster, 4)
    victim = cluster.nodes[3]
    number = cluster.id_of(victim)
    victim.kill()
    remove(cluster, number)
    victim.start()
    assert victim.wait_exit() != 0
    assert f"node {number} has been removed from this cluster" in victim.log_tail(10)
