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
from collections.abc import Callable, Mapping
from functools import partial

import trio

from krita.codec import encode_body
from krita.errors import KritaError, to_wire
from krita.errors import Status as Code
from krita.operations import Op
from kritad.admin.moves import move_rows
from kritad.admin.nodes import (
    Document,
    damage_of,
    is_complete,
    node_document,
    node_rows,
    text,
    vigil_of,
)
from kritad.admin.plan import parse_plan, plan_document
from kritad.admin.shards import failures_tolerated, shard_rows
from kritad.cluster.model import NodeState
from kritad.cluster.planner import placements
from kritad.cluster.tolerance import tolerance
from kritad.host.departure import LEAVING
from kritad.host.host import Host
from kritad.host.request import Respond

_ASK_TIMEOUT_MS = 1_000.0


class Status:
    """Gathers the documents; one for a node's life."""

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._make: dict[int, Callable[[Mapping[int, Document]], object]] = {
            Op.NODE_LIST: partial(node_rows, host),
            Op.SHARD_LIST: partial(shard_rows, host),
            Op.MOVE_LIST: lambda known: move_rows(host.view, known),
            Op.CLUSTER_STATUS: self._cluster,
        }

    def problems(self) -> list[str]:
        """What keeps the cluster, as seen from here, from being whole."""
        found = self.own_problems()
        nodes = self._host.view.nodes
        for node, peer in sorted(self._host.transport.peers.items()):
            if not peer.connected and not (node in nodes and nodes[node].left):
                found.append(f"node {node} at {peer.address} cannot be reached")
        return found

    def own_problems(self) -> list[str]:
        """What keeps this node from serving every key. Another node that is down
        does not: whoever asks for our health wants to know whether to come here."""
        host = self._host
        # Damage first: that of the meta shard's replica is why the rest is not known.
        found = [f"shard {shard} is damaged here: {why}" for shard, why in host.damaged.items()]
        if not host.view.cluster_id:
            return [*found, "this node has not heard from the cluster yet"]
        leaderless = self._leaderless()
        if leaderless:
            found.append(f"no leader is known for shard {', '.join(map(str, leaderless))}")
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

    def leaving(self) -> str:
        """Why nobody should come here for long, though this node serves; or ""."""
        host = self._host
        own = host.view.nodes.get(host.node)
        if host.belonging.removed or (own is not None and own.state in LEAVING):
            return "this node is draining: it is being removed from the cluster"
        if own is not None and own.state is NodeState.DRAINING:
            return "this node is draining"
        return ""

    def answer(self, op: int, body: bytes, respond: Respond) -> None:
        """Answer one of the status operations, now or soon. Raises KritaError."""
        if op == Op.NODE_STATUS:
            respond(Code.OK, [node_document(self._host)])
        elif op == Op.NODE_PLAN:
            wish = parse_plan(body)
            self._nursery.start_soon(
                self._answer, partial(plan_document, self._host, wish), respond
            )
        else:
            self._nursery.start_soon(self._answer, self._make[op], respond)

    async def _answer(
        self, make: Callable[[Mapping[int, Document]], object], respond: Respond
    ) -> None:
        known = await self._gather()
        try:
            document = make(known)
        except KritaError as error:
            respond(error.status, to_wire(error))
        else:
            respond(Code.OK, [document])

    async def _gather(self) -> dict[int, Document]:
        """node -> its document, of all nodes that answer in time."""
        host = self._host
        known = {host.node: node_document(host)}
        waiting = set(host.transport.peers)
        answered = trio.Event()

        def take(node: int, status: int | None, body: object, _sent: bool) -> None:
            match body:
                case [dict(document), *_] if status == Code.OK and is_complete(document):
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

    def _cluster(self, known: Mapping[int, Document]) -> Document:
        host = self._host
        view = host.view
        nodes, shards = node_rows(host, known), shard_rows(host, known)
        damaged = damage_of(known)
        problems = self.problems()
        problems += [
            f"shard {shard} is damaged on node {node}: {why}"
            for (shard, node), why in damaged.items()
            if node != host.node
        ]
        dark = [n for n in nodes if not n["reachable"] and n["state"] != "left"]
        leaderless = not shards or any(not shard["leader"] for shard in shards)  # none: no map
        health = "unavailable" if leaderless else "degraded" if problems or dark else "healthy"
        return {
            "cluster_id": host.identity.cluster_id.hex(),
            "health": health,
            "problems": problems,
            "replication_factor": view.replication_factor,
            "failures_tolerated": min(map(failures_tolerated, shards), default=0),
            "tolerates": tolerance(view, set(known), damaged=damaged).to_document(),
            "paused": view.paused,
            "healing": text(vigil_of(known), "healing"),
            "moves": move_rows(view, known),
            "moves_to_come": len(placements(view)),
            "zones": sorted({record.zone for record in view.members if record.zone}),
            "shard_bytes_max": host.settings.shard_bytes_max,
            "nodes": nodes,
            "shards": shards,
        }
