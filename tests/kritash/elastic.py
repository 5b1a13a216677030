"""A cluster that grows and shrinks, as small as its documents allow: who holds what, and
moves that take one step each time somebody lists them. So a test decides how fast it goes,
and whoever waits sees every step once."""

from __future__ import annotations

from krita.errors import BadRequest, ConditionFailed
from krita.ring import equal_arcs

UP, DRAINING, LEFT, REMOVING = 0, 1, 3, 4
STATES = {UP: "up", DRAINING: "draining", LEFT: "left", REMOVING: "removing"}
STEPS = ("waiting", "copying", "copying", "joint")
SHARD_BYTES = 3 << 20
SHARD_KEYS = 1500
RATE = 1 << 20


class Move:
    """One shard's replica on its way."""

    def __init__(self, shard: int, source: int, target: int) -> None:
        self.shard, self.source, self.target = shard, source, target
        self.step = 0


class Elastic:
    """Nodes 1 to ``nodes``, ``shards`` shards, each on the ``factor`` nodes from its own
    number on."""

    def __init__(self, nodes: int, shards: int, factor: int = 3) -> None:
        self.factor = min(factor, nodes)
        self.states = dict.fromkeys(range(1, nodes + 1), UP)
        self.zones = dict.fromkeys(self.states, "")
        self.weights = dict.fromkeys(self.states, 1)
        self.successors: dict[int, int] = {}
        self.dead: set[int] = set()
        self.silent: set[int] = set()
        self.arcs = dict(enumerate(equal_arcs(shards), 1))
        self.holders = {
            shard: [(shard + k - 1) % nodes + 1 for k in range(self.factor)] for shard in self.arcs
        }
        self.leaders = {shard: shard % nodes + 1 for shard in range(shards + 1)}
        self.moves: list[Move] = []
        self.splits: dict[int, int] = {}
        self.held: set[int] = set()
        self.paused = False

    # What is asked of it

    def node_set(self, node: int, state: int, successor: int | None) -> int:
        """As NODE_SET; the state that it has then."""
        if self.states.get(node) == LEFT and state == REMOVING:
            return LEFT
        if node not in self.states or self.states[node] == LEFT:
            raise ConditionFailed(f"node {node} is no member of this cluster")
        others = [n for n, s in self.states.items() if s == UP and n != node]
        if state != UP and not others:
            raise ConditionFailed(
                f"node {node} is the last node that is up", hint="add another node first"
            )
        if successor is not None and successor not in others:
            raise ConditionFailed(f"node {successor} cannot take its place: it is not up")
        self.states[node] = state
        self.successors[node] = successor or 0
        self._settle()
        return self.states[node]

    def label(self, node: int, zone: str | None, weight: int | None) -> None:
        """As NODE_LABEL."""
        if zone is not None:
            self.zones[node] = zone
        if weight is not None:
            self.weights[node] = weight

    def split(self, shard: int) -> int:
        """As SHARD_SPLIT: done by the next step."""
        if shard not in self.arcs:
            raise BadRequest(f"this cluster has no shard {shard}")
        return self.splits.setdefault(shard, max(self.arcs) + 1)

    def move(self, shard: int, source: int, target: int) -> int:
        """As SHARD_MOVE."""
        if source not in self.holders[shard] or target in self.holders[shard]:
            raise ConditionFailed(f"shard {shard} cannot move from node {source} to {target}")
        self.moves.append(Move(shard, source, target))
        return 2

    def hold(self, shard: int, held: bool) -> None:
        """As SHARD_HOLD."""
        if shard == 0:
            self.paused = held
        elif held:
            self.held.add(shard)
        else:
            self.held.discard(shard)

    def cancel(self, shard: int) -> int:
        """As MOVE_CANCEL."""
        self.moves = [move for move in self.moves if move.shard != shard]
        self.held.add(shard)
        return 3

    def join(self) -> int:
        """A new node, which is given a replica of every other shard."""
        node = max(self.states) + 1
        self.states[node], self.zones[node], self.weights[node] = UP, "", 1
        for shard in sorted(self.arcs)[::2]:
            self.moves.append(Move(shard, self.holders[shard][-1], node))
        return node

    # How it goes on

    def step(self) -> None:
        """Everything that may goes one step further."""
        for shard, shard_new in self.splits.items():
            lo, hi = self.arcs[shard]
            self.arcs[shard], self.arcs[shard_new] = (lo, (lo + hi) // 2), ((lo + hi) // 2, hi)
            self.holders[shard_new] = list(self.holders[shard])
            self.leaders[shard_new] = self.leaders[shard]
        self.splits = {}
        if not self.paused:
            for move in list(self.moves):
                if move.shard not in self.held:
                    self._go(move)
        self._settle()

    def _go(self, move: Move) -> None:
        move.step += 1
        if move.step < len(STEPS):
            return
        nodes = self.holders[move.shard]
        nodes[nodes.index(move.source)] = move.target
        if self.leaders[move.shard] == move.source:
            self.leaders[move.shard] = move.target
        self.moves.remove(move)

    def _settle(self) -> None:
        """Nodes that are to be empty get moves; those that are empty and to leave, leave."""
        for node, state in self.states.items():
            if state not in (DRAINING, REMOVING):
                continue
            moving = {move.shard for move in self.moves}
            for shard, nodes in self.holders.items():
                free = [n for n, s in self.states.items() if s == UP and n not in nodes]
                wish = self.successors.get(node, 0)
                if node in nodes and shard not in moving and free:
                    self.moves.append(Move(shard, node, wish if wish in free else free[0]))
            if state == REMOVING and not any(node in nodes for nodes in self.holders.values()):
                self.states[node] = LEFT

    # What it shows

    def node_rows(self, addresses: dict[int, str]) -> list[dict[str, object]]:
        """The node_list document."""
        led = [leader for shard, leader in self.leaders.items() if shard]
        return [
            {
                "node": node, "address": addresses.get(node, f"127.0.0.1:{9000 + node}"),
                "zone": self.zones[node], "state": STATES[state], "weight": self.weights[node],
                "dead": node in self.dead, "reachable": node not in self.dead | self.silent,
                "drained": state == DRAINING and not self._held_by(node),
                "leaders": led.count(node), "replicas": self._held_by(node),
                "bytes": self._held_by(node) * SHARD_BYTES, "version": "0.1.0",
            }
            for node, state in sorted(self.states.items())
        ]  # fmt: skip

    def _held_by(self, node: int) -> int:
        return sum(node in nodes for nodes in self.holders.values())

    def shard_rows(self, term: int) -> list[dict[str, object]]:
        """The shard_list document."""
        return [
            {
                "shard": shard, "hash_lo": lo, "hash_hi": hi, "leader": self.leaders[shard],
                "term": term, "replicas": [self._replica(shard, n) for n in self._wanted(shard)],
                "keys": SHARD_KEYS, "bytes": SHARD_BYTES, "held": shard in self.held,
                "in_motion": any(move.shard == shard for move in self.moves),
                "splitting": shard in self.splits,
            }
            for shard, (lo, hi) in sorted(self.arcs.items(), key=lambda item: item[1])
        ]  # fmt: skip

    def _wanted(self, shard: int) -> list[int]:
        goes = {move.source: move.target for move in self.moves if move.shard == shard}
        return [goes.get(node, node) for node in self.holders[shard]]

    def _replica(self, shard: int, node: int) -> dict[str, object]:
        if node in self.dead | self.silent:
            role = "unreachable"
        elif node not in self.holders[shard]:
            role = "learner"
        else:
            role = "leader" if node == self.leaders[shard] else "voter"
        seen = role != "unreachable"
        return {
            "node": node, "replica": 10 * shard + node, "role": role, "lag": 0 if seen else None,
            "applied": 7 if seen else None, "state_hash": "00" if seen else None,
        }  # fmt: skip

    def move_rows(self) -> list[dict[str, object]]:
        """The move_list document."""
        rows: list[dict[str, object]] = []
        for move in self.moves:
            sent = SHARD_BYTES * min(move.step, 2) // 2
            copying = STEPS[move.step] == "copying"
            rows.append({
                "shard": move.shard, "from": [move.source], "to": [move.target],
                "step": STEPS[move.step], "held": self.paused or move.shard in self.held,
                "reason": "all moves are paused" if self.paused else "",
                "sent_bytes": sent, "total_bytes": SHARD_BYTES,
                "bytes_per_s": float(RATE) if copying else None,
                "eta_s": (SHARD_BYTES - sent) / RATE if copying else None,
            })  # fmt: skip
        return rows

    def plan(self, node: int, state: int, successor: int | None) -> dict[str, object]:
        """The node_plan document."""
        others = [n for n, s in self.states.items() if s == UP and n != node]
        held = [shard for shard, nodes in self.holders.items() if node in nodes]
        goes = [shard for shard in held if set(others) - set(self.holders[shard])]
        stays = len(held) - len(goes)
        targets = {successor} if successor else set(others)
        legs = [
            {"from": node, "to": target, "replicas": len(goes), "bytes": len(goes) * SHARD_BYTES}
            for target in sorted(targets)[:1]
            if goes
        ]
        tolerated = (self.factor - 1) // 2
        return {
            "node": node, "state": STATES[state], "successor": successor, "shards": len(goes),
            "replicas": len(goes), "bytes": len(goes) * SHARD_BYTES, "moves": legs,
            "before": {"availability": tolerated, "data": self.factor - 1},
            "after": {"availability": tolerated, "data": self.factor - 1},
            "refusals": [] if others else [f"node {node} is the last node that is up"],
            "warnings": [
                f"{stays} replicas stay where they are: only {len(others)} nodes are left for "
                f"a replication factor of {self.factor}"
            ] if stays else [],
        }  # fmt: skip
