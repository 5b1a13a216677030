"""Who leads how many shards: evened by transfers, which cost no data.

Separate from the placement because a transfer takes milliseconds and can be
undone, while moving a replica copies the shard.

Rules:
* A leader on a node that shall go (draining, to be removed, dead) hands over first.
* With zones preferred, a shard is led in the first of them that has a voter which
  may lead; a shard that has none there is led wherever it is best.
* A shard whose requests come in at one of those nodes is led there (homes.py).
* Within what that leaves, the counts become as even as transfers can make them.
  When no single transfer evens two nodes, because the fuller leads nothing that
  the emptier votes in, a chain of them does: A hands a shard to B, which hands
  another one to C. Counts are not weighted: leading costs work, not room.

An even spread stays as it is.

Sources: Harvey, Ladner, Lovász and Tamir, "Semi-matchings for bipartite graphs and
load balancing" (2003): an assignment without such a chain is as even as it can be.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from krita.ring import META_SHARD
from kritad.cluster.model import ShardRecord
from kritad.cluster.view import MetaView

# Every transfer interrupts its shard's writes for about a round trip.
TRANSFERS_AT_ONCE = 2


def leader_transfers(
    view: MetaView,
    leaders: Mapping[int, int],
    reachable: Collection[int],
    zones: Sequence[str] = (),
    limit: int = TRANSFERS_AT_ONCE,
    damaged: Collection[tuple[int, int]] = (),
    homes: Mapping[int, int] = MappingProxyType({}),
) -> list[tuple[int, int]]:
    """The next transfers as ``(shard, node)``, at most ``limit``.

    ``leaders`` says which node leads each shard now; shards without a known
    leader, and the meta shard, are left alone. ``zones`` are those that should
    lead, the preferred one first; ``homes`` says of some shards which node they should be led
    by, if it can lead them. Pure; asked again after each transfer, it comes to rest.

    ``reachable`` are the nodes that can be spoken to now. A node that is down leads
    nothing and so would be everybody's heir, and each attempt would stop its shard's
    writes for an election timeout. So would a replica that is ``damaged``, (shard, replica).
    1 to 2 ms for 256 shards on 30 nodes.
    """
    spread = _Spread(view, leaders, reachable, zones, damaged, homes)
    transfers: list[tuple[int, int]] = []
    while len(transfers) < limit:
        found = spread.forced() or spread.evening()
        if found is None:
            break
        spread.transfer(*found)
        transfers.append(found)
    return transfers


class _Spread:
    """Who leads what, while transfers are chosen. A shard that was transferred takes
    part no more: none is transferred twice at once."""

    def __init__(
        self,
        view: MetaView,
        leaders: Mapping[int, int],
        reachable: Collection[int],
        zones: Sequence[str],
        damaged: Collection[tuple[int, int]],
        homes: Mapping[int, int],
    ) -> None:
        self._view = view
        self._zones = zones
        self._homes = homes
        self._led = {
            shard: node
            for shard, node in sorted(leaders.items())
            if shard != META_SHARD and shard in view.shards and node in view.nodes
        }
        self._heirs = {
            shard: self._preferred(shard, _heirs(view, view.shards[shard], reachable, damaged))
            for shard in self._led
        }
        self._counts: Counter[int] = Counter({node.node: 0 for node in view.usable_nodes})
        self._counts.update(self._led.values())

    def transfer(self, shard: int, heir: int) -> None:
        """Count it as done."""
        self._counts[self._led.pop(shard)] -= 1
        self._counts[heir] += 1

    def forced(self) -> tuple[int, int] | None:
        """A transfer from a node that shall not lead the shard, to the least of its heirs;
        first those that shall go, then those that are elsewhere than is preferred."""
        found = [
            (self._view.nodes[node].usable, shard)
            for shard, node in self._led.items()
            if self._heirs[shard] and not self._may_stay(shard, node)
        ]
        if not found:
            return None
        _, shard = min(found)
        return shard, min(self._heirs[shard], key=lambda heir: (self._counts[heir], heir))

    def evening(self) -> tuple[int, int] | None:
        """The transfer that evens the two most unequal nodes that one can even, or else the
        first of the shortest chain that does."""
        links = self._links()
        gains = [
            (self._counts[node] - self._counts[heir], -shard, -heir)
            for (node, heir), shard in links.items()
            if self._counts[node] - self._counts[heir] > 1
        ]
        if gains:
            _, shard, heir = (abs(number) for number in max(gains))
            return shard, heir
        chains = [chain for source in self._fullest() if (chain := self._chain(links, source))]
        if not chains:
            return None
        source, heir = min(chains, key=lambda chain: (len(chain), chain))[:2]
        return links[source, heir], heir

    def _fullest(self) -> list[int]:
        """Nodes that lead two more than some node does."""
        least = min(self._counts.values(), default=0)
        return sorted(node for node, count in self._counts.items() if count - least > 1)

    def _links(self) -> dict[tuple[int, int], int]:
        """(node, heir) -> the lowest shard that the one could hand to the other."""
        links: dict[tuple[int, int], int] = {}
        for shard, node in self._led.items():
            for heir in self._heirs[shard]:
                if heir != node:
                    links.setdefault((node, heir), shard)
        return links

    def _chain(self, links: Mapping[tuple[int, int], int], source: int) -> list[int]:
        """The shortest way from a node over ``links`` to one that leads two less; [] if
        there is none."""
        came_from = {source: source}
        queue = deque([source])
        while queue:
            node = queue.popleft()
            if self._counts[source] - self._counts[node] > 1:
                chain = [node]
                while chain[-1] != source:
                    chain.append(came_from[chain[-1]])
                return chain[::-1]
            for heir in sorted(heir for giver, heir in links if giver == node):
                if heir not in came_from:
                    came_from[heir] = node
                    queue.append(heir)
        return []

    def _preferred(self, shard: int, heirs: list[int]) -> list[int]:
        """The heirs of the best zone that has one; all, if no preferred zone has. The home
        alone, if it is among them."""
        for zone in self._zones:
            found = [node for node in heirs if self._view.nodes[node].zone == zone]
            if found:
                heirs = found
                break
        home = self._homes.get(shard)
        return [home] if home in heirs else heirs

    def _may_stay(self, shard: int, node: int) -> bool:
        record = self._view.nodes[node]
        if not record.usable:
            return False
        if self._homes.get(shard) in self._heirs[shard]:
            return node == self._homes[shard]
        return self._rank(record.zone) <= self._rank(self._view.nodes[self._heirs[shard][0]].zone)

    def _rank(self, zone: str) -> int:
        return self._zones.index(zone) if zone in self._zones else len(self._zones)


def _heirs(
    view: MetaView,
    record: ShardRecord,
    reachable: Collection[int],
    damaged: Collection[tuple[int, int]],
) -> list[int]:
    """The nodes that may lead a shard: they vote, shall go on to, are usable and up."""
    wanted = {replica.replica for replica in record.replicas}
    return [
        member.node
        for member in record.report.replicas
        if member.voter
        and member.replica in wanted
        and member.node in reachable
        and member.node in view.nodes
        and view.nodes[member.node].usable
        and (record.shard, member.replica) not in damaged
    ]
