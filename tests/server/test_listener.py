"""The one port: two protocols, and what must not end the server."""

from __future__ import annotations

import errno
import socket
import struct
import types

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from krita.operations import Op
from kritad.server import http_answers
from kritad.server.limits import ServerLimits, fit_descriptors
from kritad.server.listener import bind
from tests.server.raw import ask, cbor, http, is_alive, request
from tests.server.service import running, until


async def test_both_protocols_are_served_on_one_port() -> None:
    async with running() as node, cbor(node) as raw:
        assert (await raw.request(Op.PING)).status == 0
        assert await is_alive(node)


async def test_a_tls_client_is_closed_at_once_and_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        async with await node.connect() as stream:
            await stream.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            assert await stream.receive_some() == b""
        assert caplog.text == ""
        assert await is_alive(node)


async def test_a_magic_that_comes_byte_by_byte_is_recognised() -> None:
    async with running() as node, await node.connect() as stream:
        for byte in b"\x00KRITA\x02":
            await stream.send_all(bytes([byte]))
            await wait_all_tasks_blocked(0.002)
        assert await stream.receive_some() != b"", "it was not answered as the binary protocol"


async def test_a_client_that_resets_its_connection_ends_only_that(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        for sent in (b"", b"GET /a HT", b"\x00KRITA", request("GET", "/a")):
            stream = await node.connect()
            await stream.send_all(sent)
            # Closing with linger 0 sends a reset.
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        await node.until_quiet()
        assert caplog.text == ""
        assert await is_alive(node)


async def test_running_out_of_descriptors_is_survived(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 2
    accept = socket.socket.accept

    def failing(listening: socket.socket) -> tuple[socket.socket, object]:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", failing)
    async with running() as node:
        assert await is_alive(node)
        assert failures == 0
        assert "Too many open files" in caplog.text
        counted = 'krita_connections_refused_total{reason="descriptors"} 2'
        assert counted in node.service.metrics.render()


async def test_an_http_client_too_many_is_told_so_and_the_next_is_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_answers, "time", types.SimpleNamespace(time=lambda: 1e9))
    async with running(ServerLimits(connections_max=2, connections_reserved=1)) as node:
        async with http(node), http(node):
            await until(lambda: node.server.connection_count == 2)
            crowded = await ask(node, request("GET", "/a"))
            assert crowded.code == 503
            assert "connections_max" in str(crowded.document["message"])
            assert "retry-after" in crowded.headers
            assert crowded.headers["date"] == "Sun, 09 Sep 2001 01:46:40 GMT"
        await node.until_quiet()
        assert await is_alive(node)


async def test_beyond_the_reserve_a_connection_is_closed_unread() -> None:
    limits = ServerLimits(connections_max=1, connections_reserved=1)
    async with running(limits) as node, http(node), http(node):
        await until(lambda: node.server.connection_count == 2)
        async with await node.connect() as third:
            assert await third.receive_some() == b""


async def test_hundreds_of_slow_clients_do_not_keep_a_good_one_out_and_are_cut(
    quick_clock: MockClock,
) -> None:
    async with running() as node, trio.open_nursery() as nursery:
        streams = [await node.connect() for _ in range(300)]
        for stream in streams:
            await stream.send_all(b"GET /slow HTTP/1.1\r\nX-Slow: ")
        await until(lambda: node.server.connection_count == 300)
        assert await is_alive(node)
        since = quick_clock.current_time()
        await node.until_quiet()
        assert quick_clock.current_time() - since < 33
        for stream in streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_drained_server_answers_what_it_has_begun_and_closes(
    quick_clock: MockClock,
) -> None:
    async with running() as node, http(node) as busy, http(node) as idle, cbor(node) as raw:
        await idle.send(request("GET", "/a"))
        await idle.answer()
        await raw.request(Op.PING)
        node.service.hold()
        await busy.send(request("PUT", "/a", b"value=1") + request("PUT", "/b", b"value=1"))
        await until(lambda: node.service.held == 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.server.drain, 10)
            assert await idle.rest() == b""
            goodbye = await raw.until_closed()
            assert goodbye is not None
            assert "stopping" in goodbye.message
            node.service.release()
            answer = await busy.answer()
            assert answer.code == 200
            assert await busy.rest() == b""
        assert quick_clock.current_time() < 5, "draining waited for its whole grace"
        assert list(node.service.rows) == [b"a"], "a request behind the last answer was done"
        with pytest.raises(OSError, match="connect"):
            await node.connect()


async def test_a_server_that_drains_lets_nobody_wait_at_its_door() -> None:
    async with running() as node, http(node) as busy, trio.open_nursery() as nursery:
        await busy.send(b"GET /a HTTP/1.1\r\n")
        await until(lambda: node.server.connection_count == 1)
        nursery.start_soon(node.server.drain, 30.0)

        async def refused() -> None:
            while True:
                try:
                    stream = await node.connect()
                except OSError:
                    return
                await stream.aclose()

        with trio.fail_after(10):
            await refused()
        assert node.server.connection_count == 1
        await busy.stream.aclose()


async def test_a_request_that_is_half_there_when_the_server_drains_is_its_last() -> None:
    async with running() as node, http(node) as raw:
        whole = request("GET", "/a")
        await raw.send(whole[:10])
        await until(lambda: 'krita_connections{protocol="http"} 1' in node.service.metrics.render())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.server.drain, 10)
            await wait_all_tasks_blocked()
            await raw.send(whole[10:] + whole)
            answer = await raw.answer()
            assert (answer.code, answer.headers["connection"]) == (404, "close")
            assert await raw.rest() == b""
            await raw.stream.aclose()


async def test_an_address_in_use_is_named() -> None:
    first = bind("127.0.0.1", 0)
    port = first[0].address[1]
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}") as refusal:
        bind("127.0.0.1", port)
    assert "is another kritad running there? choose another with --port" in str(refusal.value)
    first[0].close()


def test_more_connections_than_descriptors_are_not_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _which: (100, 500))
    monkeypatch.setattr("resource.setrlimit", lambda _which, _limits: None)
    fitted = fit_descriptors(ServerLimits(connections_max=1000))
    assert fitted.connections_all_max < 500
    monkeypatch.setattr("resource.getrlimit", lambda _which: (100, 5000))
    assert fit_descriptors(ServerLimits(connections_max=1000)).connections_max == 1000
