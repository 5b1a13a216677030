"""Where to send a request: the client's picture of the cluster.

The picture is made of the addresses the client was given (*seeds*), the shard
map, hints in ``NotLeader`` replies, and which nodes lately did not answer.

Rules:

- Knowledge about a leader is replaced only by knowledge of a newer term. Two
  nodes that each believe in the other would otherwise bounce a client for ever.
- To the node that we believe leads the shard a request goes *direct*: it answers
  itself, or says who leads. Only when we do not know, any node is asked and may
  forward once. So a client that is wrong finds out, instead of paying a hop on
  every request.
- A node that was reached through a seed is addressed as that seed: the address
  that a node tells of itself need not be reachable from here (NAT, containers).
- A node that failed is tried last for ``DOWN_S``, never not at all: the picture
  may be wrong about all of them.

Sans-IO: the clock's reading and the random generator are given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from krita.address import parse
from krita.errors import BadRequest, NotLeader
from krita.retry import Where
from krita.ring import ShardMap

if TYPE_CHECKING:
    import random

    from krita.errors import KritaError
    from krita.retry import Rule, Trial

DOWN_S = 1.0  # how long a node that failed is tried last


class Router:
    """One client's picture of the cluster. Addresses are ``host:port`` texts."""

    def __init__(self, seeds: Sequence[str], chance: random.Random) -> None:
        assert seeds, "a client needs at least one address"
        self.seeds = tuple(seeds)
        self.map: ShardMap | None = None
        # Whether something happened that a new map might explain.
        self.map_doubtful = True
        self._chance = chance
        self._leaders: dict[int, tuple[int, int]] = {}  # shard -> term, node or 0
        self._told: dict[int, str] = {}  # node -> where maps and hints say it is
        self._pinned: dict[int, str] = {}  # node -> the seed through which we reach it
        self._down: dict[str, float] = {}  # address -> until when it is tried last

    # What we learn

    def learn_map(self, shard_map: ShardMap, now: float) -> None:
        """A node has answered ``shard_map``.

        An older version says nothing new about arcs and nodes, but its leaders
        may still be of newer terms.
        """
        if self.map is None or shard_map.version >= self.map.version:
            self.map = shard_map
            self._told = dict(shard_map.nodes)
        for info in shard_map.shards:
            known_term, known = self._leaders.get(info.shard, (-1, 0))
            if info.term > known_term or (info.term == known_term and not known):
                self._leaders[info.shard] = (info.term, info.leader)
        # A map that names no leader that answers is to be asked for again, soon.
        self.map_doubtful = any(self.leader(info.shard, now) is None for info in shard_map.shards)

    def learn_hint(self, shard: int, error: KritaError) -> str | None:
        """Take the hint of a ``NotLeader`` about the shard if it is newer than what
        we know, or if we know of no leader in its term.

        Returns the new leader's address, or None. What a hint lacks or has wrong
        makes it no hint; it is never an error.
        """
        term, node, address = (error.detail.get(name) for name in ("term", "node", "address"))
        known_term, known = self._leaders.get(shard, (-1, 0))
        if not isinstance(term, int) or not isinstance(node, int):
            return None
        if term < known_term or (term == known_term and known):
            return None
        if isinstance(address, str) and address:
            self._told.setdefault(node, address)
        place = self.address_of(node)
        if place is not None:
            self._leaders[shard] = (term, node)
        return place

    def doubt(self, shard: int, address: str) -> None:
        """The node said that it does not lead the shard, or gave no answer."""
        term, known = self._leaders.get(shard, (-1, 0))
        if known and self.address_of(known) == address:
            self._leaders[shard] = (term, 0)
        self.map_doubtful = True

    def learn_failure(
        self, shard: int | None, address: str, error: KritaError, rule: Rule, trial: Trial
    ) -> bool:
        """An attempt at this address has failed. True: pause before the next one,
        because there is nowhere new to go. Notes in ``trial`` what was tried."""
        trial.tried.add(address)
        if rule.where is Where.SAME:
            trial.tried.discard(address)
            return trial.tries > 1
        if shard is not None:
            if isinstance(error, NotLeader):
                known_term, _ = self._leaders.get(shard, (-1, 0))
                hinted = self.learn_hint(shard, error)
                # To a node that was tried already only a newer term leads back.
                if hinted is not None and (
                    hinted not in trial.tried or self._leaders[shard][0] > known_term
                ):
                    trial.tried.discard(hinted)
                    return False
            if rule.where is Where.ELSEWHERE or isinstance(error, NotLeader):
                self.doubt(shard, address)
        return self.all_tried(shard, trial.tried)

    def reached(self, address: str, node: int) -> None:
        """A connection to ``address`` stands, and this node is behind it."""
        self._down.pop(address, None)
        if address not in self.seeds:
            return
        # Behind a load balancer's address stands another node each time.
        for other in [other for other, place in self._pinned.items() if place == address]:
            del self._pinned[other]
        self._pinned[node] = address

    def failed(self, address: str, now: float) -> None:
        """The node could not be reached, or broke off, or keeps silent."""
        self.kept_waiting(address, now)
        for node in [node for node, place in self._pinned.items() if place == address]:
            del self._pinned[node]

    def kept_waiting(self, address: str, now: float) -> None:
        """A call's time was up before the node had answered it; the connection stands."""
        self._down[address] = now + DOWN_S
        self.map_doubtful = True

    # What we say

    def address_of(self, node: int) -> str | None:
        """Where to reach a node, if its id is known."""
        return self._pinned.get(node) or self._told.get(node)

    def shard_of(self, key: bytes) -> int:
        """The number of the shard that owns the key; a map must be there. 0.5 µs."""
        assert self.map is not None, "a key was routed before there was a map"
        return self.map.shard_of(key).shard

    def leader(self, shard: int, now: float) -> str | None:
        """The leader's address, unless it is unknown or lately failed."""
        known = self._leaders.get(shard)
        address = self.address_of(known[1]) if known is not None else None
        if address is not None and self._down and self._is_down(address, now):
            return None
        return address

    def choose(
        self, shard: int | None, tried: Collection[str], now: float, *, spread: bool = False
    ) -> tuple[str, bool]:
        """The next address to try, and whether to go there direct (see the rules).

        ``shard`` None: any node will do. ``spread``: any replica of the shard will
        do. What is in ``tried`` comes only when nothing else is left.
        """
        if shard is not None and not spread:
            leader = self.leader(shard, now)
            if leader is not None and leader not in tried:
                return leader, True
        candidates = self._candidates(shard, spread=spread)
        fresh = [address for address in candidates if address not in tried] or candidates
        for address in fresh:
            if not self._is_down(address, now):
                return address, False
        return fresh[0], False

    def all_tried(self, shard: int | None, tried: Collection[str]) -> bool:
        """Whether ``choose`` can only repeat itself."""
        return all(address in tried for address in self._candidates(shard))

    def node_address(self, node: int | str) -> str:
        """The address of a node that the caller named, by id or address.

        Raises BadRequest for an id that the map does not have, or for no address.
        """
        if isinstance(node, str):
            return str(parse(node))
        address = self.address_of(node)
        if address is None:
            raise BadRequest(f"the cluster has no node {node}", hint="`node list` shows them")
        return address

    def _is_down(self, address: str, now: float) -> bool:
        until = self._down.get(address)
        return until is not None and now < until

    def _candidates(self, shard: int | None, *, spread: bool = False) -> list[str]:
        """Every address, best first: the shard's replicas, seeds, the other nodes."""
        places: list[str] = []
        if self.map is not None and shard is not None:
            info = self.map.shard(shard)
            nodes = list(info.nodes) if info is not None else []
            if spread:
                self._chance.shuffle(nodes)
            places += [address for node in nodes if (address := self.address_of(node))]
        places += self.seeds
        if self.map is not None:
            places += [address for node in self.map.nodes if (address := self.address_of(node))]
        # In this order, each once.
        return list(dict.fromkeys(places))

    def __repr__(self) -> str:
        version = "no map" if self.map is None else f"map {self.map.version}"
        leaders = {shard: f"{node}@{term}" for shard, (term, node) in self._leaders.items()}
        return f"<Router {version}, leaders {leaders}, down {list(self._down)}>"
