"""Looking for planted bugs: how many lives it takes until one of them is noticed.

A mutant that random lives do not find within their budget is found by a directed
scenario, or it is alive, and then the simulator is blind there. The quickest way to
kill each is kept in ``kills.json``, which the tests repeat.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import attrs

from tests.simulator.directed import directed_kills
from tests.simulator.mutants.registry import MUTANTS, planted
from tests.simulator.plan import draw_plan
from tests.simulator.run import live

KILLS = Path(__file__).with_name("kills.json")


@attrs.frozen
class Kill:
    """How a mutant died. ``seeds`` lives were spent on it, the last one the seed's."""

    mutant: str
    seed: int | None
    scenario: str | None
    rule: str  # what noticed it
    seeds: int
    seconds: float

    @property
    def alive(self) -> bool:
        """Nobody noticed it."""
        return self.seed is None and self.scenario is None


def hunt(mutant: str, seeds: Iterable[int]) -> Kill:
    """Live through ``seeds`` with the bug planted, then through the scenarios."""
    started = time.process_time()
    lived = 0
    for seed in seeds:
        lived += 1
        with planted(mutant):
            outcome = live(draw_plan(seed))
        if not outcome.ok:
            seconds = time.process_time() - started
            return Kill(mutant, seed, None, outcome.rule, lived, seconds)
    scenario = directed_kills(planted(mutant))
    seconds = time.process_time() - started
    return Kill(mutant, None, scenario, "scenario" if scenario else "", lived, seconds)


def kills() -> dict[str, Kill]:
    """What is known, by mutant."""
    if not KILLS.exists():
        return {}
    return {name: Kill(**fields) for name, fields in json.loads(KILLS.read_text()).items()}


def keep(found: Iterable[Kill]) -> None:
    """Write down how these died, beside what is known of others."""
    known = kills() | {kill.mutant: kill for kill in found}
    ordered = {name: attrs.asdict(known[name]) for name in MUTANTS if name in known}
    KILLS.write_text(json.dumps(ordered, indent=1) + "\n")
