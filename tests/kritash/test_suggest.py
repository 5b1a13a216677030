"""What completion offers, by table: | is the cursor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kritash.commands import COMMANDS, COMMON_OPTIONS
from kritash.recent import RECENT_KEYS_MAX, Recent
from kritash.suggest import Suggestion, suggest


def seen() -> Recent:
    recent = Recent()
    for key in (b"user:1", b"a b", b"user:2"):
        recent.saw_key(key)
    recent.saw_nodes([
        {"node": 1, "address": "h:1", "state": "up", "zone": "a"},
        {"node": 2, "address": "h:2", "state": "draining", "zone": "rack b"},
    ])  # fmt: skip
    recent.saw_shards([
        {"shard": 3, "leader": 2, "bytes": 3 << 20, "in_motion": True},
        {"shard": 4, "leader": 0},
    ])  # fmt: skip
    recent.saw_lock(b"job", 7)
    recent.saw_lock(b"free")
    recent.saw_lock(b"my job", 9)
    recent.saw_lease(77, "10 s")
    return recent


def offered(line: str) -> list[Suggestion]:
    cursor = line.index("|")
    return suggest(line.replace("|", ""), cursor, COMMANDS, COMMON_OPTIONS, seen())


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("clu|", ["cluster"]),
        ("CLU|", ["cluster"]),
        ("move |", ["list", "pause", "resume", "cancel"]),
        ("key g|", ["get"]),
        ("shard tr|", ["transfer"]),
        ("get us|", ["user:2", "user:1"]),
        ("get |", ["user:2", '"a b"', "user:1", "--stale", "--max-staleness", "--at"]),
        ('get "a|', ['"a b"']),
        ("key get user:1 |", ["--stale", "--max-staleness", "--at"]),
        ("get user:1 --at |", ["-10m", "-1h", "-1d"]),
        ("put a b --ttl |", ["30s", "5m", "1h30m", "7d", "keep"]),
        ("put a b --ttl k|", ["keep"]),
        ("get a --max-staleness |", ["30s", "5m", "1h30m", "7d"]),
        ("put a b --if-lock |", ['"my job"@9', "job@7"]),
        ("put a b --lease |", ["77"]),
        ("get user:1 --js|", ["--json"]),
        ("get --json --js|", []),
        ("shard transfer |", ["3", "4"]),
        ("shard transfer 3 |", ["1", "2"]),
        ("shard transfer --yes 3 |", ["1", "2"]),
        ("node dr|", ["drain"]),
        ("node drain |", ["1", "2", "--plan", "--wait", "--wait-s"]),
        ("node replace 1 |", ["1", "2", "--plan", "--wait", "--wait-s"]),
        ("node drain 1 --pl|", ["--plan"]),
        ("node set-zone 1 |", ["a", '"rack b"']),
        ("node set-zone 1 r|", ['"rack b"']),
        ("node set-weight 1 |", []),
        ("node add --zone |", ["a", '"rack b"']),
        ("move re|", ["resume"]),
        ("move resume |", ["3", "4"]),
        ("shard move 3 |", ["1", "2", "--wait", "--wait-s"]),
        ("bench put --conn|", ["--connections"]),
        ("bench put --connections |", []),
        ("bench put --connections 8 --conn|", []),
        ("bench put --in_flight 3 --in|", []),
        ("key import f --format |", ["jsonl", "csv", "consul", "etcd"]),
        ("key export --format c|", ["csv"]),
        ("key import --prefix us|", ["user:2", "user:1"]),
        ("help key g|", ["get"]),
        ("help clu|", ["cluster"]),
        ("nonsense |", []),
        ("# clu|", []),
        (r"get \q|", []),
        ("clu| status", ["cluster"]),
    ],
)
def test_the_cursor_is_offered_what_may_stand_there(line: str, texts: list[str]) -> None:
    assert [found.text for found in offered(line)] == texts


def test_the_menu_shows_what_each_word_means() -> None:
    metas = {found.text: found.meta for found in offered("|")}
    assert metas["key"].startswith("get, put, delete, ")
    assert metas["get"] == "read a key"
    assert metas["ping"].startswith("ask a node")
    assert [found.meta for found in offered("shard transfer |")] == [
        "led by node 2, 3.0 MiB, moving", "no leader",
    ]  # fmt: skip
    assert [found.meta for found in offered("shard transfer 3 |")] == [
        "h:1  up  zone a", "h:2  draining  zone rack b",
    ]  # fmt: skip
    assert [found.meta for found in offered("put a b --ttl |")][-1] == "as long as it would have"
    assert [found.meta for found in offered("put a b --lease |")] == ["10 s"]
    assert offered("bench put --keys|")[0].meta == "number of different keys (default 10000)"


def test_a_suggestion_replaces_the_whole_word_under_the_cursor() -> None:
    assert offered("get us|")[0].start == 4
    assert offered('get "a|')[0].start == 4
    assert offered("get |")[0].start == 4


@given(st.text(alphabet="keygtpu bench-\"'\\x#0 "), st.integers(0, 30))
def test_completion_never_fails_whatever_stands_on_the_line(line: str, cursor: int) -> None:
    for found in suggest(line, cursor, COMMANDS, COMMON_OPTIONS, seen()):
        assert 0 <= found.start <= len(line)


def test_the_oldest_keys_are_forgotten_first() -> None:
    recent = Recent()
    for number in range(RECENT_KEYS_MAX + 1):
        recent.saw_key(b"%d" % number)
    assert b"0" not in recent.keys
    assert len(recent.keys) == RECENT_KEYS_MAX


def test_documents_in_an_unknown_shape_teach_nothing_and_break_nothing() -> None:
    recent = Recent()
    documents: list[object] = [None, 3, [None], [{}], [{"node": "x", "shard": None}]]
    for document in documents:
        recent.saw_nodes(document)
        recent.saw_shards(document)
    assert (recent.nodes, recent.shards) == ({}, {})
