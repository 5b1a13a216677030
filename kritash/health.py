"""How well the cluster is, from its documents: a line for the toolbar, and what
``cluster health`` answers. Pure."""

from __future__ import annotations

import attrs

from krita.errors import KritaError
from kritash.documents import Cluster, Move, Shard, get, rows, whole
from kritash.exits import Exit, exit_of
from kritash.units import count_text

# One code for each state, so that a monitor needs no parser.
EXITS = {"healthy": Exit.DONE, "degraded": Exit.NO, "unavailable": Exit.UNAVAILABLE}


# What -1 nodes that may be off, or be lost for good, mean.
NO_MAJORITY = "some shard has lost its majority"
NO_COPY = "of some shard no copy answers"


@attrs.frozen
class Summary:
    """One line on the cluster. ``health`` is that of the cluster_status document,
    or "connecting", "unreachable" or "denied"."""

    health: str
    text: str


CONNECTING = Summary("connecting", "")


def trouble(error: KritaError) -> Summary:
    """The line for a status that could not be had: a node that refuses us is there."""
    denied = exit_of(error) is Exit.DENIED
    return Summary("denied" if denied else "unreachable", error.message)


def summarize(status: object) -> Summary:
    """The line that a cluster_status document deserves."""
    if not isinstance(status, dict):
        return Summary("unknown", "the status is in a form that this kritash does not know")
    cluster = Cluster.of(status)
    members = cluster.members
    up = sum(node.reachable is True for node in members)
    leaders = " ".join(f"n{node.node}:{node.leaders}" for node in members)
    parts = [f"{up}/{len(members)} nodes", f"{len(cluster.shards)} shards", f"leaders {leaders}"]
    for word, count in (
        ("without a leader", sum(not shard.leader for shard in cluster.shards)),
        ("moving", sum(shard.in_motion for shard in cluster.shards)),
    ):
        if count:
            parts.append(f"{count} {word}")
    if cluster.paused:
        parts.append("moves paused")
    return Summary(cluster.health or "unknown", " | ".join(parts))


def health_document(status: object) -> dict[str, object]:
    """What ``cluster health --json`` prints: ``tolerates`` how many more nodes may be off
    or be lost for good, ``under_way`` and ``waiting`` which moves go on and which do not,
    ``moves_to_come`` how many shards wait for their turn."""
    cluster = Cluster.of(status)
    usable = sum(node.usable for node in cluster.members)
    wanted = min(usable, cluster.replication_factor or 0)
    moves = rows(get(status, "moves"))
    return {
        "cluster_id": cluster.cluster_id,
        "health": cluster.health or "unknown",
        "tolerates": {"availability": cluster.availability, "data": cluster.data},
        "problems": list(cluster.problems),
        "short_of_copies": [s.shard for s in cluster.shards if _is_short(s, wanted)],
        "paused": cluster.paused,
        "healing_waits": cluster.healing,
        "under_way": [move for move in moves if not Move.of(move).stands],
        "waiting": [move for move in moves if Move.of(move).stands],
        "moves_to_come": cluster.moves_to_come,
    }


def _is_short(shard: Shard, wanted: int) -> bool:
    """Whether copies are out of reach, or fewer than there could be."""
    down = any(replica.lost for replica in shard.replicas)
    return down or (not shard.meta and len(shard.replicas) < wanted)


def exit_of_health(document: object) -> Exit:
    """0 healthy, 1 degraded or not known, 5 some shard has no leader."""
    return EXITS.get(str(get(document, "health")), Exit.NO)


def tolerance_text(document: object) -> str:
    """``1 node may be off, 2 nodes may be lost for good``."""
    tolerates = get(document, "tolerates")
    down, lost = whole(tolerates, "availability"), whole(tolerates, "data")
    parts = []
    if down is not None:
        parts.append(
            NO_MAJORITY
            if down < 0
            else f"{count_text(down, 'node') if down else 'no node'} may be off"
        )
    if lost is not None:
        parts.append(
            NO_COPY
            if lost < 0
            else f"{count_text(lost, 'node') if lost else 'none'} may be lost for good"
        )
    return ", ".join(parts) or "not known"  # fmt: skip
