"""The shards in documents: where they are, who leads, who lags, how large they are.

Shapes are in protocol/README.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kritad.admin.nodes import Document, damage_of, whole
from kritad.cluster.model import ShardRecord
from kritad.host.bootstrap import META_SHARD
from kritad.host.host import Host


def shard_rows(host: Host, known: Mapping[int, Document]) -> list[Document]:
    """Every shard, by number; ``known`` are the documents of the nodes that answered."""
    found, damaged = replicas_found(known), damage_of(known)
    return [_row(host, record, found, damaged) for _, record in sorted(host.view.shards.items())]


def replicas_found(known: Mapping[int, Document]) -> dict[tuple[int, int], Document]:
    """(node, shard) -> what the node says of its replica."""
    return {
        (node, replica["shard"]): replica
        for node, document in known.items()
        for replica in document["replicas"]
    }


def sizes_of(host: Host, known: Mapping[int, Document]) -> dict[int, int]:
    """Data shard -> bytes of one copy, as the one that has applied most says. Left out:
    those of which nobody who answered has a copy."""
    found = replicas_found(known)
    sizes = {}
    for shard in host.view.shards:
        size = _newest(shard, found)
        if shard != META_SHARD and size is not None and whole(size, "bytes") is not None:
            sizes[shard] = size["bytes"]
    return sizes


def _newest(shard: int, found: Mapping[tuple[int, int], Document]) -> Document | None:
    copies = [replica for (_, number), replica in found.items() if number == shard]
    return max(copies, key=lambda replica: replica["applied"], default=None)


def _row(
    host: Host,
    record: ShardRecord,
    found: Mapping[tuple[int, int], Document],
    damaged: Collection[tuple[int, int]],
) -> Document:
    leader, term = host.leaders.of(record.shard)
    led = found.get((leader, record.shard))
    replicas = []
    for wanted in record.replicas:
        seen = found.get((wanted.node, record.shard))
        role = "unreachable" if seen is None else seen["role"]
        if (record.shard, wanted.node) in damaged:
            role, seen = "damaged", None
        lag = None if seen is None or led is None else max(0, led["last"] - seen["last"])
        replicas.append(
            {
                "node": wanted.node,
                "replica": wanted.replica,
                "role": "voter" if role in ("follower", "candidate") else role,
                "lag": lag,
                "applied": None if seen is None else seen["applied"],
                "state_hash": None if seen is None else seen["state_hash"],
            }
        )
    newest = led or _newest(record.shard, found) or {}
    return {
        "shard": record.shard,
        "hash_lo": record.hash_lo,
        "hash_hi": record.hash_hi,
        "version": record.version,
        "leader": leader,
        "term": term,
        "replicas": replicas,
        "reported": [
            {"node": member.node, "replica": member.replica, "voter": member.voter}
            for member in record.report.replicas
        ],
        "keys": whole(newest, "keys"),
        "bytes": whole(newest, "bytes"),
        "in_motion": record.shard != META_SHARD and record.in_motion,
        "pinned": record.pinned,
        "held": record.held or (host.view.paused and record.shard != META_SHARD),
        "splitting": record.split is not None,
        "shard_new": None if record.split is None else record.split.shard_new,
    }


def failures_tolerated(shard: Document) -> int:
    """How many more nodes may die before this shard stops taking writes."""
    if shard["shard"] == META_SHARD:
        voters = [r for r in shard["replicas"] if r["role"] != "learner"]
    else:
        voters = shard["replicas"]
    up = sum(r["role"] in ("leader", "voter") for r in voters)
    return max(0, up - (len(voters) // 2 + 1))
