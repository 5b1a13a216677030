"""From a seed that fails to the least that still fails in the same way.

What is made smaller is the plan, not the seed: faults are left out (ddmin, Zeller and
Hildebrandt 2002), then people, misbehaviour, loss and delay, then time. Chance comes in
named streams, so what is left goes on much as before; where it does not, the attempt
simply does not fail and is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from tests.simulator.plan import Fault, Plan
from tests.simulator.run import Outcome, live

Fails = Callable[[Plan], bool]


def shrink(plan: Plan, progress: Callable[[str], None], lives_max: int = 400) -> Plan:
    """The smallest plan found within so many lives that breaks the same rule. The plan
    that is given has to break one."""
    rule = live(plan).rule
    assert rule, f"seed {plan.seed} breaks nothing"
    lives = 0

    def fails(smaller: Plan) -> bool:
        nonlocal lives
        lives += 1
        if lives > lives_max:
            return False
        outcome: Outcome = live(smaller)
        if outcome.rule == rule:
            progress(f"{len(smaller.faults)} faults, {smaller.chaos_ms} ms: still {rule}")
        return outcome.rule == rule

    before = None
    while before != plan and lives <= lives_max:
        before = plan
        plan = attrs.evolve(plan, faults=_fewer(plan, fails))
        plan = _simpler(plan, fails)
    return plan


def _fewer(plan: Plan, fails: Fails) -> tuple[Fault, ...]:
    """ddmin over the faults: drop ever smaller parts of them as long as it fails."""
    faults = list(plan.faults)
    parts = 2
    while faults:
        size = max(1, len(faults) // parts)
        for start in range(0, len(faults), size):
            left = faults[:start] + faults[start + size :]
            if fails(attrs.evolve(plan, faults=tuple(left))):
                faults = left
                parts = max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(faults), parts * 2)
    return tuple(faults)


def _simpler(plan: Plan, fails: Fails) -> Plan:
    """Every simplification that does not cure it."""
    for changes in _simplifications(plan):
        smaller = attrs.evolve(plan, **changes)
        if smaller != plan and fails(smaller):
            plan = smaller
    return plan


def _simplifications(plan: Plan) -> Iterator[dict[str, Any]]:
    yield {"reshapes": ()}
    yield {"reshapes": plan.reshapes[: len(plan.reshapes) // 2]}
    yield {"reshapes": plan.reshapes[len(plan.reshapes) // 2 :]}
    yield {"buggify": False}
    yield {"loss": 0.0, "duplicate": 0.0}
    yield {"jitter_us": 0}
    yield {"encode": False}
    yield {"clock_spread": 0.0, "wall_spread_ms": 0}
    yield {"lasting": ""}
    yield {"conditional": 0.0}
    for craft in plan.crafts:
        yield {"crafts": (craft,)}
    yield {"crafts": ()}
    yield {"clients": 1}
    yield {"pipeline": 1}
    yield {"session_ttl_ms": 3_600_000}
    yield {"shards": 1}
    yield {"value_bytes": 0}
    yield {"keys": 2}
    times_ms = [fault.at_ms for fault in plan.faults] + [wish.at_ms for wish in plan.reshapes]
    busy_ms = max(times_ms, default=0)
    yield {"chaos_ms": busy_ms + 3_000}
    yield {"chaos_ms": plan.chaos_ms // 2}
