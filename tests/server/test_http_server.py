"""One HTTP connection over a real socket: order, deadlines, ends."""

from __future__ import annotations

import logging
import os
import socket
from typing import NoReturn

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from krita.errors import BadRequest, NoSpace, Outcome, Unavailable
from kritad.server.limits import ServerLimits
from kritad.stream import SocketStream
from tests.server.raw import RawHttp, ask, http, is_alive, request
from tests.server.service import MemoryService, Running, running, until

GET = request("GET", "/a")


async def drip(raw: RawHttp) -> NoReturn:
    """A byte now and then, for ever."""
    while True:
        await raw.send(b"X")
        await trio.sleep(0.5)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with running() as node, http(node) as raw:
        data = b"".join(request("PUT", f"/k{i}", b"value=%d" % i) for i in range(40))
        data += b"".join(request("GET", f"/k{i}") for i in range(40))
        await raw.send(data)
        for i in range(40):
            assert (await raw.answer()).document["key"] == f"k{i}"
        for i in range(40):
            assert (await raw.answer()).document["value"] == str(i)


async def test_a_read_pipelined_behind_a_write_sees_it_although_the_write_takes_its_time() -> None:
    async with running() as node, http(node) as raw:
        node.service.hold()
        await raw.send(request("PUT", "/a", b"value=1") + GET + GET)
        await until(lambda: node.service.held == 1)
        assert node.service.submitted == 1, "the read did not wait for the write"
        node.service.release()
        assert (await raw.answer()).code == 200
        assert (await raw.answer()).document["value"] == "1"
        assert (await raw.answer()).document["value"] == "1"


async def test_a_write_pipelined_behind_a_read_waits_for_it() -> None:
    async with running() as node, http(node) as raw:
        node.service.hold()
        await raw.send(GET + request("PUT", "/a", b"value=1"))
        await until(lambda: node.service.held == 1)
        await wait_all_tasks_blocked()
        assert node.service.submitted == 1
        node.service.release()
        assert (await raw.answer()).code == 404
        assert (await raw.answer()).code == 200


async def test_pipelined_reads_are_served_side_by_side() -> None:
    async with running() as node, http(node) as raw:
        node.service.hold()
        await raw.send(GET * 3)
        await until(lambda: node.service.held == 3)
        node.service.release()
        for _ in range(3):
            assert (await raw.answer()).code == 404


async def test_what_was_whole_is_answered_before_the_refusal_and_then_the_server_closes() -> None:
    async with running() as node, http(node) as raw:
        await raw.send(GET + b"GET /b HTTP/1.1\r\n\r\n" + request("PUT", "/smuggled", b"value=1"))
        assert (await raw.answer()).code == 404
        refused = await raw.answer()
        assert refused.code == 400
        assert refused.headers["connection"] == "close"
        assert refused.document["outcome"] == "not applied"
        assert await raw.rest() == b""
        assert b"smuggled" not in node.service.rows
        assert await is_alive(node)


async def test_head_is_answered_with_the_length_and_without_the_body() -> None:
    async with running() as node, http(node) as raw:
        await raw.send(request("PUT", "/a", b"value=1") + GET)
        await raw.answer()
        get = await raw.answer()
        await raw.send(request("HEAD", "/a") + GET)
        head = await raw.answer(to_head=True)
        assert head.headers["content-length"] == str(len(get.body))
        assert (await raw.answer()).body == get.body


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"HEAD /a HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
        (b"HEAD /a HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"HEAD /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"HEAD ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ],
)
async def test_the_refusal_of_a_head_has_no_body_either(head: bytes, code: int) -> None:
    async with running() as node, http(node) as raw:
        await raw.send(GET + head)
        await raw.answer()
        refused = await raw.answer(to_head=True)
        assert refused.code == code
        assert await raw.rest() == b""


async def test_what_is_no_request_behind_a_head_is_told_so_in_words() -> None:
    async with running() as node, http(node) as raw:
        await raw.send(request("HEAD", "/a") + b"\x80\r\n")
        await raw.answer(to_head=True)
        assert (await raw.answer()).document["message"] == "this is not an HTTP request"


async def test_a_client_that_asks_first_is_told_to_continue() -> None:
    async with running() as node, http(node) as raw:
        head = b"PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\r\n"
        await raw.send(head)
        assert (await raw.answer()).code == 100
        await raw.send(b"value=1")
        assert (await raw.answer()).code == 200


async def test_a_client_that_asks_first_with_too_much_is_refused_at_once() -> None:
    async with running(ServerLimits(value_bytes_max=10)) as node, http(node) as raw:
        head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nExpect: 100-continue\r\n"
        await raw.send(head + b"Content-Length: 11\r\n\r\n")
        refused = await raw.answer()
        assert refused.code == 413
        assert "value_bytes_max" in str(refused.document["message"])
        assert await raw.rest() == b""


async def test_the_refusal_of_a_large_body_arrives_although_the_client_goes_on_sending() -> None:
    async with running(ServerLimits(value_bytes_max=1000)) as node, http(node) as raw:
        head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\n"
        await raw.send(head + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        assert (await raw.answer()).code == 413
        assert await is_alive(node)


async def test_large_bodies_on_their_way_are_bounded_together_and_keep_out_no_small_one() -> None:
    limits = ServerLimits(bodies_bytes_max=1500, body_free_bytes=100)
    head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1200\r\n\r\n"
    async with running(limits) as node, http(node) as first:
        await first.send(head + b"x" * 1100)
        async with http(node) as second:
            await until(lambda: node.server.bodies_left == 500)
            await second.send(head + b"x" * 700)
            refused = await second.answer()
            assert (refused.code, refused.document["code"]) == (503, "busy")
            assert (refused.document["outcome"], "retry-after" in refused.headers) == (
                "not applied",
                True,
            )
        assert await is_alive(node)
        await first.send(b"x" * 100)
        assert (await first.answer()).code == 201
        async with http(node) as third:
            await third.send(head + b"x" * 1199)
            await until(lambda: node.server.bodies_left < 1500)
        await until(lambda: node.server.bodies_left == 1500)


async def test_http_1_0_is_closed_after_the_answer_unless_it_asks_otherwise() -> None:
    async with running() as node:
        async with http(node) as raw:
            await raw.send(b"GET /a HTTP/1.0\r\n\r\n")
            assert (await raw.answer()).headers["connection"] == "close"
            assert await raw.rest() == b""
        async with http(node) as raw:
            for _ in range(2):
                await raw.send(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert (await raw.answer()).headers["connection"] == "keep-alive"


async def test_a_person_at_a_telnet_prompt_is_served(quick_clock: MockClock) -> None:
    async with running() as node:
        await ask(node, request("PUT", "/a", b"value=typed"))
        async with http(node) as raw:
            for line in (b"GET /key?value=a HTTP/1.0\r\n", b"X-Mood: patient\r\n", b"\r\n"):
                await trio.sleep(9)
                await raw.send(line)
            assert (await raw.answer()).document["value"] == "typed"
        assert quick_clock.current_time() >= 27


@pytest.mark.parametrize(
    ("sent", "answers", "late_s"),
    [
        (b"GET /a HT", 0, 30),
        (GET + b"GET /a HT", 1, 5),
        (request("PUT", "/a", b"value=1")[:-1], 0, 30),
        (GET + request("PUT", "/a", b"value=1")[:-1], 1, 30),
    ],
    ids=["the first head", "a later head", "a body", "a later body"],
)
async def test_what_does_not_arrive_in_time_is_answered_408(
    sent: bytes, answers: int, late_s: float, quick_clock: MockClock
) -> None:
    async with running() as node, http(node) as raw:
        await raw.send(sent)
        for _ in range(answers):
            assert (await raw.answer()).code == 404
        since = quick_clock.current_time()
        assert (await raw.answer()).code == 408
        assert late_s - 0.3 < quick_clock.current_time() - since < late_s + 0.5
        assert await raw.rest() == b""
        assert node.service.rows == {}


@pytest.mark.parametrize("before", [b"", GET], ids=["the first", "a later"])
async def test_a_head_that_drips_is_cut_at_its_absolute_deadline(
    before: bytes, quick_clock: MockClock
) -> None:
    async with running() as node, http(node) as raw:
        if before:
            await raw.send(before)
            await raw.answer()
        since = quick_clock.current_time()
        with pytest.raises(trio.BrokenResourceError):
            await drip(raw)
        assert quick_clock.current_time() - since < (8 if before else 33)
        assert await is_alive(node)


@pytest.mark.parametrize(
    ("sent", "idle_s"), [(b"", 30), (GET, 60)], ids=["a silent connection", "an idle one"]
)
async def test_a_connection_that_asks_nothing_is_closed_without_a_word(
    sent: bytes, idle_s: float, quick_clock: MockClock
) -> None:
    async with running() as node, http(node) as raw:
        if sent:
            await raw.send(sent)
            await raw.answer()
        since = quick_clock.current_time()
        assert await raw.rest() == b""
        assert idle_s - 0.3 < quick_clock.current_time() - since < idle_s + 0.5


async def test_a_client_that_does_not_take_its_answer_is_closed(quick_clock: MockClock) -> None:
    async with running() as node, http(node) as raw:
        put = request("PUT", "/v1/kv/a", b"x" * 1_000_000, {"Content-Type": "a/b"})
        await raw.send(put)
        assert (await raw.answer()).code == 201
        since = quick_clock.current_time()
        await raw.send(request("GET", "/v1/kv/a") * 30)
        await node.until_quiet()
        assert 29 < quick_clock.current_time() - since < 33
        assert await is_alive(node)


def answering_at_length(service: MemoryService) -> None:
    """Every write fails, with an answer that no socket takes at once."""
    service.fail_with = Unavailable("x" * 12_000_000)


async def small_buffers(node: Running) -> RawHttp:
    """A connection that takes little at a time."""
    connected = trio.socket.socket()
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await connected.connect(("127.0.0.1", node.port))
    return RawHttp(trio.SocketStream(connected))


async def send_a_held_write(node: Running, raw: RawHttp) -> None:
    """A write that is answered when the service is released."""
    node.service.hold()
    await raw.send(request("PUT", "/a", b"value=1"))
    await until(lambda: node.service.held == 1)


async def test_a_long_answer_to_a_write_is_whole_and_the_connection_goes_on() -> None:
    async with running() as node:
        raw = await small_buffers(node)
        async with raw.stream:
            answering_at_length(node.service)
            await send_a_held_write(node, raw)
            node.service.release()  # the task reads meanwhile
            assert len((await raw.answer()).body) > 12_000_000
            node.service.fail_with = None
            await raw.send(GET)
            assert (await raw.answer()).code == 404


async def test_what_is_asked_while_an_answer_does_not_fit_is_answered_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = SocketStream.send_now
    monkeypatch.setattr(SocketStream, "send_now", lambda self, data: taken(self, data[:100]))
    async with running() as node, http(node) as raw:
        for _ in range(20):  # the task wakes for the request, or for the answer: both happen
            await send_a_held_write(node, raw)
            os.write(raw.stream.socket.fileno(), GET)
            await trio.lowlevel.checkpoint()
            node.service.release()
            assert (await raw.answer()).code == 200
            assert (await raw.answer()).document["value"] == "1"


async def test_a_client_that_does_not_take_a_long_answer_to_a_write_is_closed(
    quick_clock: MockClock,
) -> None:
    async with running() as node:
        raw = await small_buffers(node)
        async with raw.stream:
            answering_at_length(node.service)
            await send_a_held_write(node, raw)
            since = quick_clock.current_time()
            node.service.release()
            await node.until_quiet()
            assert 29 < quick_clock.current_time() - since < 33


async def test_a_server_that_stops_while_an_answer_is_taken_closes_behind_it() -> None:
    async with running() as node, trio.open_nursery() as nursery:
        raw = await small_buffers(node)
        async with raw.stream:
            answering_at_length(node.service)
            await send_a_held_write(node, raw)
            node.service.release()
            await wait_all_tasks_blocked()  # the rest of it waits for the client
            nursery.start_soon(node.server.drain, 100)
            assert len((await raw.answer()).body) > 12_000_000
            assert await raw.rest() == b""


async def test_answers_that_were_gathered_leave_before_all_are_there() -> None:
    async with running() as node, http(node) as raw:
        await raw.send(request("PUT", "/v1/kv/a", b"x" * 500_000, {"Content-Type": "a/b"}))
        assert (await raw.answer()).code == 201
        node.service.hold()
        await raw.send(request("GET", "/v1/kv/a") * 3)
        await until(lambda: node.service.held == 3)
        node.service.release_one()
        assert len((await raw.answer()).body) == 500_000, "the others are not answered yet"
        node.service.release()


async def test_a_bug_in_the_database_is_a_500_with_a_trace_and_the_server_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        node.service.bug = ZeroDivisionError("planted")
        with caplog.at_level(logging.ERROR):
            answer = await ask(node, request("PUT", "/a", b"value=1"))
        assert answer.code == 500
        assert answer.document["outcome"] == "unknown"
        trace = str(answer.document["message"]).split("trace ")[1].rstrip(")")
        assert trace in caplog.text
        assert "planted" in caplog.text
        assert "planted" not in str(answer.document)
        node.service.bug = None
        node.service.malformed_replies = True
        assert (await ask(node, GET)).code == 500
        node.service.malformed_replies = False
        assert await is_alive(node)


async def test_an_error_whose_words_cannot_be_told_is_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        untold = BadRequest("\ud800")
        for node.service.bug, node.service.fail_with in ((untold, None), (None, untold)):
            answer = await ask(node, request("PUT", "/a", b"value=1"))
            assert (answer.code, answer.document["outcome"]) == (500, "unknown")
            assert "surrogates not allowed" in caplog.text
            caplog.clear()


async def test_nothing_follows_an_answer_that_says_close_not_even_a_refusal() -> None:
    async with running() as node, http(node) as raw:
        node.service.bug = ZeroDivisionError("planted")
        await raw.send(request("PUT", "/a", b"value=1") + GET + b"nonsense\r\n\r\n")
        answer = await raw.answer()
        assert (answer.code, answer.headers["connection"]) == (500, "close")
        assert await raw.rest() == b""
        assert node.service.submitted == 1


async def test_a_write_that_surely_failed_is_503_and_one_that_may_not_have_is_504() -> None:
    async with running() as node:
        node.service.fail_with = Unavailable("no leader")
        answer = await ask(node, request("PUT", "/a", b"value=1"))
        assert answer.code == 503
        assert answer.headers["krita-outcome"] == "not-applied"
        assert "retry-after" in answer.headers
        node.service.fail_with = Unavailable("no leader any more", outcome=Outcome.UNKNOWN)
        answer = await ask(node, request("PUT", "/a", b"value=1"))
        assert answer.code == 504
        assert answer.headers["krita-outcome"] == "unknown"
        assert "retry-after" not in answer.headers
        node.service.fail_with = NoSpace("below disk_reserve_bytes", hint="make room")
        answer = await ask(node, request("PUT", "/a", b"value=1"))
        assert answer.code == 507
        assert answer.document["hint"] == "make room"


async def test_a_client_that_goes_away_while_it_waits_leaves_nothing_behind() -> None:
    async with running() as node:
        async with http(node) as raw:
            node.service.hold()
            await raw.send(request("PUT", "/a", b"value=1"))
            await until(lambda: node.service.held == 1)
        node.service.release()
        await node.until_quiet()
        assert await is_alive(node)
