"""Links and the transport, against a real server on the loopback interface."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from krita.address import Address
from krita.codec import encode, encode_body
from krita.errors import Foreign, KritaError, Status, Unauthenticated, Unavailable, to_wire
from krita.framing import pack_frame
from krita.handshake import Identity
from krita.limits import REQUESTS_IN_FLIGHT_MAX
from krita.operations import Op
from kritad.host import link as link_module
from kritad.host.link import Link, dial, peer_hello
from kritad.host.peer_codec import decode_messages
from kritad.host.request import Request
from kritad.host.transport import ENTRIES, REQUESTS, URGENT, Transport
from kritad.metrics import Metrics
from kritad.raft.messages import Append, Heartbeat, Message, VoteReply
from kritad.raft.types import Entry, EntryKind
from kritad.server.limits import ServerLimits
from kritad.server.listener import Server, bind
from kritad.stream import Stream
from tests.host.clock import VirtualClock
from tests.host.lone import Replies
from tests.server.service import CLUSTER, MemoryService, Running, Stored, running, until

US = Identity(CLUSTER, 2, b"u" * 16, 1, "127.0.0.1:1")


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(link_module, "_BACKOFF_MAX_S", 0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.define
class Answers:
    """What became of requests."""

    all: list[tuple[int | None, object]] = attrs.field(factory=list)

    def __call__(self, status: int | None, body: object) -> None:
        self.all.append((status, body))


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


@asynccontextmanager
async def fixed_port(service: MemoryService, port: int) -> AsyncIterator[None]:
    service.metrics = Metrics()  # a server registers its own
    server = Server(service, service.access, bind("127.0.0.1", port), ServerLimits())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield
        nursery.cancel_scope.cancel()


async def listen(handler: Callable[[trio.SocketStream], object], port: int) -> None:
    await trio.serve_tcp(handler, port, host="127.0.0.1")  # type: ignore[arg-type]


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


def goodbye() -> bytes:
    error = Unavailable("this node is stopping")
    return pack_frame(encode([0, int(error.status), to_wire(error)]))


# --- the transport -----------------------------------------------------------------------


def make_transport(service: MemoryService) -> Transport:
    return Transport(US, service.access.peer_key, VirtualClock(), silence_max_ms=1000)


@asynccontextmanager
async def transporting(service: MemoryService) -> AsyncIterator[tuple[Transport, Running]]:
    """A transport that knows node 1 and is connected to it."""
    async with running(service=service) as server, trio.open_nursery() as nursery:
        transport = make_transport(service)
        nursery.start_soon(transport.run)
        transport.set_peers({1: f"127.0.0.1:{server.port}", US.node: US.address})
        await until(lambda: all(link.connected for link in transport.peers[1].links.values()))
        yield transport, server
        nursery.cancel_scope.cancel()


def heartbeat() -> Heartbeat:
    return Heartbeat(1, 2, 1, 3, 4, 5)


def append(size: int = 10) -> Append:
    return Append(1, 2, 1, 3, 0, 0, 0, 0, [Entry(1, 3, EntryKind.COMMAND, b"x" * size)])


async def test_a_turns_messages_for_a_node_all_arrive() -> None:
    service = MemoryService()
    sent: list[Message] = [heartbeat(), append(), VoteReply(1, 2, 1, 3, True)]
    async with transporting(service) as (transport, _):
        assert transport.send(1, sent)
        await until(lambda: bool(service.delivered))
        arrived = [m for _, _, body in service.delivered for m in decode_messages(body)]
        assert sorted(map(repr, arrived)) == sorted(map(repr, sent))


async def test_heartbeats_do_not_wait_behind_a_backlog_of_entries() -> None:
    service = MemoryService()
    async with transporting(service) as (transport, _):
        links = transport.peers[1].links
        while links[ENTRIES].idle:
            transport.send(1, [append(1 << 20)])
        transport.send(1, [append(1 << 20), heartbeat()])
        assert links[URGENT].idle, "the heartbeat is in a queue"
        await until(lambda: any(m == heartbeat() for m in messages_of(service)))


def messages_of(service: MemoryService) -> list[Message]:
    return [m for _, op, body in service.delivered if op == Op.RAFT for m in decode_messages(body)]


async def test_heartbeats_get_through_while_the_lane_of_entries_is_down() -> None:
    service = MemoryService()
    async with transporting(service) as (transport, _):
        transport.peers[1].links[ENTRIES].connected = False
        transport.send(1, [append(), heartbeat()])
        await until(lambda: bool(service.delivered))
        assert messages_of(service) == [heartbeat()]
        assert transport.frames_dropped == 1


async def test_messages_for_a_node_that_is_not_known_are_refused() -> None:
    assert not make_transport(MemoryService()).send(9, [heartbeat()])


async def test_a_request_to_a_node_that_is_not_there_was_not_sent() -> None:
    transport = make_transport(MemoryService())
    answers: list[tuple[int | None, object, bool]] = []
    request = Request(Op.GET, encode_body(Op.GET, b"k"), b"k", 1, Replies(), 1e12)
    transport.request(9, request, lambda *answer: answers.append(answer))
    assert answers == [(None, None, False)]


async def test_a_forwarded_request_says_so_and_brings_its_time_left() -> None:
    service = MemoryService()
    service.rows[b"k"] = Stored(b"value", 7, None)
    async with transporting(service) as (transport, _):
        answers: list[tuple[int | None, object, bool]] = []
        deadline_ms = VirtualClock().monotonic_ms() + 1234
        request = Request(Op.GET, encode_body(Op.GET, b"k"), b"k", 1, Replies(), deadline_ms)
        transport.request(1, request, lambda *answer: answers.append(answer))
        await until(lambda: bool(answers))
        status, body, sent = answers[0]
        assert (status, sent) == (Status.OK, True)
        assert isinstance(body, list)
        assert body[0] == b"value"
        assert service.options == (1234, 1)


async def test_a_request_does_not_wait_behind_polls_that_wait_for_changes() -> None:
    service = MemoryService()
    async with transporting(service) as (transport, _):
        service.hold()
        answers: list[tuple[int | None, object, bool]] = []
        poll = encode_body(Op.CHANGES, 1, 5)
        for _ in range(REQUESTS_IN_FLIGHT_MAX + 1):
            transport.ask(1, Op.CHANGES, poll, 1e12, lambda *answer: answers.append(answer))
        await until(lambda: service.held == REQUESTS_IN_FLIGHT_MAX)
        polls = service.take_held()
        transport.ask(1, Op.PING, b"\x80", 1e12, lambda *answer: answers.append(answer))
        await until(lambda: bool(answers))
        assert answers[0][0] == Status.OK
        for answer in polls:
            answer()


async def test_a_request_that_is_too_large_for_the_peer_is_answered_so() -> None:
    service = MemoryService()
    async with transporting(service) as (transport, _):
        connection = transport.peers[1].links[REQUESTS]._connection
        assert connection is not None
        connection.frame_bytes_max = 100
        answers: list[tuple[int | None, object, bool]] = []
        transport.ask(1, Op.GET, b"x" * 200, 1e12, lambda *answer: answers.append(answer))
        assert answers[0][0] == Status.TOO_LARGE


async def test_links_follow_a_node_that_has_moved_and_keep_one_that_an_older_view_lacks() -> None:
    service = MemoryService()
    async with transporting(service) as (transport, _), fixed_elsewhere(service) as port:
        old = transport.peers[1].links[URGENT]
        transport.set_peers({1: f"127.0.0.1:{port}"})
        assert transport.address_of(1) == f"127.0.0.1:{port}"
        await until(lambda: not old.connected and transport.peers[1].connected)
        assert transport.reachable() == {1, US.node}
        transport.set_peers({})
        assert transport.peers[1].connected
        assert transport.address_of(US.node) == US.address


async def test_a_node_that_is_forgotten_is_dialled_no_more() -> None:
    """Nobody is there: a link tries for ever, until it is told that nobody will be."""
    transport = make_transport(MemoryService())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run)
        transport.set_peers({1: f"127.0.0.1:{free_port()}", 3: f"127.0.0.1:{free_port()}"})
        link = transport.peers[1].links[URGENT]
        await until(lambda: link.attempts >= 2)
        tasks = transport._nursery
        assert tasks is not None
        assert len(tasks.child_tasks) == 2
        transport.forget(1)
        await until(lambda: len(tasks.child_tasks) == 1)
        assert set(transport.peers) == {3}
        transport.forget(1)  # and again
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def fixed_elsewhere(service: MemoryService) -> AsyncIterator[int]:
    service.metrics = Metrics()
    async with running(service=service) as server:
        yield server.port


async def test_an_address_that_cannot_be_parsed_costs_that_node_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = make_transport(MemoryService())
    transport.set_peers({5: "not an address", 6: "n6:8080"})
    assert set(transport.peers) == {6}
    assert "node 5 cannot be reached" in caplog.text


async def test_a_node_that_is_learnt_of_while_everything_stops_does_no_harm() -> None:
    transport = make_transport(MemoryService())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    transport.learn(9, "127.0.0.1:1")
    assert 9 in transport.peers
