"""GET /v1/kv: pages, cursors, ranges, counts, and all of it as lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from krita.errors import Unavailable
from tests.server.raw import Answer, ask, http, request
from tests.server.service import Running
from tests.server.state_service import serving

NDJSON = {"Accept": "application/x-ndjson"}
KEYS = ["a", "b/1", "b/2", "b/3", "c"]


async def fill(node: Running) -> None:
    for key in KEYS:
        await ask(node, request("PUT", f"/v1/kv/{key}", key.upper().encode()))


def items_of(answer: Answer) -> list[dict[str, object]]:
    items = answer.document["items"]
    assert isinstance(items, list)
    return items


def keys_of(answer: Answer) -> list[str]:
    return [str(item["key"]) for item in items_of(answer)]


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("", KEYS),
        ("?prefix=b/", ["b/1", "b/2", "b/3"]),
        ("?start=b/2", ["b/2", "b/3", "c"]),
        ("?start=b/2&stop=c", ["b/2", "b/3"]),
        ("?stop=b", ["a"]),
        ("?reverse", KEYS[::-1]),
        ("?prefix=b/&reverse=1&limit=2", ["b/3", "b/2"]),
        ("?prefix=nobody", []),
    ],
)
async def test_a_range_is_told_in_order(query: str, keys: list[str], tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await fill(node)
        answer = await ask(node, request("GET", "/v1/kv" + query))
        assert (answer.code, keys_of(answer)) == (200, keys)


@pytest.mark.parametrize("query", ["?limit=2", "?limit=2&reverse", "?limit=1&prefix=b/"])
async def test_pages_follow_each_other_by_their_cursor(query: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await fill(node)
        found: list[str] = []
        cursor = ""
        while True:
            answer = await ask(node, request("GET", f"/v1/kv{query}{cursor}"))
            found += keys_of(answer)
            if answer.document["next_cursor"] is None:
                break
            cursor = f"&cursor={answer.document['next_cursor']}"
        wanted = KEYS[1:4] if "prefix" in query else KEYS
        assert found == (wanted[::-1] if "reverse" in query else wanted)


async def test_a_page_tells_what_there_is_to_a_key(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("POST", "/v1/lease", b'{"ttl":60,"lease":"7"}'))
        await ask(node, request("PUT", "/v1/kv/%00?ttl=60", b"\xff", {"Content-Type": "a/b"}))
        await ask(node, request("PUT", "/v1/kv/z?lease=7", b"x"))
        first, second = items_of(await ask(node, request("GET", "/v1/kv")))
        left = first.pop("expires_in")
        assert isinstance(left, float)
        assert 59 < left <= 60
        assert first == {
            "key": "\0", "value": {"base64": "/w=="}, "revision": 2, "content_type": "a/b",
        }  # fmt: skip
        assert second == {"key": "z", "value": "x", "revision": 3, "lease": "7"}
        first, _ = items_of(await ask(node, request("GET", "/v1/kv?keys_only")))
        assert "value" not in first


async def test_keys_are_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await fill(node)
        answer = await ask(node, request("GET", "/v1/kv?prefix=b&count=1"))
        assert answer.document == {"count": 3}


@pytest.mark.parametrize(
    "query",
    [
        "?prefix=a&start=b", "?limit=0", "?limit=x", "?cursor=nonsense", "?count&limit=1",
        "?reverse&cursor=gwH0QW4", "?prefix=z&cursor=gwH0QW4", "?offset=7",
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_400(query: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        answer = await ask(node, request("GET", "/v1/kv" + query))
        assert (answer.code, answer.document["code"]) == (400, "bad_request")


async def test_all_pages_come_as_lines_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), http(node) as raw:
        for number in range(1500):  # more than a page
            await raw.send(request("PUT", f"/v1/kv/{number:04}", b"x"))
            await raw.answer()
        await raw.send(request("GET", "/v1/kv?keys_only", headers=NDJSON))
        head = await raw.head()
        assert (head.code, head.headers["content-type"]) == (200, "application/x-ndjson")
        data = b""
        while chunk := await raw.chunk():
            data += chunk
        lines = [json.loads(line)["key"] for line in data.splitlines()]
        assert lines == [f"{number:04}" for number in range(1500)]
        await raw.send(request("GET", "/v1/kv?limit=1200", headers=NDJSON))
        await raw.head()
        data = b""
        while chunk := await raw.chunk():
            data += chunk
        assert len(data.splitlines()) == 1200


@pytest.mark.parametrize(
    ("accept", "lines"),
    [
        ("Application/X-NDJSON", True),
        ("text/html, application/x-ndjson ;q=0.1", True),
        ("application/x-ndjson;q=0, */*", False),
        ("application/x-ndjson; Q=0.000", False),
        ("application/x-ndjson-seq", False),
        ("*/*", False),
    ],
)
async def test_lines_come_to_whom_accepts_them(accept: str, lines: bool, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), http(node) as raw:
        await raw.send(request("GET", "/v1/kv", headers={"Accept": accept}))
        assert ("ndjson" in (await raw.head()).headers["content-type"]) is lines


async def test_a_scan_that_fails_in_the_middle_does_not_look_whole(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        for number in range(1001):
            await raw.send(request("PUT", f"/v1/kv/{number:04}", b"x"))
            await raw.answer()
        asked = service.submit

        def fail_the_second(*args: object) -> None:
            service.submit = failing  # type: ignore[method-assign, assignment]
            asked(*args)  # type: ignore[arg-type]

        def failing(*args: object) -> None:
            service.fail_with = Unavailable("no leader")
            asked(*args)  # type: ignore[arg-type]

        service.submit = fail_the_second  # type: ignore[method-assign, assignment]
        await raw.send(request("GET", "/v1/kv", headers=NDJSON))
        received = await raw.rest()
        assert b'"code":"unavailable"' in received
        assert not received.endswith(b"0\r\n\r\n")


async def test_who_finishes_sending_is_told_all_lines(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), http(node) as raw:
        await fill(node)
        await raw.send(request("GET", "/v1/kv", headers=NDJSON))
        await raw.stream.send_eof()
        received = await raw.rest()
        assert received.count(b'"key"') == len(KEYS)
        assert received.endswith(b"0\r\n\r\n")


async def test_lines_reach_a_client_of_http_1_0_up_to_the_end_of_the_connection(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (node, _):
        await fill(node)
        async with http(node) as raw:
            await raw.send(b"GET /v1/kv HTTP/1.0\r\nAccept: application/x-ndjson\r\n\r\n")
            head, _, body = (await raw.rest()).partition(b"\r\n\r\n")
            assert b"Transfer-Encoding" not in head
            assert len(body.splitlines()) == len(KEYS)
