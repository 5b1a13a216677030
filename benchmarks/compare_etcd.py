"""Krita beside etcd: the same requests, the same machine, one after the other, in turn.

    python -m benchmarks.compare_etcd [--runs 5] [--seconds 10] [--json]

Each round starts etcd, runs its workloads, and stops it; then the same with
Krita. Whoever is not measured does not run: three idle nodes of either take a
few per cent of a processor, and a machine with two has none to give away. What
was written stays, so that a later round finds a larger database, on both sides
alike. Both have default settings; the values of one run are random bytes, the
keys are drawn evenly from --keys that all exist.

All connections to one node, or spread over all three: for etcd the one is its
leader, which need not forward; a node of Krita leads a third of the shards,
whichever it is, so the first is taken. Every ratio is to the better of etcd's
two: whoever runs etcd would choose it too.

Standard output is for the result, progress goes to standard error. Exit status
0; 1 when a request failed or a benchmark could not run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from benchmarks import machine
from benchmarks.etcd_cluster import EtcdCluster, install_missing
from benchmarks.krita_cluster import KritaCluster
from benchmarks.processes import BenchmarkError, stoppable
from benchmarks.samples import Load, Sample, Series, run_kritash, run_wrk

HERE = Path(__file__).parent
# Krita's leaders follow the requests in six or seven seconds; the same for both.
WARMUP_S = 8.0
VERSIONS = (("etcd", "--version"), ("wrk", "--version"))

System = KritaCluster | EtcdCluster


@frozen
class Workload:
    """``targets`` picks the addresses that the connections go to."""

    name: str
    operation: str  # put or get: what its ratio is to
    script: str  # for wrk; empty for kritash bench
    targets: Callable[[Any], Sequence[str]] = field(repr=False)


def spread(cluster: System) -> Sequence[str]:
    return cluster.addresses


def first(cluster: System) -> Sequence[str]:
    return cluster.addresses[:1]


def leader(cluster: EtcdCluster) -> Sequence[str]:
    return [cluster.leader_address()]


ETCD = (
    Workload("HTTP PUT to the leader", "put", "etcd_put.lua", leader),
    Workload("HTTP PUT spread", "put", "etcd_put.lua", spread),
    Workload("HTTP GET to the leader", "get", "etcd_get.lua", leader),
    Workload("HTTP GET spread", "get", "etcd_get.lua", spread),
)
KRITA = (
    Workload("HTTP PUT to one node", "put", "krita_put.lua", first),
    Workload("HTTP PUT spread", "put", "krita_put.lua", spread),
    Workload("kritash bench put", "put", "", spread),
    Workload("HTTP GET to one node", "get", "krita_get.lua", first),
    Workload("HTTP GET spread", "get", "krita_get.lua", spread),
)


@frozen
class Result:
    """The series of each system by workload, in the order measured."""

    etcd: dict[str, Series]
    krita: dict[str, Series]

    def best_of_etcd(self, operation: str) -> tuple[str, Series]:
        """The workload of that operation with the greater median, and its series."""
        names = [w.name for w in ETCD if w.operation == operation]
        best = max(names, key=lambda name: self.etcd[name].median)
        return best, self.etcd[best]

    def ratio(self, workload: Workload) -> float:
        """Krita's median to the median of the better one of etcd's."""
        return self.krita[workload.name].median / self.best_of_etcd(workload.operation)[1].median

    @property
    def errors(self) -> int:
        return sum(series.errors for series in (*self.etcd.values(), *self.krita.values()))

    def to_document(self) -> dict[str, Any]:
        return {
            "etcd": {name: series.to_document() for name, series in self.etcd.items()},
            "krita": {name: series.to_document() for name, series in self.krita.items()},
            "best_of_etcd": {op: self.best_of_etcd(op)[0] for op in ("put", "get")},
            "ratios": {w.name: round(self.ratio(w), 3) for w in KRITA},
        }

    def to_table(self) -> str:
        """A row for each workload; rows of Krita end in the ratio."""
        head = (
            f"{'':<30}{'median /s':>10}{'min - max':>17}{'p50 ms':>9}{'p99 ms':>9}"
            f"{'CPUs':>6}{'us CPU':>8}{'errors':>8}{'ratio':>8}"
        )
        lines = [head]
        lines += [_row(f"etcd   {w.name}", self.etcd[w.name], "") for w in ETCD]
        for workload in KRITA:
            ratio = f"{self.ratio(workload):.2f}"
            lines.append(_row(f"krita  {workload.name}", self.krita[workload.name], ratio))
        put, get = (self.best_of_etcd(operation)[0] for operation in ("put", "get"))
        lines.append(f"ratio: to etcd's better median, {put} and {get}")
        lines.append("CPUs: kept busy by the servers; us CPU: the same for each request")
        return "\n".join(lines)


def _row(name: str, series: Series, ratio: str) -> str:
    extent = f"{min(series.throughputs):,.0f} - {max(series.throughputs):,.0f}"
    return (
        f"{name:<30}{series.median:>10,.0f}{extent:>17}{series.p50_ms:>9.1f}{series.p99_ms:>9.1f}"
        f"{series.server_cpus:>6.2f}{series.server_cpu_us:>8.0f}{series.errors:>8}{ratio:>8}"
    ).rstrip()


def measure(cluster: System, workload: Workload, load: Load, options: argparse.Namespace) -> Sample:
    """One run, after a short one that does not count."""
    run_once(cluster, workload, evolve(load, seconds=WARMUP_S, seed=load.seed + 1000), options)
    cpu_start = cluster.cpu_s()
    sample = run_once(cluster, workload, load, options)
    return evolve(sample, server_cpu_s=cluster.cpu_s() - cpu_start)


def run_once(
    cluster: System, workload: Workload, load: Load, options: argparse.Namespace
) -> Sample:
    targets = workload.targets(cluster)
    if workload.script:
        return run_wrk(HERE / workload.script, targets, load)
    return run_kritash(
        workload.operation, targets, load, options.bench_connections, options.bench_in_flight
    )


def run_round(
    number: int,
    cluster: System,
    workloads: Sequence[Workload],
    samples: dict[str, list[Sample]],
    options: argparse.Namespace,
) -> None:
    """Start the cluster, add a sample to each workload's, stop the cluster."""
    system = "krita" if isinstance(cluster, KritaCluster) else "etcd"
    load = Load(options.seconds, options.connections, options.keys, options.value_size, number)
    cluster.start()
    for workload in workloads:
        sample = measure(cluster, workload, load, options)
        samples.setdefault(workload.name, []).append(sample)
        say(
            f"round {number}  {system:<6} {workload.name:<24}{sample.throughput_per_s:>9,.0f}/s  "
            f"p50 {sample.p50_ms:.1f}  p99 {sample.p99_ms:.1f} ms  errors {sample.errors}"
        )
    cluster.stop()


def compare(directory: Path, options: argparse.Namespace) -> Result:
    """Raises BenchmarkError. Whatever happens, no process is left."""
    etcd = EtcdCluster.create(directory / "etcd")
    krita = KritaCluster.create(directory / "krita")
    etcd_samples: dict[str, list[Sample]] = {}
    krita_samples: dict[str, list[Sample]] = {}
    try:
        for cluster in (etcd, krita):
            cluster.start()
            cluster.fill(options.keys, options.value_size)
            cluster.stop()
        say(f"each holds {options.keys:,} keys of {options.value_size} B")
        for number in range(1, options.runs + 1):
            run_round(number, etcd, ETCD, etcd_samples, options)
            run_round(number, krita, KRITA, krita_samples, options)
    finally:
        etcd.kill()
        krita.kill()
    return Result(
        {name: Series(tuple(found)) for name, found in etcd_samples.items()},
        {name: Series(tuple(found)) for name, found in krita_samples.items()},
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="compare_etcd", description=(__doc__ or "").split("\n")[0]
    )
    add = parser.add_argument
    add("--runs", type=int, default=5, help="rounds; each figure is the median of as many runs")
    add("--seconds", type=float, default=10.0, help="length of each run (whole seconds for wrk)")
    add("--connections", type=int, default=64, help="of wrk")
    add("--bench-connections", type=int, default=8, help="of kritash bench")
    add("--bench-in-flight", type=int, default=64, help="of kritash bench, on each connection")
    add("--keys", type=int, default=100_000, help="how many different keys")
    add("--value-size", type=int, default=256, help="bytes of each value")
    add("--dir", type=Path, help="where both keep their data while it runs (default: /tmp)")
    add("--json", action="store_true", help="print one JSON document")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse_options()
    try:
        with stoppable(), tempfile.TemporaryDirectory(prefix="krita-bench-", dir=options.dir) as at:
            install_missing()
            facts = machine.describe(Path(at), VERSIONS)
            machine.show(facts)
            result = compare(Path(at), options)
    except BenchmarkError as error:
        print(f"compare_etcd: {error}", file=sys.stderr)
        return 1
    if options.json:
        settings = {n: str(v) if isinstance(v, Path) else v for n, v in vars(options).items()}
        document = {"machine": facts, "options": settings, **result.to_document()}
        print(json.dumps(document, indent=2))
    else:
        print(result.to_table())
    if result.errors:
        print(f"compare_etcd: {result.errors} requests failed", file=sys.stderr)
    return 1 if result.errors else 0


if __name__ == "__main__":
    sys.exit(main())
