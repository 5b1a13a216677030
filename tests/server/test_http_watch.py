"""Watches, and reads that wait."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kritad.server.http_server import HttpConnection
from kritad.server.limits import ServerLimits
from kritad.state import feed
from tests.server.raw import Answer, RawHttp, ask, http, request
from tests.server.service import Running, until
from tests.server.state_service import StateService, serving

KEY = "/v1/kv/a"
SSE = {"Accept": "text/event-stream"}


class Lines:
    """The events of a watch, as they come in chunks."""

    def __init__(self, raw: RawHttp) -> None:
        self.raw = raw
        self._events: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        while not self._events:
            chunk = await self.raw.chunk()
            assert chunk, "the watch has ended"
            self._events += [json.loads(line) for line in chunk.splitlines()]
        return self._events.pop(0)


@asynccontextmanager
async def watching(node: Running, query: str = "") -> AsyncIterator[Lines]:
    """A watch that has begun, in lines."""
    async with http(node) as raw:
        await raw.send(request("GET", "/v1/watch" + query))
        head = await raw.head()
        assert (head.code, head.headers["content-type"]) == (200, "application/x-ndjson")
        lines = Lines(raw)
        assert (await lines.next())["type"] == "progress"
        yield lines


async def put(node: Running, key: str, value: bytes = b"x") -> Answer:
    return await ask(node, request("PUT", f"/v1/kv/{key}", value))


async def test_what_happens_is_told_in_order(quick_clock: MockClock, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), watching(node, "?prefix=a") as watch:
        await put(node, "a1", b"\xff")
        await put(node, "b")
        await put(node, "a2?ttl=1")
        await ask(node, request("DELETE", "/v1/kv/a1"))
        told = [await watch.next() for _ in range(4)]
        assert [(event["type"], event["key"]) for event in told] == [
            ("put", "a1"), ("put", "a2"), ("delete", "a1"), ("expire", "a2"),
        ]  # fmt: skip
        assert told[0]["value"] == {"base64": "/w=="}
        assert [event["revision"] for event in told[:3]] == [1, 3, 4]
        assert quick_clock.current_time() >= 1


async def test_a_watch_goes_on_where_another_has_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        async with watching(node) as watch:
            await put(node, "a")
            token = (await watch.next())["token"]
        await put(node, "b")
        async with watching(node, f"?from={token}") as watch:
            assert (await watch.next())["key"] == "b"


async def test_server_sent_events_go_on_behind_their_last_id(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        async with http(node) as raw:
            await raw.send(request("GET", "/v1/watch?key=a", headers=SSE))
            assert (await raw.head()).headers["content-type"] == "text/event-stream"
            assert await raw.chunk() == b"retry: 1000\n\n"
            await raw.chunk()
            await put(node, "a", b"1")
            name, data, *_ = (await raw.chunk()).split(b"\n")
            assert json.loads(data.removeprefix(b"data: "))["value"] == "1"
        await put(node, "a", b"2")
        async with http(node) as raw:
            last = {"Last-Event-ID": name.removeprefix(b"id: ").decode()}
            await raw.send(request("GET", "/v1/watch?key=a&from=ignored", headers=SSE | last))
            await raw.head()
            await raw.chunk()
            await raw.chunk()
            assert b'"value":"2"' in await raw.chunk()


async def test_a_watch_of_one_key_goes_on_behind_a_revision_that_was_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        revision = (await put(node, "a")).headers["krita-revision"]
        await put(node, "a", b"2")
        async with watching(node, f"?key=a&from={revision}") as watch:
            assert (await watch.next())["value"] == "2"


async def test_half_of_a_transaction_has_no_place_to_go_on_from(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), watching(node) as watch:
        both = [{"do": "put", "key": f"{{g}}{name}", "value": "1"} for name in "ab"]
        await ask(node, request("POST", "/v1/txn", json.dumps({"then": both}).encode()))
        first, second = await watch.next(), await watch.next()
        assert ("token" in first, "token" in second) == (False, True)


async def test_progress_is_told_when_nothing_happens(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _), watching(node, "?prefix=b&progress=2") as watch:
        await put(node, "a")
        began = quick_clock.current_time()
        event = await watch.next()
        assert event["type"] == "progress"
        assert 1.9 < quick_clock.current_time() - began < 4


async def test_what_is_not_kept_any_more_is_410_with_where_one_can_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "FEED_BYTES_MAX", 4000)
    async with serving(tmp_path) as (node, _):
        async with watching(node) as watch:
            await put(node, "a")
            token = (await watch.next())["token"]
        for number in range(40):
            await put(node, f"b{number}")
        gone = await ask(node, request("GET", f"/v1/watch?from={token}"))
        assert (gone.code, gone.document["code"]) == (410, "compacted")
        async with watching(node, f"?from={gone.document['oldest']}") as watch:
            assert (await watch.next())["type"] == "put"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?from=nonsense", "no resume token"),
        ("?from=7", "no resume token"),
        ("?from=kwFE____fyABAQ", "no resume token"),
        ("?key=a&prefix=b", "two ways"),
        ("?key=", "no key is named"),
        ("?key=%FFx", "0xFF"),
        ("?progress=0", "at least 0.1"),
        ("?progress=61", "up to 60"),
    ],
)
async def test_a_watch_that_makes_no_sense_is_400(query: str, says: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        answer = await ask(node, request("GET", "/v1/watch" + query))
        assert answer.code == 400
        assert says in str(answer.document["message"])


async def test_a_token_is_of_the_keys_it_was_given_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        async with watching(node, "?key=a") as watch:
            await put(node, "a")
            token = (await watch.next())["token"]
        answer = await ask(node, request("GET", f"/v1/watch?from={token}"))
        assert (answer.code, "of other keys" in str(answer.document["message"])) == (400, True)


async def test_a_client_that_goes_away_ends_its_watch(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service):
        async with watching(node):
            await until(lambda: service.polls == 1)
            assert gauge(service) == 1
        await node.until_quiet()


async def test_there_are_no_more_watches_than_watches_max(tmp_path: Path) -> None:
    async with serving(tmp_path, ServerLimits(watches_max=1)) as (node, _), watching(node):
        answer = await ask(node, request("GET", "/v1/watch"))
        assert (answer.code, answer.document["code"]) == (429, "busy")
        assert "watches_max" in str(answer.document["message"])
        assert (await ask(node, request("GET", KEY + "?wait=1"))).code == 429


def gauge(service: StateService) -> int:
    (line,) = [
        line
        for line in service.metrics.render().splitlines()
        if line.startswith("krita_http_watches ")
    ]
    return int(line.split()[1])


async def test_a_server_that_stops_ends_its_watches_with_a_last_event(tmp_path: Path) -> None:
    async with (
        serving(tmp_path) as (node, _),
        watching(node) as watch,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(node.server.drain, 5)
        event = await watch.next()
        assert (event["type"], event["code"]) == ("error", "unavailable")
        assert await watch.raw.chunk() == b""
        assert await watch.raw.rest() == b""


async def test_a_watch_of_http_1_0_ends_with_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), http(node) as raw:
        await raw.send(b"GET /v1/watch HTTP/1.0\r\n\r\n")
        head = await raw.head()
        assert head.headers["connection"] == "close"
        assert "transfer-encoding" not in head.headers


# --- reads that wait -------------------------------------------------------------------


WAIT = request("GET", f"{KEY}?wait=600")


async def test_whoever_has_gone_takes_no_place_and_leaves_a_bounded_number_of_polls(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, ServerLimits(watches_max=1)) as (node, service):
        for polls in range(1, 5):
            async with http(node) as raw:
                await raw.send(WAIT)
                await until(lambda count=polls: service.polls == count)  # type: ignore[misc]
                assert (await ask(node, WAIT)).code == 429
            await node.until_quiet()
            assert (service.polls, gauge(service)) == (polls, 0)
        answer = await ask(node, WAIT)
        assert (answer.code, "have left" in str(answer.document["message"])) == (429, True)
        await put(node, "a", b"2")
        async with http(node) as raw:
            await raw.send(WAIT)
            await until(lambda: service.polls == 1)


@pytest.mark.parametrize("abruptly", [False, True])
@pytest.mark.parametrize("path", [f"{KEY}?wait=600", "/v1/watch"])
async def test_a_client_that_asks_more_while_it_waits_and_leaves_is_noticed(
    path: str, abruptly: bool, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, service):
        async with http(node) as raw:
            await raw.send(request("GET", path))
            await until(lambda: service.polls == 1)
            for piece in (request("GET", "/livez"), b"G"):
                await raw.send(piece)
                await wait_all_tasks_blocked()
            if abruptly:
                linger = struct.pack("ii", 1, 0)
                raw.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await node.until_quiet()
        assert gauge(service) == 0


async def test_what_a_client_sends_while_it_waits_is_bounded(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        await raw.send(WAIT)
        await until(lambda: service.polls == 1)
        with trio.move_on_after(5):
            while True:
                await raw.send(request("GET", "/livez") * 10_000)
        assert quick_clock.current_time() >= 5, "the server does not read on"
        (connection,) = node.server._handlers.values()
        assert isinstance(connection, HttpConnection)
        assert len(connection._behind) < 200_000


async def test_who_finishes_sending_is_answered_all_and_waits_for_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        await raw.send(WAIT)
        await until(lambda: service.polls == 1)
        await raw.send(request("GET", "/livez") + WAIT)
        await raw.stream.send_eof()
        assert [(await raw.answer()).code for _ in range(3)] == [304, 200, 304]
        assert await raw.rest() == b""


async def test_a_watch_whose_client_finishes_sending_has_ended(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), watching(node) as watch:
        await watch.raw.stream.send_eof()
        assert await watch.raw.rest() == b""


async def test_a_read_waits_for_the_next_change(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        revision = (await put(node, "a", b"1")).headers["krita-revision"]
        await raw.send(request("GET", f"{KEY}?wait=60&after={revision}"))
        await until(lambda: service.polls == 1)
        await put(node, "b")
        await put(node, "a", b"2")
        answer = await raw.answer()
        assert (answer.code, answer.body) == (200, b"2")
        await raw.send(request("GET", KEY))  # the connection goes on
        assert (await raw.answer()).body == b"2"


async def test_a_read_waits_for_a_key_to_come_and_to_go(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        absent = await ask(node, request("GET", KEY))
        await raw.send(request("GET", f"{KEY}?wait=60&after={absent.headers['krita-revision']}"))
        await until(lambda: service.polls == 1)
        put_at = (await put(node, "a")).headers["krita-revision"]
        assert (await raw.answer()).code == 200
        await raw.send(request("GET", f"{KEY}?wait=60&after={put_at}"))
        await until(lambda: service.polls == 1)
        await ask(node, request("DELETE", KEY))
        gone = await raw.answer()
        assert (gone.code, int(gone.headers["krita-revision"]) > int(put_at)) == (404, True)


async def test_a_change_that_has_happened_is_answered_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await put(node, "a", b"1")
        assert (await ask(node, request("GET", KEY + "?wait=60&after=0"))).body == b"1"
        await ask(node, request("DELETE", KEY))
        assert (await ask(node, request("GET", KEY + "?wait=60&after=1"))).code == 404


async def test_a_read_that_has_waited_in_vain_is_304(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await put(node, "a", b"1")
        for path in (KEY, "/v1/kv/absent"):
            began = quick_clock.current_time()
            answer = await ask(node, request("GET", path + "?wait=25"))
            assert (answer.code, answer.headers["krita-revision"]) == (304, "1")
            assert 25 <= quick_clock.current_time() - began < 27


async def test_what_is_pipelined_behind_a_wait_is_answered_behind_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        await raw.send(request("GET", KEY + "?wait=60") + request("GET", "/livez"))
        await until(lambda: service.polls == 1)
        await raw.send(request("PUT", "/v1/kv/b", b"x"))
        await put(node, "a", b"1")
        answers = [await raw.answer() for _ in range(3)]
        assert [answer.code for answer in answers] == [200, 200, 201]


async def test_a_server_that_stops_lets_nobody_wait(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        await raw.send(request("GET", KEY + "?wait=600"))
        await until(lambda: service.polls == 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.server.drain, 5)
            assert (await raw.answer()).code == 304
