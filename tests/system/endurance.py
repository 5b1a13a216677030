"""People and trouble, together for as long as one likes: real processes, real files, a
network that is cut, and everything that Krita can do, judged.

    python -m tests.system.endurance --minutes 30 [--seed 1] [--shards 8]

Says what it does, and in the end what was done, how long the slowest of each kind took, and
what is wrong; the exit status is 1 if anything is. Needs root, for the namespaces.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs

from tests.system.errands import (
    Audit,
    Counting,
    Ending,
    Errand,
    Listing,
    Locking,
    Present,
    Publishing,
    Transfers,
    Watching,
    judge_counters,
    retrying,
)
from tests.system.namespaces import why_not
from tests.system.trouble import Trouble, TroubledCluster


@attrs.define
class Report:
    """What came of a run."""

    errands: list[Errand]
    trouble: dict[str, int]
    problems: list[str]
    seconds: float

    def text(self) -> str:
        """For people."""
        lines = [f"{self.seconds:.0f} s; trouble: {self.trouble}"]
        kinds: dict[str, list[Errand]] = {}
        for errand in self.errands:
            kinds.setdefault(errand.name, []).append(errand)
        for name, some in kinds.items():
            lines.append(
                f"{name:>12}: {sum(e.done for e in some):>7} done,"
                f" {sum(e.failed for e in some):>5} failed"
                f" ({sum(e.in_doubt for e in some)} in doubt),"
                f" slowest {max(e.slowest_s for e in some):.1f} s"
            )
        lines += [f"WRONG: {problem}" for problem in self.problems] or ["nothing is wrong"]
        return "\n".join(lines)


def endure(folder: Path, seconds: float, seed: int, shards: int, quiet: bool = False) -> Report:
    """One run of so many seconds of trouble."""
    began = time.monotonic()

    def say(what: str) -> None:
        if not quiet:
            print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)

    with TroubledCluster(folder, (f"--shards={shards}",)) as cluster:
        cluster.start()
        errands = _errands(cluster, seed)
        with cluster.client(30_000) as client:
            for errand in errands:
                errand.prepare(client)
        trouble = Trouble(cluster, seed, say)
        with ExitStack() as stack:
            for errand in errands:
                stack.enter_context(errand)
            say("people are at work")
            trouble.make(seconds)
        say("all is healed; judging")
        problems = _judge(cluster, errands)
        return Report(errands, dict(trouble.counts), problems, time.monotonic() - began)


def _errands(cluster: TroubledCluster, seed: int) -> list[Errand]:
    connect = cluster.client
    counting = [Counting(connect, seed + number) for number in range(2)]
    publishing = [Publishing(connect, seed + number) for number in range(3)]
    others: list[Errand] = [
        Transfers(connect, seed + 1),
        Transfers(connect, seed + 2),
        Audit(connect, seed),
        Locking(connect, seed + 1),
        Locking(connect, seed + 2),
        Ending(connect, seed),
        Present(connect, seed),
        Listing(connect, seed),
        Watching(connect, seed, publishing),
    ]
    return [*counting, *publishing, *others]


def _judge(cluster: TroubledCluster, errands: Sequence[Errand]) -> list[str]:
    problems = []
    with cluster.client(30_000) as client:
        for errand in errands:
            retrying(lambda errand=errand: errand.judge(client))  # type: ignore[misc]
            problems += [f"{errand.name}: {problem}" for problem in errand.problems]
        counting = [errand for errand in errands if isinstance(errand, Counting)]
        problems += judge_counters(client, counting)
    cluster.agree()
    for node in cluster.nodes:
        if "Traceback" in node.log_text():
            problems.append(f"{node} has logged a traceback: see {node.log_path}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shards", type=int, default=8)
    asked = parser.parse_args(arguments)
    missing = why_not()
    if missing:
        print(f"this cannot be done here: {missing}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="krita-endurance-") as folder:
        report = endure(Path(folder), asked.minutes * 60, asked.seed, asked.shards)
    print(report.text())
    return 1 if report.problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
