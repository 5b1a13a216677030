"""What people ask of a cluster: who is there, who leads, who lags, what is wrong.

A node knows all of its own replicas, the meta shard's state, and whom it is
connected to. The rest (how far each replica elsewhere has applied) is asked of
the other nodes when somebody looks, with a short timeout: a view with a dead
node in it must not take longer than its reader's patience.

The documents are maps with text keys, printed as they are by ``kritash --json``;
their shapes are in protocol/README.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from krita.codec import encode_body
from krita.errors import Status as Code
from krita.operations import Op
from kritad import __version__
from kritad.cluster.model import ShardRecord
from kritad.host.bootstrap import META_SHARD
from kritad.host.host import Host
from kritad.host.leaders import NO_NODE
from kritad.host.replica import Replica
from kritad.host.request import Respond
from kritad.raft.types import Role

_ASK_TIMEOUT_MS = 1_000.0

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
    if replica.id not in raft.configuration.voters | raft.configuration.voters_outgoing:
        return "learner"
    return "follower" if raft.role is Role.FOLLOWER else "candidate"


def node_document(host: Host) -> Document:
    """What one node knows of itself."""
    replicas = []
    for shard, replica in sorted(host.replicas.items()):
        raft = replica.raft
        replicas.append(
            {
                "shard": shard,
                "replica": replica.id,
                "role": role_of(replica),
                "term": raft.term,
                "leader": raft.configuration.nodes.get(raft.leader, NO_NODE),
                "commit": raft.commit,
                "applied": replica.state.index,
                "last": raft.last_index,
                "log_first": raft.log.snapshot.index + 1,
                "state_hash": f"{replica.state.state_hash:016x}",
            }
        )
    return {
        "node": host.node,
        "address": host.identity.address,
        "version": __version__,
        "uptime_s": int((host.clock.monotonic_ms() - host.started_ms) / 1000),
        "boot_counter": host.identity.boot_counter,
        "cluster_id": host.identity.cluster_id.hex(),
        "replicas": replicas,
        "disk_free_bytes": host.leadership.disk_free_bytes,
        "memory_bytes": memory_bytes(),
    }


def _is_complete(document: Document) -> bool:
    """Whether another node's document has what is used of it here. That node may be
    newer or have a bug; it then counts as one that did not answer."""
    replicas = document.get("replicas")
    return isinstance(replicas, list) and all(
        isinstance(replica, dict)
        and all(type(replica.get(name)) is int for name in ("shard", "last", "applied"))
        and all(type(replica.get(name)) is str for name in ("role", "state_hash"))
        for replica in replicas
    )


class Status:
    """Gathers the documents; one for a node's life."""

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery

    def problems(self) -> list[str]:
        """What keeps the cluster, as seen from here, from being whole."""
        found = self.own_problems()
        for node, peer in sorted(self._host.transport.peers.items()):
            if not peer.connected:
                found.append(f"node {node} at {peer.address} cannot be reached")
        return found

    def own_problems(self) -> list[str]:
        """What keeps this node from serving every key. Another node that is down
        does not: whoever asks for our health wants to know whether to come here."""
        host = self._host
        if not host.view.cluster_id:
            return ["this node has not heard from the cluster yet"]
        found = [f"shard {shard} is damaged here: {why}" for shard, why in host.damaged.items()]
        leaderless = self._leaderless()
        if leaderless:
            found.append(f"no leader is known for shard {', '.join(map(str, leaderless))}")
        for replica in host.replicas.values():
            if replica.raft.poisoned:
                found.append(f"shard {replica.shard}: {replica.raft.poisoned}")
        if host.leadership.space_low:
            found.append("the disk is below its reserve: writes are refused here")
        return found

    def _leaderless(self) -> list[int]:
        """The shards without a known leader, but for those that have one again in a
        moment: an election or a transfer is no illness."""
        host = self._host
        patience_ms = 3 * host.settings.election_ms
        since_ms = host.clock.monotonic_ms() - patience_ms
        return [
            shard
            for shard in sorted(host.view.shards)
            if not host.leaders.of(shard)[0]
            and host.leader_known_ms.get(shard, -math.inf) < since_ms
        ]

    def serves(self) -> bool:
        """Whether this node can do its part: it knows the cluster, holds what it
        should, and knows a leader for every shard."""
        host = self._host
        if not host.view.cluster_id or host.node not in host.view.nodes:
            return False
        return not self._leaderless()

    def answer(self, op: int, respond: Respond) -> None:
        """Answer one of the status operations, now or soon."""
        if op == Op.NODE_STATUS:
            respond(Code.OK, [node_document(self._host)])
        else:
            self._nursery.start_soon(self._answer, op, respond)

    async def _answer(self, op: int, respond: Respond) -> None:
        known = await self._gather()
        if op == Op.NODE_LIST:
            document: object = self._nodes(known)
        elif op == Op.SHARD_LIST:
            document = self._shards(known)
        else:
            document = self._cluster(known)
        respond(Code.OK, [document])

    async def _gather(self) -> dict[int, Document]:
        """node -> its document, of all nodes that answer in time."""
        host = self._host
        known = {host.node: node_document(host)}
        waiting = set(host.transport.peers)
        answered = trio.Event()

        def take(node: int, status: int | None, body: object, _sent: bool) -> None:
            match body:
                case [dict(document), *_] if status == Code.OK and _is_complete(document):
                    known[node] = document
            waiting.discard(node)
            if not waiting:
                answered.set()

        deadline_ms = host.clock.monotonic_ms() + _ASK_TIMEOUT_MS
        body = encode_body(Op.NODE_STATUS)
        for node in list(waiting):
            host.transport.ask(node, Op.NODE_STATUS, body, deadline_ms, partial(take, node))
        if waiting:
            with trio.move_on_after(_ASK_TIMEOUT_MS / 1000.0):
                await answered.wait()
        return known

    def _nodes(self, known: Mapping[int, Document]) -> list[Document]:
        host = self._host
        rows = []
        for node in sorted(host.view.nodes.values(), key=lambda n: n.node):
            leads = sum(host.leaders.of(s)[0] == node.node for s in host.view.shards)
            rows.append(
                {
                    "node": node.node,
                    "address": node.address,
                    "zone": node.zone,
                    "state": node.state.name.lower(),
                    "reachable": node.node in known,
                    "leaders": leads,
                    "replicas": sum(
                        node.node in record.nodes for record in host.view.shards.values()
                    ),
                }
            )
        return rows

    def _shards(self, known: Mapping[int, Document]) -> list[Document]:
        found: dict[tuple[int, int], Document] = {}
        for node, document in known.items():
            for replica in document["replicas"]:
                found[node, replica["shard"]] = replica
        return [self._shard(r, found) for _, r in sorted(self._host.view.shards.items())]

    def _shard(self, record: ShardRecord, found: Mapping[tuple[int, int], Document]) -> Document:
        leader, term = self._host.leaders.of(record.shard)
        led = found.get((leader, record.shard))
        replicas = []
        for wanted in record.replicas:
            seen = found.get((wanted.node, record.shard))
            role = "unreachable" if seen is None else seen["role"]
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
        return {
            "shard": record.shard,
            "hash_lo": record.hash_lo,
            "hash_hi": record.hash_hi,
            "leader": leader,
            "term": term,
            "replicas": replicas,
        }

    def _cluster(self, known: Mapping[int, Document]) -> Document:
        host = self._host
        nodes, shards = self._nodes(known), self._shards(known)
        problems = self.problems()
        dark = [node["node"] for node in nodes if not node["reachable"]]
        tolerated = min((_failures_tolerated(shard) for shard in shards), default=0)
        leaderless = any(not shard["leader"] for shard in shards)
        health = "unavailable" if leaderless else "degraded" if problems or dark else "healthy"
        return {
            "cluster_id": host.identity.cluster_id.hex(),
            "health": health,
            "problems": problems,
            "replication_factor": host.view.replication_factor,
            "failures_tolerated": tolerated,
            "nodes": nodes,
            "shards": shards,
        }


def _failures_tolerated(shard: Document) -> int:
    """How many more nodes may die before this shard stops taking writes."""
    if shard["shard"] == META_SHARD:
        voters = [r for r in shard["replicas"] if r["role"] != "learner"]
    else:
        voters = shard["replicas"]
    up = sum(r["role"] in ("leader", "voter") for r in voters)
    return max(0, up - (len(voters) // 2 + 1))
