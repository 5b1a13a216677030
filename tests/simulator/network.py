"""The network of the simulated world: directed links that delay, lose, cut and break.

A link stands for all connections one node has dialled to another. Raft's messages may
be lost, doubled and overtaken on it, as they may when connections break and are
dialled anew; a forwarded request is answered exactly once or its sender learns that
the connection was lost, as with TCP.

Rules:
* A crash is noticed by the others soon (the kernel says so), a cut only after a
  silence: until then what is sent is accepted and lost. A cut of one direction ends
  the other's connections as well, after the same silence: nothing acknowledges them.
* What arrives is handed to the node under its present life only: a frame to a node
  that died and came back never reaches the new one over the old connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from krita.errors import Foreign
from kritad.host.peer_codec import decode_messages, encode_messages
from kritad.host.request import Request
from kritad.host.router import OnReply
from kritad.raft.messages import Message
from tests.host.network import MemoryTransport
from tests.simulator.loop import MS_US, Chance, Loop
from tests.simulator.plan import Plan

if TYPE_CHECKING:
    from kritad.host.host import Host
    from tests.simulator.node import SimNode

_RECONNECT_MS = (50, 1_000)
_RESEND_US = 200 * MS_US


@attrs.define(eq=False)
class Link:
    """From one node to another."""

    sender: int
    recipient: int
    up: bool = False
    cut: int = 0  # how many faults cut it now
    clogged_until_us: int = 0
    life: int = 0  # +1 whenever its connections break
    pending: dict[int, OnReply] = attrs.field(factory=dict)  # requests without an answer
    last_id: int = 0


class Network:
    """See the module's docstring. Nodes are known by their number."""

    def __init__(self, loop: Loop, plan: Plan, chance: Chance) -> None:
        self.nodes: dict[int, SimNode] = {}
        self.loop = loop
        self.plan = plan
        self.loss, self.duplicate = plan.loss, plan.duplicate
        self._delay_us, self._jitter_us, self._far_us = plan.delay_us, plan.jitter_us, plan.far_us
        self.messages = 0
        self._links: dict[tuple[int, int], Link] = {}
        self._dice = chance.stream("network")
        self._random = self._dice.random
        # Told of every Raft message that is sent: the invariants check what it claims.
        self.on_send: Callable[[SimNode, Message], None] = lambda _node, _message: None

    def link(self, sender: int, recipient: int) -> Link:
        """The link between two nodes, dialled when it is first asked for."""
        found = self._links.get((sender, recipient))
        if found is None:
            found = self._links[sender, recipient] = Link(sender, recipient)
            self.loop.after(3 * self.plan.delay_us, self._dial, found, 0)
        return found

    def links(self) -> Iterable[Link]:
        """All there are, in the order in which they were made."""
        return list(self._links.values())

    # --- what a transport asks for ------------------------------------------------------

    def is_up(self, sender: int, recipient: int) -> bool:
        """Whether ``sender`` believes to be connected with ``recipient``."""
        return self.link(sender, recipient).up and recipient in self.nodes

    def send_messages(self, sender: int, recipient: int, messages: Iterable[Message]) -> bool:
        """One frame of Raft messages. False: there is no connection."""
        link = self._links.get((sender, recipient)) or self.link(sender, recipient)
        if not link.up or recipient not in self.nodes:
            return False
        node, on_send = self.nodes[sender], self.on_send
        batch = list(messages)
        for message in batch:
            on_send(node, message)
        if self.loop.trace is not None:
            for message in batch:
                self.loop.note(f"n{sender}->n{recipient} {message}")
        if self.plan.encode:
            batch = decode_messages(encode_messages(batch))
        self._carry(link, batch)
        if self.duplicate and self._dice.random() < self.duplicate:
            self._carry(link, batch)
        return True

    def _carry(self, link: Link, batch: list[Message]) -> None:
        if link.cut or (self.loss and self._dice.random() < self.loss):
            return
        self.loop.after(self.delay_us(link), self._arrive, link, link.life, batch)

    def _arrive(self, link: Link, life: int, batch: list[Message]) -> None:
        if life != link.life or link.cut:
            return
        count, first = len(batch), batch[0]
        self.messages += count
        if count > 1:
            self.loop.count(count - 1)
        sender, recipient = link.sender, link.recipient
        self.loop.fold(sender, recipient, count, first.shard, first.term)
        self.nodes[recipient].hear(sender, batch)

    def send(self, sender: int, recipient: int, arrive: Callable[..., None]) -> bool:
        """Anything else that goes one way: ``arrive(host)`` when it is there."""
        link = self.link(sender, recipient)
        if not link.up or recipient not in self.nodes:
            return False
        if not link.cut:
            self.loop.after(self.delay_us(link), self._reach, link, link.life, arrive)
        return True

    def _reach(self, link: Link, life: int, arrive: Callable[..., None]) -> None:
        if life == link.life and not link.cut:
            node = self.nodes[link.recipient]
            node.do(lambda: arrive(node.host))

    def request(self, sender: int, recipient: int, request: Request, on_reply: OnReply) -> None:
        """Forward a client's request."""

        def serve(node: SimNode, respond: Callable[[int, object], None]) -> None:
            left_ms = request.deadline_ms - self.nodes[sender].clock.monotonic_ms()
            node.serve_peer(sender, request.op, request.body, left_ms, respond, forwarded=True)

        self.ask(sender, recipient, serve, on_reply)

    def ask(
        self,
        sender: int,
        recipient: int,
        serve: Callable[[SimNode, Callable[[int, object], None]], None],
        on_reply: OnReply,
    ) -> None:
        """A request and its answer: ``serve(node, respond)`` at the other end, then
        ``on_reply`` here, exactly once."""
        link = self.link(sender, recipient)
        if not link.up or recipient not in self.nodes:
            on_reply(None, None, False)
            return
        link.last_id += 1
        number, life = link.last_id, link.life
        link.pending[number] = on_reply

        def reach() -> None:
            node = self.nodes[recipient]
            node.do(lambda: serve(node, respond))

        def respond(status: int, body: object) -> None:
            back = self.link(recipient, sender)
            self._insist(back, link, life, lambda: settle(status, body))

        def settle(status: int, body: object) -> None:
            waiting = link.pending.pop(number, None)
            if waiting is not None:
                self.nodes[sender].do(lambda: waiting(status, body, True))

        self._insist(link, link, life, reach)

    def _insist(self, way: Link, link: Link, life: int, arrive: Callable[[], None]) -> None:
        """As TCP does: what is lost on the ``way`` is sent again while the connection,
        which belongs to ``link``, stands."""

        def attempt() -> None:
            if link.life != life:
                return
            if way.cut:
                self.loop.after(_RESEND_US, attempt)
            else:
                arrive()

        self.loop.after(self.delay_us(way), attempt)

    def delay_us(self, link: Link | None = None) -> int:
        """How long a frame takes, on ``link`` or to a client."""
        delay_us = self._delay_us
        if self._far_us and link is not None and self._is_far(link):
            delay_us += self._far_us
        if self._jitter_us:
            delay_us += int(self._random() * self._jitter_us)
        if link is not None and link.clogged_until_us > self.loop.now_us:
            delay_us += link.clogged_until_us - self.loop.now_us
        return delay_us

    def _is_far(self, link: Link) -> bool:
        ends = (self.nodes.get(number) for number in (link.sender, link.recipient))
        return len({node.zone for node in ends if node is not None}) > 1

    # --- what goes wrong ----------------------------------------------------------------

    def break_link(self, link: Link) -> None:
        """Its connections end: what was on them is lost, and a new one is dialled."""
        link.life += 1
        link.up = False
        pending, link.pending = link.pending, {}
        node = self.nodes.get(link.sender)
        if node is not None and node.alive:
            for on_reply in pending.values():
                node.do(lambda on_reply=on_reply: on_reply(None, None, True))
        self._redial(link)

    def _redial(self, link: Link) -> None:
        pause_ms = self._dice.randint(*_RECONNECT_MS)
        self.loop.after(pause_ms * MS_US, self._dial, link, link.life)

    def _dial(self, link: Link, life: int) -> None:
        if link.life != life or link.up:
            return
        node = self.nodes.get(link.recipient)
        cut = link.cut or self.link(link.recipient, link.sender).cut
        if node is None or not node.alive or link.sender not in self.nodes or cut:
            self._redial(link)
        elif node.admits(link.sender):
            link.up = True

    def cut_link(self, link: Link) -> None:
        """Nothing passes any more; both ends find out when it has been silent too long."""
        link.cut += 1
        silence_ms = 2 * self.plan.settings.election_ms
        self.loop.after(silence_ms * MS_US, self._find_silent, link, link.life)

    def _find_silent(self, link: Link, life: int) -> None:
        if not link.cut:
            return
        if link.life == life and link.up:
            self.break_link(link)
        back = self.link(link.recipient, link.sender)
        if back.up:  # what it carried was never acknowledged
            self.break_link(back)

    def mend_link(self, link: Link) -> None:
        """Take one cut back."""
        link.cut -= 1

    def lose_node(self, number: int) -> None:
        """A process ended: its connections break at both ends."""
        for link in self.links():
            if number in (link.sender, link.recipient):
                self.break_link(link)


class SimTransport(MemoryTransport):
    """The Transport of a simulated node. Raft's messages need no codec here."""

    def __init__(self, network: Network, node: SimNode) -> None:
        super().__init__(network, node.identity)  # type: ignore[arg-type]
        self.network = network

    def tell(self, node: int, op: int, body: bytes) -> None:
        own = self.identity.node

        def arrive(host: Host) -> None:
            try:
                host.deliver(own, op, body)
            except Foreign as refusal:  # what ends a real connection, with a goodbye
                sender = self.network.nodes[own]
                self.network.loop.after(self.network.delay_us(), sender.expelled, refusal)

        self.network.send(own, node, arrive)

    def send(self, node: int, messages: Iterable[Message]) -> bool:
        return node in self._peers and self.network.send_messages(
            self.identity.node, node, messages
        )
