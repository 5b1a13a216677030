"""The poller: what arrives on a socket reaches whoever takes it, once and in order."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kritad.poller import Poller
from kritad.stream import SocketStream


@pytest.fixture
def ends() -> Iterator[list[socket.socket]]:
    """Two pairs of connected sockets: a, its other side, b, its other side."""
    made = [*socket.socketpair(), *socket.socketpair()]
    for end in made:
        end.setblocking(False)
    yield made
    for end in made:
        end.close()


def _never(data: bytes) -> bool:
    raise AssertionError(f"{data!r} was given to be taken")


async def test_pieces_are_taken_until_one_is_too_many(ends: list[socket.socket]) -> None:
    stream = SocketStream(ends[0], "127.0.0.1")
    taken: list[bytes] = []
    returned: list[bytes] = []

    def take(data: bytes) -> bool:
        taken.append(data)
        return data != b"stop"

    async def attend() -> None:
        returned.append(await stream.receive_each(take))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend)
        for piece in (b"one", b"two", b"stop"):
            await wait_all_tasks_blocked()
            assert not returned
            ends[1].send(piece)
            with trio.fail_after(5):
                while taken[-1:] != [piece]:
                    await trio.lowlevel.checkpoint()
    assert taken == [b"one", b"two", b"stop"]
    assert returned == [b"stop"]


async def test_the_end_is_returned_and_not_given_to_take(ends: list[socket.socket]) -> None:
    stream = SocketStream(ends[0], "127.0.0.1")
    ends[1].shutdown(socket.SHUT_WR)
    with trio.fail_after(5):
        assert await stream.receive_each(_never) == b""


async def test_what_taking_raises_is_raised_where_it_is_waited_for(
    ends: list[socket.socket],
) -> None:
    """And the poller goes on: others are served afterwards."""
    a, b = SocketStream(ends[0], "127.0.0.1"), SocketStream(ends[2], "127.0.0.1")

    def take(_: bytes) -> bool:
        raise ValueError("no good")

    ends[1].send(b"anything")
    ends[3].send(b"else")
    with trio.fail_after(5):
        with pytest.raises(ValueError, match="no good"):
            await a.receive_each(take)
        assert await b.receive() == b"else"


async def test_what_arrives_while_nobody_waits_is_there_for_the_next(
    ends: list[socket.socket],
) -> None:
    """It is left in the socket, which is disarmed: else every round would find it."""
    stream = SocketStream(ends[0], "127.0.0.1")
    with trio.fail_after(5):
        ends[1].send(b"first")
        assert await stream.receive() == b"first"
        ends[1].send(b"second")
        poller = Poller.present()
        while "0 sockets armed" not in repr(poller):
            await trio.lowlevel.checkpoint()
        assert await stream.receive() == b"second"


async def test_a_wait_that_is_cancelled_takes_nothing(ends: list[socket.socket]) -> None:
    stream = SocketStream(ends[0], "127.0.0.1")
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.receive_each(_never)
    assert scope.cancelled_caught
    ends[1].send(b"later")
    with trio.fail_after(5):
        assert await stream.receive() == b"later"


async def test_closing_ends_the_wait(ends: list[socket.socket]) -> None:
    stream = SocketStream(ends[0], "127.0.0.1")
    ended = trio.Event()

    async def attend() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(attend)
        await wait_all_tasks_blocked()
        stream.close()
        with trio.fail_after(5):
            await ended.wait()
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive()


async def test_taking_may_close_another_socket_that_has_something_too(
    ends: list[socket.socket],
) -> None:
    """Both are in the same round; whichever is first closes the other."""
    streams = [SocketStream(ends[0], "127.0.0.1"), SocketStream(ends[2], "127.0.0.1")]
    taken: list[int] = []
    closed: list[int] = []

    async def attend(number: int) -> None:
        def take(_: bytes) -> bool:
            taken.append(number)
            streams[1 - number].close()
            return False

        try:
            await streams[number].receive_each(take)
        except trio.ClosedResourceError:
            closed.append(number)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attend, 0)
            nursery.start_soon(attend, 1)
            await wait_all_tasks_blocked()
            ends[1].send(b"for one")
            ends[3].send(b"for the other")
    assert len(taken) == 1
    assert closed == [1 - taken[0]]
