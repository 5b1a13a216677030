"""Which nodes shall hold which shard: a pure function of the view.

The placement is an explicit table, and the planner changes it as little as it
can: what is stays, holes are filled, then single replicas move from the most to
the least loaded node. Rendezvous hashing only breaks ties, so that what does
move goes where it would have been anyway.

Rules:
* Two replicas of a shard are never on one node.
* A zone holds at most ``ceil(replicas / zones)`` replicas of a shard, so that
  zones are distinct while there are enough of them; when the nodes do not allow
  it, as few as possible are above.
* A replica on a node that may not get any (draining, dead) is given up only for
  one on a node that may, never for nothing.
* The same view gives the same plan, and a plan that was carried out gives an
  empty one.

Balanced means that no single legal move brings two nodes' loads (replicas per
weight) closer together: with equal weights and one zone they differ by at most
one replica. With several zones a zone of fewer nodes stays fuller, because the
rule above forbids the moves.

Sources: raft.md 4.3 (measurements of five ways to do this), design 5.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from kritad.cluster.model import NodeState, ShardRecord
from kritad.cluster.rendezvous import wish
from kritad.cluster.view import MetaView


@attrs.frozen
class Placement:
    """A META_PLACE to propose: refused when the shard's version has moved on."""

    shard: int
    expected_version: int
    nodes: tuple[int, ...]


def placements(view: MetaView) -> list[Placement]:
    """What to change so that every shard has its replicas and every node its share.

    By shard; empty when all is well. The meta shard is not placed: every node is
    its member. Cost: 5 ms for 256 shards when a tenth node joins, 2 ms
    when there is nothing to do.
    """
    if not view.usable_nodes:
        return []
    plan = _Plan(view)
    plan.fill()
    plan.spread_zones()
    plan.balance()
    return plan.changes()


class _Plan:
    """The placement in the making.

    ``_holders[shard]`` are the usable nodes that shall hold it. Filling asks every
    node once per hole; a balancing move looks through one node's list of wishes.
    """

    def __init__(self, view: MetaView) -> None:
        self._view = view
        self._records = view.data_shards
        self._nodes = {node.node: node for node in view.usable_nodes}
        self._factor = min(view.replication_factor, len(self._nodes))
        zones = len({node.zone for node in self._nodes.values()})
        self._zone_share = -(-self._factor // zones)
        self._holders = {record.shard: self._kept(record) for record in self._records}
        self._shards_of: dict[int, set[int]] = {node: set() for node in self._nodes}
        for shard, holders in self._holders.items():
            for node in holders:
                self._shards_of[node].add(shard)
        self._wishes: dict[int, list[int]] = {}  # see _by_wish
        weights = sum(node.weight for node in self._nodes.values())
        # A node that has its share is passed over while holes are filled: it would
        # only have to give the replica away again. (A bound of 1.1 shares, as raft.md
        # 4.3 has it, cost a tenth more moves when one of five nodes was lost.)
        self._bound = self._factor * len(self._records) / weights

    def fill(self) -> None:
        """Give every shard its replicas."""
        for shard, holders in self._holders.items():
            while len(holders) < self._factor:
                self._add(shard, self._best(shard, self._nodes.keys() - holders))

    def spread_zones(self) -> None:
        """Move replicas out of zones that hold too many of a shard, where that
        helps: the zones came after the replicas did."""
        for shard, holders in self._holders.items():
            for _ in range(self._factor):
                crowded = [node for node in holders if self._excess(shard, node) > 0]
                if not crowded:
                    break
                source = max(crowded, key=lambda node: (self._load(node), node))
                others = self._nodes.keys() - holders
                free = [node for node in others if self._excess(shard, node, source) <= 0]
                if not free:
                    break
                self._move(shard, source, self._best(shard, free))

    def balance(self) -> None:
        """Move single replicas from the most to the least loaded node, as long as
        a move makes the two more equal. Ends: each move puts two smaller loads in
        the place of a larger one."""
        while True:
            order = sorted(self._nodes, key=lambda node: (self._load(node), node))
            found = self._next_move(order)
            if found is None:
                return
            self._move(*found)

    def changes(self) -> list[Placement]:
        """The shards whose nodes are to change. Nodes that stay come first."""
        changes = []
        for record in self._records:
            wanted = self._with_stranded(record)
            if set(wanted) != set(record.nodes):
                staying = [node for node in record.nodes if node in wanted]
                nodes = (*staying, *sorted(set(wanted) - set(staying)))
                changes.append(Placement(record.shard, record.placement_version, nodes))
        return changes

    def _kept(self, record: ShardRecord) -> set[int]:
        """Of the shard's usable nodes the best ``factor``; all, unless the factor
        became smaller."""
        usable = [node for node in record.nodes if node in self._nodes]
        usable.sort(key=lambda node: (-self._wish(record.shard, node), node))
        return set(usable[: self._factor])

    def _with_stranded(self, record: ShardRecord) -> list[int]:
        """The plan for a shard, and as many of its present unusable nodes as it
        would otherwise be short of."""
        wanted = sorted(self._holders[record.shard])
        stranded = [
            node
            for node in record.nodes
            if node not in self._nodes and self._view.nodes[node].state is not NodeState.LEFT
        ]
        missing = self._view.replication_factor - len(wanted)
        return wanted + stranded[: max(0, missing)]

    def _best(self, shard: int, candidates: Iterable[int]) -> int:
        """Where a new replica goes: a zone with room, then a node below its
        bound, then the shard's wish, or the emptiest node when all are full."""

        def rank(node: int) -> tuple[int, float, float, int]:
            load = self._load(node)
            above = load if load >= self._bound else 0.0
            return max(0, self._excess(shard, node)), above, -self._wish(shard, node), node

        return min(candidates, key=rank)

    def _next_move(self, order: list[int]) -> tuple[int, int, int] | None:
        """The first legal move between the furthest apart of ``order`` (least
        loaded first), as (shard, source, target)."""
        for source in reversed(order):
            for target in order:
                if not self._evens(source, target):
                    break
                shard = self._best_to_move(source, target)
                if shard is not None:
                    return shard, source, target
        return None

    def _evens(self, source: int, target: int) -> bool:
        """Whether one replica less here and one more there is more equal."""
        after = (len(self._shards_of[target]) + 1) / self._nodes[target].weight
        return after < self._load(source)

    def _best_to_move(self, source: int, target: int) -> int | None:
        """Of the shards that may go from source to target, the one that wishes it most."""
        held, already = self._shards_of[source], self._shards_of[target]
        one_zone = self._nodes[source].zone == self._nodes[target].zone
        for shard in self._by_wish(target):
            movable = shard in held and shard not in already
            # Within a zone a move changes nobody's zones.
            if movable and (one_zone or self._excess(shard, target) <= 0):
                return shard
        return None

    def _by_wish(self, node: int) -> list[int]:
        """All shards, the one that would most like to be on the node first."""
        if node not in self._wishes:
            shards = (record.shard for record in self._records)
            self._wishes[node] = sorted(shards, key=lambda shard: -self._wish(shard, node))
        return self._wishes[node]

    def _excess(self, shard: int, node: int, leaving: int = 0) -> int:
        """By how many the node's zone is above its share of the shard, once the
        node holds it and ``leaving`` does not."""
        zone = self._nodes[node].zone
        held = {*self._holders[shard], node} - {leaving}
        return sum(self._nodes[other].zone == zone for other in held) - self._zone_share

    def _load(self, node: int) -> float:
        return len(self._shards_of[node]) / self._nodes[node].weight

    def _wish(self, shard: int, node: int) -> float:
        return wish(shard, node, self._nodes[node].weight)

    def _add(self, shard: int, node: int) -> None:
        self._holders[shard].add(node)
        self._shards_of[node].add(shard)

    def _move(self, shard: int, source: int, target: int) -> None:
        self._holders[shard].remove(source)
        self._shards_of[source].remove(shard)
        self._add(shard, target)
