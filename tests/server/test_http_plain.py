"""The first users' addresses, byte for byte."""

from __future__ import annotations

import pytest

from kritad.server.limits import ServerLimits
from tests.server.raw import ask, request
from tests.server.service import running


async def test_a_value_that_was_put_is_got_by_either_address() -> None:
    async with running() as node:
        put = await ask(node, request("PUT", "/name", b"value=V"))
        assert put.code == 200
        assert put.headers["content-type"] == "application/json"
        assert put.body == b'{"status":"success","message":"200 ok","key":"name"}'
        expected = b'{"status":"success","message":"200 ok","key":"name","value":"V"}'
        for path in ("/name", "/key?value=name"):
            get = await ask(node, request("GET", path))
            assert get.code == 200
            assert get.body == expected


async def test_a_key_that_is_not_there_is_404_and_says_so() -> None:
    async with running() as node:
        for method, path in (
            ("GET", "/nothing"),
            ("GET", "/key?value=nothing"),
            ("DELETE", "/nothing"),
        ):
            answer = await ask(node, request(method, path))
            assert answer.code == 404
            assert answer.document["status"] == "error"
            assert answer.document["key"] == "nothing"
            assert answer.headers["krita-outcome"] == "not-applied"


async def test_a_stale_read_by_name_says_how_stale_it_may_be() -> None:
    async with running() as node:
        await ask(node, request("PUT", "/a", b"value=1"))
        for path, more in (("/a?", ""), ("/nothing?", ""), ("/key?", "value=a&")):
            for asked in ("consistency=stale", "consistency=bounded&max_staleness=1"):
                stale = await ask(node, request("GET", path + more + asked))
                assert stale.headers["krita-staleness-ms"] == "7"
            fresh = await ask(node, request("GET", path + more))
            assert "krita-staleness-ms" not in fresh.headers


async def test_a_deleted_key_is_gone() -> None:
    async with running() as node:
        await ask(node, request("PUT", "/name", b"value=V"))
        deleted = await ask(node, request("DELETE", "/name"))
        assert deleted.code == 200
        assert deleted.document["status"] == "success"
        assert (await ask(node, request("GET", "/name"))).code == 404


@pytest.mark.parametrize(
    ("form", "value"),
    [
        (b"value=a+b", b"a b"),
        (b"value=a%2Bb%26c%3Dd", b"a+b&c=d"),
        (b"value=", b""),
        (b"value=100%", b"100%"),
        (b"value=a=b", b"a=b"),
        ("value=ключ".encode(), "ключ".encode()),
        (b"value=%FF%00", b"\xff\x00"),
        (b"value=line\r\n", b"line"),
        (b"value=%0D%0A", b"\r\n"),
    ],
)
async def test_a_form_is_decoded_as_browsers_and_curl_encode_it(form: bytes, value: bytes) -> None:
    async with running() as node:
        assert (await ask(node, request("PUT", "/a", form))).code == 200
        assert node.service.rows[b"a"].value == value


@pytest.mark.parametrize(
    ("request_bytes", "says"),
    [
        (request("GET", "/key"), "?value= is missing"),
        (request("GET", "/key?value="), "?value= is missing"),
        (request("PUT", "/", b"value=1"), "no key is named"),
        (request("DELETE", "/"), "no key is named"),
        (request("PUT", "/a"), "no value field"),
        (request("PUT", "/a", b"V"), "no value field"),
        (request("PUT", "/a", b"value"), "no value field"),
        (request("PUT", "/a", b"value=a&b"), '"b"'),
        (request("PUT", "/a", b"value=a&value=b"), "two fields value"),
        (request("PUT", "/a", b'{"value":"x"}'), "no value field"),
        (request("PUT", "/key", b"key=a"), "no value field"),
        (request("PUT", "/a", b"foo=1"), "no value field"),
        (request("PUT", "/key", b"key=&value=a"), "no key is named"),
        (request("PUT", "/a?ttl=60", b"value=a"), "ttl"),
        (request("GET", "/a?consistency=strong"), "linearizable, stale or bounded"),
        (request("GET", "/a?token=secret"), "a token does not belong into the URL"),
        (request("DELETE", "/a?admin_token=secret"), "a token does not belong into the URL"),
    ],
)
async def test_what_is_missing_or_not_understood_is_400_and_named(
    request_bytes: bytes, says: str
) -> None:
    async with running() as node:
        answer = await ask(node, request_bytes)
        assert answer.code == 400
        assert answer.document["status"] == "error"
        assert answer.document["outcome"] == "not applied"
        assert says in str(answer.document["message"])
        assert "secret" not in answer.body.decode()
        assert node.service.rows == {}


@pytest.mark.parametrize("name", ["If-Match", "If-None-Match", "If-Lock", "Idempotency-Key"])
async def test_a_header_that_only_v1_kv_keeps_to_is_refused_and_not_ignored(name: str) -> None:
    async with running() as node:
        for method, path, form in (
            ("PUT", "/a", b"value=1"),
            ("PUT", "/key", b"key=a&value=1"),
            ("DELETE", "/a", b""),
            ("DELETE", "/key", b""),
        ):
            answer = await ask(node, request(method, path, form, {name: "*"}))
            assert (answer.code, answer.document["outcome"]) == (400, "not applied")
            assert name in str(answer.document["message"])
            assert "/v1/kv/NAME" in str(answer.document["hint"])
        assert node.service.submitted == 0


async def test_put_key_sets_the_key_that_the_form_names() -> None:
    async with running() as node:
        answer = await ask(node, request("PUT", "/key", b"key=a%2Fb&value=1"))
        assert answer.document["key"] == "a/b"
        await ask(node, request("PUT", "/key", b"value=2"))
        assert {key: row.value for key, row in node.service.rows.items()} == {
            b"a/b": b"1",
            b"key": b"2",
        }
        assert (await ask(node, request("GET", "/key?value=key"))).document["value"] == "2"
        assert (await ask(node, request("DELETE", "/key"))).code == 200


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/a/b", b"a/b"),
        ("//a", b"/a"),
        ("/a%2Fb%20c", b"a/b c"),
        ("/a+b", b"a+b"),
        ("/%FF", b"\xff"),
    ],
)
async def test_everything_behind_the_first_slash_is_the_name(path: str, key: bytes) -> None:
    async with running() as node:
        await ask(node, request("PUT", path, b"value=1"))
        assert list(node.service.rows) == [key]
        assert (await ask(node, request("GET", path))).code == 200


async def test_bytes_that_are_no_text_come_as_base64() -> None:
    async with running() as node:
        await ask(node, request("PUT", "/%FF", b"value=%FE%00"))
        document = (await ask(node, request("GET", "/%FF"))).document
        assert document["key"] == {"base64": "/w=="}
        assert document["value"] == {"base64": "/gA="}


async def test_a_key_or_value_over_its_limit_is_413_and_the_limit_is_named() -> None:
    async with running(ServerLimits(value_bytes_max=100)) as node:
        answer = await ask(node, request("PUT", "/a", b"value=" + b"x" * 101))
        assert answer.code == 413
        assert "value_bytes_max is 100" in str(answer.document["message"])
        answer = await ask(node, request("PUT", "/" + "k" * 4097, b"value=1"))
        assert answer.code == 413
        assert "4096" in str(answer.document["message"])
        assert (await ask(node, request("PUT", "/" + "k" * 4096, b"value=1"))).code == 200
        encoded = b"value=" + b"%78" * 100
        assert (await ask(node, request("PUT", "/a", encoded))).code == 200


async def test_a_name_that_the_server_uses_itself_is_reached_through_v1_kv() -> None:
    async with running() as node:
        answer = await ask(node, request("PUT", "/health", b"value=1"))
        assert answer.code == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert answer.document["code"] == "method_not_allowed"
        assert "/v1/kv/health" in str(answer.document["hint"])
        put = request("PUT", "/v1/kv/health", b"1")
        assert (await ask(node, put)).code == 201
        assert list(node.service.rows) == [b"health"]


async def test_a_method_that_is_not_there_is_405_with_those_that_are() -> None:
    async with running() as node:
        for method in ("POST", "OPTIONS", "PATCH"):
            answer = await ask(node, request(method, "/a"))
            assert answer.code == 405
            assert answer.headers["allow"] == "GET, HEAD, PUT, DELETE"
            assert answer.document["code"] == "method_not_allowed"
