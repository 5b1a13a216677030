"""Somebody who works with the newer operations: one deed after the other, by a script.

A script (scripts.py) is a generator: it yields what it asks for and is sent the deed that
became of it. So a script reads as what a person does, and knows of no callbacks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import attrs

from krita import values
from krita.call import Call
from krita.operations import Op
from krita.requests import Request, any_operation
from tests.simulator.client import SimClient
from tests.simulator.crafts.deed import Ask, Deed
from tests.simulator.loop import MS_US

if TYPE_CHECKING:
    from tests.simulator.world import World

Script = Generator[Ask, Deed, None]


@attrs.define
class Hand:
    """What a script is given: chance, a name of its own, and a look at the world."""

    world: World
    number: int
    dice: random.Random
    count: int = 0

    def mark(self) -> int:
        """A number that nobody else has."""
        self.count += 1
        return self.number * 100_000 + self.count

    def text(self) -> bytes:
        """A value that nobody else has."""
        return b"%d.%d;" % (self.number, self.mark() % 100_000)


class Craftsman:
    """See the module's docstring. ``hand`` over to ``script``."""

    def __init__(self, world: World, hand: Hand, script: Script, clients: list[SimClient]) -> None:
        self.idle = True
        self._world = world
        self._hand = hand
        self._script = script
        self._clients = clients
        self._next: Ask | None = None

    def begin(self) -> None:
        """Do the next thing, and so on."""
        if self._world.resting:
            self.idle = True
            return
        self.idle = False
        if self._next is None:
            self._next = next(self._script)
        ask = self._next
        client = self._clients[ask.client]
        deed = Deed(ask, client.number, self._world.chronicle.next_number())
        self._world.guild.deeds.append(deed)
        perform(client, deed, self._returned)

    def _returned(self, deed: Deed) -> None:
        self._next = self._script.send(deed)
        pause_us = int(self._hand.dice.expovariate(1.0) * self._world.think_ms * MS_US)
        self._world.loop.after(pause_us, self.begin)


def perform(
    client: SimClient,
    deed: Deed,
    then: Callable[[Deed], object],
    *,
    timeout_ms: int | None = None,
) -> None:
    """Send it; ``then(deed)`` when there is nothing more to hear of it."""
    world, ask = client.world, deed.ask

    def done(call: Call) -> None:
        deed.end(world.chronicle.next_number(), call.error, call.result)
        world.loop.fold(int(deed.fate), deed.begun, deed.ended)
        if world.loop.trace is not None:
            world.loop.note(str(deed))
        then(deed)

    if ask.spread:
        key, shard = (ask.fields[0], None) if ask.op == Op.GET else (None, ask.fields[0])
        request = Request(ask.op, ask.fields, values.read_list, key, shard, spread=True)
    else:
        request = any_operation(int(ask.op), ask.fields)
    timeout_ms = timeout_ms or ask.timeout_ms or world.plan.timeout_ms
    client.ask(request, timeout_ms / 1000.0, done)
