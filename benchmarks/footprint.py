"""What Krita takes: memory at rest, time to start, bytes on disk for a byte of value.

    python -m benchmarks.footprint [--runs 5] [--idle-seconds 10] [--json]

Memory: of each of three nodes, started, settled, and left alone for a while
(RSS, and PSS, which divides what the processes share).

Start: of a single node, from the start of the process until /readyz answers
200: with an empty directory; with data after SIGTERM; with data after SIGKILL,
when what the database had not flushed comes from the log.

Disk: a cluster of three is given puts of one size, so many in flight; then all
nodes are stopped by SIGTERM, which flushes. What the kernel says each process
caused to be written (the write_bytes of /proc/PID/io, whole pages) between the
first put and its end is divided by the bytes of the values. The file system's
own journal is not in it.

Standard output is for the result, progress goes to standard error. Exit status
0; 1 when the benchmark could not run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from benchmarks.command import carry_out, make_parser
from benchmarks.krita_cluster import (
    VALUES,
    KritaCluster,
    batches,
    key_of,
    make_values,
    put_all,
    start_ready,
)
from benchmarks.processes import BenchmarkError, Memory

MIB = 1 << 20
# What a node that is started again has to read.
START_KEYS = 10_000
START_VALUE_BYTES = 256


@frozen
class Puts:
    """One way to write: so many bytes each, so many at a time."""

    count: int
    value_bytes: int
    in_flight: int


# Alone, a put pays for a whole transaction, so fewer show the same.
PUTS = (
    Puts(100_000, 256, 512),
    Puts(50_000, 4096, 512),
    Puts(2_000, 256, 1),
    Puts(2_000, 4096, 1),
)


@frozen
class Written:
    """What became of them: bytes to disk for each byte of value, by node."""

    puts: Puts
    ratios: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.ratios)


@frozen
class Starts:
    """Seconds until ready, run by run."""

    fresh_s: tuple[float, ...]
    stopped_s: tuple[float, ...]
    killed_s: tuple[float, ...]


@frozen
class Result:
    """All three parts."""

    idle_s: float
    memory: tuple[Memory, ...]
    starts: Starts
    written: tuple[Written, ...]

    def to_document(self) -> dict[str, Any]:
        return {
            "idle_seconds": self.idle_s,
            "memory": [asdict(one) for one in self.memory],
            "start_s": asdict(self.starts),
            "written": [
                {**asdict(one.puts), "bytes_per_byte": [round(r, 3) for r in one.ratios]}
                for one in self.written
            ],
        }

    def to_text(self) -> str:
        lines = [f"memory after {self.idle_s:g} s at rest"]
        for number, one in enumerate(self.memory, 1):
            rss, pss = one.rss_bytes / MIB, one.pss_bytes / MIB
            lines.append(f"  node {number}: {rss:.1f} MiB resident (PSS {pss:.1f})")
        lines.append("start to ready, one node")
        for name, times in (
            ("empty", self.starts.fresh_s),
            ("after SIGTERM", self.starts.stopped_s),
            ("after SIGKILL", self.starts.killed_s),
        ):
            extent = f"{min(times):.2f} - {max(times):.2f}"
            lines.append(f"  {name:<14}{statistics.median(times):.2f} s  ({extent})")
        lines.append("written to disk per byte of value, on each node")
        for found in self.written:
            puts = found.puts
            what = f"{puts.count:,} x {puts.value_bytes} B, {puts.in_flight} in flight"
            extent = f"{min(found.ratios):.1f} - {max(found.ratios):.1f}"
            lines.append(f"  {what:<36}{found.mean:.1f}  ({extent})")
        return "\n".join(lines)


def measure_memory(directory: Path, idle_s: float) -> tuple[Memory, ...]:
    cluster = KritaCluster.create(directory)
    try:
        cluster.start()
        time.sleep(idle_s)
        found = tuple(node.memory() for node in cluster.nodes)
        cluster.stop()
    finally:
        cluster.kill()
    return found


def measure_starts(directory: Path, runs: int) -> Starts:
    fresh, stopped, killed = [], [], []
    for number in range(runs):
        cluster = KritaCluster.create(directory / str(number), 1)
        node, port = cluster.nodes[0], cluster.ports[0]
        try:
            fresh.append(start_ready(node, port))
            cluster.fill(START_KEYS, START_VALUE_BYTES)
            cluster.stop()
            stopped.append(start_ready(node, port))
            cluster.fill(START_KEYS, START_VALUE_BYTES)
            node.kill()
            killed.append(start_ready(node, port))
            cluster.stop()
        finally:
            cluster.kill()
        say(
            f"start {number + 1}: empty {fresh[-1]:.2f} s, after SIGTERM {stopped[-1]:.2f} s, "
            f"after SIGKILL {killed[-1]:.2f} s"
        )
    return Starts(tuple(fresh), tuple(stopped), tuple(killed))


def measure_written(directory: Path, puts: Puts) -> Written:
    cluster = KritaCluster.create(directory)
    try:
        cluster.start()
        before = [node.written_bytes() for node in cluster.nodes]
        values = make_values(puts.value_bytes)
        with cluster.client() as client:
            for numbers in batches(range(puts.count), puts.in_flight):
                put_all(client, [(key_of(n), values[n % VALUES]) for n in numbers])
        cluster.stop()
    finally:
        cluster.kill()
    total = puts.count * puts.value_bytes
    ratios = [
        (node.written_at_end - first) / total
        for node, first in zip(cluster.nodes, before, strict=True)
    ]
    say(f"{puts}: " + ", ".join(f"{ratio:.2f}" for ratio in ratios))
    return Written(puts, tuple(ratios))


def run(directory: Path, options: argparse.Namespace) -> Result:
    """Raises BenchmarkError, KritaError. Whatever happens, no process is left."""
    memory = measure_memory(directory / "memory", options.idle_seconds)
    (directory / "start").mkdir()
    starts = measure_starts(directory / "start", options.runs)
    written = [
        measure_written(directory / f"written{number}", scale(puts, options.scale))
        for number, puts in enumerate(PUTS)
    ]
    return Result(options.idle_seconds, memory, starts, tuple(written))


def scale(puts: Puts, factor: float) -> Puts:
    """The same with so many times the puts."""
    return Puts(max(round(puts.count * factor), 1), puts.value_bytes, puts.in_flight)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = make_parser("footprint", __doc__)
    add = parser.add_argument
    add("--runs", type=int, default=5, help="how often a node is started")
    add("--idle-seconds", type=float, default=10.0, help="rest before memory is measured")
    add("--scale", type=float, default=1.0, help="0.1 for a tenth of the puts")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse_options()

    def measure(at: Path, facts: Mapping[str, str]) -> Result:
        if facts["file system"] == "tmpfs":
            raise BenchmarkError("tmpfs counts no bytes to disk; name a directory with --dir")
        return run(at, options)

    return carry_out("footprint", options, measure)


if __name__ == "__main__":
    sys.exit(main())
