"""A dispatcher and two nodes in memory, on a clock that moves when told."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs

from krita import requests
from krita.call import Call
from krita.codec import decode
from krita.connection import Connection, HelloReceived, Request, ServerConnection
from krita.dispatch import Dispatcher
from krita.errors import KritaError, to_wire
from krita.hello import Identity
from krita.link import Link
from krita.operations import Op
from krita.ring import ShardInfo, ShardMap

PLACES = {1: "a:1", 2: "b:1"}


def map_of(shard: int, version: int = 1) -> ShardMap:
    """One shard owns the whole ring; node 1 leads it."""
    return ShardMap(version, (ShardInfo(shard, 0, 1 << 32, 1, 1, (1, 2)),), PLACES)


@attrs.define(eq=False, slots=False)
class World:
    """A dispatcher, two nodes in memory, and a clock that moves when told."""

    dispatcher: Dispatcher = attrs.field(
        factory=lambda: Dispatcher(["a:1", "b:1"], random.Random(1))
    )
    now: float = 100.0
    mute: set[str] = attrs.field(factory=set)  # nodes that read and do nothing
    gone: set[str] = attrs.field(factory=set)  # nodes that cannot be connected to
    cut_off: set[str] = attrs.field(factory=set)  # nodes that only tell what they know themselves
    unanswered: set[Op] = attrs.field(factory=set)
    errors: dict[Op, list[KritaError]] = attrs.field(factory=dict)
    refusal: KritaError | None = None
    cluster_ids: dict[str, bytes] = attrs.field(factory=dict)  # of those that are not in ours
    map: ShardMap = attrs.field(factory=lambda: map_of(1))
    seen: list[tuple[str, Op, list[object], int]] = attrs.field(factory=list)
    servers: dict[Link, ServerConnection] = attrs.field(factory=dict)
    closed: list[Link] = attrs.field(factory=list)

    def start(
        self, request: requests.Request[Any], timeout_s: float = 5.0,
        done: Callable[[Call], None] | None = None,
    ) -> Call:  # fmt: skip
        call = self.dispatcher.start(request, timeout_s, self.now, done)
        self.settle()
        return call

    def settle(self) -> None:
        """Run the driver's errands until there are none."""
        links = self.dispatcher.links
        while links.has_errands:
            self.closed += links.take_closes()
            for link in links.take_dials():
                if link.address in self.gone:
                    self.dispatcher.closed(link, "refused", self.now)
                elif link.address not in self.mute:
                    self.servers[link] = Connection.server()
                    self.dispatcher.dialed(link)
            for link in links.take_sends():
                self.serve(link, link.take_outgoing())

    def serve(self, link: Link, data: bytes) -> None:
        if link.address in self.mute or not data:
            return
        server = self.servers[link]
        out = b""
        for event in server.receive_data(data):
            if isinstance(event, HelloReceived):
                node = 1 if link.address == "a:1" else 2
                cluster_id = self.cluster_ids.get(link.address, bytes(16))
                identity = Identity(cluster_id, node, bytes(16), 1, link.address)
                if self.refusal is not None:
                    out += server.refuse(self.refusal)
                else:
                    out += server.accept(identity, 1 << 21)
            else:
                assert isinstance(event, Request)
                answer = self.answer(link, event)
                out += b"" if answer is None else server.reply(event.id, *answer)
        self.dispatcher.received(link, out, self.now)

    def answer(self, link: Link, request: Request) -> tuple[int, object] | None:
        op, fields = Op(request.op), decode(request.body)
        assert isinstance(fields, list)
        self.seen.append((link.address, op, fields, request.flags))
        if op in self.unanswered or (link.address in self.cut_off and op is not Op.SHARD_MAP):
            return None
        if self.errors.get(op):
            error = self.errors[op].pop(0)
            return error.status, to_wire(error)
        bodies: dict[Op, object] = {
            Op.SHARD_MAP: self.map.to_wire(),
            Op.SESSION_OPEN: [len(self.seen)],
            Op.PUT: [9, False],
            Op.GET: [b"v", 9, None, 9, 0],
            Op.PING: [1, bytes(16), "t", 0],
        }
        return 0, bodies[op]

    def advance(self, seconds: float) -> None:
        """Let time pass, waking the dispatcher whenever it asked to be."""
        until = self.now + seconds
        while self.dispatcher.due <= until:
            self.now = max(self.now, self.dispatcher.due)
            self.dispatcher.tick(self.now)
            self.settle()
        self.now = until

    def link(self, address: str) -> Link:
        """The connection to that node."""
        link = self.dispatcher.links.find(address)
        assert link is not None
        return link

    def disconnect(self) -> None:
        """All connections break."""
        for link in self.dispatcher.links:
            self.dispatcher.closed(link, "reset", self.now)
        self.settle()

    def count(self, op: Op) -> int:
        return sum(1 for _, seen, *_ in self.seen if seen is op)


def error_of(call: Call) -> KritaError:
    assert call.finished
    assert call.error is not None
    return call.error
