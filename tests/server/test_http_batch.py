"""Many keys in one request: /v1/get, /v1/bulk, /v1/txn; and JSON that makes no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from krita.errors import Unavailable
from kritad import stream as stream_module
from kritad.server import http_batch, http_exchange
from kritad.server.limits import ServerLimits
from tests.server.raw import Answer, ask, request
from tests.server.service import Running
from tests.server.state_service import serving


async def post(
    node: Running, path: str, document: object, headers: dict[str, str] | None = None
) -> Answer:
    return await ask(node, request("POST", path, json.dumps(document).encode(), headers))


async def test_many_keys_are_read_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", "/v1/kv/a", b"\xff", {"Content-Type": "a/b"}))
        keys = ["a", {"base64": "YQ=="}, "none", *(f"k{i}" for i in range(100))]
        answer = await post(node, "/v1/get", {"keys": keys})
        items = answer.document["items"]
        assert isinstance(items, list)
        there = {"key": "a", "value": {"base64": "/w=="}, "revision": 1, "content_type": "a/b"}
        assert items[:3] == [there, there, {"key": "none", "value": None, "revision": 0}]
        assert len(items) == len(keys)


async def test_a_key_that_cannot_be_read_fails_no_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service):
        for key in ("a", "c"):
            await ask(node, request("PUT", f"/v1/kv/{key}", b"x"))
        submit, read = service.submit, iter(range(1000))

        def failing(*args: Any) -> None:
            service.fail_with = Unavailable("no leader") if next(read) in (1, 40) else None
            submit(*args)

        service.submit = failing  # type: ignore[method-assign, assignment]
        keys = ["a", "b", {"base64": "/2E="}, "c", *(f"k{number}" for number in range(60))]
        answer = await post(node, "/v1/get", {"keys": keys})
        items: list[dict[str, Any]] = answer.document["items"]  # type: ignore[assignment]
        assert (answer.code, len(items)) == (200, len(keys)), "those behind it are asked for, too"
        assert items[0]["value"] == items[3]["value"] == "x"
        failed = [item for item in items if "http" in item]
        assert [item["http"] for item in failed] == [503, 400, 503]
        assert [item["key"] for item in failed] == ["b", {"base64": "/2E="}, "k36"]
        assert failed[0].items() >= {"code": "unavailable", "outcome": "not applied"}.items()
        assert "revision" not in failed[0]


async def test_all_keys_together_have_one_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(http_exchange, "perf_counter", lambda: now_s)
    async with serving(tmp_path) as (node, service):
        submit, deadlines_ms = service.submit, list[float]()

        def slow(*args: Any) -> None:
            nonlocal now_s
            now_s += 0.125
            submit(*args)
            deadlines_ms.append(service.options[0] or 0.0)

        service.submit = slow  # type: ignore[method-assign, assignment]
        answer = await post(node, "/v1/get", {"keys": [f"k{number}" for number in range(100)]})
        items: list[dict[str, Any]] = answer.document["items"]  # type: ignore[assignment]
        assert [item.get("code") for item in items] == [None] * 40 + ["deadline"] * 60
        assert deadlines_ms[:2] == [5000, 4875]
        write = {"do": "put", "key": "a", "value": "1"}
        answer = await post(node, "/v1/bulk", {"operations": [write] * 60})
        results: list[dict[str, Any]] = answer.document["results"]  # type: ignore[assignment]
        assert [result["http"] for result in results] == [201] + [200] * 39 + [503] * 20
        assert service.index == 40


async def test_who_may_not_is_told_once_and_not_for_each_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "_is_loopback", lambda _remote: False)
    async with serving(tmp_path) as (node, service):
        write = {"do": "put", "key": "a", "value": "1"}
        for path, document in (("get", {"keys": ["a"]}), ("bulk", {"operations": [write]})):
            answer = await post(node, f"/v1/{path}", document)
            assert (answer.code, answer.document["code"]) == (401, "unauthenticated")
        assert service.index == 0


async def test_an_answer_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_batch, "GET_BYTES_MAX", 1000)
    async with serving(tmp_path) as (node, _):
        for value, count in ((b"x" * 300, 2), (b"\0" * 60, 2), (b"\xff" * 300, 2), (b"", 25)):
            await ask(node, request("PUT", "/v1/kv/a", value))
            whole = await post(node, "/v1/get", {"keys": ["a"] * count})
            assert (whole.code, len(whole.body) <= 1015) == (200, True)
            more = await post(node, "/v1/get", {"keys": ["a"] * (count + count // 2 + 1)})
            assert (more.code, more.document["code"]) == (413, "too_large")
        made = list[object]()

        def item_bytes(item: object) -> bytes:
            made.append(item)
            return b"x" * 600

        monkeypatch.setattr(http_batch, "json_bytes", item_bytes)
        await post(node, "/v1/get", {"keys": ["a"] * 32})
        assert len(made) == 2, "what is too much anyway was written out"


async def test_each_write_of_a_bulk_has_an_outcome_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service):
        await ask(node, request("PUT", "/v1/kv/a", b"old"))
        writes: list[dict[str, object]] = [
            {"do": "put", "key": "a", "value": "1", "ttl": 60, "content_type": "a/b"},
            {"do": "put", "key": "a", "value": "2", "if_absent": True},
            {"do": "put", "key": "a", "value": "2", "if_revision": 2},
            {"do": "add", "key": "n", "by": -3},
            {"do": "append", "key": "a", "value": {"base64": "/w=="}},
            {"do": "touch", "key": "none", "ttl": 5},
            {"do": "persist", "key": "a"},
            {"do": "put", "key": "a", "value": "x", "lease": "77"},
            {"do": "delete", "key": "a"},
            {"do": "delete", "key": "a"},
        ]
        answer = await post(node, "/v1/bulk", {"operations": writes})
        results = answer.document["results"]
        assert isinstance(results, list)
        codes = [200, 412, 200, 201, 200, 404, 200, 410, 200, 200]
        assert [result["http"] for result in results] == codes
        assert [result["status"] for result in results].count("error") == 3
        assert results[1]["outcome"] == "not applied"
        assert (results[3]["number"], results[4]["length"]) == (-3, 2)
        assert [result["existed"] for result in results[-2:]] == [True, False]
        assert service.shard.state.read(b"a") is None


@pytest.mark.parametrize("length", [1, 252, 253, 254, 255])
async def test_a_bulk_that_is_repeated_happens_once(length: int, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        keys = ("n", "n", "m", *(f"k{number}" for number in range(8)))
        writes = {"operations": [{"do": "add", "key": key} for key in keys]}
        for _ in range(2):
            answer = await post(node, "/v1/bulk", writes, {"Idempotency-Key": "x" * length})
            numbers = [result["number"] for result in answer.document["results"]]  # type: ignore[attr-defined]
            assert numbers == [1, 2] + [1] * 9


async def test_a_bulk_under_another_long_idempotency_key_happens_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        writes = {"operations": [{"do": "add", "key": "n"}]}
        for number, last in enumerate("abc", 1):
            answer = await post(node, "/v1/bulk", writes, {"Idempotency-Key": "x" * 254 + last})
            assert answer.document["results"][0]["number"] == number  # type: ignore[index]


async def test_a_transaction_does_one_thing_or_the_other(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        document = {
            "compare": [{"key": "{g}a", "absent": True}],
            "then": [
                {"do": "put", "key": "{g}a", "value": "1", "ttl": 60},
                {"do": "add", "key": "{g}n", "by": 5},
                {"do": "get", "key": "{g}n"},
            ],
            "else": [{"do": "get", "key": "{g}a"}, {"do": "delete", "key": "{g}n"}],
        }
        first = await post(node, "/v1/txn", document)
        assert (first.code, first.document["succeeded"]) == (200, True)
        assert first.document["results"] == [
            {"key": "{g}a", "revision": 1, "existed": False},
            {"key": "{g}n", "revision": 1, "existed": False, "number": 5},
            {"key": "{g}n", "value": "5", "revision": 1, "content_type": "text/plain"},
        ]
        second = await post(node, "/v1/txn", document)
        assert (second.code, second.document["succeeded"]) == (200, False)
        assert second.document["results"] == [
            {"key": "{g}a", "value": "1", "revision": 1},
            {"key": "{g}n", "revision": 2, "existed": True},
        ]


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        ({"revision": 1}, True),
        ({"revision": 1, "is": "!="}, False),
        ({"revision": 0, "is": ">"}, True),
        ({"value": "5"}, True),
        ({"value": "6", "is": "<"}, True),
        ({"value": "4", "is": "<"}, False),
        ({"absent": True}, False),
        ({"absent": False}, True),
    ],
)
async def test_what_a_transaction_compares(
    comparison: dict[str, object], holds: bool, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", "/v1/kv/a", b"5"))
        answer = await post(node, "/v1/txn", {"compare": [comparison | {"key": "a"}]})
        assert answer.document["succeeded"] is holds


async def test_a_transaction_of_several_groups_happens_and_knows_no_revisions(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (node, service):
        document = {"then": [{"do": "put", "key": key, "value": "v"} for key in ("{g}a", "b")]}
        answer = await post(node, "/v1/txn", document)
        assert (answer.code, answer.document["revision"]) == (200, None)
        assert answer.document["results"] == [
            {"key": "{g}a", "revision": None, "existed": False},
            {"key": "b", "revision": None, "existed": False},
        ]
        assert "krita-revision" not in answer.headers
        assert service.shard.state.read(b"b") is not None


async def test_a_write_that_its_key_does_not_allow_undoes_the_whole_transaction(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (node, service):
        await ask(node, request("PUT", "/v1/kv/{g}a", b"x"))
        then = [{"do": "put", "key": "{g}b", "value": "1"}, {"do": "add", "key": "{g}a"}]
        answer = await post(node, "/v1/txn", {"then": then})
        assert (answer.code, answer.document["code"]) == (409, "conflict")
        assert service.shard.state.read(b"{g}b") is None


async def test_a_value_may_be_as_large_in_json_as_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, ServerLimits(value_bytes_max=1000)) as (node, _):
        value = {"base64": "A" * 1332}  # 999 bytes
        write = {"do": "put", "key": "a", "value": value}
        headers = {"Content-Type": "application/json"}
        answer = await post(node, "/v1/bulk", {"operations": [write]}, headers)
        assert answer.document["results"][0]["http"] == 201  # type: ignore[index]


async def test_more_than_bulk_max_is_refused_by_its_name(tmp_path: Path) -> None:
    async with serving(tmp_path, ServerLimits(bulk_max=2)) as (node, service):
        for path, document in (
            ("/v1/get", {"keys": ["a", "b", "c"]}),
            ("/v1/bulk", {"operations": [{"do": "delete", "key": "a"}] * 3}),
        ):
            answer = await post(node, path, document)
            assert (answer.code, answer.document["code"]) == (413, "too_large")
            assert "the limit is 2 (bulk_max)" in str(answer.document["message"])
        assert service.index == 0


@pytest.mark.parametrize(("then", "otherwise"), [(1025, 0), (600, 600)])
async def test_a_transaction_over_its_limit_is_413_however_it_is_divided(
    then: int, otherwise: int, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, service):
        read = {"do": "get", "key": "a"}
        answer = await post(node, "/v1/txn", {"then": [read] * then, "else": [read] * otherwise})
        assert (answer.code, answer.document["code"]) == (413, "too_large")
        assert "the limit is 1024" in str(answer.document["message"])
        assert service.index == 0


NONSENSE = [
    ("/v1/bulk", b"", "the body is empty"),
    ("/v1/bulk", b"{", "no JSON"),
    ("/v1/lease", rb'{"ttl":1,"\ud800":1}', "half a character"),
    ("/v1/lease", rb'{"ttl":1,"lease":"\ud800"}', "half a character"),
    ("/v1/txn", rb'{"\uDFFF":[]}', "half a character"),
    ("/v1/bulk", b"\xff", "no JSON"),
    ("/v1/bulk", b"[" * 100_000, "no JSON"),
    ("/v1/bulk", b"[]", "the body must be an object"),
    ("/v1/bulk", b"{}", "has no operations"),
    ("/v1/bulk", b'{"operations":7}', "must be an array"),
    ("/v1/bulk", b'{"operations":[7]}', "operations[0] must be an object"),
    ("/v1/bulk", b'{"operations":[{"do":"get","key":"a"}]}', "do of operations[0]"),
    ("/v1/bulk", b'{"operations":[{"do":"put","key":"a"}]}', "has no value"),
    ("/v1/bulk", b'{"operations":[{"do":"delete","key":"a","if":1}]}', 'not understood: "if"'),
    ("/v1/bulk", b'{"operations":[{"do":"delete","key":""}]}', "no key is named"),
    ("/v1/bulk", b'{"operations":[{"do":"delete","key":{"base64":"_"}}]}', "key of operations"),
    ("/v1/bulk", b'{"operations":[{"do":"delete","key":"\\ud800"}]}', "half a character"),
    ("/v1/get", b'{"keys":["\xed\xa0\x80"]}', "byte 10 is no UTF-8"),
    ("/v1/get", b'{"\xed\xa0\x80":1}', "no UTF-8"),
    ("/v1/get", b'{"keys":["\xff"]}', "no UTF-8"),
    ("/v1/get", '{"keys":["a"]}'.encode("utf-16"), "no UTF-8"),
    ("/v1/get", '{"keys":["a"]}'.encode("utf-16-le"), "no JSON"),
    ("/v1/get", '{"keys":["a"]}'.encode("utf-8-sig"), "no JSON"),
    ("/v1/bulk", b'{"operations":[{"do":"add","key":"a","by":1.5}]}', "by of operations[0]"),
    ("/v1/bulk", b'{"operations":[{"do":"add","key":"a","by":true}]}', "by of operations[0]"),
    ("/v1/bulk", b'{"operations":[{"do":"add","key":"a","ttl":NaN}]}', "no JSON"),
    ("/v1/bulk", b'{"operations":[{"do":"touch","key":"a"}]}', "has neither ttl nor lease"),
    ("/v1/bulk", b'{"operations":[{"do":"touch","key":"a","ttl":-1}]}', "ttl of operations[0]"),
    (
        "/v1/bulk",
        b'{"operations":[{"do":"delete","key":"a","if_absent":true,"if_revision":7}]}',
        "operations[0] has both if_revision and if_absent",
    ),
    ("/v1/txn", b"{}", "names no key"),
    (
        "/v1/txn",
        b'{"then":[{"do":"set","key":"a"}]}',
        "add, append, delete, get, persist, put, touch",
    ),
    ("/v1/txn", b'{"compare":[{"key":"a"}]}', "one of revision, value and absent"),
    ("/v1/txn", b'{"compare":[{"key":"a","absent":true,"is":"<"}]}', "is of compare[0]"),
    ("/v1/txn", b'{"compare":[{"key":"a","revision":1,"is":"~"}]}', "is of compare[0]"),
    ("/v1/get", b'{"keys":[1]}', "keys[0] must be text"),
    ("/v1/lease", b'{"ttl":0}', "at least 0.001"),
    ("/v1/lease", b'{"ttl":"5"}', "ttl of the body"),
    ("/v1/lease", b'{"ttl":5,"lease":"0"}', "lease must be a number"),
    ("/v1/lock/l", b'{"owner":"me"}', "a lock has a ttl or a lease"),
    ("/v1/lock/l", b'{"owner":"","ttl":1}', "owner of the body"),
    ("/v1/lock/l", b'{"owner":"me","ttl":1,"wait":601}', "wait of the body"),
    ("/v1/lock/l", b'{"owner":"me","ttl":1,"wait":-1}', "a number of seconds up to 600"),
]


@pytest.mark.parametrize(("path", "body", "says"), NONSENSE)
async def test_json_that_makes_no_sense_is_400_and_says_where(
    path: str, body: bytes, says: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, service):
        answer = await ask(node, request("POST", path, body))
        assert (answer.code, answer.document["code"]) == (400, "bad_request")
        assert says in str(answer.document["message"])
        assert service.index == 0


async def test_a_key_that_is_empty_is_no_matter_of_the_url_unless_it_is_there(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (node, _):
        for asked, url in (
            (request("POST", "/v1/get", b'{"keys":[""]}'), False),
            (request("POST", "/v1/bulk", b'{"operations":[{"do":"delete","key":""}]}'), False),
            (request("PUT", "/key", b"key=&value=1"), False),
            (request("GET", "/v1/watch?key="), False),
            (request("GET", "/v1/kv/"), True),
        ):
            answer = await ask(node, asked)
            assert answer.document["message"] == "no key is named"
            assert ("URL" in str(answer.document["hint"])) is url


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match", "If-Lock"])
async def test_a_condition_of_one_key_is_none_of_several(header: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        for path in ("/v1/bulk", "/v1/txn"):
            write = {"do": "delete", "key": "a"}
            document = {"operations" if "bulk" in path else "then": [write]}
            answer = await post(node, path, document, {header: "*"})
            assert (answer.code, header in str(answer.document["message"])) == (400, True)
