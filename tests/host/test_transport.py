"""Links to all nodes: lanes, requests on their way, nodes that come, move and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from krita.codec import encode_body
from krita.errors import Status
from krita.limits import POLLS_IN_FLIGHT_MAX
from krita.operations import Op
from kritad.host import link as link_module
from kritad.host.peer_codec import decode_messages
from kritad.host.request import Request
from kritad.host.transport import ENTRIES, REQUESTS, URGENT, Transport
from kritad.metrics import Metrics
from kritad.raft.messages import Append, Heartbeat, Message, VoteReply
from kritad.raft.types import Entry, EntryKind
from tests.host.clock import VirtualClock
from tests.host.links import US, free_port
from tests.host.lone import Replies
from tests.server.service import MemoryService, Running, Stored, running, until


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_BACKOFF_MIN_S", 0.001)
    monkeypatch.setattr(link_module, "_BACKOFF_MAX_S", 0.01)


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
        for _ in range(POLLS_IN_FLIGHT_MAX + 1):
            transport.ask(1, Op.CHANGES, poll, 1e12, lambda *answer: answers.append(answer))
        await until(lambda: service.held == POLLS_IN_FLIGHT_MAX)
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
