"""This node's connections to all others, and what travels on which.

Each node dials each other one, so a pair has connections both ways; what a node
says leaves on those that it dialled. The lanes are separate connections, so that
none waits behind another's bytes:

    urgent     votes, heartbeats, acknowledgements, who leads what
    entries    appends
    requests   client requests forwarded to a leader, and their answers
    polls      those that wait for a change: the other side reads no further while as many
               as it takes are in flight, and these stay there for seconds
    bulk       snapshots (dialled by whoever sends one: host/snapshots.py)

All Raft messages of one turn for one peer make one frame a lane, and one frame in
all while the entries lane has no backlog. Order between lanes is not kept; Raft
does not ask for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import trio

from krita.address import Address, AddressError
from krita.address import parse as parse_address
from krita.connection import FLAG_FORWARDED
from krita.errors import TooLarge, to_wire
from krita.hello import Identity
from krita.limits import FRAME_BYTES_MAX_PEER, FRAME_OVERHEAD_BYTES
from krita.operations import Op
from kritad.host.admission import Twins
from kritad.host.clock import Clock
from kritad.host.link import Expelled, Link
from kritad.host.peer_codec import encode_messages
from kritad.host.request import Request
from kritad.host.router import OnReply
from kritad.host.surroundings import MACHINE, Surroundings
from kritad.raft.messages import Append, Message

URGENT, ENTRIES, REQUESTS, POLLS, BULK = "urgent", "entries", "requests", "polls", "bulk"

log = logging.getLogger(__name__)

# What may wait for a slow peer. Entries: what its in-flight windows allow, for
# several shards. Above that the core is told to try again later.
_QUEUE_BYTES_MAX = {URGENT: 1 << 20, ENTRIES: 16 << 20, REQUESTS: 16 << 20, POLLS: 1 << 20}


class Peer:
    """Another node: its address and the lanes that are always there."""

    def __init__(self, node: int, address: str, links: dict[str, Link], scope: trio.CancelScope):
        self.node = node
        self.address = address
        self.links = links
        self.scope = scope

    @property
    def connected(self) -> bool:
        """Whether heartbeats would get through."""
        return self.links[URGENT].connected


class Transport:
    """See the module's docstring. Everything but ``run`` returns at once."""

    def __init__(
        self,
        identity: Identity,
        peer_key: bytes,
        clock: Clock,
        *,
        silence_max_ms: int,
        surroundings: Surroundings = MACHINE,
    ) -> None:
        self.identity = identity
        self.peer_key = peer_key
        self._clock = clock
        self._silence_max_ms = silence_max_ms
        self._surroundings = surroundings
        self._peers: dict[int, Peer] = {}
        self._twins = Twins()
        # What to do when the others do not accept us; the host says it.
        self.on_expelled: Callable[[Expelled], None] = lambda _: None
        self._nursery: trio.Nursery | None = None
        self.frames_dropped = 0

    def __repr__(self) -> str:
        up = sorted(node for node, peer in self._peers.items() if peer.connected)
        return f"<Transport of node {self.identity.node}: {sorted(self._peers)}, up {up}>"

    @property
    def peers(self) -> Mapping[int, Peer]:
        """The other nodes, by id."""
        return self._peers

    async def run(self) -> None:
        """Hold the links' tasks until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for peer in self._peers.values():
                self._start(peer)
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # takes no more tasks; a last turn may still learn of nodes

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        """Nodes of the cluster and where they are now; links follow. A node that is not
        among them stays: the view that it is missing from may be older than its coming."""
        for node, text in addresses.items():
            known = self._peers.get(node)
            if known is not None and known.address != text:
                self._peers.pop(node).scope.cancel()
        for node, text in addresses.items():
            self.learn(node, text)

    def learn(self, node: int, text: str) -> None:
        """There is such a node at ``text``; no news when it is known already."""
        if node == self.identity.node or node in self._peers:
            return
        try:
            address = parse_address(text)
        except AddressError as problem:  # it stands in a log: no reason for us to stop
            log.error("node %d cannot be reached: %s", node, problem)
            return
        links = {lane: self._link(node, lane, address) for lane in _QUEUE_BYTES_MAX}
        peer = self._peers[node] = Peer(node, text, links, trio.CancelScope())
        self._start(peer)

    def forget(self, node: int) -> None:
        """The node has left for good: it is dialled no more."""
        gone = self._peers.pop(node, None)
        if gone is not None:
            gone.scope.cancel()

    def _link(self, node: int, lane: str, address: Address) -> Link:
        return Link(
            node,
            lane,
            address,
            identity=self.identity,
            peer_key=self.peer_key,
            queue_bytes_max=_QUEUE_BYTES_MAX[lane],
            silence_max_ms=self._silence_max_ms,
            on_expelled=lambda error: self.on_expelled(error),
            surroundings=self._surroundings,
        )

    def _start(self, peer: Peer) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._run_peer, peer)

    async def _run_peer(self, peer: Peer) -> None:
        with peer.scope:
            async with trio.open_nursery() as nursery:
                for link in peer.links.values():
                    nursery.start_soon(link.run)

    def reachable(self) -> set[int]:
        """The nodes that heartbeats would get through to now, this one included."""
        up = {node for node, peer in self._peers.items() if peer.connected}
        return up | {self.identity.node}

    def check_single(self, newcomer: Identity) -> None:
        """Raises unless ``newcomer`` is the only one under its number (admission.Twins)."""
        peer = self._peers.get(newcomer.node)
        if peer is not None:
            link = peer.links[URGENT]
            self._twins.judge(newcomer, link.other, link.attempts, link.redial)

    def address_of(self, node: int) -> str | None:
        """Where a node listens, if it is known."""
        if node == self.identity.node:
            return self.identity.address
        peer = self._peers.get(node)
        return None if peer is None else peer.address

    def send(self, node: int, messages: Iterable[Message]) -> bool:
        """Raft messages for one node, one frame a lane. False: some were dropped."""
        peer = self._peers.get(node)
        if peer is None:
            return False
        urgent: list[Message] = []
        entries: list[Message] = []
        for message in messages:
            (entries if type(message) is Append else urgent).append(message)
        if urgent and entries and peer.links[ENTRIES].idle:
            # Nothing is in the way on that lane either: one frame instead of two.
            return self._send(peer.links[ENTRIES], urgent + entries)
        sent = self._send(peer.links[URGENT], urgent)
        return self._send(peer.links[ENTRIES], entries) and sent

    def _send(self, link: Link, messages: list[Message]) -> bool:
        """One frame, or, should many shards have huge values at once, a few."""
        if not messages:
            return True
        body = encode_messages(messages)
        if len(body) > FRAME_BYTES_MAX_PEER - FRAME_OVERHEAD_BYTES and len(messages) > 1:
            half = len(messages) // 2
            return self._send(link, messages[:half]) and self._send(link, messages[half:])
        if link.send(Op.RAFT, body):
            return True
        self.frames_dropped += 1
        return False

    def tell(self, node: int, op: int, body: bytes) -> None:
        """A small one-way frame; lost if the peer is not there."""
        peer = self._peers.get(node)
        if peer is not None:
            peer.links[URGENT].send(op, body)

    def request(self, node: int, request: Request, on_reply: OnReply) -> None:
        """Forward a client's request (see router.Forwarder)."""
        self.ask(node, request.op, request.body, request.deadline_ms, on_reply)

    def ask(self, node: int, op: int, body: bytes, deadline_ms: float, on_reply: OnReply) -> None:
        """A request of our own. ``deadline_ms`` is on the host's clock."""
        left_ms = max(1, int(deadline_ms - self._clock.monotonic_ms()))
        peer = self._peers.get(node)
        sent = False
        lane = POLLS if op == Op.CHANGES else REQUESTS
        if peer is not None:
            try:
                sent = peer.links[lane].request(
                    op, body, left_ms, FLAG_FORWARDED, lambda s, b: on_reply(s, b, True)
                )
            except TooLarge as error:
                on_reply(error.status, to_wire(error), False)
                return
        if not sent:
            on_reply(None, None, False)
