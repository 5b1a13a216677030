"""What people do with the cluster while it suffers: small, contended, all written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from krita import requests
from tests.simulator.client import SimClient
from tests.simulator.history import Kind, Operation
from tests.simulator.loop import MS_US

if TYPE_CHECKING:
    from tests.simulator.world import World


class Person:
    """One thread of operations, one after the other, until told to stop."""

    def __init__(self, world: World, client: SimClient, number: int) -> None:
        self.client = client
        self.number = number
        self.idle = True
        self._world = world
        self._dice = world.chance.stream("person", number)
        self._count = 0
        # What it last saw of a key: what its conditions are made from.
        self._revisions: dict[bytes, int] = {}

    def begin(self) -> None:
        """Do the next operation, and so on."""
        if self._world.resting or self.client.gone:
            self.idle = True
            return
        self.idle = False
        plan, dice = self._world.plan, self._dice
        key = b"k%d" % dice.randrange(plan.keys)
        chance = dice.random()
        kind = Kind.GET if chance < plan.reads else Kind.DELETE if chance > 0.95 else Kind.PUT
        condition = None
        awaited = self._world.awaited_key()
        if awaited is not None:
            key, kind = awaited, Kind.PUT
        elif kind is not Kind.GET and dice.random() < plan.conditional:
            condition = self._revisions.get(key, 0) if dice.random() < 0.9 else 1
        self._count += 1
        value = b"%d.%d" % (self.number, self._count) + bytes(plan.value_bytes)
        operation = self._world.history.begin(
            self._world.loop.now_us,
            self.number,
            kind,
            self._world.shard_of(key),
            key,
            value if kind is Kind.PUT else None,
            condition,
        )
        request: requests.Request[Any]
        if kind is Kind.GET:
            request = requests.get(key)
        elif kind is Kind.PUT:
            request = requests.put(key, value, if_revision=condition)
        else:
            request = requests.delete(key, condition)
        self.client.call(
            operation, request, plan.timeout_ms / 1000.0, lambda: self._returned(operation)
        )

    def _returned(self, operation: Operation) -> None:
        if operation.refused is not None:
            self._revisions[operation.key] = operation.refused
        elif operation.revision:
            gone = operation.kind is Kind.DELETE
            self._revisions[operation.key] = 0 if gone else operation.revision
        pause_us = int(self._dice.expovariate(1.0) * self._world.think_ms * MS_US)
        self._world.loop.after(pause_us, self.begin)
