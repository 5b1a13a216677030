"""trio's scheduler made to depend on a seed, and virtual time that jumps.

trio shuffles the tasks that are ready, and which comes first in a batch depends on
the addresses of objects. For Hypothesis it has a switch that sorts a batch before it
is shuffled; together with its own generator's seed that makes a run repeatable. Both
are private: tests/simulator/whole/test_whole.py says so the day they are gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import trio._core._run as trio_run
from trio.testing import MockClock

T = TypeVar("T")


def run_virtually(main: Callable[[], Awaitable[T]], seed: int) -> T:
    """``trio.run`` in virtual time (which begins at 0 s and jumps to the next deadline
    whenever nothing can happen before it), the same for the same seed."""
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    trio_run._r.seed(seed)
    try:
        return trio.run(main, clock=MockClock(autojump_threshold=0.0))
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]
        trio_run._r.setstate(state)
