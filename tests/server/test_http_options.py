"""What a request may ask beside its key: lives, guards, freshness, other times, limits of time."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from trio.testing import MockClock

from krita.errors import BadRequest
from krita.limits import LEASE_LIMIT
from krita.values import iso_time
from kritad.server import http_exchange
from kritad.server.http_options import (
    guard_of,
    lease_id,
    moment_ms,
    number,
    range_of,
    reading_of,
)
from tests.server.raw import ask, request
from tests.server.service import running
from tests.server.state_service import serving

KEY = "/v1/kv/a"


async def test_a_value_lasts_for_its_ttl_and_says_how_much_is_left(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", KEY + "?ttl=2.5", b"x"))
        got = await ask(node, request("GET", KEY))
        assert (got.code, got.headers["krita-expires-in"]) == (200, "2.500")
        quick_clock.jump(3)
        await ask(node, request("PUT", "/v1/kv/b", b"x"))  # an entry, and so the shard's time
        assert (await ask(node, request("GET", KEY))).code == 404


async def test_a_put_without_a_ttl_takes_it_away_and_ttl_keep_keeps_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", KEY + "?ttl=60", b"1"))
        await ask(node, request("PUT", KEY + "?ttl=keep", b"2"))
        assert "krita-expires-in" in (await ask(node, request("GET", KEY))).headers
        await ask(node, request("PUT", KEY, b"3"))
        assert "krita-expires-in" not in (await ask(node, request("GET", KEY))).headers


async def test_what_changes_a_value_leaves_its_ttl_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", KEY + "?ttl=60", b"1"))
        added = await ask(node, request("POST", KEY + "?do=add&by=41"))
        assert added.document["number"] == 42
        longer = await ask(node, request("POST", KEY + "?do=append", b"0"))
        assert longer.document["length"] == 3
        got = await ask(node, request("GET", KEY))
        assert (got.body, "krita-expires-in" in got.headers) == (b"420", True)
        persisted = await ask(node, request("POST", KEY + "?do=persist"))
        assert persisted.headers["etag"] == got.headers["etag"], "the revision stays"
        assert "krita-expires-in" not in (await ask(node, request("GET", KEY))).headers
        touched = await ask(node, request("POST", KEY + "?do=touch&ttl=9"))
        assert touched.code == 200
        absent = await ask(node, request("POST", "/v1/kv/none?do=touch&ttl=9"))
        assert (absent.code, absent.headers["krita-outcome"]) == (404, "not-applied")


async def test_adding_to_what_is_no_number_is_409(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", KEY, b"x"))
        answer = await ask(node, request("POST", KEY + "?do=add"))
        assert (answer.code, answer.document["code"]) == (409, "conflict")


async def test_previous_is_what_was_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        put = await ask(node, request("PUT", KEY + "?previous=1", b"1", {"Content-Type": "a/b"}))
        assert put.document["previous"] is None
        put = await ask(node, request("PUT", KEY + "?previous", b"\xff"))
        assert put.document["previous"] == {"value": "1", "revision": 1, "content_type": "a/b"}
        gone = await ask(node, request("DELETE", KEY + "?previous=true"))
        assert gone.document["previous"] == {"value": {"base64": "/w=="}, "revision": 2}


async def test_a_request_with_an_idempotency_key_happens_once(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        again = {"Idempotency-Key": "order-17"}
        for _ in range(2):
            answer = await ask(node, request("POST", KEY + "?do=add&by=5", headers=again))
            assert (answer.code, answer.document["number"]) == (201, 5)
        other = await ask(node, request("POST", KEY + "?do=add&by=6", headers=again))
        assert (other.code, other.document["code"]) == (409, "conflict")
        looked = again | {"If-Match": "*"}
        refused = await ask(node, request("PUT", KEY, b"x", looked))
        assert refused.code == 400, "a repetition would not find the same revision"


async def test_a_write_with_if_lock_happens_only_while_the_lock_is_held(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        taken = await ask(node, request("POST", "/v1/lock/{g}l", b'{"owner":"me","ttl":60}'))
        token = taken.document["token"]
        held, lost = {"If-Lock": f"{{g}}l@{token}"}, {"If-Lock": "{g}l@77"}
        assert (await ask(node, request("PUT", "/v1/kv/{g}a", b"1", held))).code == 201
        refused = await ask(node, request("PUT", "/v1/kv/{g}a", b"2", lost))
        assert refused.code == 412
        assert str(refused.document["message"]).startswith("the lock is not held")
        assert "etag" not in refused.headers, "the revision is the lock's"
        both = lost | {"If-Match": '"2"'}
        refused = await ask(node, request("PUT", "/v1/kv/{g}a", b"2", both))
        assert str(refused.document["message"]).startswith("the lock is not held")
        elsewhere = await ask(node, request("PUT", KEY, b"1", held))
        assert (elsewhere.code, elsewhere.document["groups"]) == (422, ["a", "g"])


@pytest.mark.parametrize(
    ("query", "stale"),
    [
        ("consistency=stale", True),
        ("consistency=bounded&max_staleness=100000000", True),
        ("consistency=linearizable", False),
    ],
)
async def test_a_stale_read_says_how_stale_it_may_be(
    query: str, stale: bool, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", KEY, b"x"))
        least = {"Krita-Min-Revision": "1"}
        got = await ask(node, request("GET", f"{KEY}?{query}", headers=least))
        assert (got.code, "krita-staleness-ms" in got.headers) == (200, stale)


async def test_a_key_is_read_as_it_was(quick_clock: MockClock, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, service):
        await ask(node, request("PUT", "/v1/retention?prefix=&keep=3600"))
        await ask(node, request("PUT", KEY, b"old"))
        quick_clock.jump(10)
        then = service.host.clock.wall_ms()
        quick_clock.jump(10)
        await ask(node, request("PUT", KEY, b"new"))
        for moment in (f"at={iso_time(then)}", f"at={then / 1000}", "at_revision=2"):
            assert (await ask(node, request("GET", f"{KEY}?{moment}"))).body == b"old"
        quick_clock.jump(10)
        now = iso_time(service.host.clock.wall_ms())
        assert (await ask(node, request("GET", f"{KEY}?at={now}"))).body == b"new"
        early = await ask(node, request("GET", f"{KEY}?at=5"))
        assert (early.code, early.document["code"]) == (410, "compacted")
        late = await ask(node, request("GET", f"{KEY}?at=99999999999"))
        assert late.code == 400


async def test_a_410_of_the_past_says_where_one_can_begin_as_it_is_sent(
    quick_clock: MockClock, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", "/v1/kv/b", b"x"))
        await ask(node, request("PUT", "/v1/retention?prefix=&keep=3600"))
        quick_clock.jump(10)
        await ask(node, request("PUT", KEY, b"x"))
        history = await ask(node, request("GET", "/v1/history/a"))
        for asked, oldest in (("at=5", history.document["complete_from"]), ("at_revision=1", 2)):
            early = await ask(node, request("GET", f"{KEY}?{asked}"))
            assert (early.code, early.document.get("oldest")) == (410, oldest)
            moment = f"{asked.partition('=')[0]}={oldest}"
            assert (await ask(node, request("GET", f"{KEY}?{moment}"))).code == 404, "it was absent"


@pytest.mark.parametrize(
    ("key", "moment", "says"),
    [
        ("greeting", "at=5", 'no older versions are kept of "greeting"'),
        ("%00%FE", "at=5", 'no older versions are kept of "\\x00\\xfe"'),
        (
            "kept",
            "at=0.005",
            '1970-01-01T00:00:00.005Z is older than what is kept of "kept": that ',
        ),
        ("kept", "at=32472144000", "2999-01-01T00:00:00.000Z is still to come: it is 2026-"),
        ("kept", "at=999999999999", "999999999999.0 is still to come: it is 2026-"),
    ],
)
async def test_the_past_is_told_of_in_text_and_in_moments(
    key: str, moment: str, says: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", "/v1/retention?prefix=kept&keep=3600"))
        answer = await ask(node, request("GET", f"/v1/kv/{key}?{moment}"))
        assert str(answer.document["message"]).startswith(says)


async def test_where_no_versions_are_kept_a_410_names_no_oldest(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        await ask(node, request("PUT", KEY, b"x"))
        await ask(node, request("PUT", KEY, b"y"))
        for moment in ("at=5", "at_revision=1"):
            answer = await ask(node, request("GET", f"{KEY}?{moment}"))
            assert (answer.code, "oldest" in answer.document) == (410, False)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        (b"0", 0),
        (b"1795343400.25", 1795343400250),
        (b"2026-11-22T10:30:00Z", 1795343400000),
        (b"2026-11-22T10:30:00", 1795343400000),
        (b"2026-11-22 10:30", 1795343400000),
        (b"2026-11-22T12:30:00+02:00", 1795343400000),
        (b"2026-11-22T12:30:00 02:00", 1795343400000),  # how a query says that
        (b"2026-11-22", 1795305600000),
    ],
)
def test_a_moment_is_written_as_people_write_it(text: bytes, at_ms: int) -> None:
    assert moment_ms(text) == at_ms


BAD = [
    ("GET", "?consistency=bounded", "max_staleness"),
    ("GET", "?max_staleness=1", "consistency=bounded"),
    ("GET", "?at=yesterday", "at is no moment"),
    ("GET", "?at=1&at_revision=1", "two moments"),
    ("GET", "?at=1&consistency=stale", "about the past"),
    ("GET", "?wait=1&at=1", "wait goes with after"),
    ("GET", "?after=7", "after goes with wait"),
    ("GET", "?%77ait=601", "wait must be a number of seconds up to 600"),
    ("GET", "?wait=601", "wait must be a number of seconds up to 600"),
    ("GET", "?ttl=1", '"ttl="'),
    ("PUT", "?ttl=0", "at least 0.001"),
    ("PUT", "?ttl=-1", "ttl must be a number of seconds"),
    ("PUT", "?ttl=1h", "ttl must be a number of seconds up to 3,162,240,000"),
    ("PUT", "?lease=x", "lease must be a number"),
    ("PUT", "?previous=maybe", "previous must be 1 or 0"),
    ("PUT", "?timeout=0", "a timeout is up to 60 seconds"),
    ("PUT", "?timeout=61", "timeout must be a number of seconds up to 60"),
    ("POST", "", "do must be add, append, touch or persist"),
    ("POST", "?do=add&by=x", "by must be a whole number"),
    ("POST", "?do=append&by=1", "by goes with do=add"),
    ("POST", "?do=touch", "do=touch needs"),
    ("POST", "?do=touch&ttl=keep", "do=touch needs"),
    ("POST", "?do=persist&ttl=1", "do=persist takes neither"),
]


@pytest.mark.parametrize(("method", "query", "says"), BAD)
async def test_an_option_that_is_not_understood_is_400_and_named(
    method: str, query: str, says: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, service):
        body = b"x" if method == "PUT" else b""
        answer = await ask(node, request(method, KEY + query, body))
        assert (answer.code, answer.document["code"]) == (400, "bad_request")
        assert says in str(answer.document["message"])
        assert service.index == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"If-Lock": "name"},
        {"If-Lock": "name@0"},
        {"If-Lock": "@7"},
        {"Idempotency-Key": "x" * 256},
        {"Krita-Timeout": "soon"},
        {"Krita-Timeout": "nan"},
        {"Krita-Timeout": "1_0"},
        {"If-Lock": "%zz@7"},
        {"Krita-Request-Id": "x" * 129},
    ],
)
async def test_a_header_of_ours_that_is_not_understood_is_400(
    headers: dict[str, str], tmp_path: Path
) -> None:
    async with serving(tmp_path) as (node, service):
        answer = await ask(node, request("PUT", KEY, b"x", headers))
        assert (answer.code, service.index) == (400, 0)


@pytest.mark.parametrize(
    "path", ["/v1/kv/%zz", "/%", "/a%2", "/key?value=%zz", "/v1/kv?prefix=%2&limit=1"]
)
async def test_a_percent_sign_that_encodes_nothing_is_400(path: str, tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        answer = await ask(node, request("GET", path))
        assert (answer.code, "hexadecimal" in str(answer.document["message"])) == (400, True)


async def test_a_client_says_how_long_it_waits() -> None:
    async with running() as node:
        await ask(node, request("GET", KEY))
        assert node.service.options[0] is None
        await ask(node, request("GET", KEY, headers={"Krita-Timeout": "0.5"}))
        assert 0 < (node.service.options[0] or 0) <= 500
        await ask(node, request("PUT", KEY + "?timeout=2", b"x"))
        assert 500 < (node.service.options[0] or 0) <= 2000


async def test_what_comes_too_late_to_be_submitted_is_503_and_not_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node:
        monkeypatch.setattr(http_exchange, "perf_counter", count(step=2).__next__)
        for headers in ({"Krita-Timeout": "1"}, {"Krita-Timeout": "1", "If-Match": "*"}):
            answer = await ask(node, request("PUT", KEY, b"x", headers))
            assert (answer.code, answer.document["code"]) == (503, "deadline")
            assert answer.document["outcome"] == "not applied"
        assert node.service.submitted == 0


async def test_answers_say_how_long_they_took_and_repeat_the_request_s_id() -> None:
    async with running() as node:
        answer = await ask(node, request("GET", KEY, headers={"Krita-Request-Id": "mine-7"}))
        assert answer.headers["server-timing"].startswith("total;dur=")
        assert answer.headers["krita-request-id"] == "mine-7"
        assert "krita-request-id" not in (await ask(node, request("GET", KEY))).headers
        node.service.bug = AssertionError("planted")
        failed = await ask(node, request("GET", KEY))
        assert failed.headers["krita-request-id"] in str(failed.document["message"])


async def test_answers_say_what_the_time_went_into(tmp_path: Path) -> None:
    async with serving(tmp_path) as (node, _):
        timing = (await ask(node, request("PUT", KEY, b"x"))).headers["server-timing"]
        names, values = zip(*(part.split(";dur=") for part in timing.split(", ")), strict=True)
        assert names == ("total", "queue", "quorum", "apply")
        total, *stages = map(float, values)
        assert sum(stages) <= total + 0.005 * len(values), "rounded to hundredths"


# --- what is refused, and what just passes ----------------------------------------------------


@pytest.mark.parametrize(
    "header", [b"", b"l", b"l@", b"l@x", b"l@0", b"l@-1", b"l@1.0", b"l@9223372036854775808", b"@1"]
)
def test_what_is_no_held_lock_is_refused_and_not_ignored(header: bytes) -> None:
    with pytest.raises(BadRequest):
        guard_of({b"if-lock": header})


@pytest.mark.parametrize(("name", "read"), [(b"l", b"l"), (b"a@b", b"a@b"), (b"%40", b"@")])
def test_a_held_lock_is_a_name_and_the_largest_token_is_one(name: bytes, read: bytes) -> None:
    guard = guard_of({b"if-lock": b" %b@9223372036854775807 " % name})
    assert guard.if_lock == [read, (1 << 63) - 1]


def test_numbers_end_where_the_database_s_do() -> None:
    assert number(b"%d" % ((1 << 63) - 1), "n") == (1 << 63) - 1
    assert lease_id(b"%d" % (LEASE_LIMIT - 1)) == LEASE_LIMIT - 1
    for text in (b"%d" % (1 << 63), b"-1", b"1.0", b"", b"x", b"1" * 20):
        with pytest.raises(BadRequest):
            number(text, "n")
    for text in (b"%d" % LEASE_LIMIT, b"0", b"-1", b"", b"x"):
        with pytest.raises(BadRequest):
            lease_id(text)


def test_what_is_no_revision_to_be_seen_is_refused_also_without_a_query() -> None:
    with pytest.raises(BadRequest, match="Krita-Min-Revision"):
        reading_of({}, {b"krita-min-revision": b"x"})


@pytest.mark.parametrize("edge", ["start", "stop"])
def test_a_prefix_and_an_edge_are_no_range(edge: str) -> None:
    with pytest.raises(BadRequest, match="two ways"):
        range_of({"prefix": b"a", edge: b"a"})
