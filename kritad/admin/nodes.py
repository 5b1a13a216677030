"""A node in documents: what it knows of itself, and its row in the list of all.

Shapes are in protocol/README.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kritad import __version__
from kritad.cluster.model import NodeState
from kritad.host.bootstrap import META_SHARD
from kritad.host.host import Host
from kritad.host.leaders import NO_NODE
from kritad.host.replica import Replica
from kritad.raft.types import Role

Document = dict[str, Any]


def memory_bytes() -> int:
    """This process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def role_of(replica: Replica) -> str:
    """As people call it: leader, follower, candidate, learner."""
    raft = replica.raft
    if raft.role is Role.LEADER:
        return "leader"
    if replica.id not in raft.configuration.voters_all:
        return "learner"
    return "follower" if raft.role is Role.FOLLOWER else "candidate"


def replica_document(replica: Replica) -> Document:
    """One replica, as its own node sees it. ~10 µs."""
    raft, state = replica.raft, replica.state
    return {
        "shard": replica.shard,
        "replica": replica.id,
        "role": role_of(replica),
        "term": raft.term,
        "leader": raft.configuration.nodes.get(raft.leader, NO_NODE),
        "commit": raft.commit,
        "applied": state.index,
        "last": raft.last_index,
        "log_first": raft.log.snapshot.index + 1,
        "conf_version": raft.configuration.version,
        "joint": raft.configuration.joint,
        "state_hash": f"{state.state_hash:016x}",
        "keys": state.extent.keys,
        "bytes": state.extent.bytes,
    }


def node_document(host: Host) -> Document:
    """What one node knows of itself."""
    replicas = [replica_document(replica) for _, replica in sorted(host.replicas.items())]
    return {
        "node": host.node,
        "address": host.identity.address,
        "version": __version__,
        "uptime_s": int((host.clock.monotonic_ms() - host.started_ms) / 1000),
        "boot_counter": host.identity.boot_counter,
        "cluster_id": host.identity.cluster_id.hex(),
        "clock_ms": host.clock.wall_ms(),
        "replicas": replicas,
        "transfers": host.transfers.documents(),
        "damaged": {str(shard): why for shard, why in sorted(host.damaged.items())},
        "broken": sorted(host.residence.broken),
        "remade": {str(shard): times for shard, times in sorted(host.residence.remade.items())},
        "disk_free_bytes": host.leadership.disk_free_bytes,
        "disk_low": host.leadership.space_low,
        "memory_bytes": memory_bytes(),
        "given_up": sorted(host.belonging.given_up),
        "vigil": host.vigil.document(host.view),
    }


def is_complete(document: Document) -> bool:
    """Whether another node's document has what is used of it here without a look. That
    node may be newer or have a bug; it then counts as one that did not answer."""
    replicas = document.get("replicas")
    return isinstance(replicas, list) and all(
        isinstance(replica, dict)
        and all(type(replica.get(name)) is int for name in ("shard", "last", "applied"))
        and all(type(replica.get(name)) is str for name in ("role", "state_hash"))
        for replica in replicas
    )


def node_rows(host: Host, known: Mapping[int, Document]) -> list[Document]:
    """Every node that is or was a member, by number. ``known`` are the nodes'
    own documents, of those that have answered."""
    view = host.view
    dying = _dying(known)
    rows = []
    for record in sorted(view.nodes.values(), key=lambda record: record.node):
        number = record.node
        own = known.get(number)
        rows.append(
            {
                "node": number,
                "address": record.address,
                "zone": record.zone,
                "weight": record.weight,
                "state": record.state.name.lower(),
                "successor": record.successor or None,
                "reachable": own is not None,
                "dead": record.dead,
                "dead_in_s": None if own is not None else dying.get(number),
                "drained": record.state is not NodeState.UP and not view.holds_data(number),
                "leaders": sum(host.leaders.of(shard)[0] == number for shard in view.shards),
                "replicas": sum(number in shard.nodes for shard in view.shards.values()),
                "bytes": None if own is None else _held_bytes(own),
                "version": "" if own is None else text(own, "version"),
                "disk_free_bytes": None if own is None else whole(own, "disk_free_bytes"),
            }
        )
    return rows


def damage_of(known: Mapping[int, Document]) -> dict[tuple[int, int], str]:
    """(shard, node) -> why the replica there is not served, as the nodes say."""
    found: dict[tuple[int, int], str] = {}
    for node, document in sorted(known.items()):
        damaged = document.get("damaged")
        for shard, why in sorted(damaged.items()) if isinstance(damaged, dict) else ():
            if isinstance(shard, str) and shard.isascii() and shard.isdecimal():
                found[int(shard), node] = str(why)
    return found


def _held_bytes(document: Document) -> int:
    """What the node's data replicas hold together."""
    replicas = (r for r in document["replicas"] if r["shard"] != META_SHARD)
    return sum(whole(replica, "bytes") or 0 for replica in replicas)


def _dying(known: Mapping[int, Document]) -> dict[int, float]:
    """Silent node -> seconds until it is declared dead, as the meta shard's leader says."""
    found: dict[int, float] = {}
    for silent in items(vigil_of(known), "silent"):
        node, left_s = whole(silent, "node"), silent.get("dead_in_s")
        if node is not None and isinstance(left_s, (int, float)):
            found[node] = float(left_s)
    return found


def vigil_of(known: Mapping[int, Document]) -> Document:
    """The vigil of whoever keeps one; empty when the meta shard's leader did not answer.
    Of two who believe to lead it, the one of the newer term is right."""
    kept = [node for node, document in known.items() if isinstance(document.get("vigil"), dict)]
    if not kept:
        return {}
    vigil: Document = known[max(kept, key=lambda node: (_meta_term(known[node]), node))]["vigil"]
    return vigil


def _meta_term(document: Document) -> int:
    terms = (whole(r, "term") for r in document["replicas"] if r["shard"] == META_SHARD)
    return max((term for term in terms if term is not None), default=0)


def whole(document: Document, name: str) -> int | None:
    """An element of another node's document that is to be a whole number."""
    value = document.get(name)
    return value if type(value) is int else None


def text(document: Document, name: str) -> str:
    """The same of text; empty when it is none."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def items(document: Document, name: str) -> list[Document]:
    """The same of a list of maps; empty when it is none."""
    value = document.get(name)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
