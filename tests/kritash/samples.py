"""Status documents for tests, as protocol/README.md has them: a healthy cluster, to be
made worse by whoever takes it."""

from __future__ import annotations

from typing import Any

from krita.ring import RING_SIZE, equal_arcs

Document = dict[str, Any]
MIB = 1 << 20


def node(number: int, **different: Any) -> Document:
    """A row of node_list."""
    return {
        "node": number, "address": f"10.0.0.{number}:8080", "zone": "", "weight": 1,
        "state": "up", "successor": None, "reachable": True, "dead": False, "dead_in_s": None,
        "drained": False, "leaders": 2, "replicas": 5, "bytes": 40 * MIB, "version": "0.1.0",
    } | different  # fmt: skip


def replica(number: int, role: str = "voter", **different: Any) -> Document:
    """A replica of a row of shard_list."""
    seen = role != "unreachable"
    return {
        "node": number, "replica": 10 + number, "role": role, "lag": 0 if seen else None,
        "applied": 7 if seen else None, "state_hash": "ab" if seen else None,
    } | different  # fmt: skip


def shard(number: int, nodes: list[int], arc: tuple[int, int], **different: Any) -> Document:
    """A row of shard_list; the first of the nodes leads."""
    return {
        "shard": number, "hash_lo": arc[0], "hash_hi": arc[1], "leader": nodes[0], "term": 3,
        "replicas": [replica(n, "voter" if n != nodes[0] else "leader") for n in nodes],
        "reported": [{"node": n, "replica": 10 + n, "voter": True} for n in nodes],
        "keys": 1000, "bytes": 10 * MIB, "in_motion": False, "held": False, "splitting": False,
    } | different  # fmt: skip


def move(number: int, source: int, target: int, **different: Any) -> Document:
    """A row of move_list."""
    return {
        "shard": number, "from": [source], "to": [target], "step": "copying", "held": False,
        "reason": "", "sent_bytes": 4 * MIB, "total_bytes": 10 * MIB, "bytes_per_s": 2.0 * MIB,
        "eta_s": 3.0,
    } | different  # fmt: skip


def status(nodes: int = 3, shards: int = 4, **different: Any) -> Document:
    """A cluster_status document: every shard on three nodes, leaders spread."""
    members = [node(number) for number in range(1, nodes + 1)]
    rows = [shard(0, [1, 2, 3], (0, 0))]
    for number, arc in enumerate(equal_arcs(shards), 1):
        rows.append(shard(number, [(number + k - 1) % nodes + 1 for k in range(3)], arc))
    assert rows[-1]["hash_hi"] == RING_SIZE
    return {
        "cluster_id": "00" * 16, "health": "healthy", "problems": [], "replication_factor": 3,
        "failures_tolerated": 1, "tolerates": {"availability": 1, "data": 2}, "paused": False,
        "healing": "", "moves": [], "moves_to_come": 0, "zones": [], "shard_bytes_max": 1 << 30,
        "nodes": members, "shards": rows,
    } | different  # fmt: skip


def node_status(**different: Any) -> Document:
    """What a node says of itself, as far as the doctor asks."""
    return {"disk_free_bytes": 50 << 30, "disk_low": False, "damaged": {}, "version": "0.1.0"} | (
        different
    )
