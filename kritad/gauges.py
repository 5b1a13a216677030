"""The numbers that are read when somebody scrapes /metrics, and what they mean.

What is counted on the way is counted where it happens (kritad/metrics.py); here
is what only has to be looked at. docs/operations.md lists all names.
"""

from __future__ import annotations

from kritad.cluster.moves import moves
from kritad.host.host import Host
from kritad.metrics import Metrics


def register_gauges(metrics: Metrics, host: Host) -> None:
    """What is read when somebody scrapes; names as in docs/operations.md."""
    replicas = host.replicas
    by_shard = ("shard",)
    metrics.gauge(
        "krita_raft_has_leader",
        "Whether this node knows a leader of the shard",
        lambda: {(str(s),): float(bool(host.leaders.of(s)[0])) for s in host.view.shards},
        by_shard,
    )
    metrics.gauge(
        "krita_raft_is_leader",
        "Whether this node leads the shard",
        lambda: {(str(s),): float(r.leads) for s, r in replicas.items()},
        by_shard,
    )
    metrics.gauge(
        "krita_raft_term",
        "The shard's term",
        lambda: {(str(s),): float(r.raft.term) for s, r in replicas.items()},
        by_shard,
    )
    metrics.gauge(
        "krita_raft_applied_index",
        "The last applied log index",
        lambda: {(str(s),): float(r.state.index) for s, r in replicas.items()},
        by_shard,
    )
    metrics.gauge(
        "krita_replicas_damaged",
        "Replicas here that are damaged or have stopped themselves",
        lambda: float(len(host.damaged)),
    )
    metrics.gauge(
        "krita_memtable_bytes",
        "Applied writes that are not flushed yet",
        lambda: float(host.flusher.bytes_in_memory()),
    )
    metrics.gauge(
        "krita_disk_free_bytes",
        "Free space of the data directory's disk",
        lambda: float(host.leadership.disk_free_bytes),
    )
    metrics.gauge(
        "krita_peer_frames_dropped_total",
        "Raft frames that a slow or absent peer could not be given",
        lambda: float(host.transport.frames_dropped),
        kind="counter",
    )
    _register_shape(metrics, host)


def _register_shape(metrics: Metrics, host: Host) -> None:
    """What moves, who is gone, how large the shards are."""
    by_shard, by_node = ("shard",), ("node",)
    metrics.gauge(
        "krita_moves_in_motion",
        "Shards on the move, as this node knows",
        lambda: float(len(moves(host.view))),
    )
    metrics.gauge(
        "krita_moves_paused",
        "Whether all moves are paused",
        lambda: float(host.view.paused),
    )
    metrics.gauge(
        "krita_snapshot_bytes_sent_total",
        "Bytes of snapshots that this node has sent",
        lambda: float(host.transfers.sent_bytes),
        kind="counter",
    )
    metrics.gauge(
        "krita_scrub_rows_total",
        "Stored rows that were read to find damage",
        lambda: float(host.scrubber.rows),
        kind="counter",
    )
    metrics.gauge(
        "krita_scrub_passes_total",
        "How often all stored rows were read to find damage",
        lambda: float(host.scrubber.passes),
        kind="counter",
    )
    metrics.gauge(
        "krita_node_dead",
        "Whether the member was silent for so long that its replicas are rebuilt",
        lambda: {(str(n.node),): float(n.dead) for n in host.view.members},
        by_node,
    )
    metrics.gauge(
        "krita_node_state",
        "What is intended with the member: 0 up, 1 draining, 4 removing",
        lambda: {(str(n.node),): float(n.state) for n in host.view.members},
        by_node,
    )
    metrics.gauge(
        "krita_shard_bytes",
        "Keys and values in this node's replica of the shard",
        lambda: {(str(s),): float(r.state.extent.bytes) for s, r in host.replicas.items()},
        by_shard,
    )
    metrics.gauge(
        "krita_shard_keys",
        "Keys in this node's replica of the shard",
        lambda: {(str(s),): float(r.state.extent.keys) for s, r in host.replicas.items()},
        by_shard,
    )
