"""A cluster with one real kritad in each region of a ``Network``, and clients there.

    with RegionalCluster(folder, ("eu", "us", "asia"), delay_ms=40) as cluster:
        cluster.start()
        with cluster.client("us") as client:
            client.get("k", consistency="stale")

The nodes name their region as their zone, and the first region is where leaders should
be. Whoever talks to a node does so from inside some region: there is no other way to it.
"""

from __future__ import annotations

import re
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from krita import Client, KritaError
from krita.ring import META_SHARD
from tests.system.namespaces import Network, Region
from tests.system.node import Node, wait_until

PORT = 8080
TOKEN = "the-token-of-the-regions"
# What docs/operations.md advises for round trips of 80 ms and a little: see there.
TIMING = ("--raft_tick_ms=50", "--raft_heartbeat_ms=100", "--raft_election_ms=1000")

Document = dict[str, Any]

_GETS = re.compile(r'^krita_commands_total\{[^}]*op="get"[^}]*\} (\d+)', re.MULTILINE)


class RegionalNode(Node):
    """A node that is in a region."""

    def __init__(self, region: Region, number: int, folder: Path, flags: Sequence[str]) -> None:
        own = (f"--listen_ip={region.address}", f"--zone={region.name}")
        super().__init__(number, PORT, folder, [*flags, *own], extra={"KRITA_ADMIN_TOKEN": TOKEN})
        self.region = region

    @property
    def address(self) -> str:
        return f"{self.region.address}:{self.port}"

    def start(self) -> None:
        """Start the process, in its region; returns at once."""
        with self.region:
            super().start()

    def http(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float = 10.0
    ) -> tuple[int, bytes]:
        """One HTTP request, from the node's own region."""
        with self.region:
            return super().http(method, path, body, timeout_s)

    def gets_answered(self) -> int:
        """How many reads of clients it has answered, well or badly; what another node
        passed on to it is not in it."""
        url = f"http://{self.address}/metrics"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with self.region, urllib.request.urlopen(request, timeout=10.0) as answer:
            return sum(map(int, _GETS.findall(answer.read().decode())))


class NetworkedCluster(ABC):
    """One node in each of the network's regions but those of ``people``. ``nodes`` are in the
    order of the regions."""

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        delay_ms: float,
        flags: Sequence[str],
        people: Sequence[str] = (),
    ) -> None:
        self.network = Network((*names, *people), delay_ms)
        self.nodes = [
            RegionalNode(self.network.regions[name], number, folder, flags)
            for number, name in enumerate(names, 1)
        ]
        for node in self.nodes[1:]:
            node.flags.append(f"--join_ip={self.nodes[0].address}")

    def __enter__(self) -> Self:
        self.network.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            for node in self.nodes:
                node.close()
        finally:
            self.network.__exit__(kind, error, traceback)

    def start(self) -> None:
        """Start all nodes, and wait until everything is where it should be."""
        for node in self.nodes:
            node.start()
            node.wait_ready()
        self.wait_whole()

    @abstractmethod
    def wait_whole(self) -> None:
        """Until everything is where it should be."""


class RegionalCluster(NetworkedCluster):
    """See the module: a node in each region, and leaders in the first."""

    def __init__(
        self, folder: Path, names: Sequence[str], delay_ms: float, flags: Sequence[str] = ()
    ) -> None:
        zones = f"--leader_zones={names[0]}"
        super().__init__(folder, names, delay_ms, [*TIMING, "--shards=4", zones, *flags])

    def wait_whole(self) -> None:
        """Until each shard has a voter in each region that has caught up, and its
        leader in the first."""
        home = self.nodes[0].region.name

        def whole() -> bool:
            status = self.status(home)
            if status is None or len(status["nodes"]) < len(self.nodes):
                return False
            zones = {node["node"]: node["zone"] for node in status["nodes"]}
            return all(
                zones.get(shard["leader"]) == home
                and sum(r["role"] in ("leader", "voter") for r in shard["replicas"])
                == len(self.nodes)
                for shard in status["shards"]
                if shard["shard"] != META_SHARD
            )

        wait_until(f"every shard has all its voters, and its leader in {home}", whole)

    # --- clients -------------------------------------------------------------------

    def address_list(self, name: str) -> list[str]:
        """All nodes, that of the region first, as its clients are advised to name them."""
        return [n.address for n in sorted(self.nodes, key=lambda node: node.region.name != name)]

    @contextmanager
    def client(self, name: str, **options: Any) -> Iterator[Client]:
        """A client in the region; until the block ends, the thread is there too."""
        options = {"zone": name, "token": TOKEN, **options}
        with self.network.regions[name], Client(self.address_list(name), **options) as client:
            yield client

    def node_in(self, name: str) -> RegionalNode:
        """The region's node."""
        return next(node for node in self.nodes if node.region.name == name)

    def status(self, name: str) -> Document | None:
        """The cluster as the region's node sees it; None when it does not say."""
        address = self.node_in(name).address
        with self.client(name, timeout_ms=3000) as client:
            try:
                (status,) = client.call("cluster_status", node=address)
            except KritaError:
                return None
        assert isinstance(status, dict)
        return status

    def leader_zones(self, name: str) -> Mapping[int, str]:
        """data shard -> the zone of its leader, as the region's node sees it."""
        status = wait_until("the cluster tells its status", lambda: self.status(name))
        zones = {node["node"]: node["zone"] for node in status["nodes"]}
        return {
            shard["shard"]: zones.get(shard["leader"], "")
            for shard in status["shards"]
            if shard["shard"] != META_SHARD
        }

    def gets_answered(self) -> dict[str, int]:
        """region -> how many reads of clients its node has answered."""
        return {node.region.name: node.gets_answered() for node in self.nodes}
