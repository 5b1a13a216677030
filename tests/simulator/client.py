"""Clients of the simulated cluster: the product's own dispatcher, sessions and retries.

A connection is a pair of byte streams in order, with the network's delays; its
server's end is the product's protocol in front of the node's Service, as
server/cbor_server.py puts it there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from krita import values
from krita.call import Call
from krita.connection import ServerConnection
from krita.dispatch import Dispatcher
from krita.errors import ConditionFailed, KritaError, Outcome
from krita.events import HelloReceived, Request
from krita.limits import FRAME_BYTES_MAX_PEER
from krita.link import Link, LinkState
from krita.requests import Request as ClientRequest
from kritad.access import ANONYMOUS, Principal
from tests.simulator.history import History, Kind, Operation
from tests.simulator.loop import SECOND_US

if TYPE_CHECKING:
    from tests.simulator.node import SimNode
    from tests.simulator.world import World

_ANYBODY = Principal(ANONYMOUS, loopback=True)


class Connection:
    """One client's connection with one node, both ends."""

    def __init__(self, client: SimClient, link: Link, node: SimNode) -> None:
        self.client = client
        self.node = node
        self.open = True
        self._link = link
        self._server = ServerConnection()
        self._loop = client.world.loop
        self._outgoing: list[bytes] = []  # replies of this turn
        self._arrival_us = [0, 0]  # of the latest bytes each way: order is kept
        node.connections.append(self)

    def send(self, data: bytes) -> None:
        """Bytes for the node."""
        self._loop.after(self._delay_us(0), self._reach, data)

    def _delay_us(self, way: int) -> int:
        now_us = self._loop.now_us
        delay_us = self.client.world.network.delay_us()
        if self.client.zone != self.node.zone:
            delay_us += self.client.world.plan.far_us
        arrival_us = max(self._arrival_us[way], now_us + delay_us)
        self._arrival_us[way] = arrival_us
        return arrival_us - now_us

    def _reach(self, data: bytes) -> None:
        if self.open:
            self.node.do(self._serve, data)

    def _serve(self, data: bytes) -> None:
        try:
            for event in self._server.receive_data(data):
                self._handle(event)
        except KritaError as error:
            self._outgoing.append(self._server.goodbye(error))
        self.flush()

    def _handle(self, event: object) -> None:
        if isinstance(event, Request):
            self.node.service.submit(
                event.op,
                event.body,
                _ANYBODY,
                event.deadline_ms,
                event.flags,
                partial(self._respond, event.id),
            )
        else:
            assert isinstance(event, HelloReceived), event
            self._outgoing.append(self._server.accept(self.node.identity, FRAME_BYTES_MAX_PEER))

    def _respond(self, request_id: int, status: int, body: object) -> None:
        if self.open:
            self._outgoing.append(self._server.reply(request_id, status, body))
            self.node.replied = True
            if len(self._outgoing) == 1:
                self.node.later(0, self.flush)

    def flush(self) -> None:
        """Send the replies there are in one piece."""
        if self._outgoing and self.open:
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            self._loop.after(self._delay_us(1), self._answer, data)

    def _answer(self, data: bytes) -> None:
        if self.open:
            self.client.received(self._link, data)

    def lose(self) -> None:
        """It breaks; the client learns of it."""
        if self.open:
            self.close()
            self._loop.after(self._delay_us(1), self.client.lost, self._link)

    def close(self) -> None:
        """The client has no more use for it."""
        self.open = False
        if self in self.node.connections:
            self.node.connections.remove(self)


class SimClient:
    """A client process with a number for the history."""

    def __init__(self, world: World, number: int, *, sessions: bool) -> None:
        self.world = world
        self.number = number
        self.gone = False
        dice = world.chance.stream("client", number)
        seeds = [node.address for node in world.nodes]
        self.zone = world.plan.zone_of(number)
        self._dispatcher = Dispatcher(seeds, dice, sessions=sessions, zone=self.zone)
        self._connections: dict[Link, Connection] = {}
        self._wake_us = math.inf

    def _now_s(self) -> float:
        return self.world.loop.now_us / SECOND_US

    def call(
        self,
        operation: Operation,
        request: ClientRequest[Any],
        timeout_s: float,
        then: Callable[[], None],
    ) -> None:
        """Do one operation and write down what came of it; then ``then()``."""

        def done(call: Call) -> None:
            if not self.gone:
                record_answer(self.world.history, self.world.loop.now_us, operation, call)
                self.world.loop.fold(int(operation.fate), operation.revision, operation.index)
                self.world.returned(operation)
                then()

        self.ask(request, timeout_s, done)

    def ask(
        self, request: ClientRequest[Any], timeout_s: float, done: Callable[[Call], None]
    ) -> None:
        """Do any operation; ``done`` gets the finished call."""
        request.read = values.read_list  # everything the reply says, not what people get
        self._dispatcher.start(request, timeout_s, self._now_s(), done)
        self._turn()

    def received(self, link: Link, data: bytes) -> None:
        """Bytes from a node."""
        if not self.gone:
            self._dispatcher.received(link, data, self._now_s())
            self._turn()

    def lost(self, link: Link) -> None:
        """A connection broke."""
        self._connections.pop(link, None)
        if not self.gone:
            self._dispatcher.closed(link, "the connection was lost", self._now_s())
            self._turn()

    def die(self) -> None:
        """The process ends; what it had under way stays without an answer."""
        self.gone = True
        for connection in self._connections.values():
            connection.close()

    def shard_of(self, key: bytes) -> int:
        """By the product's own ring."""
        return self.world.shard_of(key)

    def _turn(self) -> None:
        """Run the dispatcher's errands, as its drivers do."""
        dispatcher = self._dispatcher
        links = dispatcher.links
        while links.has_errands:
            for link in links.take_closes():
                connection = self._connections.pop(link, None)
                if connection is not None:
                    connection.close()
            for link in links.take_dials():
                self.world.loop.after(2 * self.world.network.delay_us(), self._dialed, link)
            for link in links.take_sends():
                data = link.take_outgoing()
                connection = self._connections.get(link)
                if connection is not None and data:
                    connection.send(data)
        due_us = dispatcher.due * SECOND_US
        if due_us < self._wake_us:
            self._wake_us = due_us
            delay_us = max(1, math.ceil(due_us) - self.world.loop.now_us)
            self.world.loop.after(delay_us, self._tick, due_us)

    def _tick(self, due_us: float) -> None:
        if self.gone or due_us != self._wake_us:
            return
        self._wake_us = math.inf
        self._dispatcher.tick(self._now_s())
        self._turn()

    def _dialed(self, link: Link) -> None:
        if self.gone or link.state is LinkState.DEAD:
            return
        node = self.world.node_at(link.address)
        if node is None or not node.alive:
            self._dispatcher.closed(link, "connection refused", self._now_s())
        else:
            self._connections[link] = Connection(self, link, node)
            self._dispatcher.dialed(link)
        self._turn()


def record_answer(history: History, now_us: int, operation: Operation, call: Call) -> None:
    """What a finished call says of its operation."""
    error = call.error
    if error is None:
        body = call.result
        assert isinstance(body, list)
        if operation.kind is Kind.GET:
            history.read(operation, now_us, body[0], body[1], body[3])
        else:
            history.wrote(operation, now_us, body[0], body[1])
    elif isinstance(error, ConditionFailed):
        revision = error.detail["revision"]
        assert isinstance(revision, int)
        history.refused(operation, now_us, revision)
    elif operation.kind is Kind.GET or error.outcome is Outcome.NOT_APPLIED:
        history.failed(operation, now_us)
    else:
        history.gave_up(operation, now_us)
