"""One connection to one node, with the calls that travel on it. Sans-IO.

    DIALING ──dialed()──► GREETING ──Welcomed──► READY ──drop()──► DEAD

A link is dialled once: when it ends, the next call to that node makes a new one.
So whatever still refers to the old connection can be told by its being DEAD.

Calls queue until the link is READY and while as many are in flight as the server reads
ahead; ``outgoing`` collects bytes until the driver takes them all at once, which is what
batches the requests of one turn into one send. Polls, which wait at the server for
something to happen, have places of their own: else many of them would keep all requests out.

The time of an attempt is the node's, not the line's. While the line moves a long request or
a long reply, no attempt's time passes on it: all are behind that. And what is in flight is
bounded in bytes, so that the last of many large requests is not late because of the others,
and waits in the dispatcher, where it is surely not applied, instead of in a socket.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from krita.call import Call, CallState
from krita.connection import FLAG_FORWARDED, Connection, Event, State
from krita.errors import ConnectionFailed, Foreign
from krita.limits import POLLS_IN_FLIGHT_MAX, REQUESTS_IN_FLIGHT_MAX

if TYPE_CHECKING:
    from krita.errors import KritaError, ProtocolError
    from krita.hello import Hello


ATTEMPT_TIMEOUT_S = 2.0  # without an answer; then another node is tried
DIAL_TIMEOUT_S = 1.0  # until a new connection must be usable
# Of unanswered requests, and of what the transport has not taken; a larger request goes alone.
BYTES_IN_FLIGHT_MAX = 4 << 20


class LinkState(enum.Enum):
    DIALING = "dialing"
    GREETING = "greeting"
    READY = "ready"
    DEAD = "dead"


class Link:
    """See the module. ``touched`` is told when ``outgoing`` stops being empty."""

    __slots__ = (
        "address",
        "attempt_timeout_s",
        "bytes_in_flight",
        "calls",
        "connection",
        "heard_at",
        "moved_at",
        "outgoing",
        "polls",
        "polls_waiting",
        "ready_due",
        "replies_last",
        "state",
        "touched",
        "unsent_bytes",
        "waiting",
    )

    def __init__(
        self,
        address: str,
        hello: Hello,
        attempt_timeout_s: float,
        ready_due: float,
        touched: Callable[[Link], None],
    ) -> None:
        self.address = address
        self.state = LinkState.DIALING
        self.connection = Connection.client(hello)
        self.attempt_timeout_s = attempt_timeout_s
        self.ready_due = ready_due  # when it has to be READY
        self.heard_at = 0.0  # when the node last said anything
        self.moved_at = 0.0  # when the line last moved a part of what it could not move at once
        self.replies_last = 0  # how many events that was
        self.touched = touched
        self.outgoing: list[bytes] = []
        self.unsent_bytes = 0  # taken from ``outgoing``, and not by the transport
        self.bytes_in_flight = 0  # of ``calls``' requests
        self.waiting: deque[Call] = deque()
        self.polls_waiting: deque[Call] = deque()
        self.polls = 0  # of ``calls``
        self.calls: dict[int, Call] = {}  # by request id, in the order sent

    @property
    def idle(self) -> bool:
        """Whether nobody waits for this link."""
        return not self.calls and not self.waiting and not self.polls_waiting

    def dialed(self) -> None:
        """The transport stands: say hello."""
        assert self.state is LinkState.DIALING
        self.state = LinkState.GREETING
        self._write(self.connection.greeting())

    def welcomed(self) -> None:
        """The handshake is over; requests may go out (``pump`` sends them)."""
        assert self.state is LinkState.GREETING
        self.state = LinkState.READY

    def has_room_for(self, call: Call) -> bool:
        """Whether ``send`` may be called with it now, and nobody has waited for longer."""
        return self._has_room(_is_poll(call)) and not self._queue_of(call)

    def _has_room(self, poll: bool) -> bool:
        # A node's goodbye closes the connection before anybody has looked at the replies
        # that came in front of it.
        if self.state is not LinkState.READY or self.connection.state is not State.OPEN:
            return False
        if poll:
            return self.polls < POLLS_IN_FLIGHT_MAX
        return (
            len(self.calls) - self.polls < REQUESTS_IN_FLIGHT_MAX
            and self.bytes_in_flight < BYTES_IN_FLIGHT_MAX
            and self.unsent_bytes < BYTES_IN_FLIGHT_MAX
        )

    def queue(self, call: Call) -> None:
        """The call waits its turn here."""
        call.link = self
        call.state = CallState.QUEUED
        call.due = call.deadline
        self._queue_of(call).append(call)

    def next_call(self) -> Call | None:
        """The next of those queued for which there is room, not queued any more; for ``send``."""
        if self.waiting and self._has_room(poll=False):
            return self.waiting.popleft()
        if self.polls_waiting and self._has_room(poll=True):
            return self.polls_waiting.popleft()
        return None

    def take_queued(self) -> list[Call]:
        """All that were queued here."""
        queued = [*self.waiting, *self.polls_waiting]
        self.waiting.clear()
        self.polls_waiting.clear()
        for call in queued:
            call.link = None
        return queued

    def _queue_of(self, call: Call) -> deque[Call]:
        return self.polls_waiting if _is_poll(call) else self.waiting

    def send(self, call: Call, now: float) -> None:
        """Put a call's request among the outgoing bytes. 3 µs.

        Raises TooLarge when the node would not take it.
        """
        left_ms = int((call.deadline - now) * 1000)
        call.id, data = self.connection.request(
            call.request.op,
            call.body,
            left_ms if left_ms > 0 else 0,
            FLAG_FORWARDED if call.direct else 0,
        )
        call.link = self
        call.state = CallState.SENT
        call.sent_at = now
        call.sent_bytes = len(data)
        call.due = min(call.deadline, self.answer_due(call))
        self.calls[call.id] = call
        self.bytes_in_flight += len(data)
        if _is_poll(call):
            self.polls += 1
        self._write(data)

    def receive(self, data: bytes, now: float) -> Sequence[Event]:
        """Raises ProtocolError; the link is of no more use then."""
        self.heard_at = now
        events = self.connection.receive_data(data)
        self.replies_last = len(events)
        if not events:
            self.moved_at = now
        return events

    def wrote(self, moved_bytes: int, left_bytes: int, now: float) -> None:
        """See ``Dispatcher.wrote``."""
        self.unsent_bytes = left_bytes
        if moved_bytes:
            self.moved_at = now

    def answer_due(self, call: Call) -> float:
        """When the attempt has taken too long, if no bytes move until then."""
        since = call.sent_at if call.sent_at > self.moved_at else self.moved_at
        return since + self.attempt_timeout_s + call.request.patience_s

    def answered(self, request_id: int) -> Call | None:
        """The call whose reply has come; None: nobody waits for it any more."""
        call = self.calls.pop(request_id, None)
        if call is not None:
            self.bytes_in_flight -= call.sent_bytes
            if _is_poll(call):
                self.polls -= 1
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for this call here any more; a late reply is ignored."""
        assert call.link is self
        if call.state is CallState.SENT:
            self.answered(call.id)
        elif call.state is CallState.QUEUED:
            self._queue_of(call).remove(call)
        call.link = None

    def take_outgoing(self) -> bytes:
        """Everything that is to be sent; it is the caller's from now on."""
        outgoing = self.outgoing
        data = outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)
        outgoing.clear()
        return data

    def drop(self) -> tuple[list[Call], list[Call]]:
        """The connection has ended: the calls that may have been sent, the others."""
        self.state = LinkState.DEAD
        sent, unsent = list(self.calls.values()), self.take_queued()
        self.calls.clear()
        self.outgoing.clear()
        for call in sent:
            call.link = None
        self.touched = _nobody  # ``Links``, which may have this link in a list yet
        return sent, unsent

    def _write(self, data: bytes) -> None:
        if not self.outgoing:
            self.touched(self)
        self.outgoing.append(data)

    def __repr__(self) -> str:
        return (
            f"<Link {self.address} {self.state.value}:"
            f" {len(self.calls)} in flight, {self.polls} of them polls,"
            f" {len(self.waiting) + len(self.polls_waiting)} waiting>"
        )


def other_cluster(address: str) -> KritaError:
    """Who has answered there is no node of the cluster that we know."""
    return Foreign(
        f"{address} belongs to another cluster than the one that this client has begun with",
        hint="if it was made anew or restored, make a new client",
    )


def other_protocol(address: str, error: ProtocolError) -> KritaError:
    """Who has answered there is no node at all."""
    return ConnectionFailed(
        f"{address} does not speak Krita's protocol",
        hint="check the address and the port",
        detail={"reason": error.message},
    )


def _is_poll(call: Call) -> bool:
    """Whether a node may let it wait on purpose: it takes no place from the others."""
    return call.request.patience_s > 0


def _nobody(_link: Link) -> None:
    """Who is told of a link that has ended."""


class Links:
    """All links of a client, one per address, and what their driver has to do."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self._attempt_timeout_s = ATTEMPT_TIMEOUT_S
        self._dial_timeout_s = DIAL_TIMEOUT_S
        self._by_address: dict[str, Link] = {}
        self._to_dial: list[Link] = []
        self._to_send: list[Link] = []
        self._to_close: list[Link] = []

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._by_address.values()))

    @property
    def has_errands(self) -> bool:
        """Whether any of the ``take_`` methods would return something."""
        return bool(self._to_send or self._to_dial or self._to_close)

    def find(self, address: str) -> Link | None:
        """The live link to an address."""
        return self._by_address.get(address)

    def dial(self, address: str, now: float) -> Link:
        """A new link to an address that has none, for the driver to connect."""
        assert address not in self._by_address
        due = now + self._dial_timeout_s
        link = Link(address, self._hello, self._attempt_timeout_s, due, self._to_send_append)
        self._by_address[address] = link
        self._to_dial.append(link)
        return link

    def drop(self, link: Link) -> tuple[list[Call], list[Call]]:
        """Take a link out of use: the calls that may have been sent, the others."""
        del self._by_address[link.address]
        self._to_close.append(link)
        return link.drop()

    def take_dials(self) -> list[Link]:
        """Links to connect, each once."""
        links, self._to_dial = self._to_dial, []
        return [link for link in links if link.state is not LinkState.DEAD]

    def take_sends(self) -> list[Link]:
        """Links with bytes outgoing, each once until they are taken from it."""
        links, self._to_send = self._to_send, []
        return links

    def take_closes(self) -> list[Link]:
        """Links that have ended: their transports are to be closed."""
        links, self._to_close = self._to_close, []
        return links

    def _to_send_append(self, link: Link) -> None:
        self._to_send.append(link)

    def __repr__(self) -> str:
        return f"<Links {list(self._by_address.values())}>"
