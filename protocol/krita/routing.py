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
- A node whose map is no newer than ours, although an answer has shown that ours is old, is
  *behind*: it is asked for the map last, until there is a newer one. A node whose disk hangs
  tells what it knew for as long as it lives.
- A read that any replica may answer goes to one in the client's own zone, else to a
  near one (``krita.nearness``), else to the nearest. One that failed comes behind the
  others for ``AVOIDED_S``: nearer is no use if each second somebody waits for it in vain.

- An address may be somebody else's: a server of another kind, or a node of another cluster,
  that has the address now or was made anew. Ours is the cluster of the first node that
  answers. A *misfit* counts as a node that failed; where all are misfits, nobody is left.

Sans-IO: the clock's reading and the random generator are given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from krita.address import parse
from krita.errors import BadRequest, NotLeader, SessionExpired, WrongShard
from krita.nearness import Nearness
from krita.retry import Where
from krita.ring import ShardMap

if TYPE_CHECKING:
    import random

    from krita.errors import KritaError
    from krita.retry import Rule, Trial

REFRESH_PAUSE_S = 0.25  # between two fetches of a map that was only doubted
DOWN_S = 1.0  # how long a node that failed is tried last
AVOIDED_S = 10.0  # and how long, where another replica is as good
NEAREST_S = 0.1  # for how long the nearest replicas stay so, if nothing happens


class Router:
    """One client's picture of the cluster. Addresses are ``host:port`` texts; ``zone``
    is the client's own, "" when it has none."""

    def __init__(self, seeds: Sequence[str], chance: random.Random, zone: str = "") -> None:
        assert seeds, "a client needs at least one address"
        self.seeds = tuple(seeds)
        self.zone = zone
        self.nearness = Nearness()
        self.cluster_id = b""  # ours; b"" before a node has answered
        self.map: ShardMap | None = None
        # Whether something happened that a new map might explain.
        self.map_doubtful = True
        self._arcs_doubtful = False  # and not by who leads, but by whose a key is
        self._behind: set[str] = set()  # addresses
        self._chance = chance
        self._leaders: dict[int, tuple[int, int]] = {}  # shard -> term, node or 0
        self._told: dict[int, str] = {}  # node -> where maps and hints say it is
        self._pinned: dict[int, str] = {}  # node -> the seed through which we reach it
        self._failures: dict[str, float] = {}  # address -> when it last failed
        self._misfits: set[str] = set()  # addresses
        self._nearest: dict[int, tuple[list[str], float]] = {}  # shard -> those, until when

    # What we learn

    def learn_map(self, shard_map: ShardMap, now: float, address: str | None = None) -> None:
        """A node, the one at this address, has answered ``shard_map``.

        An older version says nothing new about arcs and nodes, but its leaders
        may still be of newer terms.
        """
        self._nearest.clear()
        if self.map is None or shard_map.version > self.map.version:
            self._behind.clear()
        elif self._arcs_doubtful and address is not None:
            self._behind.add(address)
            if self._behind.issuperset(self._candidates(None)):
                self._behind.clear()  # nobody knows better, or those who do cannot be reached
        self._arcs_doubtful = False
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
        if not _is_about(error, shard):
            return None
        if term < known_term or (term == known_term and known):
            return None
        if isinstance(address, str) and address:
            self._told.setdefault(node, address)
        place = self.address_of(node)
        if place is not None:
            self._leaders[shard] = (term, node)
        return place

    def doubt_arcs(self, error: KritaError) -> None:
        """An attempt has failed; maybe because its key is not where our map has it."""
        if isinstance(error, (WrongShard, SessionExpired)):
            self._arcs_doubtful = True

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
            if rule.where is Where.ELSEWHERE or (
                isinstance(error, NotLeader) and _is_about(error, shard)
            ):
                self.doubt(shard, address)
        return self.all_tried(shard, trial.tried)

    def is_ours(self, cluster_id: bytes) -> bool:
        """Whether a node of that cluster is one of ours. A node that is only about to join one
        tells none."""
        if not self.cluster_id:
            self.cluster_id = cluster_id
        return not cluster_id or cluster_id == self.cluster_id

    def reached(self, address: str, node: int) -> None:
        """A connection to ``address`` stands, and this node is behind it."""
        self._nearest.clear()
        self._failures.pop(address, None)
        self._misfits.discard(address)
        if address not in self.seeds:
            return
        # Behind a load balancer's address stands another node each time.
        for other in [other for other, place in self._pinned.items() if place == address]:
            del self._pinned[other]
        self._pinned[node] = address

    def failed(self, address: str, now: float) -> None:
        """The node could not be reached, or broke off, or keeps silent."""
        self.kept_waiting(address, now)
        self._misfits.discard(address)
        for node in [node for node, place in self._pinned.items() if place == address]:
            del self._pinned[node]

    def misfit(self, address: str, now: float) -> None:
        """Who answers there is no node of our cluster."""
        self.failed(address, now)
        self._misfits.add(address)

    def kept_waiting(self, address: str, now: float) -> None:
        """A call got no answer from the node in time, or none that says what became of it;
        the connection stands."""
        self._nearest.clear()
        self._failures[address] = now
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
        if address is not None and self._failures and self._is_down(address, now):
            return None
        return address

    def choose(
        self, shard: int | None, tried: Collection[str], now: float, *, spread: bool = False
    ) -> tuple[str, bool]:
        """The next address to try, and whether to go there direct (see the rules).

        ``shard`` None: any node will do. ``spread``: any replica of the shard will
        do. What is in ``tried`` comes only when nothing else is left.
        """
        if shard is not None and spread and not tried:
            places = self._nearest_replicas(shard, now)
            if places:
                return places[int(self._chance.random() * len(places))], False
        elif shard is not None and not spread:
            leader = self.leader(shard, now)
            if leader is not None and leader not in tried:
                return leader, True
        candidates = self._candidates(shard, now if spread else None)
        if shard is None and self._behind:
            tried = self._behind.union(tried)
        fresh = [address for address in candidates if address not in tried] or candidates
        for address in fresh:
            if not self._is_down(address, now):
                return address, False
        return fresh[0], False

    def all_tried(self, shard: int | None, tried: Collection[str]) -> bool:
        """Whether ``choose`` can only repeat itself."""
        return all(address in tried for address in self._candidates(shard))

    def nobody_left(self, address: str | None, named: bool) -> bool:
        """Whether only misfits are left to ask: all of them; if the caller has ``named`` the
        node, the one at this address."""
        if named:
            return address in self._misfits
        return bool(self._misfits) and self._misfits.issuperset(self._candidates(None))

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

    def _is_down(self, address: str, now: float, for_s: float = DOWN_S) -> bool:
        failed_at = self._failures.get(address)
        return failed_at is not None and now < failed_at + for_s

    def _candidates(self, shard: int | None, nearest_at: float | None = None) -> list[str]:
        """Every address, best first: the shard's replicas (with ``nearest_at``, a time,
        by nearness then), seeds, the other nodes."""
        places: list[str] = []
        if self.map is not None and shard is not None:
            info = self.map.shard(shard)
            nodes = list(info.nodes) if info is not None else []
            if nearest_at is not None:
                nodes = self._nearest_first(nodes, nearest_at)
            places += [address for node in nodes if (address := self.address_of(node))]
        places += self.seeds
        if self.map is not None:
            places += [address for node in self.map.nodes if (address := self.address_of(node))]
        # In this order, each once.
        return list(dict.fromkeys(places))

    def _nearest_first(self, nodes: list[int], now: float) -> list[int]:
        """In any order among equals."""
        self._chance.shuffle(nodes)
        ranks = self._ranks(nodes, now)
        return sorted(nodes, key=ranks.__getitem__)

    def _nearest_replicas(self, shard: int, now: float) -> list[str]:
        """Where to read what may be stale: all that are equally good. 0.2 µs, and 5 µs
        when something has happened. None, if all have failed lately."""
        known = self._nearest.get(shard)
        if known is not None and now < known[1]:
            return known[0]
        info = self.map.shard(shard) if self.map is not None else None
        nodes = [node for node in info.nodes if self.address_of(node)] if info is not None else []
        ranks = self._ranks(nodes, now)
        best = min(ranks.values(), default=None)
        places = [
            self.address_of(node) or ""
            for node, rank in ranks.items()
            if rank == best and not rank[0]
        ]
        self._nearest[shard] = places, now + NEAREST_S
        return places

    def _ranks(self, nodes: Sequence[int], now: float) -> dict[int, tuple[bool, bool, float]]:
        """What makes a replica the worse choice, the most important first: it failed
        lately, it is not in our zone, it is far."""
        zones = self.map.zones if self.map is not None else {}
        places = {node: self.address_of(node) or "" for node in nodes}
        distances = self.nearness.distances(places.values(), now)
        return {
            node: (
                self._is_down(place, now, AVOIDED_S),
                not self.zone or zones.get(node) != self.zone,
                distances[place],
            )
            for node, place in places.items()
        }

    def __repr__(self) -> str:
        version = "no map" if self.map is None else f"map {self.map.version}"
        leaders = {shard: f"{node}@{term}" for shard, (term, node) in self._leaders.items()}
        return f"<Router {version}, leaders {leaders}, failed {list(self._failures)}>"


def _is_about(error: KritaError, shard: int) -> bool:
    """Whether a node speaks of the shard that it was asked about. If not, its map is older
    or newer than ours: in the one a shard is whole that is split in the other."""
    return error.detail.get("shard", shard) == shard
