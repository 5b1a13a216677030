"""Living one plan through, with everything that is global put in place and taken back."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable

import attrs

from kritad import buggify
from kritad.state import feed, sessions, user_keys
from kritad.state.machine import ShardState
from tests.simulator.invariants import Violation
from tests.simulator.loop import Chance
from tests.simulator.plan import Plan
from tests.simulator.world import World

_COLLECT_EVERY = 8  # lives: each leaves a whole cluster behind, in reference cycles
# The model of a shard ends all that is due at once, and keeps no inner rows to count how much one
# entry may end: a clock that jumps behind a thousand versions (seed 470712). tests/state has that.
_ENDED_MAX = 1 << 30
_TEXT_MAX = 1_000  # a message may carry many a large value
Trace = Callable[[str], None]


@attrs.frozen
class Outcome:
    """What became of one seed. ``rule`` is empty when nothing was found."""

    seed: int
    rule: str
    text: str
    events: int
    messages: int
    operations: int
    simulated_s: float
    cpu_s: float
    hash: int
    faults: dict[str, int]
    wishes: dict[str, int]  # what was asked of the cluster's shape, and granted
    sites: dict[str, int]  # how often each buggify site fired

    @property
    def ok(self) -> bool:
        """Nothing was found."""
        return not self.rule


class Sites:
    """Decides where the product misbehaves: each site is on in one life out of four, and
    then fires at 1 to 20 % of the times that it is passed."""

    def __init__(self, chance: Chance) -> None:
        self.fired: dict[str, int] = {}
        self.over = False
        self._chance = chance
        self._sites: dict[str, tuple[float, Callable[[], float]]] = {}

    def __call__(self, site: str) -> bool:
        known = self._sites.get(site)
        if known is None:
            dice = self._chance.stream("buggify", site)
            likely = dice.uniform(0.01, 0.2) if dice.random() < 0.25 else 0.0
            known = self._sites[site] = (likely, dice.random)
        likely, draw = known
        if self.over or not likely or draw() >= likely:
            return False
        self.fired[site] = self.fired.get(site, 0) + 1
        return True


def live(plan: Plan, trace: Trace | None = None, kind: type[World] = World) -> Outcome:
    """The outcome of a plan's life. Any exception of the product's counts as found."""
    world = kind(plan, trace)
    sites = world.sites = Sites(world.chance)
    rule = text = ""
    logging.disable(logging.CRITICAL)
    collecting = gc.isenabled()
    gc.disable()  # a life is short, and what it leaves behind goes with it
    buggify.set_chooser(sites if plan.buggify else None)
    usual_feed_bytes, feed.FEED_BYTES_MAX = feed.FEED_BYTES_MAX, plan.feed_bytes
    usual_ended_max, user_keys.ENDED_MAX = user_keys.ENDED_MAX, _ENDED_MAX
    usual_apply = ShardState.apply
    ShardState.apply = world.observing(usual_apply)  # type: ignore[method-assign, assignment]
    usual_ttl_ms, sessions.SESSION_TTL_MS = sessions.SESSION_TTL_MS, plan.session_ttl_ms
    started = time.process_time()
    try:
        world.live()
    except Violation as found:
        rule, text = found.rule, str(found)
    except Exception as bug:
        frame = _innermost(bug)
        rule, text = "crash", f"{type(bug).__name__} in {frame}: {bug}"
    finally:
        cpu_s = time.process_time() - started
        buggify.set_chooser(None)
        sessions.SESSION_TTL_MS = usual_ttl_ms
        feed.FEED_BYTES_MAX = usual_feed_bytes
        user_keys.ENDED_MAX = usual_ended_max
        ShardState.apply = usual_apply  # type: ignore[method-assign]
        logging.disable(logging.NOTSET)
        if collecting:
            gc.enable()
            if plan.seed % _COLLECT_EVERY == 0:
                gc.collect()
    operations = len(world.history.operations) + len(world.guild.deeds)
    return Outcome(
        plan.seed, rule, text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]} …",
        world.loop.events, world.network.messages, operations,
        world.loop.now_us / 1e6, cpu_s, world.loop.hash,
        dict(world.faults.done), dict(world.reshaper.granted), dict(sites.fired),
    )  # fmt: skip


def _innermost(error: BaseException) -> str:
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name}:{trace.tb_lineno}"
