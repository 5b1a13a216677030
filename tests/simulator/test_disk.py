"""The simulated disk: what healing promises of work that is under way."""

from __future__ import annotations

from kritad.host.writer import Finished
from tests.simulator.disk import SimWorker
from tests.simulator.loop import SECOND_US
from tests.simulator.plan import draw_plan
from tests.simulator.world import World

_HEALED_WITHIN_S = 2


def test_healing_ends_work_that_was_begun_while_the_disk_was_slow() -> None:
    # Seed 50806: one save drew 89 s, and its node was missed until after the bound.
    world = World(draw_plan(1))
    world.grow()
    node = world.nodes[0]
    node.disk.access_us, node.disk.factor, node.disk.spikes = 10_000, 300.0, 1.0
    done: list[Finished[None]] = []
    SimWorker(node, node.disk).submit(lambda: None, done.append)
    world.loop.run_until(world.loop.now_us + 5 * SECOND_US)
    assert not done, "not slow: this test shows nothing"
    world.faults.heal()
    world.loop.run_until(world.loop.now_us + _HEALED_WITHIN_S * SECOND_US)
    assert done, "the piece in hand is as slow as if the disk had not been healed"
