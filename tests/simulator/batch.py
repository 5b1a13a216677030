"""Many seeds, several at a time: how far it is, what was found, what it adds up to."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from typing import Any

import attrs

from tests.simulator.plan import draw_plan
from tests.simulator.run import Outcome, live

# Work given out ahead of the results: enough to keep every process busy, and no more.
_AHEAD = 4
_DEAF = (signal.SIGINT, signal.SIG_IGN)


@attrs.define
class Totals:
    """What a number of lives adds up to."""

    seeds: int = 0
    events: int = 0
    messages: int = 0
    operations: int = 0
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    hash: int = 0  # of all outcomes, whatever order they came in
    faults: Counter[str] = attrs.field(factory=Counter)
    wishes: Counter[str] = attrs.field(factory=Counter)
    sites: Counter[str] = attrs.field(factory=Counter)
    failures: list[Outcome] = attrs.field(factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more life."""
        self.seeds += 1
        self.events += outcome.events
        self.messages += outcome.messages
        self.operations += outcome.operations
        self.simulated_s += outcome.simulated_s
        self.cpu_s += outcome.cpu_s
        self.hash ^= hash((outcome.seed, outcome.hash))
        self.faults.update(outcome.faults)
        self.wishes.update(outcome.wishes)
        self.sites.update(outcome.sites)
        if not outcome.ok:
            self.failures.append(outcome)

    def line(self) -> str:
        """All of it in a line."""
        cpu_s = max(self.cpu_s, 1e-9)
        return (
            f"{self.seeds} seeds, {self.simulated_s / 3600:.2f} simulated hours, "
            f"{self.events:,} events ({self.events / cpu_s:,.0f}/s a core, "
            f"{self.simulated_s / cpu_s:,.0f} simulated s a CPU second), "
            f"{self.operations:,} operations, {len(self.failures)} violations"
        )


def live_seed(seed: int) -> Outcome:
    """The life that a seed stands for."""
    return live(draw_plan(seed))


def outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """The outcome of every seed, as they come. One job: in this process."""
    if jobs == 1:
        yield from map(live_seed, seeds)
        return
    waiting: set[Future[Outcome]] = set()
    left = iter(seeds)
    # A key press in the terminal reaches them as well; when to end is for this process to say.
    with ProcessPoolExecutor(jobs, initializer=signal.signal, initargs=_DEAF) as pool:
        try:
            while True:
                for seed in left:
                    waiting.add(pool.submit(live_seed, seed))
                    if len(waiting) >= jobs * _AHEAD:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def run_batch(
    *,
    first: int,
    seeds: int | None,
    minutes: float | None,
    jobs: int,
    progress: Callable[[Totals, Outcome], None],
    failures_max: int = 10,
) -> Totals:
    """Live ``seeds`` seeds from ``first`` on, or as many as fit into ``minutes``; stops
    early after ``failures_max`` violations, or after the lives under way on SIGINT or
    SIGTERM (the second of which ends the process)."""
    totals = Totals()
    ends = None if minutes is None else time.monotonic() + minutes * 60
    wanted = range(first, first + seeds) if seeds is not None else count(first)
    with _stop_signals() as stops:
        for outcome in outcomes(wanted, jobs):
            totals.add(outcome)
            progress(totals, outcome)
            late = ends is not None and time.monotonic() >= ends
            if stops or late or len(totals.failures) >= failures_max:
                break
    return totals


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The first signal that asks to stop is put into the list, and what it would have done
    is left to the second."""
    came: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: object) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        restore()
