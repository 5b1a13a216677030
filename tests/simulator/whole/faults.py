"""What goes wrong in a run, and when: drawn from the seed, and undone when it is over.

Several faults may be there at a time, of any kinds and on any nodes, so a majority may
be lost for a while. That costs answers and must cost nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from tests.simulator.whole.node import Node

if TYPE_CHECKING:
    from tests.simulator.whole.world import World

_PAUSE_MEAN_S = 1.5  # between two faults' beginnings
_LASTS_MEAN_S = 2.0
_LASTS_LONG_MEAN_S = 10.0  # of one in five: long enough to need a snapshot afterwards


class Faults:
    """Breaks a world. ``run`` is a task, to be cancelled; ``heal`` undoes everything."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        kinds: list[Callable[[], Awaitable[None]]] = [
            self._kill,
            self._stop,
            self._isolate,
            self._cut_one_way,
            self._clog,
            self._reset,
            self._slow_disk,
            self._stall_disk,
            self._turn_clock,
            self._join,
        ]
        # Swarm: a run that has all kinds of faults hides what needs many of one kind.
        self._kinds = [kind for kind in kinds if chance.random() < 0.6] or kinds
        self._busy: dict[int, None] = {}  # nodes that are being stopped or started

    def __repr__(self) -> str:
        return f"<Faults {[kind.__name__.strip('_') for kind in self._kinds]}>"

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._chance.expovariate(1.0 / _PAUSE_MEAN_S))
                nursery.start_soon(self._chance.choice(self._kinds))

    async def heal(self) -> None:
        """Everything works again from here on; every node runs, or starts."""
        world = self._world
        world.network.mend_all()
        for node in world.nodes:
            node.disk.slowness = 1.0
            node.disk.resume()
            world.network.up(node.host)
            if not node.running:
                world.start(node)

    async def _last(self) -> None:
        mean_s = _LASTS_LONG_MEAN_S if self._chance.random() < 0.2 else _LASTS_MEAN_S
        await trio.sleep(0.1 + self._chance.expovariate(1.0 / mean_s))

    def _any(self) -> Node:
        return self._chance.choice(self._world.nodes)

    def _note(self, what: str) -> None:
        self._world.note(f"fault: {what}")

    async def _kill(self) -> None:
        node = self._any()
        if node.number in self._busy or not node.running:
            return
        machine = self._chance.random() < 0.5
        self._busy[node.number] = None
        self._note(f"kill node {node.number}{', the machine too' if machine else ''}")
        with trio.CancelScope(shield=True):
            await node.kill(machine=machine)
        try:
            if self._chance.random() < 0.7:
                await self._last()
        finally:
            del self._busy[node.number]
            self._world.start(node)

    async def _stop(self) -> None:
        node = self._any()
        if node.number in self._busy or not node.running:
            return
        self._busy[node.number] = None
        self._note(f"stop node {node.number}")
        with trio.CancelScope(shield=True):
            await node.stop()
        try:
            await self._last()
        finally:
            del self._busy[node.number]
            self._world.start(node)

    async def _isolate(self) -> None:
        node, network = self._any(), self._world.network
        clients = self._chance.random() < 0.3
        others = [other.host for other in self._world.nodes if other is not node]
        others += self._world.client_hosts if clients else []
        self._note(f"isolate node {node.number}{' from clients too' if clients else ''}")
        for other in others:
            network.cut(node.host, other)
            network.cut(other, node.host)
        await self._last()
        for other in others:
            network.mend(node.host, other)
            network.mend(other, node.host)

    def _pair(self) -> tuple[str, str]:
        node = self._any()
        others = [other.host for other in self._world.nodes if other is not node]
        return node.host, self._chance.choice(others + self._world.client_hosts[:1])

    async def _cut_one_way(self) -> None:
        source, target = self._pair()
        if self._chance.random() < 0.2:
            source, target = target, source
        self._note(f"cut {source} to {target}")
        self._world.network.cut(source, target)
        await self._last()
        self._world.network.mend(source, target)

    async def _clog(self) -> None:
        source, target = self._pair()
        seconds = self._chance.choice((0.02, 0.2, 0.8, 2.0))
        self._note(f"clog {source} to {target} by {seconds} s")
        self._world.network.clog(source, target, seconds)
        await self._last()
        self._world.network.mend(source, target)

    async def _reset(self) -> None:
        one, other = self._pair()
        self._note(f"reset {one} and {other}")
        self._world.network.reset(one, other)

    async def _slow_disk(self) -> None:
        node = self._any()
        factor = self._chance.choice((10.0, 100.0, 1000.0))
        self._note(f"the disk of node {node.number} is {factor:.0f} times as slow")
        node.disk.slowness = factor
        await self._last()
        node.disk.slowness = 1.0

    async def _stall_disk(self) -> None:
        disk = self._any().disk
        self._note("a disk stalls")
        disk.stall()
        await self._last()
        disk.resume()

    async def _turn_clock(self) -> None:
        node = self._any()
        node.clock.wall_offset_ms = self._chance.choice((-3_600_000, -500, 0, 700, 86_400_000))
        self._note(f"node {node.number} is {node.clock.wall_offset_ms} ms off")

    async def _join(self) -> None:
        if len(self._world.nodes) == 3:
            self._note("node 4 joins")
            self._world.add_node()
