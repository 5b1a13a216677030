"""What distance costs: latencies of a cluster over three regions, from each of them.

    python -m benchmarks.regions [--delay-ms 40] [--times 100] [--json]

One node in each of three network namespaces, and packets between any two of them take
``--delay-ms`` each way (tests/system/namespaces.py has how). The leaders are in the
first region. A client in each region asks the same keys, one request after the other:
puts, linearizable gets, stale gets. Needs root.

Standard output is for the result, progress goes to standard error. Exit status
0; 1 when a request failed or the benchmark could not run.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from benchmarks.command import carry_out, make_parser
from benchmarks.processes import BenchmarkError
from tests.system.namespaces import why_not
from tests.system.regions import RegionalCluster

REGIONS = ("eu", "us", "asia")
KEYS = 16
VALUE_BYTES = 256
HEADING = ("from", "put", "get", "stale get")


@frozen
class Latencies:
    """Medians seen by a client in one region, milliseconds."""

    region: str
    put_ms: float
    get_ms: float
    stale_get_ms: float


@frozen
class Result:
    """All of them. The leaders are in the first region."""

    delay_ms: float
    times: int
    regions: tuple[Latencies, ...]

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    def to_text(self) -> str:
        rows = [f"{HEADING[0]:<6}" + "".join(f"{name:>12}" for name in HEADING[1:])]
        for one in self.regions:
            figures = (one.put_ms, one.get_ms, one.stale_get_ms)
            rows.append(f"{one.region:<6}" + "".join(f"{ms:>9,.1f} ms" for ms in figures))
        about = (
            f"{self.delay_ms:g} ms each way between any two of {len(self.regions)} regions, "
            f"leaders in {self.regions[0].region}; medians of {self.times}"
        )
        return "\n".join([about, *rows])


def median_ms(times: int, ask: Callable[[str], object]) -> float:
    """The median of so many calls with the keys in turn, milliseconds."""
    taken = []
    for number in range(times):
        start = time.perf_counter()
        ask(f"distance:{number % KEYS}")
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def measure(cluster: RegionalCluster, region: str, times: int) -> Latencies:
    """Raises KritaError when a request fails."""
    value = bytes(VALUE_BYTES)
    with cluster.client(region) as client:
        # Connections and sessions are not what is measured.
        median_ms(KEYS, lambda key: client.put(key, value))
        median_ms(KEYS, lambda key: client.get(key, consistency="stale"))
        return Latencies(
            region,
            median_ms(times, lambda key: client.put(key, value)),
            median_ms(times, client.get),
            median_ms(times, lambda key: client.get(key, consistency="stale")),
        )


def run(directory: Path, delay_ms: float, times: int) -> Result:
    """Raises BenchmarkError, KritaError. Whatever happens, no process is left."""
    reason = why_not()
    if reason:
        raise BenchmarkError(reason)
    latencies = []
    try:
        with RegionalCluster(directory, REGIONS, delay_ms) as cluster:
            cluster.start()
            for region in REGIONS:
                latencies.append(measure(cluster, region, times))
                print(f"{latencies[-1]}", file=sys.stderr, flush=True)
    except AssertionError as error:  # what the tests' helpers say when something never comes
        raise BenchmarkError(str(error)) from error
    return Result(delay_ms, times, tuple(latencies))


def main() -> int:
    parser = make_parser("regions", __doc__)
    parser.add_argument("--delay-ms", type=float, default=40.0, help="of a packet, one way")
    parser.add_argument("--times", type=int, default=100, help="how many requests of each kind")
    options = parser.parse_args()
    return carry_out("regions", options, lambda at, _: run(at, options.delay_ms, options.times))


if __name__ == "__main__":
    sys.exit(main())
