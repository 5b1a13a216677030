"""How long writes wait when a leader dies.

    python -m benchmarks.failover [--times 15] [--json]

Three nodes with default settings. Again and again: the node that leads most
shards is killed with SIGKILL, and a client that has just written to one of those
shards writes there again. The time from the kill to the acknowledgement is the
figure: what a program that uses ``krita.Client`` waits, the election and the
client's own search for the new leader included. After that the client writes to
each of the other shards that the node led; the last acknowledgement says when
all were back. Then the node is started again, and the next kill waits until the
cluster is whole and its leaders are spread.

Standard output is for the result, progress goes to standard error. Exit status
0; 1 when a write failed or the benchmark could not run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

import krita
from benchmarks.command import carry_out, make_parser
from benchmarks.krita_cluster import KritaCluster, led_shards, status_of
from benchmarks.processes import BenchmarkError
from kritad.settings import BY_NAME

VALUE_BYTES = 256
KEYS_TRIED_MAX = 10_000


@frozen
class Failover:
    """One kill. Times in milliseconds since the kill."""

    node: int
    shards: int  # data shards that it led
    first_ms: float  # until the first of them took a write
    all_ms: float  # until all of them had


@frozen
class Result:
    """All of them."""

    failovers: tuple[Failover, ...]
    election_ms: int

    @property
    def median_ms(self) -> float:
        return statistics.median(one.first_ms for one in self.failovers)

    @property
    def median_all_ms(self) -> float:
        return statistics.median(one.all_ms for one in self.failovers)

    def to_document(self) -> dict[str, Any]:
        return {
            "election_ms": self.election_ms,
            "median_ms": round(self.median_ms, 1),
            "median_in_election_timeouts": round(self.median_ms / self.election_ms, 3),
            "median_all_ms": round(self.median_all_ms, 1),
            "failovers": [asdict(one) for one in self.failovers],
        }

    def to_text(self) -> str:
        firsts = [one.first_ms for one in self.failovers]
        alls = [one.all_ms for one in self.failovers]
        ratio = self.median_ms / self.election_ms
        return "\n".join([
            f"{len(firsts)} kills; raft_election_ms {self.election_ms}",
            f"next write:       median {self.median_ms:,.0f} ms = {ratio:.2f} election timeouts  "
            f"({min(firsts):,.0f} - {max(firsts):,.0f})",
            f"all its shards:   median {self.median_all_ms:,.0f} ms  "
            f"({min(alls):,.0f} - {max(alls):,.0f})",
        ])  # fmt: skip


def busiest(status: dict[str, Any]) -> int:
    """The node that leads most data shards; the lowest number of several."""
    nodes: list[int] = [node["node"] for node in status["nodes"]]
    return max(nodes, key=lambda node: (len(led_shards(status, node)), -node))


def keys_of_shards(client: krita.Client, shards: Sequence[int]) -> dict[int, bytes]:
    """A key of each of these shards. Raises BenchmarkError."""
    shard_map = client.shard_map()
    found: dict[int, bytes] = {}
    for number in range(KEYS_TRIED_MAX):
        key = b"failover:%d" % number
        found.setdefault(shard_map.shard_of(key).shard, key)
        if found.keys() >= set(shards):
            return {shard: found[shard] for shard in shards}
    raise BenchmarkError("some shard owns no key that was tried")


def fail_over(cluster: KritaCluster, number: int) -> Failover:
    """Kill the node that leads most, measure, start it again. Raises KritaError when a
    write fails, BenchmarkError when the cluster does not come back."""
    value = bytes(VALUE_BYTES)
    with cluster.client() as client:
        status = status_of(client)
        victim = busiest(status)
        keys = list(keys_of_shards(client, led_shards(status, victim)).values())
        # Each time another shard comes first, so that none is always the one measured.
        turn = number % len(keys)
        keys = keys[turn:] + keys[:turn]
        for key in keys:
            client.put(key, value)  # the client knows the leaders, and has a session with each
        process = cluster.nodes[index_of(cluster, status, victim)]
        start = time.perf_counter()
        process.kill()
        acknowledged = []
        for key in keys:
            client.put(key, value)
            acknowledged.append(1000 * (time.perf_counter() - start))
    process.start()
    cluster.settle()
    return Failover(victim, len(keys), acknowledged[0], acknowledged[-1])


def index_of(cluster: KritaCluster, status: dict[str, Any], node: int) -> int:
    """Nodes are numbered in the order they joined, which is not that of their start."""
    (address,) = [found["address"] for found in status["nodes"] if found["node"] == node]
    return cluster.addresses.index(address)


def run(directory: Path, times: int) -> Result:
    """Raises BenchmarkError, KritaError. Whatever happens, no process is left."""
    default = BY_NAME["raft_election_ms"].default
    assert isinstance(default, int)
    cluster = KritaCluster.create(directory / "krita")
    failovers = []
    try:
        cluster.start()
        for number in range(times):
            one = fail_over(cluster, number)
            failovers.append(one)
            print(
                f"kill {number + 1:>2}  node {one.node} led {one.shards}  "
                f"next write after {one.first_ms:,.0f} ms, all after {one.all_ms:,.0f} ms",
                file=sys.stderr,
                flush=True,
            )
        cluster.stop()
    finally:
        cluster.kill()
    return Result(tuple(failovers), default)


def main() -> int:
    parser = make_parser("failover", __doc__)
    parser.add_argument("--times", type=int, default=15, help="how many kills")
    options = parser.parse_args()
    return carry_out("failover", options, lambda at, _: run(at, options.times))


if __name__ == "__main__":
    sys.exit(main())
