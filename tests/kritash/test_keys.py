"""The options of get, put and delete, and add, append, touch, persist, scan and count, against
real states of shards."""

from __future__ import annotations

import pytest

from krita import KEEP_TTL
from tests.kritash.conftest import Shell
from tests.protocol.holdings import START_MS

DAY_MS = 86_400_000


def test_a_put_says_how_long_the_key_lasts(shell: Shell) -> None:
    shell("key", "put", "k", "v", "--ttl", "1m30s")
    assert shell.json("key", "get", "k")["expires_in_ms"] == 90_000
    shell("key", "put", "k", "w", "--ttl", "keep")
    shell.cluster.advance(89_999)
    assert shell("get", "k").out == b"w"
    shell.cluster.advance(2)
    shell("get", "k", code=1)


def test_a_duration_without_a_unit_is_refused_with_a_mark_under_it(shell: Shell) -> None:
    said = shell.error("-e", "put k v --ttl 30", code=2)
    assert "--ttl: '30' has no unit" in said
    assert "\n                ^\n" in said
    assert "did you mean 30s or 30ms?" in said


def test_conditions_of_a_write_that_do_not_hold_are_code_1(shell: Shell) -> None:
    shell("key", "put", "k", "v", "--if-absent")
    refused = shell.error("put", "k", "w", "--if-absent", code=1)
    assert refused.startswith("error: --if-absent: the key is there, at revision 2\n")
    assert "outcome: not applied" in refused
    shell.error("put", "k", "w", "--if-revision", "9999", code=1)
    shell.error("delete", "k", "--if-revision", "9999", code=1)
    revision = shell.json("get", "k")["revision"]
    shell("put", "k", "w", "--if-revision", str(revision))
    shell.error("put", "k", "x", "--if-absent", "--if-revision", "7", code=2)


def test_the_same_request_by_its_name_happens_once(shell: Shell) -> None:
    first = shell("add", "n", "5", "--idempotency", "order 7")
    assert shell("add", "n", "5", "--idempotency", "order 7").out == first.out
    assert shell("get", "n").out == b"5"


def test_what_a_write_has_replaced_can_be_told(shell: Shell) -> None:
    assert shell.json("put", "k", "one", "--previous")["previous"] is None
    assert "was one" in shell.said("put", "k", "two\n2", "--previous")[0]
    told = shell.json("delete", "k", "--previous")["previous"]
    assert (told["value"], told["content_type"]) == ("two\n2", None)


def test_a_write_under_a_lock_is_refused_when_the_lock_has_gone(shell: Shell) -> None:
    lock = shell.db.lock("{s}lock", ttl_ms=10_000)
    held = f"{{s}}lock@{lock.acquire()}"
    shell("put", "{s}k", "v", "--if-lock", held)
    lock.release()
    shell.error("put", "{s}k", "w", "--if-lock", held, code=1)
    assert "must be a lock and its token" in shell.error("put", "k", "v", "--if-lock", "x", code=2)


def test_a_key_of_a_lease_ends_with_it(shell: Shell) -> None:
    lease = shell.db.lease(10_000)
    lease.grant()
    shell("put", "k", "v", "--lease", str(lease.id))
    assert shell.json("get", "k")["lease"] == str(lease.id)
    lease.revoke()
    shell("get", "k", code=1)
    assert "outcome: not applied" in shell.error("put", "k", "v", "--lease", str(lease.id), code=1)


def test_counters_are_added_to_and_subtracted_from(shell: Shell) -> None:
    assert shell.said("key", "add", "n")[0].endswith("now 1")
    assert shell.json("add", "n", "-5")["number"] == -4
    shell("put", "text", "abc")
    assert "outcome: not applied" in shell.error("add", "text", "1", code=6)
    shell.error("add", "n", "9223372036854775808", code=2)


def test_append_and_touch_leave_the_rest_as_it_is(shell: Shell) -> None:
    shell("put", "k", "a", "--ttl", "1m")
    assert shell.json("append", "k", "bc")["length"] == 3
    assert shell.json("get", "k")["expires_in_ms"] == 60_000
    revision = shell.json("get", "k")["revision"]
    assert shell.said("key", "touch", "k", "--ttl", "2m") == [f"ok revision {revision} lasts 2m"]
    assert shell.json("get", "k")["expires_in_ms"] == 120_000
    shell("key", "persist", "k")
    assert "expires_in_ms" not in shell.json("get", "k")
    shell("key", "touch", "absent", "--ttl", "1s", code=1)
    assert "key persist" in shell.error("key", "touch", "k", code=2)


def test_a_value_is_read_as_it_was(shell: Shell) -> None:
    shell.db.retention_set("", DAY_MS)
    first = shell.db.put("k", "one").revision
    shell.cluster.advance(60_000)
    shell.db.put("k", "two", ttl_ms=KEEP_TTL)
    assert shell("get", "k", "--at", str(first)).out == b"one"
    assert START_MS == 1_700_000_000_000  # 2023-11-14T22:13:20Z
    assert shell("get", "k", "--at", "2023-11-14T22:13:50Z").out == b"one"
    shell("put", "late", "x")
    absent = shell("get", "late", "--at", "2023-11-14T22:13:50Z", code=1)
    assert absent.err == "absent: there was no such key then\n"


def test_a_past_that_is_not_kept_is_code_6(shell: Shell) -> None:
    shell.db.put("k", "one")
    assert "set a retention" in shell.error("get", "k", "--at", "2023-01-01T00:00Z", code=6)


def test_a_stale_read_says_how_stale_it_may_be(shell: Shell) -> None:
    shell.db.put("k", "v")
    assert shell.json("get", "k", "--max-staleness", "5s")["staleness_ms"] == 0
    assert shell.json("get", "k", "--stale")["staleness_ms"] == 0


# -- Scans ---------------------------------------------------------------------


def test_a_scan_is_a_table_with_a_header(shell: Shell) -> None:
    shell.db.put("a:1", "x", content_type="text/plain")
    shell.db.put("a:2", b"\xff\n", ttl_ms=60_000)
    shell.db.put("b", "y")
    lines = shell.said("key", "scan", "a:")
    assert lines[0] == "key revision expires_in_ms lease content_type value"
    assert [line.split()[0] for line in lines[1:]] == ["a:1", "a:2"]
    assert lines[1].endswith("- - text/plain x")
    assert lines[2].endswith(r"60000 - - \xff\n")


def test_a_scan_in_json_is_one_array_however_long(shell: Shell) -> None:
    for number in range(450):
        shell.db.put(f"k{number:03}", str(number))
    rows = shell.json("scan", "k")
    assert [row["key"] for row in rows] == [f"k{number:03}" for number in range(450)]
    assert rows[7]["value"] == "7"
    assert shell.json("scan", "nothing") == []


def test_keys_alone_are_a_line_each_for_other_programs(shell: Shell) -> None:
    for key in ("a", "b c", "d"):
        shell.db.put(key, "v")
    assert shell("scan", "--keys-only").out == b"a\nb c\nd\n"
    assert shell("scan", "--keys-only", "--reverse", "--limit", "2").out == b"d\nb c\n"
    assert shell("scan", "--keys-only", "--start", "b", "--stop", "d").out == b"b c\n"
    assert "value" not in shell.json("scan", "--keys-only")[0]


def test_a_count_is_a_number(shell: Shell) -> None:
    for number in range(7):
        shell.db.put(f"k{number}", "v")
    assert shell("count", "k").out == b"7\n"
    assert shell.json("count", "--start", "k5") == {"start": "k5", "count": 2}
    assert shell("count").out == b"7\n"


@pytest.mark.parametrize("command", ["scan", "count"])
def test_a_range_is_named_in_one_way(shell: Shell, command: str) -> None:
    assert "not both" in shell.error(command, "a", "--stop", "b", code=2)
