"""What a run of the load generator measured, and how it reads."""

from __future__ import annotations

import shlex
from array import array
from collections.abc import Mapping, Sequence

import attrs

from kritash.units import count_text

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@attrs.frozen
class Latency:
    """Milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float] | array[float]) -> Latency | None:
        """None if there is nothing to measure. O(n log n)."""
        if not seconds:
            return None
        ordered = sorted(seconds)
        found = {name: 1000 * quantile(ordered, share) for name, share in QUANTILES.items()}
        mean = 1000 * sum(ordered) / len(ordered)
        return cls(len(ordered), mean, **found, max=1000 * ordered[-1])

    def to_document(self) -> dict[str, object]:
        return {
            name: value if isinstance(value, int) else round(value, 3)
            for name, value in attrs.asdict(self).items()
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share does not exceed (nearest rank)."""
    # Rounded first: 0.95 * 100 is 95.00000000000001 in some multiplications.
    rank = -int(-round(share * len(ordered), 6) // 1)
    return ordered[max(rank, 1) - 1]


@attrs.frozen
class Report:
    """One run."""

    operation: str
    connections: int
    in_flight: int
    keys: int
    value_size: int
    seconds: float
    cpu_seconds: float  # of the load generator itself
    latencies: Mapping[str, Latency]  # by operation; "all" if there are several
    errors: Mapping[str, int]
    retries: Mapping[str, int]
    interrupted: bool = False
    prefix: str = ""  # what the keys begin with
    wrote: bool = False  # so there are some of them now

    @property
    def requests(self) -> int:
        """That succeeded."""
        return sum(found.count for name, found in self.latencies.items() if name != "all")

    @property
    def throughput(self) -> float:
        """Successful requests a second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def cpu_us(self) -> float:
        """Processor time of the load generator per request, microseconds."""
        return 1e6 * self.cpu_seconds / self.requests if self.requests else 0.0

    def to_document(self) -> dict[str, object]:
        return {
            "operation": self.operation,
            "connections": self.connections,
            "in_flight": self.in_flight,
            "keys": self.keys,
            "value_size": self.value_size,
            "seconds": round(self.seconds, 3),
            "requests": self.requests,
            "throughput_per_s": round(self.throughput, 1),
            "latency_ms": {name: found.to_document() for name, found in self.latencies.items()},
            "errors": dict(self.errors),
            "retries": dict(self.retries),
            "client_cpu_us_per_request": round(self.cpu_us, 1),
            "interrupted": self.interrupted,
            "prefix": self.prefix,
            "wrote": self.wrote,
        }

    def to_text(self) -> str:
        lines = [
            f"{self.operation}: {self.connections} connections, {self.in_flight} in flight each, "
            f"{self.keys} keys, values of {self.value_size} bytes",
            f"throughput  {self.throughput:,.0f} requests/s "
            f"({self.requests:,} in {self.seconds:.1f} s)",
        ]
        for name, found in self.latencies.items():
            label = "latency" if len(self.latencies) == 1 else f"latency {name}"
            lines.append(
                f"{label:<12}p50 {found.p50:.2f}  p95 {found.p95:.2f}  p99 {found.p99:.2f}  "
                f"max {found.max:.2f} ms"
            )
        lines.append(f"errors      {_counts(self.errors)}")
        if self.retries:
            lines.append(f"retried     {_counts(self.retries)}")
        lines.append(f"client      {self.cpu_us:.1f} µs of processor time per request")
        if self.interrupted:
            lines.append("interrupted before its time")
        if self.wrote:
            lines.append(f"left        {self._left()}")
        return "\n".join(lines)

    def _left(self) -> str:
        left = f"up to {count_text(self.keys, 'key')}"
        if not self.prefix:
            return f"{left}, from 00000000 on"
        return f"{left}: kritash key delete --prefix {shlex.quote(self.prefix)} removes them"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
