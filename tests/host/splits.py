"""Splitting a shard of a cluster of hosts: for the tests of what comes of it."""

from __future__ import annotations

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from kritad.host.bootstrap import META_SHARD
from tests.host.cluster import Cluster, Node
from tests.host.lone import Replies

OLD, NEW = 1, 2


def ask(cluster: Cluster, shard: int = OLD) -> Replies:
    """Have the meta shard decide that a shard is split."""
    body = encode_body(Op.SHARD_SPLIT, shard)
    replies = cluster.submit(cluster.alive[0], Op.SHARD_SPLIT, body, META_SHARD)
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK, replies.one
    return replies


def is_told(cluster: Cluster, shards: int = 2) -> bool:
    """Whether all maps show as many shards, and each has a leader."""
    maps = [node.host.build_shard_map() for node in cluster.alive]
    return all(
        known is not None and len(known.shards) == shards and all(s.leader for s in known.shards)
        for known in maps
    )


def split(cluster: Cluster) -> None:
    """Split the old shard, and wait until everybody knows."""
    ask(cluster)
    cluster.run_until(lambda: is_told(cluster) and cluster.converged())


def leader_of(cluster: Cluster, shard: int) -> Node:
    found = cluster.leader(shard)
    assert found is not None
    return found


def is_cut(node: Node) -> bool:
    return node.replica(OLD).state.splits is not None


def follower_of(cluster: Cluster) -> Node:
    return next(node for node in cluster.alive if node is not cluster.leader(OLD))


def flush(cluster: Cluster, node: Node) -> None:
    node.host.flusher.when_flushed(lambda: None)
    cluster.settle()
