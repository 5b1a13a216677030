"""What a cluster's status says of its shards: pure functions of the document of
``kritash --json cluster status``, whose shape is in protocol/README.md."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from benchmarks.krita_cluster import META_SHARD, is_settled
from benchmarks.processes import BenchmarkError

Document = dict[str, Any]


def data_shards(status: Document) -> list[Document]:
    return [shard for shard in status["shards"] if shard["shard"] != META_SHARD]


def copies(status: Document) -> dict[int, int]:
    """Complete copies of data shards by node, also of those that have none."""
    found = {node["node"]: 0 for node in status["nodes"]}
    for shard in data_shards(status):
        for replica in shard["replicas"]:
            if replica["role"] in ("leader", "voter"):
                found[replica["node"]] += 1
    return found


def is_whole(status: Document, nodes: Collection[int]) -> bool:
    """Whether every data shard has a leader and all its copies, complete and on these
    nodes, and nothing is under way."""
    wanted = min(len(nodes), status["replication_factor"])
    for shard in data_shards(status):
        on = [r["node"] for r in shard["replicas"] if r["role"] in ("leader", "voter")]
        if shard["in_motion"] or shard["splitting"] or shard["leader"] not in nodes:
            return False
        if len(on) != wanted or len(shard["replicas"]) != wanted or not set(on) <= set(nodes):
            return False
    return True


def is_even(status: Document, nodes: int) -> bool:
    """Whether so many nodes hold everything, each its share of copies and of leaders."""
    held = copies(status)
    return (
        is_settled(status, nodes)
        and is_whole(status, held)
        and max(held.values()) - min(held.values()) <= 1
    )


def is_split(status: Document, halves: tuple[int, int]) -> bool:
    """Whether both shards are there, each with a leader."""
    found = [shard for shard in status["shards"] if shard["shard"] in halves]
    return len(found) == 2 and all(shard["leader"] and not shard["splitting"] for shard in found)


def biggest(status: Document) -> Document:
    """The data shard with most bytes; the lowest number of several.
    Raises BenchmarkError when a size is unknown."""
    return max(data_shards(status), key=lambda shard: (_bytes_of(shard), -shard["shard"]))


def is_dead(status: Document, node: int) -> bool:
    """Whether the cluster has given the node up."""
    return any(row["node"] == node and row["dead"] for row in status["nodes"])


def reasons(status: Document) -> str:
    """What is wrong or waits, in the cluster's words and by shard; for whoever waits in vain."""
    found = [*status.get("problems", []), status.get("healing", "")]
    for shard in status.get("shards", []):
        under_way = [name for name in ("in_motion", "held", "splitting") if shard[name]]
        if under_way or not shard["leader"]:
            roles = ", ".join(f"{r['role']} at node {r['node']}" for r in shard["replicas"])
            found.append(f"shard {shard['shard']} {' '.join(under_way)}: {roles}")
    return "\n".join(f"  {line}" for line in found if line)


def data_bytes(status: Document) -> int:
    """One copy of everything. Raises BenchmarkError when a size is unknown."""
    return sum(map(_bytes_of, data_shards(status)))


def bytes_on(status: Document, node: int) -> int:
    """All the copies that a node holds. Raises BenchmarkError when a size is unknown."""
    return sum(
        _bytes_of(shard)
        for shard in data_shards(status)
        if any(replica["node"] == node for replica in shard["replicas"])
    )


def _bytes_of(shard: Document) -> int:
    size = shard["bytes"]
    if size is None:
        raise BenchmarkError(f"nobody says how large shard {shard['shard']} is")
    assert isinstance(size, int)
    return size
