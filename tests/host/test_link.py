"""Links and the transport, against a real server on the loopback interface."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from krita.address import Address
from krita.codec import encode_body
from krita.errors import Foreign, KritaError, Status, Unauthenticated
from krita.hello import Identity
from krita.operations import Op
from kritad.host import link as link_module
from kritad.host.link import Link, dial, peer_hello
from kritad.host.transport import REQUESTS, URGENT
from kritad.stream import Stream
from tests.host.links import US, Answers, fixed_port, free_port, goodbye, listen
from tests.server.service import CLUSTER, MemoryService, Running, running, until


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(link_module, "_BACKOFF_MAX_S", 0.01)


def make_link(
    port: int,
    service: MemoryService,
    *,
    node: int = 1,
    us: Identity = US,
    queue_bytes_max: int = 1 << 20,
    expelled: list[Exception] | None = None,
) -> Link:
    return Link(
        node,
        REQUESTS,
        Address("127.0.0.1", port),
        identity=us,
        peer_key=service.access.peer_key,
        queue_bytes_max=queue_bytes_max,
        silence_max_ms=1000,
        on_expelled=([] if expelled is None else expelled).append,
    )


@asynccontextmanager
async def linked(service: MemoryService | None = None) -> AsyncIterator[tuple[Link, Running]]:
    """A link that is up, and the server it is connected to."""
    async with running(service=service) as server, trio.open_nursery() as nursery:
        link = make_link(server.port, server.service)
        nursery.start_soon(link.run)
        await until(lambda: link.connected)
        yield link, server
        nursery.cancel_scope.cancel()


def ping(link: Link, answers: Answers) -> bool:
    return link.request(Op.PING, encode_body(Op.PING), 1000, 0, answers)


async def test_a_link_that_is_down_refuses_at_once() -> None:
    link, answers = make_link(free_port(), MemoryService()), Answers()
    assert not link.send(Op.RAFT, b"\x80")
    assert not ping(link, answers)
    assert answers.all == []
    assert "down (not tried)" in repr(link)


async def test_a_request_is_answered() -> None:
    async with linked() as (link, _):
        answers = Answers()
        assert ping(link, answers)
        await until(lambda: bool(answers.all))
        assert answers.all == [(Status.OK, [1, CLUSTER, "test", 0])]
        assert "up, 0 bytes queued, 0 in flight" in repr(link)


async def test_a_link_that_is_to_find_out_who_answers_is_dialled_anew() -> None:
    async with linked() as (link, server):
        first = link.attempts
        assert link.other == server.service.identity
        link.redial()
        # Between two connections there is a moment in which nobody is known.
        await until(lambda: link.attempts > first and link.other == server.service.identity)
        server.service.identity = attrs.evolve(server.service.identity, boot_counter=99)
        link.redial()
        await until(lambda: link.other == server.service.identity)


async def test_an_attempt_that_fails_is_an_attempt_and_nobody_answers_then() -> None:
    link = make_link(free_port(), MemoryService())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        await until(lambda: link.attempts >= 2)
        assert link.other is None
        nursery.cancel_scope.cancel()


async def test_one_way_frames_arrive_in_order_and_whole() -> None:
    async with linked() as (link, server):
        bodies = [b"%d" % n * 500 for n in range(300)]
        for body in bodies:
            assert link.send(Op.RAFT, body)
        await until(lambda: len(server.service.delivered) == len(bodies))
        assert [body for _, _, body in server.service.delivered] == bodies
        assert server.service.delivered[0][0].node == US.node


async def test_a_lost_connection_answers_everything_in_flight_once() -> None:
    service = MemoryService()
    service.hold()
    answers = Answers()
    async with linked(service) as (link, server):
        for _ in range(3):
            ping(link, answers)
        await until(lambda: service.held == 3)
    # The server is gone, and with it the link's task.
    assert answers.all == [(None, None)] * 3
    assert not link.connected
    assert server.service is service


async def test_a_link_that_is_given_up_answers_what_was_in_flight() -> None:
    service = MemoryService()
    service.hold()
    answers = Answers()
    async with running(service=service) as server:
        link = make_link(server.port, service)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            await until(lambda: link.connected)
            ping(link, answers)
            await until(lambda: service.held == 1)
            nursery.cancel_scope.cancel()
    assert answers.all == [(None, None)]


async def test_a_server_that_comes_back_is_found_again() -> None:
    service = MemoryService()
    port = free_port()
    link = make_link(port, service)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        for _ in range(3):
            async with fixed_port(service, port):
                await until(lambda: link.connected)
            await until(lambda: not link.connected)
        nursery.cancel_scope.cancel()


async def test_a_peer_that_resets_the_connection_during_the_handshake_is_tried_again() -> None:
    tries = 0

    async def reset(stream: trio.SocketStream) -> None:
        nonlocal tries
        tries += 1
        # Unread bytes and no lingering make the close a reset.
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await stream.aclose()

    port = free_port()
    link = make_link(port, MemoryService())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, reset, port)
        nursery.start_soon(link.run)
        await until(lambda: tries >= 3)
        assert not link.connected
        nursery.cancel_scope.cancel()


async def test_a_peer_that_talks_nonsense_is_tried_again() -> None:
    tries = 0

    async def nonsense(stream: trio.SocketStream) -> None:
        nonlocal tries
        tries += 1
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await stream.aclose()

    port = free_port()
    link = make_link(port, MemoryService())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, nonsense, port)
        nursery.start_soon(link.run)
        await until(lambda: tries >= 3)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "us",
    [
        pytest.param(attrs.evolve(US, cluster_id=b"?" * 16), id="of another cluster"),
        pytest.param(US, id="that takes us for another node than it is"),
    ],
)
async def test_a_foreign_node_is_refused(us: Identity, caplog: pytest.LogCaptureFixture) -> None:
    async with running() as server, trio.open_nursery() as nursery:
        wrong = 1 if us is not US else 7
        link = make_link(server.port, server.service, node=wrong, us=us)
        with caplog.at_level(logging.INFO):
            nursery.start_soon(link.run)
            await until(lambda: "cluster" in caplog.text)
        assert not link.connected
        nursery.cancel_scope.cancel()


async def test_a_node_with_another_token_is_refused() -> None:
    async with running() as server:
        with pytest.raises(KritaError) as caught:
            await dial(Address("127.0.0.1", server.port), peer_hello(US, URGENT), b"?" * 32)
        assert isinstance(caught.value, Unauthenticated | Foreign)


async def test_being_shown_the_door_behind_the_welcome_is_told_and_does_not_count_as_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = MemoryService()
    service.turn_away = Foreign("your disk was rolled back")
    expelled: list[Exception] = []
    async with running(service=service) as server, trio.open_nursery() as nursery:
        link = make_link(server.port, service, expelled=expelled)
        with caplog.at_level(logging.INFO):
            nursery.start_soon(link.run)
            await until(lambda: len(expelled) >= 5)
        assert not ping(link, Answers())
        nursery.cancel_scope.cancel()
    said = [record for record in caplog.records if "rolled back" in record.getMessage()]
    assert len(said) == 1, "it is logged again at every try"


async def test_a_connection_that_does_not_last_does_not_reset_the_back_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "_BACKOFF_MAX_S", 100.0)
    pauses: list[float] = []
    sleep = trio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    service = MemoryService()
    async with running(service=service) as server, trio.open_nursery() as nursery:
        link = make_link(server.port, service)

        async def ends_at_once(stream: Stream) -> None:
            stream.close()

        monkeypatch.setattr(link, "_serve", ends_at_once)
        monkeypatch.setattr(trio, "sleep", noted)
        nursery.start_soon(link.run)
        while len(pauses) < 8:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert pauses[7] > 10 * pauses[0]


async def test_a_full_queue_refuses_and_what_was_taken_arrives() -> None:
    service = MemoryService()
    async with running(service=service) as server, trio.open_nursery() as nursery:
        link = make_link(server.port, service, queue_bytes_max=100_000)
        nursery.start_soon(link.run)
        await until(lambda: link.connected)
        # Without a checkpoint between them nothing is read on the other side.
        sent = 0
        while link.send(Op.RAFT, b"x" * 50_000):
            sent += 1
            assert sent < 10_000, "the queue has no end"
        answers = Answers()
        assert not ping(link, answers)
        assert answers.all == []
        await until(lambda: len(service.delivered) == sent)
        assert link.send(Op.RAFT, b"x")
        nursery.cancel_scope.cancel()


async def test_a_goodbye_ends_the_connection_before_anything_more_is_asked() -> None:
    service = MemoryService()
    async with linked(service) as (link, server):
        service.delivered.clear()
        link.send(Op.RAFT, b"last")
        await until(lambda: bool(service.delivered))
        assert link._connection is not None
        link._connection.receive_data(goodbye())
        assert not ping(link, Answers()), "a request on a connection that has ended"
        assert server.service is service


# --- the transport -----------------------------------------------------------------------
