"""The bytes of the blocking client: what a full socket does not take is sent later, in order."""

from __future__ import annotations

import random
import selectors
import socket

from krita.dispatch import Dispatcher
from krita.sockets import Sockets

BLOCK = bytes(range(256)) * 4096  # a megabyte


def test_what_a_full_socket_leaves_is_not_copied_for_each_piece_that_it_takes() -> None:
    dispatcher = Dispatcher(["a:1"], random.Random(1))
    link = dispatcher.links.dial("a:1", 0.0)
    sockets = Sockets(dispatcher)
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        sockets._sockets[link] = near
        sockets._selector.register(near, selectors.EVENT_READ, link)
        sockets._send(link, BLOCK)
        sockets._send(link, BLOCK)
        unsent = sockets._unsent[link]
        arrived = b""
        while sockets._unsent:
            assert sockets._unsent[link] is unsent
            assert link.unsent_bytes == len(unsent)
            arrived += far.recv(1 << 16)
            sockets.look()
        assert link.unsent_bytes == 0
        assert link.moved_at > 0
        far.setblocking(False)
        while len(arrived) < 2 * len(BLOCK):
            arrived += far.recv(1 << 16)
        assert arrived == 2 * BLOCK
        sockets.close()
