"""What the load generators measured: one run is a Sample, all runs of one workload a Series."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from benchmarks.processes import BenchmarkError, plain_environment

# A request that takes longer than this is a timeout in wrk's eyes, and so an error.
WRK_TIMEOUT_S = 10
# How long a load generator may take beyond the seconds it was given.
GRACE_S = 120.0


@frozen
class Sample:
    """One run of one workload."""

    throughput_per_s: float  # of requests that succeeded
    p50_ms: float
    p99_ms: float
    errors: int
    seconds: float  # that it really took
    # Of all the servers together, while it ran.
    server_cpu_s: float = 0.0

    @property
    def server_cpus(self) -> float:
        """How many processors the servers kept busy, on average."""
        return self.server_cpu_s / self.seconds

    @property
    def server_cpu_us(self) -> float:
        """Processor time of the servers for one request, microseconds."""
        requests = self.throughput_per_s * self.seconds
        return 1e6 * self.server_cpu_s / requests if requests else 0.0


@frozen
class Series:
    """The runs of one workload on one system, in order."""

    samples: tuple[Sample, ...]

    @property
    def throughputs(self) -> list[float]:
        return [sample.throughput_per_s for sample in self.samples]

    @property
    def median(self) -> float:
        """Requests a second."""
        return statistics.median(self.throughputs)

    @property
    def p50_ms(self) -> float:
        """The median of the runs' medians."""
        return statistics.median(sample.p50_ms for sample in self.samples)

    @property
    def p99_ms(self) -> float:
        return statistics.median(sample.p99_ms for sample in self.samples)

    @property
    def server_cpus(self) -> float:
        return statistics.median(sample.server_cpus for sample in self.samples)

    @property
    def server_cpu_us(self) -> float:
        return statistics.median(sample.server_cpu_us for sample in self.samples)

    @property
    def errors(self) -> int:
        return sum(sample.errors for sample in self.samples)

    def to_document(self) -> dict[str, Any]:
        return {
            "throughput_per_s": round(self.median, 1),
            "throughput_per_s_min": round(min(self.throughputs), 1),
            "throughput_per_s_max": round(max(self.throughputs), 1),
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
            "server_cpus": round(self.server_cpus, 3),
            "server_cpu_us_per_request": round(self.server_cpu_us, 1),
            "errors": self.errors,
            "samples": [asdict(sample) for sample in self.samples],
        }


@frozen
class Load:
    """What both load generators need to know."""

    seconds: float
    connections: int
    keys: int
    value_size: int
    seed: int


def run_wrk(script: Path, addresses: Sequence[str], load: Load) -> Sample:
    """Each address gets its share of the connections, and a thread of wrk's of its
    own (wrk rounds the share down). Raises BenchmarkError."""
    command = (
        "wrk",
        f"-t{len(addresses)}",
        f"-c{load.connections}",
        f"-d{max(round(load.seconds), 1)}s",
        f"--timeout={WRK_TIMEOUT_S}s",
        f"--script={script}",
        f"http://{addresses[0]}/",
    )
    environment = {
        "BENCH_ADDRESSES": " ".join(addresses),
        "BENCH_KEYS": str(load.keys),
        "BENCH_VALUE_SIZE": str(load.value_size),
        "BENCH_SEED": str(load.seed),
    }
    return parse_wrk(_output_of(command, load.seconds, {**os.environ, **environment}))


def parse_wrk(output: str) -> Sample:
    """Of the line that common.lua writes after wrk's own. Raises BenchmarkError."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise BenchmarkError(f"wrk said nothing of what it measured:\n{output}")
    found = json.loads(lines[-1])
    errors: dict[str, int] = found["errors"]
    # wrk counts every response as a request, also one whose status says that it failed.
    good = found["requests"] - errors["status"]
    seconds = found["duration_us"] / 1e6
    return Sample(
        good / seconds,
        found["p50_us"] / 1000,
        found["p99_us"] / 1000,
        sum(errors.values()),
        seconds,
    )


def run_kritash(
    operation: str, addresses: Sequence[str], load: Load, connections: int, in_flight: int
) -> Sample:
    """``kritash bench``. Raises BenchmarkError."""
    command = (
        *(sys.executable, "-m", "kritash", "--json", f"--nodes={','.join(addresses)}"),
        *("bench", operation, "--connections", str(connections), "--in-flight", str(in_flight)),
        *("--keys", str(load.keys), "--value-size", str(load.value_size)),
        *("--seconds", f"{load.seconds:g}", "--seed", str(load.seed)),
    )
    return parse_kritash(_output_of(command, load.seconds, plain_environment()), operation)


def parse_kritash(output: str, operation: str) -> Sample:
    """Of the document that ``kritash --json bench`` prints. Raises BenchmarkError."""
    try:
        found = json.loads(output)
        latency = found["latency_ms"][operation]
    except (ValueError, KeyError) as error:
        raise BenchmarkError(f"kritash bench measured nothing ({error!r}):\n{output}") from error
    errors = sum(found["errors"].values())
    return Sample(
        found["throughput_per_s"], latency["p50"], latency["p99"], errors, found["seconds"]
    )


def _output_of(command: Sequence[str], seconds: float, environment: dict[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds + GRACE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{command[0]} does not end: {' '.join(command)}") from error
    if done.returncode:
        said = (done.stderr + done.stdout).strip()
        raise BenchmarkError(f"{' '.join(command)}: exit status {done.returncode}\n{said}")
    return done.stdout
