"""A Krita cluster of real ``kritad run`` processes on this machine, with default settings
unless others are asked for."""

from __future__ import annotations

import http.client
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, field

import krita
from benchmarks.processes import (
    BenchmarkError,
    Process,
    free_ports,
    kill_all,
    stop_all,
    wait_until,
)

META_SHARD = 0
# Leaders move apart one by one after a start; a difference of this many between the
# nodes does not move another.
LEADERS_APART_MAX = 2
SETTLE_TIMEOUT_S = 90.0
BATCH = 1000
TIMEOUT_MS = 30_000.0
VALUES = 16


@define(eq=False)
class KritaCluster:
    """``nodes[i]`` listens on ``ports[i]``. Started again, it has the data it had."""

    directory: Path
    ports: list[int] = field(factory=list)
    nodes: list[Process] = field(factory=list)
    settings: tuple[str, ...] = ()  # of every node, as on its command line

    @classmethod
    def create(cls, directory: Path, count: int = 3, settings: Sequence[str] = ()) -> KritaCluster:
        """Nothing is started yet."""
        cluster = cls(directory, settings=tuple(settings))
        directory.mkdir(parents=True)
        for port in free_ports(count):
            cluster._add(port)
        return cluster

    def add_node(self) -> Process:
        """One more, to join the others; not started yet."""
        (port,) = free_ports(1)
        return self._add(port)

    def _add(self, port: int) -> Process:
        number = len(self.nodes) + 1
        data = self.directory / f"node{number}"
        role = f"--join_ip=127.0.0.1:{self.ports[0]}" if self.ports else "--start_cluster"
        command = (
            *(sys.executable, "-m", "kritad", "run"),
            *(f"--port={port}", f"--data_dir={data}", role, *self.settings),
        )
        name = f"krita{number}"
        node = Process(name, command, self.directory / f"{name}.log")
        self.ports.append(port)
        self.nodes.append(node)
        return node

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{port}" for port in self.ports]

    def start(self) -> None:
        """Start every node; returns when the cluster has settled."""
        for node in self.nodes:
            node.start()
        self.settle()

    def stop(self) -> None:
        stop_all(self.nodes)

    def kill(self) -> None:
        kill_all(self.nodes)

    def settle(self) -> None:
        """Wait until all nodes are ready, every shard has all its copies, none lags,
        and the leaders are spread. Raises BenchmarkError."""
        for node, port in zip(self.nodes, self.ports, strict=True):
            wait_until(f"{node.name} is ready", partial(is_ready, port), self.nodes)
        with self.client() as client:
            wait_until(
                "every shard has its copies, and the leaders are spread",
                lambda: is_settled(status_of(client), len(self.nodes)),
                self.nodes,
                SETTLE_TIMEOUT_S,
                poll_s=0.5,
            )

    def client(self, token: str | None = None) -> krita.Client:
        return krita.Client(self.addresses, timeout_ms=TIMEOUT_MS, token=token)

    def fill(self, keys: int, value_size: int) -> None:
        """Put every key of the load generators once. Raises BenchmarkError."""
        values = make_values(value_size)
        with self.client() as client:
            for numbers in batches(range(keys), BATCH):
                put_all(client, [(key_of(n), values[n % VALUES]) for n in numbers])

    def cpu_s(self) -> float:
        return sum(node.cpu_s() for node in self.nodes)


def key_of(number: int) -> bytes:
    """As ``kritash bench`` and the scripts for wrk name them."""
    return b"bench:%08d" % number


def make_values(value_size: int) -> list[bytes]:
    """Different ones, so that nothing can compress them all into one."""
    chance = random.Random(1)
    return [chance.randbytes(value_size) for _ in range(VALUES)]


def batches(numbers: range, size: int) -> Iterator[range]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def put_all(client: krita.Client, pairs: list[tuple[bytes, bytes]]) -> None:
    """All at once in flight. Raises BenchmarkError unless each is acknowledged."""
    with client.pipeline() as pipeline:
        for key, value in pairs:
            pipeline.put(key, value)
    if pipeline.errors:
        raise BenchmarkError(f"a put failed: {pipeline.errors[0]}")


def is_ready(port: int) -> bool:
    """Whether GET /readyz answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def metrics_of(port: int) -> str:
    """GET /metrics. Raises BenchmarkError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise BenchmarkError(f"port {port} does not tell its metrics: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise BenchmarkError(f"port {port} answers GET /metrics with {response.status}")
    return text


def metric(text: str, name: str) -> float:
    """The sum of a metric over its labels, in Prometheus' text. Raises BenchmarkError."""
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    found = [line for line in lines if line.partition(" ")[0].partition("{")[0] == name]
    if not found:
        raise BenchmarkError(f"the node has no metric {name}")
    return sum(float(line.rpartition(" ")[2]) for line in found)


def start_ready(node: Process, port: int) -> float:
    """Start the node; seconds from before that until /readyz answers 200, to a few
    milliseconds. Raises BenchmarkError."""
    start = time.perf_counter()
    node.start()
    wait_until(f"{node.name} is ready", lambda: is_ready(port), [node], poll_s=0.002)
    return time.perf_counter() - start


def status_of(client: krita.Client) -> dict[str, Any]:
    """The document of ``kritash --json cluster status``."""
    (document, *_) = client.call("cluster_status")
    assert isinstance(document, dict)
    return document


def is_settled(status: dict[str, Any], nodes: int) -> bool:
    """Whether all nodes are there, each with its copy of every shard and its share of leaders."""
    leaders = [node["leaders"] for node in status["nodes"] if node["reachable"]]
    if len(leaders) < nodes or max(leaders) - min(leaders) > LEADERS_APART_MAX:
        return False
    if status["health"] != "healthy":
        return False
    wanted = min(nodes, status["replication_factor"])
    return all(_is_whole(shard, wanted) for shard in status["shards"])


def _is_whole(shard: dict[str, Any], wanted: int) -> bool:
    members = [r for r in shard["replicas"] if r["role"] in ("leader", "voter")]
    return bool(shard["leader"]) and len(members) == wanted


def led_shards(status: dict[str, Any], node: int) -> list[int]:
    """The data shards that a node leads."""
    return [
        s["shard"] for s in status["shards"] if s["shard"] != META_SHARD and s["leader"] == node
    ]
