"""A connection that another task closes: who reads or writes is told, whenever it comes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from kritad.stream import SocketStream, connect

_MANY = bytes(8 << 20)  # more than the kernel takes


@pytest.fixture
async def pair() -> AsyncIterator[tuple[SocketStream, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stream = SocketStream(ours, "127.0.0.1")
    yield stream, theirs
    stream.close()
    theirs.close()


Pair = tuple[SocketStream, socket.socket]


async def test_who_waits_is_told_that_it_was_closed(pair: Pair) -> None:
    stream, _ = pair
    async with trio.open_nursery() as nursery:
        for wait in (stream.receive, lambda: stream.send(_MANY)):

            async def told(wait: object = wait) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await wait()  # type: ignore[operator]

            nursery.start_soon(told)
        await trio.testing.wait_all_tasks_blocked()
        stream.close()


async def test_who_comes_after_it_was_closed_is_told_too(pair: Pair) -> None:
    """A link is told to find out who answers while its task has just taken what came."""
    stream, _ = pair
    stream.close()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        await stream.send(b"x")
    stream.close()


async def test_what_is_sent_arrives_however_much_it_is(pair: Pair) -> None:
    stream, theirs = pair
    theirs.setblocking(False)
    arrived = 0

    async def read() -> None:
        nonlocal arrived
        while arrived < len(_MANY):
            await trio.lowlevel.wait_readable(theirs)
            arrived += len(theirs.recv(1 << 20))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await stream.send(_MANY)
    assert arrived == len(_MANY)


@pytest.mark.parametrize("host", ["node2..example.org", f"{'n' * 64}.example.org"])
async def test_a_name_that_cannot_be_asked_for_fails_like_one_that_is_not_there(host: str) -> None:
    """It may stand in the cluster's log, and must not end the node that dials it."""
    with pytest.raises(OSError, match="is no host name"):
        await connect(host, 1)
