"""/v1/kv: bytes, revisions, conditions, who may."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from kritad import stream as stream_module
from kritad.access import Access
from kritad.server.limits import ServerLimits
from tests.server.raw import ask, request
from tests.server.service import TOKEN, MemoryService, Stored, running

KEY = "/v1/kv/a"


async def test_bytes_go_in_and_come_out_with_their_content_type_and_revision() -> None:
    data = bytes(range(256))
    async with running() as node:
        put = await ask(node, request("PUT", KEY, data, {"Content-Type": "image/png"}))
        assert put.code == 201
        assert put.headers["etag"] == '"1"'
        get = await ask(node, request("GET", KEY))
        assert (get.code, get.body) == (200, data)
        assert get.headers["content-type"] == "image/png"
        assert get.headers["etag"] == '"1"'
        head = await ask(node, request("HEAD", KEY))
        assert (head.code, head.body) == (200, b"")
        assert head.headers["content-length"] == "256"
        again = await ask(node, request("PUT", KEY, b"x"))
        assert again.code == 200
        assert again.headers["etag"] == '"2"'
        assert (await ask(node, request("GET", KEY))).headers["content-type"] == (
            "application/octet-stream"
        )


async def test_deleting_says_whether_there_was_anything_and_404_says_as_of_when() -> None:
    async with running() as node:
        await ask(node, request("PUT", KEY, b"x"))
        deleted = await ask(node, request("DELETE", KEY))
        assert (deleted.code, deleted.headers["krita-existed"]) == (204, "true")
        deleted = await ask(node, request("DELETE", KEY))
        assert (deleted.code, deleted.headers["krita-existed"]) == (204, "false")
        absent = await ask(node, request("GET", KEY))
        assert absent.code == 404
        assert absent.headers["krita-revision"] == "3"
        assert absent.headers["krita-outcome"] == "not-applied"


# What is there (at revision 1), the method, the headers, the answer.
CONDITIONS = [
    (True, "PUT", {"If-Match": '"1"'}, 200),
    (True, "PUT", {"If-Match": '"2"'}, 412),
    (False, "PUT", {"If-Match": '"1"'}, 412),
    (True, "PUT", {"If-Match": "*"}, 200),
    (False, "PUT", {"If-Match": "*"}, 412),
    (False, "PUT", {"If-Match": '"0"'}, 412),
    (False, "DELETE", {"If-Match": '"0"'}, 412),
    (False, "PUT", {"If-None-Match": '"0"'}, 201),
    (True, "PUT", {"If-Match": '"01"'}, 412),
    (True, "PUT", {"If-None-Match": '"01"'}, 200),
    (True, "PUT", {"If-Match": '"7", "1"'}, 200),
    (True, "PUT", {"If-Match": '"7", "8"'}, 412),
    (True, "PUT", {"If-Match": 'W/"1"'}, 412),
    (True, "PUT", {"If-Match": '"not ours"'}, 412),
    (True, "PUT", {"If-Match": '"not,ours", W/"8,9" , "1"'}, 200),
    (True, "PUT", {"If-None-Match": '"not,ours"'}, 200),
    (False, "PUT", {"If-None-Match": "*"}, 201),
    (True, "PUT", {"If-None-Match": "*"}, 412),
    (True, "PUT", {"If-None-Match": '"1"'}, 412),
    (True, "PUT", {"If-None-Match": '"2"'}, 200),
    (False, "PUT", {"If-None-Match": '"1"'}, 201),
    (True, "PUT", {"If-Match": '"1"', "If-None-Match": '"1"'}, 412),
    (True, "PUT", {"If-Match": "1"}, 400),
    (True, "PUT", {"If-Match": '"1'}, 400),
    (True, "PUT", {"If-Match": ""}, 400),
    (True, "PUT", {"If-None-Match": ""}, 400),
    (True, "PUT", {"If-Match": '"1" "2"'}, 400),
    (True, "PUT", {"If-Match": ", ".join(f'"{number}"' for number in range(65))}, 400),
    (True, "DELETE", {"If-Match": '"1"'}, 204),
    (True, "DELETE", {"If-Match": '"2"'}, 412),
    (True, "DELETE", {"If-Match": "*"}, 204),
    (False, "DELETE", {"If-Match": "*"}, 412),
    (True, "GET", {"If-None-Match": '"1"'}, 304),
    (True, "GET", {"If-None-Match": 'W/"1"'}, 304),
    (True, "GET", {"If-None-Match": "*"}, 304),
    (True, "GET", {"If-None-Match": '"2"'}, 200),
    (False, "GET", {"If-None-Match": '"2"'}, 404),
    (True, "GET", {"If-Match": '"2"'}, 412),
    (True, "HEAD", {"If-None-Match": '"1"'}, 304),
]


@pytest.mark.parametrize(("there", "method", "headers", "code"), CONDITIONS)
async def test_a_condition_decides(
    there: bool, method: str, headers: dict[str, str], code: int
) -> None:
    async with running() as node:
        if there:
            node.service.rows[b"a"] = Stored(b"old", 1, None)
            node.service.revision = 1
        body = b"new" if method == "PUT" else b""
        answer = await ask(node, request(method, KEY, body, headers))
        assert answer.code == code
        if code == 412 and there:
            assert answer.headers["etag"] == '"1"'
        changed = node.service.revision != int(there)
        assert changed == (code in (200, 201, 204) and method in ("PUT", "DELETE"))


@pytest.mark.parametrize(
    ("there", "method", "headers", "message"),
    [
        # The database's own condition, and the look before the write.
        (True, "PUT", {"If-Match": '"2"'}, "If-Match did not hold: the key is at revision 1"),
        (True, "PUT", {"If-Match": '"2", "3"'}, "If-Match did not hold: the key is at revision 1"),
        (True, "DELETE", {"If-Match": '"2"'}, "If-Match did not hold: the key is at revision 1"),
        (True, "PUT", {"If-None-Match": "*"}, "If-None-Match did not hold: the key is at revis"),
        (True, "PUT", {"If-None-Match": '"1"'}, "If-None-Match did not hold: the key is at revis"),
        (False, "PUT", {"If-Match": '"2"'}, "If-Match did not hold: the key is absent"),
        (False, "PUT", {"If-Match": "*"}, "If-Match did not hold: the key is absent"),
        (True, "GET", {"If-Match": '"2"'}, "If-Match did not hold: the key is at revision 1"),
    ],
)
async def test_a_condition_that_does_not_hold_is_named_as_the_client_sent_it(
    there: bool, method: str, headers: dict[str, str], message: str
) -> None:
    async with running() as node:
        if there:
            node.service.rows[b"a"] = Stored(b"old", 1, None)
            node.service.revision = 1
        body = b"new" if method == "PUT" else b""
        answer = await ask(node, request(method, KEY, body, headers))
        assert str(answer.document["message"]).startswith(message)
        assert answer.document["code"] == "condition_failed"


async def test_a_condition_holds_at_the_moment_of_the_write_not_of_the_look() -> None:
    async with running() as node:
        service = node.service
        service.rows[b"a"] = Stored(b"old", 1, None)
        service.revision = 1

        def somebody_deletes_it() -> None:
            service.before_write = None
            service.revision += 1
            del service.rows[b"a"]

        service.before_write = somebody_deletes_it
        answer = await ask(node, request("PUT", KEY, b"new", {"If-Match": "*"}))
        assert answer.code == 412
        assert service.rows == {}


async def test_a_condition_is_looked_at_again_when_another_writer_was_faster() -> None:
    async with running() as node:
        service = node.service
        service.rows[b"a"] = Stored(b"old", 1, None)
        service.revision = 1

        def somebody_replaces_it() -> None:
            service.before_write = None
            service.revision += 1
            service.rows[b"a"] = Stored(b"theirs", service.revision, None)

        service.before_write = somebody_replaces_it
        answer = await ask(node, request("PUT", KEY, b"new", {"If-Match": "*"}))
        assert answer.code == 200
        assert service.rows[b"a"].value == b"new"


async def test_a_key_that_never_stops_changing_is_429_and_not_an_endless_loop() -> None:
    async with running() as node:
        service = node.service

        def somebody_replaces_it() -> None:
            service.revision += 1
            service.rows[b"a"] = Stored(b"theirs", service.revision, None)

        somebody_replaces_it()
        service.before_write = somebody_replaces_it
        answer = await ask(node, request("PUT", KEY, b"new", {"If-Match": "*"}))
        assert answer.code == 429
        assert answer.document["outcome"] == "not applied"


async def test_a_stale_read_says_how_stale() -> None:
    async with running() as node:
        await ask(node, request("PUT", KEY, b"x"))
        stale = await ask(node, request("GET", KEY + "?consistency=stale"))
        assert stale.headers["krita-staleness-ms"] == "7"
        fresh = await ask(node, request("GET", KEY + "?consistency=linearizable"))
        assert "krita-staleness-ms" not in fresh.headers


async def test_a_stored_content_type_cannot_end_the_header() -> None:
    async with running() as node:
        node.service.rows[b"a"] = Stored(b"x", 1, "text/html\r\nSet-Cookie: a=b")
        answer = await ask(node, request("GET", KEY))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert "set-cookie" not in answer.headers


async def test_a_value_over_the_limit_is_413() -> None:
    async with running(ServerLimits(value_bytes_max=10)) as node:
        assert (await ask(node, request("PUT", KEY, b"x" * 10))).code == 201
        assert (await ask(node, request("PUT", KEY, b"x" * 11))).code == 413


async def test_an_address_of_v1_that_is_not_there_is_404_and_no_key() -> None:
    async with running() as node:
        for path in ("/v1/nothing", "/v1/nothing/a", "/v1", "/v1/"):
            answer = await ask(node, request("PUT", path, b"value=1"))
            assert (answer.code, answer.document["code"]) == (404, "not_found")
        assert (await ask(node, request("PUT", "/v1/kv/", b"1"))).code == 400
        assert node.service.rows == {}


async def test_the_token_decides_who_asks() -> None:
    async with running() as node:
        for header, kind in ((f"Bearer {TOKEN.decode()}", "admin"), (None, "anonymous")):
            headers = {"Authorization": header} if header else {}
            await ask(node, request("GET", KEY, headers=headers))
            assert node.service.principals[-1].kind == kind


@pytest.mark.parametrize(
    ("header", "code"), [("Bearer wrong", 401), ("Basic dTpw", 401), ("Bearer", 401)]
)
async def test_a_wrong_or_malformed_token_is_turned_away(header: str, code: int) -> None:
    async with running() as node:
        answer = await ask(node, request("PUT", KEY, b"x", {"Authorization": header}))
        assert answer.code == code
        assert ("www-authenticate" in answer.headers) == (code == 401)
        assert node.service.submitted == 0


async def test_a_token_for_a_cluster_that_has_none_is_told_so() -> None:
    async with running(service=MemoryService(Access(None))) as node:
        answer = await ask(node, request("GET", KEY, headers={"Authorization": "Bearer x"}))
        assert (answer.code, answer.document["code"]) == (401, "unauthenticated")
        assert "this cluster has no admin token" in str(answer.document["message"])
        assert str(answer.document["hint"]).startswith("send none")


async def test_a_client_from_elsewhere_without_a_token_learns_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "_is_loopback", lambda _remote: False)
    async with running(service=MemoryService(Access(TOKEN))) as node:
        node.service.rows[b"a"] = Stored(b"x", 1, None)
        there = await ask(node, request("GET", KEY))
        absent = await ask(node, request("GET", "/v1/kv/b"))
        assert there.code == absent.code == 401
        assert "unless it comes over the loopback interface" in str(there.document["message"])
        assert there.body == absent.body
        assert (await ask(node, request("GET", "/metrics"))).code == 401
        assert (await ask(node, request("GET", "/health"))).code == 200
        headers = {"Authorization": f"Bearer {TOKEN.decode()}"}
        assert (await ask(node, request("GET", KEY, headers=headers))).body == b"x"


@pytest.mark.parametrize("name", ['a"b\\c\n', "ключ", "%ff"])
async def test_the_answer_to_a_put_is_json_whatever_the_key(name: str) -> None:
    encoded = name if name.startswith("%") else quote(name)
    async with running() as node:
        put = await ask(node, request("PUT", f"/v1/kv/{encoded}", b"x"))
        assert json.loads(put.body) == {
            "status": "success",
            "message": "created",
            "key": {"base64": "/w=="} if name == "%ff" else name,
            "revision": 1,
        }
