"""Leases, locks, histories and retentions over HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from kritad.server import http_exchange
from kritad.state import reading
from tests.server.raw import Answer, ask, http, request
from tests.server.service import Running, until
from tests.server.state_service import serving

KEY = "/v1/kv/a"
LOCK = "/v1/lock/l"


async def send(node: Running, method: str, path: str, document: object = None) -> Answer:
    body = b"" if document is None else json.dumps(document).encode()
    return await ask(node, request(method, path, body))


async def test_a_lease_ends_its_keys(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        granted = await send(node, "POST", "/v1/lease", {"ttl": 30})
        assert (granted.code, granted.document["ttl"]) == (201, 30)
        path = granted.headers["location"]
        assert path == f"/v1/lease/{granted.document['lease']}"
        await ask(node, request("PUT", f"{KEY}?lease={granted.document['lease']}", b"x"))
        got = await ask(node, request("GET", KEY))
        assert got.headers["krita-lease"] == granted.document["lease"]
        shown = await send(node, "GET", path)
        assert (shown.document["keys"], shown.document["ttl"]) == (["a"], 30)
        assert (await send(node, "PUT", path)).document["ttl"] == 30
        assert (await send(node, "DELETE", path)).document["keys"] == 1
        assert (await ask(node, request("GET", KEY))).code == 404
        for method in ("GET", "PUT", "DELETE"):
            gone = await send(node, method, path)
            assert (gone.code, gone.document["code"]) == (410, "lease_unknown")
        late = await ask(node, request("PUT", f"{KEY}?lease={granted.document['lease']}", b"x"))
        assert late.code == 410


async def test_a_lease_whose_id_the_client_chooses_may_be_granted_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        for _ in range(2):
            granted = await send(node, "POST", "/v1/lease", {"ttl": 1.5, "lease": "77"})
            assert granted.document == {"lease": "77", "ttl": 1.5}


async def test_a_lock_is_one_owner_s_until_it_is_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        free = await send(node, "GET", LOCK)
        assert (free.code, free.headers["krita-outcome"]) == (404, "not-applied")
        mine = await send(node, "POST", LOCK, {"owner": "me", "ttl": 60})
        token = mine.document["token"]
        again = await send(node, "POST", LOCK, {"owner": "me", "ttl": 60})
        assert (again.code, again.document["token"]) == (200, token)
        yours = await send(node, "POST", LOCK, {"owner": "you", "ttl": 60})
        assert (yours.code, yours.document["owner"]) == (423, "me")
        assert 59 < float(str(yours.document["left"])) <= 60
        held = await send(node, "GET", LOCK)
        assert (held.document["owner"], held.document["token"]) == ("me", token)
        assert (await send(node, "PUT", LOCK, {"token": token, "ttl": 90})).code == 200
        assert float(str((await send(node, "GET", LOCK)).document["left"])) > 80
        for lost in (
            await send(node, "PUT", LOCK, {"token": 77, "ttl": 90}),
            await send(node, "DELETE", LOCK + "?token=77"),
        ):
            assert (lost.code, "not held any more" in str(lost.document["message"])) == (412, True)
        nameless = await send(node, "DELETE", LOCK)
        assert (nameless.code, nameless.document["message"]) == (400, "token is missing")
        assert (await send(node, "DELETE", f"{LOCK}?token={token}")).code == 204
        assert (await send(node, "DELETE", f"{LOCK}?token={token}")).code == 412
        assert (await send(node, "DELETE", LOCK)).code == 400


async def test_whoever_waits_for_a_lock_has_it_when_it_is_given_back(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service), http(node) as raw:
        token = (await send(node, "POST", LOCK, {"owner": "me", "ttl": 600})).document["token"]
        waiting = b'{"owner":"you","ttl":60,"wait":60}'
        await raw.send(request("POST", LOCK, waiting))
        await until(lambda: service.polls == 1)
        await send(node, "DELETE", f"{LOCK}?token={token}")
        answer = await raw.answer()
        assert answer.code == 200
        assert answer.document["token"] != token


async def test_whoever_waits_for_a_lock_has_it_when_its_time_is_over(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await send(node, "POST", LOCK, {"owner": "me", "ttl": 20})
        began = quick_clock.current_time()
        mine = await send(node, "POST", LOCK, {"owner": "you", "ttl": 60, "wait": 60})
        assert mine.code == 200
        assert 19 < quick_clock.current_time() - began < 22


async def test_a_lock_that_is_not_free_in_time_is_423(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await send(node, "POST", LOCK, {"owner": "me", "ttl": 600})
        began = quick_clock.current_time()
        late = await send(node, "POST", LOCK, {"owner": "you", "ttl": 60, "wait": 15})
        assert (late.code, late.document["owner"]) == (423, "me")
        assert 15 <= quick_clock.current_time() - began < 17


async def test_a_lock_is_not_waited_for_longer_than_the_client_waits(
    quick_clock: MockClock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(http_exchange, "perf_counter", trio.current_time)
    async with serving(tmp_path) as (node, _):
        await send(node, "POST", LOCK, {"owner": "me", "ttl": 8})
        header: dict[str, str] = {"Krita-Timeout": "3"}
        for headers, query in ((header, ""), ({}, "?timeout=3")):
            began = quick_clock.current_time()
            waiting = b'{"owner":"you","ttl":60,"wait":60}'
            late = await ask(node, request("POST", LOCK + query, waiting, headers))
            assert (late.code, late.document["code"]) == (503, "deadline")
            assert late.document["outcome"] == "not applied"
            assert 3 <= quick_clock.current_time() - began < 4
        await trio.sleep(10)
        assert (await send(node, "GET", LOCK)).code == 404, "nobody took it when it was free"
        late = await ask(node, request("GET", f"{KEY}?wait=60&timeout=3"))
        assert (late.code, late.document["code"]) == (503, "deadline")


async def test_a_client_that_goes_away_takes_no_lock(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service):
        token = (await send(node, "POST", LOCK, {"owner": "me", "ttl": 600})).document["token"]
        async with http(node) as raw:
            await raw.send(request("POST", LOCK, b'{"owner":"you","ttl":60,"wait":60}'))
            await until(lambda: service.polls == 1)
        await node.until_quiet()
        await send(node, "DELETE", f"{LOCK}?token={token}")
        await trio.testing.wait_all_tasks_blocked()
        assert (await send(node, "GET", LOCK)).code == 404


async def test_who_finishes_sending_and_waits_for_a_lock_hears_that_it_is_held(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (node, _), http(node) as raw:
        await send(node, "POST", LOCK, {"owner": "me", "ttl": 600})
        await raw.send(request("POST", LOCK, b'{"owner":"you","ttl":60,"wait":60}'))
        await raw.stream.send_eof()
        assert (await raw.answer()).code == 423
        assert await raw.rest() == b""


async def test_who_finishes_sending_has_the_lock_if_it_is_free(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _), http(node) as raw:
        await raw.send(request("POST", LOCK, b'{"owner":"you","ttl":60,"wait":60}'))
        await raw.stream.send_eof()
        assert (await raw.answer()).code == 200


async def test_versions_are_kept_and_told_by_pages(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        kept = await send(node, "PUT", "/v1/retention?prefix=a&keep=3600")
        assert kept.document["keep"] == 3600
        for value in (b"1", b"2"):
            await ask(node, request("PUT", KEY, value))
        await ask(node, request("DELETE", KEY))
        await ask(node, request("PUT", KEY, b"\xff", {"Content-Type": "a/b"}))
        told: list[object] = []
        query = "?limit=2"
        while True:
            page = await send(node, "GET", "/v1/history/a" + query)
            versions = page.document["versions"]
            assert isinstance(versions, list)
            told += [version["value"] for version in versions]
            if page.document["next_before"] is None:
                break
            query = f"?limit=2&before={page.document['next_before']}"
        assert told == [{"base64": "/w=="}, None, "2", "1", None]
        assert page.document["complete_from"] is not None
        rules = (await send(node, "GET", "/v1/retention")).document["rules"]
        assert isinstance(rules, list)
        assert [(rule["prefix"], rule["keep"]) for rule in rules] == [("a", 3600)]
        assert (await send(node, "DELETE", "/v1/retention?prefix=a")).code == 204
        assert (await send(node, "GET", "/v1/retention")).document == {"rules": []}


async def pages(node: Running, query: str) -> list[list[str]]:
    """The values of all pages of the history of "a", by their length."""
    told: list[list[str]] = []
    path = f"/v1/history/a{query}"
    while True:
        page = await send(node, "GET", path)
        versions = page.document["versions"]
        assert isinstance(versions, list)
        told.append([str(version["value"]) for version in versions])
        if page.document["next_before"] is None:
            return told
        path = f"/v1/history/a{query}&before={page.document['next_before']}"


async def test_a_page_of_versions_that_is_shorter_than_asked_for_is_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (node, _):
        await send(node, "PUT", "/v1/retention?prefix=&keep=3600")
        for number in range(4):
            await ask(node, request("PUT", KEY, b"%d" % number * 400_000))
        told = await pages(node, "?limit=100")
        assert [[value[0] for value in page] for page in told] == [["3", "2"], ["1", "0", "N"]]
        monkeypatch.setattr(reading, "HISTORY_MAX", 3)
        assert [len(page) for page in await pages(node, "?limit=5000")] == [2, 3]
        monkeypatch.setattr(reading, "HISTORY_MAX", 1)
        assert [len(page) for page in await pages(node, "?limit=5000")] == [1] * 5


async def test_an_undo_of_a_large_value_to_a_large_value_finds_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await send(node, "PUT", "/v1/retention?prefix=&keep=3600")
        for value in (b"1" * 700_000, b"2" * 700_000):
            await ask(node, request("PUT", KEY, value))
        for value in (b"1", b"2"):
            assert (await send(node, "POST", "/v1/undo/a")).document["message"] == "restored"
            assert (await ask(node, request("GET", KEY))).body[:1] == value


async def test_an_undo_makes_a_key_what_it_was_and_another_undoes_that(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        nothing = await send(node, "POST", "/v1/undo/a")
        assert (nothing.code, nothing.document["code"]) == (410, "compacted")
        await send(node, "PUT", "/v1/retention?prefix=&keep=3600")
        await ask(node, request("PUT", KEY, b"1", {"Content-Type": "a/b"}))
        await ask(node, request("PUT", KEY, b"2"))
        for value in (b"1", b"2"):
            assert (await send(node, "POST", "/v1/undo/a")).document["message"] == "restored"
            assert (await ask(node, request("GET", KEY))).body == value
        await ask(node, request("DELETE", KEY))
        await send(node, "POST", "/v1/undo/a")
        assert (await ask(node, request("GET", KEY))).body == b"2"
        await ask(node, request("PUT", "/v1/kv/b", b"1"))
        assert (await send(node, "POST", "/v1/undo/b")).document["message"] == "deleted again"
        assert (await ask(node, request("GET", "/v1/kv/b"))).code == 404


async def test_a_retention_needs_a_prefix_and_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service):
        for method, query in (
            ("PUT", ""), ("PUT", "?prefix=a"), ("PUT", "?prefix=a&keep=0"), ("DELETE", ""),
        ):  # fmt: skip
            assert (await send(node, method, "/v1/retention" + query)).code == 400
        assert service.index == 0
