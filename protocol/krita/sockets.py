"""The sockets of a blocking client: it runs a dispatcher's errands, and waits for what comes.

All rules are the dispatcher's. When something has interrupted a method here half way, a
socket may be known in one place and not in another: ``close`` is then the only thing to do.
"""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from krita.dial import Dial

if TYPE_CHECKING:
    from krita.dispatch import Dispatcher
    from krita.link import Link

RECEIVE_BYTES = 1 << 16


class Sockets:
    """See the module. One for each dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()  # rung to end a wait; nothing else is sent
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._sockets: dict[Link, socket.socket] = {}
        self._dials: dict[Link, Dial] = {}  # whose sockets are not connected yet
        self._unsent: dict[Link, bytearray] = {}  # what a full socket did not take

    def __repr__(self) -> str:
        return f"<Sockets {len(self._sockets)}, {len(self._dials)} of them not connected yet>"

    def close(self) -> None:
        """Close all of them. Idempotent; the object is of no use afterwards. In a forked process
        the parent's are as they were: descriptors are closed, and nothing is taken out of
        the selector, which the two share."""
        self._selector.close()
        for sock in (self._bell, self._ear, *self._sockets.values()):
            sock.close()
        for dial in self._dials.values():
            dial.close()
        self._sockets, self._dials, self._unsent = {}, {}, {}

    def ring(self) -> None:
        """End the wait of the ``turn`` that there is or, if there is none, of the next. From any
        thread, and from a signal's handler."""
        with suppress(OSError):  # it is full of rings, or closed, and nobody waits
            self._bell.send(b"!")

    def look(self) -> None:
        """Take what has come, without waiting."""
        if self._sockets:
            self._move(0.0)

    def turn(self) -> None:
        """Send what there is to send, then wait until something happens."""
        dispatcher = self._dispatcher
        while dispatcher.links.has_errands:
            self._run_errands()
        due = min([dispatcher.due, *(d.until for d in self._dials.values() if d.has_more)])
        self._move(due - time.monotonic())
        now = time.monotonic()
        for link, dial in list(self._dials.items()):
            if dial.has_more and now >= dial.until:
                self._dial_on(link, dial)
        if now >= dispatcher.due:
            dispatcher.tick(now)

    def _move(self, timeout_s: float) -> None:
        """Wait until some socket is ready, and move its bytes."""
        for key, events in self._selector.select(timeout_s):
            if key.data is None:
                with suppress(BlockingIOError):  # a signal's handler may have heard it
                    self._ear.recv(RECEIVE_BYTES)
                continue
            dial = self._dials.get(key.data)
            if dial is not None:
                self._dialed(key.data, dial)
                continue
            if events & selectors.EVENT_READ:
                self._receive(key.data)
            if events & selectors.EVENT_WRITE and key.data in self._unsent:
                self._send(key.data, b"")

    def _run_errands(self) -> None:
        links = self._dispatcher.links
        for link in links.take_closes():
            self._hang_up(link)
        for link in links.take_dials():
            self._dial(link)
        for link in links.take_sends():
            if link in self._sockets:
                self._send(link, link.take_outgoing())

    def _dial(self, link: Link) -> None:
        now = time.monotonic()
        try:
            dial = self._dials[link] = Dial(link.address, now, link.ready_due)
        except OSError as error:
            self._dispatcher.closed(link, _reason(error), now)
        else:
            self._dial_on(link, dial)

    def _dial_on(self, link: Link, dial: Dial) -> None:
        """To the next address of its name."""
        self._forget_socket(link)
        if not dial.go_on(time.monotonic()):
            del self._dials[link]
            self._dispatcher.closed(link, _reason(dial.problem), time.monotonic())
            return
        assert dial.socket is not None
        self._sockets[link] = dial.socket
        self._selector.register(dial.socket, selectors.EVENT_WRITE, link)

    def _dialed(self, link: Link, dial: Dial) -> None:
        """The attempt has come to an end, good or bad."""
        if not dial.succeeded():
            self._dial_on(link, dial)
            return
        del self._dials[link]
        self._selector.modify(self._sockets[link], selectors.EVENT_READ, link)
        self._dispatcher.dialed(link)

    def _hang_up(self, link: Link) -> None:
        self._unsent.pop(link, None)
        self._dials.pop(link, None)
        sock = self._forget_socket(link)
        if sock is not None:
            sock.close()

    def _forget_socket(self, link: Link) -> socket.socket | None:
        sock = self._sockets.pop(link, None)
        if sock is not None:
            self._selector.unregister(sock)
        return sock

    def _send(self, link: Link, data: bytes) -> None:
        """Send as much as the socket takes and keep the rest for its next time."""
        sock = self._sockets[link]
        unsent = self._unsent.get(link)
        if unsent is not None:
            unsent += data
        try:
            sent = sock.send(data if unsent is None else unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._dispatcher.closed(link, _reason(error), time.monotonic())
            return
        if unsent is not None:
            # Its head is cut off without moving the rest: 256 MiB in pieces of 128 KiB take
            # 0.1 s, and two minutes if each piece makes a copy of what is left.
            del unsent[:sent]
            if not unsent:
                del self._unsent[link]
                self._selector.modify(sock, selectors.EVENT_READ, link)
        elif sent < len(data):
            unsent = self._unsent[link] = bytearray(memoryview(data)[sent:])
            self._selector.modify(sock, selectors.EVENT_READ | selectors.EVENT_WRITE, link)
        else:
            return
        self._dispatcher.wrote(link, sent, len(unsent), time.monotonic())

    def _receive(self, link: Link) -> None:
        sock = self._sockets.get(link)
        if sock is None:
            return
        try:
            data = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._dispatcher.closed(link, _reason(error), time.monotonic())
            return
        if data:
            self._dispatcher.received(link, data, time.monotonic())
        else:
            self._dispatcher.closed(link, "the node closed the connection", time.monotonic())


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
