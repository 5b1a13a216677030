"""A client process: the product's dispatcher (sessions, retries, routing) over memory streams.

``Client`` moves the bytes, as krita/aio.py does over sockets; ``Caller`` works with
one: one operation after the other, each written into the history.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import trio

from krita import requests, values
from krita.address import parse
from krita.call import Call
from krita.dispatch import Dispatcher
from krita.link import Link
from krita.requests import Request
from tests.simulator.client import record_answer
from tests.simulator.history import History, Kind, Operation
from tests.simulator.whole.digest import Digest
from tests.simulator.whole.network import Network
from tests.simulator.whole.stream import MemoryStream


class _Wire:
    """A link's connection."""

    def __init__(self) -> None:
        self.stream: MemoryStream | None = None
        self.unsent = bytearray()
        self.room = trio.Event()
        self.scope = trio.CancelScope()


class Client:
    """A client at ``host``. ``run`` is a task; ``start`` begins a call."""

    def __init__(
        self,
        network: Network,
        host: str,
        seeds: Sequence[str],
        chance: random.Random,
        token: bytes,
    ) -> None:
        self.host = host
        self.dispatcher = Dispatcher(seeds, chance, token=token)
        self._network = network
        self._wires: dict[Link, _Wire] = {}
        self._nursery: trio.Nursery | None = None
        self._timer = trio.Event()
        self._timer_due = math.inf

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while True:
                self._timer = trio.Event()
                self._timer_due = self.dispatcher.due
                with trio.move_on_at(self._timer_due):
                    await self._timer.wait()
                self.dispatcher.tick(trio.current_time())
                self._follow_up()

    async def call(self, request: Request[Any], timeout_s: float) -> Call:
        """Carry a request out; the call that has finished."""
        finished = trio.Event()
        call = self.dispatcher.start(
            request, timeout_s, trio.current_time(), lambda _: finished.set()
        )
        self._follow_up()
        await finished.wait()
        return call

    def _follow_up(self) -> None:
        """Run the dispatcher's errands."""
        links = self.dispatcher.links
        assert self._nursery is not None
        while links.has_errands:
            for link in links.take_closes():
                wire = self._wires.pop(link, None)
                if wire is not None:
                    wire.scope.cancel()
            for link in links.take_dials():
                wire = self._wires[link] = _Wire()
                self._nursery.start_soon(self._live, link, wire)
            for link in links.take_sends():
                data = link.take_outgoing()
                wire = self._wires.get(link)
                if wire is not None:
                    wire.unsent += data
                    wire.room.set()
        if self.dispatcher.due < self._timer_due:
            self._timer.set()

    async def _live(self, link: Link, wire: _Wire) -> None:
        """One connection, from dialling to its end."""
        reason = "the node closed the connection"
        with wire.scope:
            place = parse(link.address)
            try:
                wire.stream = await self._network.connect(self.host, place.host, place.port)
                self.dispatcher.dialed(link)
                self._follow_up()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, wire)
                    reason = await self._read(link, wire.stream)
                    nursery.cancel_scope.cancel()
            except OSError as error:
                reason = str(error)
        if wire.stream is not None:
            wire.stream.close()
        self.dispatcher.closed(link, reason, trio.current_time())
        self._follow_up()

    async def _read(self, link: Link, stream: MemoryStream) -> str:
        """Until it ends; why it did."""
        while True:
            try:
                data = await stream.receive()
            except OSError as error:
                return str(error)
            if not data:
                return "the node closed the connection"
            self.dispatcher.received(link, data, trio.current_time())
            self._follow_up()

    async def _write(self, wire: _Wire) -> None:
        assert wire.stream is not None
        while True:
            if not wire.unsent:
                wire.room = trio.Event()
                await wire.room.wait()
            data = bytes(wire.unsent)
            wire.unsent.clear()
            try:
                await wire.stream.send(data)
            except OSError:
                return  # the reader finds out, and why


class Caller:
    """Works with a client, and writes down what it was told."""

    def __init__(self, number: int, client: Client, history: History, digest: Digest) -> None:
        self.number = number
        self.client = client
        self._history = history
        self._digest = digest

    async def get(self, key: bytes, timeout_s: float) -> Operation:
        """A linearizable read."""
        operation = self._history.begin(_now_us(), self.number, Kind.GET, 0, key)
        return await self._carry_out(operation, requests.get(key), timeout_s)

    async def put(
        self, key: bytes, value: bytes, if_revision: int | None, timeout_s: float
    ) -> Operation:
        """A write, conditional or not."""
        operation = self._history.begin(
            _now_us(), self.number, Kind.PUT, 0, key, value, if_revision
        )
        request = requests.put(key, value, if_revision=if_revision)
        return await self._carry_out(operation, request, timeout_s)

    async def delete(self, key: bytes, if_revision: int | None, timeout_s: float) -> Operation:
        """A removal, conditional or not."""
        operation = self._history.begin(
            _now_us(), self.number, Kind.DELETE, 0, key, None, if_revision
        )
        return await self._carry_out(operation, requests.delete(key, if_revision), timeout_s)

    async def _carry_out(
        self, operation: Operation, request: Request[Any], timeout_s: float
    ) -> Operation:
        request.read = values.read_list  # everything the reply says, not what people get
        call = await self.client.call(request, timeout_s)
        record_answer(self._history, _now_us(), operation, call)
        self._digest.note(str(operation))
        return operation


def _now_us() -> int:
    return int(trio.current_time() * 1_000_000)
