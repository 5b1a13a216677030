"""An in-memory network: frames in order, links that can be cut, requests that get lost.

``MemoryTransport`` stands where a Host has its Transport; messages go through the
real codec.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import attrs

from krita.errors import Foreign
from krita.hello import Identity
from krita.operations import Op
from kritad.host.host import Host
from kritad.host.link import Expelled
from kritad.host.peer_codec import encode_messages
from kritad.host.request import Request
from kritad.host.router import OnReply
from kritad.raft.messages import Message

if TYPE_CHECKING:
    from tests.host.cluster import Node


@attrs.define
class PeerStandIn:
    """What status looks at of a Peer."""

    address: str
    connected: bool = True


class MemoryTransport:
    """The Transport of one node; frames go through ``network``."""

    def __init__(self, network: Network, identity: Identity) -> None:
        self.identity = identity
        self.peer_key = b"key"
        self.frames_dropped = 0
        self._network = network
        self._peers: dict[int, PeerStandIn] = {}

    @property
    def peers(self) -> Mapping[int, PeerStandIn]:
        return self._peers

    def reachable(self) -> set[int]:
        own = self.identity.node
        return {own, *(node for node in self._peers if self._network.is_up(own, node))}

    def set_peers(self, addresses: Mapping[int, str]) -> None:
        for node, address in addresses.items():
            if node != self.identity.node:
                self._peers[node] = PeerStandIn(address)

    def learn(self, node: int, text: str) -> None:
        if node != self.identity.node:
            self._peers.setdefault(node, PeerStandIn(text))

    def forget(self, node: int) -> None:
        self._peers.pop(node, None)

    def check_single(self, newcomer: Identity) -> None:
        """There is one process for each node here."""

    def address_of(self, node: int) -> str | None:
        if node == self.identity.node:
            return self.identity.address
        peer = self._peers.get(node)
        return None if peer is None else peer.address

    def send(self, node: int, messages: Iterable[Message]) -> bool:
        body = encode_messages(messages)
        return node in self._peers and self._network.send(
            self.identity.node, node, lambda host: host.deliver(self.identity.node, Op.RAFT, body)
        )

    def tell(self, node: int, op: int, body: bytes) -> None:
        self._network.send(
            self.identity.node, node, lambda host: host.deliver(self.identity.node, op, body)
        )

    def request(self, node: int, request: Request, on_reply: OnReply) -> None:
        self._network.request(self.identity.node, node, request, on_reply)

    def ask(self, *request: object) -> None:
        """Requests of a node's own: only status has any, and its tests bring an `ask`."""
        on_reply = request[-1]
        assert callable(on_reply)
        on_reply(None, None, False)


@attrs.define
class Frame:
    """On its way; ``lost`` is called when it does not arrive."""

    sender: int
    recipient: int
    arrive: Callable[[Host], None]
    lost: Callable[[], None] = lambda: None


class Network:
    """Frames in the order in which they were sent."""

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.cut: set[tuple[int, int]] = set()
        self.nodes: dict[int, Node] = {}
        self.forwarded = 0

    def is_up(self, sender: int, recipient: int) -> bool:
        node = self.nodes.get(recipient)
        return node is not None and node.alive and (sender, recipient) not in self.cut

    def send(self, sender: int, recipient: int, arrive: Callable[[Host], None]) -> bool:
        assert self.nodes[sender].host.failure is None, "a node that has failed still speaks"
        if not self.is_up(sender, recipient):
            return False
        self.frames.append(Frame(sender, recipient, arrive))
        return True

    def request(self, sender: int, recipient: int, request: Request, on_reply: OnReply) -> None:
        if not self.is_up(sender, recipient):
            on_reply(None, None, False)
            return
        self.forwarded += 1

        def lost() -> None:
            on_reply(None, None, True)

        def respond(status: int, body: object) -> None:
            self.frames.append(
                Frame(recipient, sender, lambda _: on_reply(status, body, True), lost)
            )

        copy = attrs.evolve(request, respond=respond, forwarded=True, sent=False)
        self.frames.append(Frame(sender, recipient, lambda host: host.submit(copy), lost))

    def deliver(self) -> bool:
        any_frame = bool(self.frames)
        while self.frames:
            frame = self.frames.popleft()
            node = self.nodes[frame.recipient]
            if not self.is_up(frame.sender, frame.recipient):
                frame.lost()
                continue
            sender = self.nodes[frame.sender]
            try:
                node.host.admit_peer(sender.identity)
                frame.arrive(node.host)
            except Foreign as error:
                frame.lost()
                sender.host.belonging.refused(Expelled(error.message, detail=error.detail))
        return any_frame
