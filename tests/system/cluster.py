"""A cluster of real kritad processes on this machine's loopback.

    with Cluster(folder, count=3) as cluster:
        cluster.start()
        cluster.busiest().kill()

``close`` ends every process that was started, however the test ended. Two checks are
made on everything that is seen of the replicas: at one applied index a shard has one
state hash, on whichever node and whenever it is seen (``Cluster.observe``), and
``settle`` waits until all replicas have applied the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from krita import Client, ConditionFailed, KritaError
from krita.operations import Op
from tests.system.node import FAST, TIMEOUT_S, Node, free_ports, wait_until

Document = dict[str, Any]

META_SHARD = 0


class Cluster:
    """``count`` places for nodes; ``start`` gives them processes. ``fast``: with timings
    and a number of shards for tests, else with the defaults that users get."""

    def __init__(
        self,
        folder: Path,
        *,
        count: int = 3,
        flags: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
        fast: bool = True,
    ) -> None:
        self.folder = folder
        self.flags = [*(FAST if fast else ()), *flags]
        self.environment = dict(extra or {})
        self.nodes = [
            Node(number, port, folder, self.flags, self.environment)
            for number, port in enumerate(free_ports(count), 1)
        ]
        for node in self.nodes[1:]:
            node.flags.append(f"--join_ip={self.nodes[0].address}")
        self._hashes: dict[tuple[int, int], tuple[str, int]] = {}

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        for node in self.nodes:
            node.close()

    # --- starting ------------------------------------------------------------------

    def start(self) -> None:
        """Start all nodes and wait until every shard has all of its replicas."""
        self.nodes[0].start()
        self.nodes[0].wait_ready()
        for node in self.nodes[1:]:
            node.start()
        for node in self.nodes[1:]:
            node.wait_ready()
        self.wait_grown(len(self.nodes))

    def start_all(self) -> None:
        """Start whoever is down, all at once, and wait until they are ready."""
        down = [node for node in self.nodes if not node.up]
        for node in down:
            node.start()
        for node in down:
            node.wait_ready()

    def add_node(self, *flags: str) -> Node:
        """Another place; not started."""
        (port,) = free_ports(1)
        join = f"--join_ip={self.nodes[0].address}"
        node = Node(
            len(self.nodes) + 1, port, self.folder, [*self.flags, join, *flags], self.environment
        )
        self.nodes.append(node)
        return node

    def wait_grown(self, replicas: int) -> None:
        """Until each data shard has that many voters, and a leader."""

        def grown() -> bool:
            status = self.status()
            if status is None:
                return False
            return all(
                shard["leader"]
                and sum(r["role"] in ("leader", "voter") for r in shard["replicas"]) >= replicas
                for shard in status["shards"]
                if shard["shard"] != META_SHARD
            )

        wait_until(f"every shard has {replicas} replicas", grown)

    # --- looking -------------------------------------------------------------------

    @property
    def addresses(self) -> str:
        return ",".join(node.address for node in self.nodes)

    def client(self, timeout_ms: float = 5000.0, **options: Any) -> Client:
        """A client that knows every node."""
        return Client(self.addresses, timeout_ms=timeout_ms, **options)

    def status(self, node: Node | None = None) -> Document | None:
        """The cluster as ``node``, or any node that is up, sees it; None when it
        does not say."""
        asked = node or next(n for n in self.nodes if n.up)
        with Client(asked.address, timeout_ms=3000) as client:
            try:
                (status,) = client.call("cluster_status", node=asked.address)
            except KritaError:
                return None
        assert isinstance(status, dict)
        return status

    def wait_status(self) -> Document:
        """The cluster's status, as soon as somebody tells it."""
        return wait_until("the cluster tells its status", self.status)

    def leaders(self) -> dict[int, int]:
        """shard -> node id of its leader (0: none known), data shards only."""
        shards = self.wait_status()["shards"]
        return {s["shard"]: s["leader"] for s in shards if s["shard"] != META_SHARD}

    def wait_leaders(self, without: Iterable[Node] = ()) -> dict[int, int]:
        """Until each data shard has a leader, and none of them is ``without``."""
        avoided = {0, *(self.id_of(node) for node in without)}

        def led() -> dict[int, int] | None:
            leaders = self.leaders()
            return None if avoided & set(leaders.values()) else leaders

        return wait_until("every shard has a leader", led)

    def id_of(self, node: Node) -> int:
        """The id that the cluster knows this place by now."""
        known = {entry["address"]: entry["node"] for entry in self.wait_status()["nodes"]}
        return int(known[node.address])

    def node_of(self, node_id: int) -> Node:
        """The place where the node with this id listens."""
        address = next(
            entry["address"] for entry in self.wait_status()["nodes"] if entry["node"] == node_id
        )
        return next(node for node in self.nodes if node.address == address)

    def busiest(self) -> Node:
        """The node that leads most shards now."""
        leaders = Counter(self.wait_leaders().values())
        return self.node_of(leaders.most_common(1)[0][0])

    def node_status(self, node: Node) -> Document:
        """What ``node`` knows of itself."""
        with Client(node.address, timeout_ms=5000) as client:
            (document,) = client.call("node_status", node=node.address)
        assert isinstance(document, dict)
        return document

    # --- judging -------------------------------------------------------------------

    def observe(self) -> dict[int, list[Document]]:
        """shard -> what each node that is up says of its replica. Fails when two
        replicas differ at one applied index, now or with anything seen before."""
        seen: dict[int, list[Document]] = {}
        for node in self.nodes:
            if not node.up:
                continue
            for replica in self.node_status(node)["replicas"]:
                shard, applied = replica["shard"], replica["applied"]
                place = (replica["state_hash"], node.number)
                first = self._hashes.setdefault((shard, applied), place)
                assert first[0] == place[0], (
                    f"shard {shard} at applied index {applied}: node {first[1]} had state hash "
                    f"{first[0]}, node {place[1]} has {place[0]}"
                )
                seen.setdefault(shard, []).append(replica)
        return seen

    def settle(self, replicas: int | None = None, timeout_s: float = TIMEOUT_S) -> None:
        """Until every shard has ``replicas`` replicas (as many as nodes are up, unless
        said) that have applied the same index, all of the log, with the same hash."""
        wanted = replicas or sum(node.up for node in self.nodes)

        def settled() -> bool:
            try:
                seen = self.observe()
            except KritaError:
                return False
            return all(
                len(found) == wanted
                and len({r["applied"] for r in found}) == 1
                and all(r["applied"] == r["last"] for r in found)
                for found in seen.values()
            )

        wait_until(f"all {wanted} replicas of each shard have applied the same", settled, timeout_s)

    def check_logs(self) -> None:
        """No node has met with something that it cannot explain."""
        for node in self.nodes:
            assert "Traceback" not in node.log_text(), f"{node} has logged a traceback"


def split(admin: Client, shard: int) -> int:
    """Split it as soon as the meta shard has heard that its replicas are where they shall be;
    the new shard."""
    new: list[int] = []

    def granted() -> bool:
        try:
            new[:] = admin.call(Op.SHARD_SPLIT, shard)
        except ConditionFailed:
            return False
        return True

    wait_until(f"shard {shard} may be split", granted)
    return new[0]
