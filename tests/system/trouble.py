"""A cluster on a network that can be cut, and somebody who makes trouble for it.

Each node is in a network namespace of its own, and so are the people. One kind of trouble
at a time: a node is killed and started again, stopped for a while, cut off from the
others, from one of them or from the people; or all are killed at once. Then the cluster
gets a while of peace. What is done follows from the seed.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from krita import Client, KritaError
from krita.ring import META_SHARD
from tests.system.node import wait_until
from tests.system.regions import TOKEN, NetworkedCluster

PEOPLE = "people"
_NAMES = ("a", "b", "c")
_LINK_MS = 0.2


class TroubledCluster(NetworkedCluster):
    """Three nodes and the people, each in a namespace."""

    def __init__(self, folder: Path, flags: Sequence[str] = ()) -> None:
        super().__init__(folder, _NAMES, _LINK_MS, flags, people=[PEOPLE])

    @contextmanager
    def client(self, timeout_ms: float = 8_000) -> Iterator[Client]:
        """A client among the people; until the block ends, the thread is there too."""
        addresses = [node.address for node in self.nodes]
        region = self.network.regions[PEOPLE]
        with region, Client(addresses, timeout_ms=timeout_ms, token=TOKEN) as client:
            yield client

    def wait_whole(self) -> None:
        """Until every shard has a leader and all of its voters."""

        def whole() -> bool:
            try:
                with self.client(3_000) as client:
                    (status,) = client.call("cluster_status")
            except KritaError:
                return False
            return all(
                shard["leader"]
                and sum(r["role"] in ("leader", "voter") for r in shard["replicas"])
                == len(self.nodes)
                for shard in status["shards"]
                if shard["shard"] != META_SHARD
            )

        wait_until("every shard has a leader and all its voters", whole, timeout_s=90)

    def agree(self) -> None:
        """Until all replicas of each shard have applied the same, with one state hash."""

        def agreed() -> bool:
            seen: dict[int, set[tuple[int, str]]] = {}
            try:
                with self.client(5_000) as client:
                    for node in self.nodes:
                        (document,) = client.call("node_status", node=node.address)
                        for replica in document["replicas"]:
                            place = replica["applied"], replica["state_hash"]
                            seen.setdefault(replica["shard"], set()).add(place)
            except KritaError:
                return False
            for places in seen.values():
                indexes = Counter(index for index, _ in places)
                assert max(indexes.values()) == 1, f"equal index, different hashes: {places}"
            return all(len(places) == 1 for places in seen.values())

        wait_until("all replicas have applied the same", agreed, timeout_s=90)


class Trouble:
    """Makes trouble until ``stop`` is set. ``counts``: how often which kind was made."""

    def __init__(self, cluster: TroubledCluster, seed: int, say: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._chance = random.Random(seed)
        self._say = say
        self._pause = threading.Event()

    def make(self, seconds: float) -> None:
        """For so long; when it returns, all is healed."""
        end = time.monotonic() + seconds
        kinds = {
            "kill": self._kill,
            "kill all": self._kill_all,
            "stop": self._stop,
            "isolate": self._isolate,
            "cut a link": self._cut,
            "cut from people": self._cut_from_people,
        }
        weights = (4, 1, 2, 3, 2, 1)
        while time.monotonic() < end:
            (kind,) = self._chance.choices(list(kinds), weights)
            self.counts[kind] += 1
            self._say(kind)
            kinds[kind]()
            self._cluster.network.heal()
            self._cluster.wait_whole()
            self._wait(1.0, 4.0)

    def _wait(self, least_s: float, most_s: float) -> None:
        self._pause.wait(self._chance.uniform(least_s, most_s))

    def _kill(self) -> None:
        node = self._chance.choice(self._cluster.nodes)
        node.kill()
        self._wait(0.1, 4.0)
        node.restart()

    def _kill_all(self) -> None:
        for node in self._cluster.nodes:
            node.kill()
        for node in self._cluster.nodes:
            node.start()
        for node in self._cluster.nodes:
            node.wait_ready()

    def _stop(self) -> None:
        node = self._chance.choice(self._cluster.nodes)
        node.pause()
        self._wait(0.2, 6.0)
        node.resume()

    def _isolate(self) -> None:
        self._cluster.network.isolate(self._chance.choice(_NAMES))
        self._wait(1.0, 8.0)

    def _cut(self) -> None:
        one, other = self._chance.sample(_NAMES, 2)
        self._cluster.network.cut(one, other)
        self._wait(1.0, 8.0)

    def _cut_from_people(self) -> None:
        self._cluster.network.cut(self._chance.choice(_NAMES), PEOPLE)
        self._wait(1.0, 6.0)
