"""The blocking client's operations on keys, groups, ranges and the past."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

import krita
from krita import checks, steps
from krita.aio import AsyncClient
from krita.client import Client
from krita.errors import (
    BadRequest,
    Compacted,
    ConditionFailed,
    Conflict,
    KritaError,
    NotLeader,
    Outcome,
)
from krita.operations import KEEP_TTL, Op
from krita.watching import Range
from tests.protocol import server
from tests.protocol.conftest import once
from tests.protocol.holdings import START_MS
from tests.protocol.server import Cluster

# One key


def test_a_put_may_ask_for_absence_and_tell_what_was_there(db: Client) -> None:
    first = db.put("k", "1", if_absent=True)
    with pytest.raises(ConditionFailed):
        db.put("k", "2", if_absent=True)
    assert first.previous is None
    previous = db.put("k", "2", previous=True).previous
    assert previous is not None
    assert (previous.data, previous.revision) == (b"1", first.revision)
    gone = db.delete("k", previous=True).previous
    assert gone is not None
    assert gone.data == b"2"
    assert db.delete("k", previous=True).previous is None


def test_a_key_ends_when_its_time_is_over_unless_it_is_touched_or_made_to_last(
    cluster: Cluster, db: Client
) -> None:
    for key in ("ends", "touched", "lasts"):
        db.put(key, "v", ttl_ms=1000)
    value = db.get("ends")
    assert value is not None
    assert value.expires_in_ms == 1000
    revision = db.touch("touched", 5000).revision
    assert db.persist("lasts").existed
    cluster.advance(1001)
    assert db.get("ends") is None
    touched, lasts = db.get("touched"), db.get("lasts")
    assert touched is not None
    assert (touched.revision, touched.expires_in_ms) == (revision, 3999)
    assert lasts is not None
    assert lasts.expires_in_ms is None
    assert not db.touch("ends", 1000).existed


def test_a_counter_keeps_its_deadline_and_a_put_takes_it_away(db: Client) -> None:
    def left_ms() -> int | None:
        value = db.get("n")
        assert value is not None
        return value.expires_in_ms

    assert db.add("n", 5, ttl_ms=1000).number == 5
    assert db.add("n", -7).number == -2
    assert left_ms() == 1000
    db.put("n", "4", ttl_ms=KEEP_TTL)
    assert left_ms() == 1000
    db.put("n", "4")
    assert left_ms() is None
    db.append("n", "2")
    assert db.add("n", 0).number == 42
    db.put("n", "text")
    with pytest.raises(Conflict):
        db.add("n", 1)


def test_an_add_whose_answer_is_lost_is_counted_once(cluster: Cluster, db: Client) -> None:
    db.add("n", 1)
    cluster.on(Op.ADD, server.apply_then_drop)
    assert db.add("n", 1).number == 2
    assert cluster.count(Op.ADD) == 3
    assert once(cluster)


def test_a_repeated_idempotency_key_gets_the_first_answer(db: Client) -> None:
    first = db.put("k", "1", idempotency="form 1")
    db.put("k", "2")
    assert db.put("k", "1", idempotency="form 1") == first
    with pytest.raises(Conflict):
        db.put("k", "3", idempotency="form 1")


def test_a_plain_put_sends_the_fields_that_it_always_had(cluster: Cluster, db: Client) -> None:
    db.put("k", "v")
    assert [len(fields) for _, op, fields in cluster.requests if op == Op.PUT] == [7]
    db.delete("k")
    assert [len(fields) for _, op, fields in cluster.requests if op == Op.DELETE] == [5]


def test_bounds_make_a_read_a_stale_one(cluster: Cluster, db: Client) -> None:
    revision = db.put("k", "v").revision
    assert db.get("k", revision_min=revision) == db.get("k", staleness_ms_max=100)
    sent = [fields for _, op, fields in cluster.requests if op == Op.GET]
    assert sent == [[b"k", 1, None, revision], [b"k", 1, 100]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda db: db.put("k", "v", if_absent=True, if_revision=5),
        lambda db: db.put("k", "v", ttl_ms=0),
        lambda db: db.put("k", "v", ttl_ms=1.5),
        lambda db: db.put("k", "v", lease=0),
        lambda db: db.put("k", "v", if_lock=("l", 0)),
        lambda db: db.put("k", "v", idempotency=""),
        lambda db: db.add("k", "1"),
        lambda db: db.add("k", 1 << 63),
        lambda db: db.get("k", consistency="linearizable", revision_min=3),
        lambda db: db.get("k", at_revision=3, staleness_ms_max=3),
        lambda db: db.get("k", at_revision=3, at=3),
        lambda db: db.get("k", at=datetime.now()),
        lambda db: db.scan("k", start="a"),
        lambda db: db.scan("k", limit=0),
        lambda db: db.watch("k", prefix="k"),
        lambda db: db.watch("k").token,
        lambda db: db.txn(),
        lambda _: steps.revision("k", "~", 1),
        lambda db: db.lock("k", ttl_ms=0),
        lambda db: db.lock("k", ttl_ms=10).token,
        lambda db: db.lease().grant(),
        lambda db: db.election("k", ttl_ms=10).resign(),
    ],
)
def test_a_mistake_is_told_before_anything_is_sent(
    cluster: Cluster, db: Client, wrong: Callable[[Client], object]
) -> None:
    with pytest.raises(BadRequest):
        wrong(db)
    assert not cluster.requests


HALF = "\udc80"  # of a surrogate pair: no character, and in no UTF-8


def deep() -> list[object]:
    """What the encoder itself would run out of its stack for."""
    item: list[object] = []
    for _ in range(100_000):
        item = [item]
    return item


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        (lambda db: db.put("k", "v", lease="77"), "lease"),
        (lambda db: db.put("k", "v", lease=2**60), "lease"),
        (lambda db: db.put("k", "v", if_lock="l"), "if_lock"),
        (lambda db: db.put("k", "v", if_lock=["l", 1]), "if_lock"),
        (lambda db: db.put("k", "v", if_lock=("l", 1, 2)), "if_lock"),
        (lambda db: db.put("k", "v", if_lock=("l", 2**70)), "if_lock"),
        (lambda db: db.put("k", "v", if_revision=2**70), "if_revision"),
        (lambda db: db.put("k", "v", ttl_ms=2**64), "ttl_ms"),
        (lambda db: db.put(HALF, "v"), "key"),
        (lambda db: db.put("k", HALF), "value"),
        (lambda db: db.put("k", "v", content_type=HALF), "content_type"),
        (lambda db: db.put("k", "v", content_type=7), "content_type"),
        (lambda db: db.put("k", "v", idempotency=HALF), "idempotency"),
        (lambda db: db.get("k", at=float("inf")), "at"),
        (lambda db: db.get("k", at=float("nan")), "at"),
        (lambda db: db.get("k", at=1e30), "at"),
        (lambda db: db.get("k", at=datetime(1969, 1, 1, tzinfo=UTC)), "at"),
        (lambda db: db.get("k", at_revision=2**70), "at_revision"),
        (lambda db: db.get("k", revision_min=2**70), "revision_min"),
        (lambda db: db.get_many("abc"), "keys"),
        (lambda db: db.get_many([["k"]]), "key"),
        (lambda db: db.bulk([5]), "step"),
        (lambda db: db.bulk(5), "steps"),
        (lambda db: db.txn(then=["put a"]), "then"),
        (lambda db: db.txn(otherwise=steps.get("k")), "otherwise"),
        (lambda db: db.txn(compare=[steps.get("k")]), "compare"),
        (lambda _: steps.revision("k", [], 1), "compare"),  # type: ignore[arg-type]
        (lambda _: steps.revision("k", "==", 2**70), "revision"),
        (lambda db: db.scan(0), "key"),
        (lambda db: db.retention_set(5, 1), "key"),
        (lambda db: db.retention_set(HALF, 1), "key"),
        (lambda db: db.lock("k", ttl_ms=10, owner=HALF), "value"),
        (lambda db: db.lock("k", ttl_ms=10, owner=5), "owner"),
        (lambda db: db.lock("k", ttl_ms=10, wait_ms="5"), "wait_ms"),
        (lambda db: db.lock("k", ttl_ms=10).acquire(wait_ms="5"), "wait_ms"),
        (lambda db: db.lock("k", ttl_ms=10).acquire(wait_ms=float("nan")), "wait_ms"),
        (lambda db: db.ping([]), "node"),
        (lambda db: db.call("ping", node=1.5), "node"),
        (lambda db: db.call([]), "operation"),
        (lambda db: db.call("get", "k", 2**70), "consistency"),
        (lambda db: db.call("put", "k", deep()), "value"),
        (lambda db: db.call("scan", "k", {1: 2}), "stop"),
        (lambda _: krita.connect(None), "nodes"),  # type: ignore[arg-type]
        (lambda _: krita.connect(("127.0.0.1", 9280)), "nodes"),  # type: ignore[arg-type]
        (lambda _: krita.connect(b"127.0.0.1"), "nodes"),  # type: ignore[arg-type]
        (lambda _: Client(token=HALF), "token"),
        (lambda _: Client(token=5), "token"),  # type: ignore[arg-type]
        (lambda _: AsyncClient(None), "nodes"),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_is_told_by_the_name_of_its_parameter(
    wrong: Callable[[Client], object], name: str
) -> None:
    with Client("127.0.0.1:1", timeout_ms=1) as db:  # nobody is there: nothing can be sent
        with pytest.raises(BadRequest, match=rf"\b{name}\b") as caught:
            wrong(db)
        assert caught.value.outcome is Outcome.NOT_APPLIED


# Several keys


def test_many_keys_are_read_by_their_names(db: Client) -> None:
    db.put("a", "1")
    found = db.get_many(["a", "b", "a"])
    assert list(found) == ["a", "b"]
    assert found["a"] is not None
    assert found["b"] is None
    assert db.get_many([b"a"])[b"a"] == found["a"]


def test_a_bulk_tells_what_became_of_each(db: Client) -> None:
    db.put("text", "x")
    put, add, refused, got, gone = db.bulk(
        [
            steps.put("k", "1"),
            steps.add("k", 1),
            steps.add("text", 1),
            steps.get("k"),
            steps.delete("k"),
        ]
    )
    assert isinstance(put, krita.PutResult)
    assert isinstance(add, krita.AddResult)
    assert add.number == 2
    assert isinstance(refused, Conflict)
    assert isinstance(got, krita.Value)
    assert got.data == b"2"
    assert isinstance(gone, krita.DeleteResult)


def test_a_transaction_does_one_side_in_one_step(cluster: Cluster, db: Client) -> None:
    bought = [steps.add("{shop}stock", -1), steps.put("{shop}order", "hat", ttl_ms=500)]
    db.put("{shop}stock", "1")
    first = db.txn(
        compare=[steps.value("{shop}stock", ">", "0"), steps.absent("{shop}order")],
        then=bought,
        otherwise=[steps.get("{shop}stock")],
    )
    assert first.succeeded
    added, put = first.results
    assert isinstance(added, krita.AddResult)
    assert isinstance(put, krita.PutResult)
    assert (added.number, put.existed) == (0, False)
    assert added.revision == put.revision == first.revision
    second = db.txn(
        compare=[steps.value("{shop}stock", ">", "0"), steps.exists("{shop}order")],
        then=bought,
        otherwise=[steps.get("{shop}stock"), steps.get("{shop}nothing")],
    )
    assert not second.succeeded
    stock, nothing = second.results
    assert isinstance(stock, krita.Value)
    assert (stock.data, nothing) == (b"0", None)
    cluster.advance(501)
    assert db.get("{shop}order") is None


def test_a_transaction_takes_generators(db: Client) -> None:
    db.put("a", "1")

    def swap(expected: str) -> krita.TxnResult:
        return db.txn(
            compare=(steps.value(key, "==", expected) for key in ("a",)),
            then=(steps.put(key, "2") for key in ("a", "b")),
            otherwise=(steps.get(key) for key in ("a", "b")),
        )

    refused = swap("another")
    assert not refused.succeeded
    assert [result and getattr(result, "data", None) for result in refused.results] == [b"1", None]
    done = swap("1")
    assert done.succeeded
    assert [getattr(result, "existed", None) for result in done.results] == [True, False]
    found = db.get_many(key for key in ("a", "b"))
    assert [value and value.data for value in found.values()] == [b"2", b"2"]


def test_a_transaction_over_several_groups_knows_no_revisions_of_its_writes(db: Client) -> None:
    there = db.put("c", "7")
    done = db.txn(
        then=[
            steps.put("a", "1"), steps.add("n", 5), steps.delete("b"), steps.get("c"),
            steps.get("a"), steps.get("nobody"),
        ]
    )  # fmt: skip
    assert done.succeeded
    put, added, deleted, old, own, absent = done.results
    assert put == krita.PutResult(0, existed=False)
    assert added == krita.AddResult(0, existed=False, number=5)
    assert deleted == krita.DeleteResult(0, existed=False)
    assert isinstance(old, krita.Value)
    assert (old.data, old.revision) == (b"7", there.revision)
    assert isinstance(own, krita.Value)
    assert (own.data, own.revision, absent) == (b"1", 0, None)


# Ranges


def fill(db: Client, count: int) -> list[bytes]:
    keys = [f"k{number:05}".encode() for number in range(count)]
    results = db.bulk(steps.put(key, key) for key in keys)
    assert not [result for result in results if isinstance(result, KritaError)]
    return keys


def test_a_scan_has_every_key_once_in_order_over_all_pages(cluster: Cluster, db: Client) -> None:
    keys = fill(db, 2500)
    db.put("j", "before")
    db.put("l", "behind")
    found = list(db.scan("k"))
    assert [item.key for item in found] == keys
    assert all(item.data == item.key for item in found)
    pages = cluster.count(Op.SCAN)
    assert 3 <= pages < 10
    backwards = db.scan("k", reverse=True, keys_only=True, limit=1200).items()
    with pytest.raises(BadRequest, match="keys only"):
        backwards[0].text()
    assert [item.key for item in backwards] == keys[:-1201:-1]
    assert {item.data for item in backwards} == {None}
    assert [item.key for item in db.scan(start="k00003", stop="k00005")] == keys[3:5]
    assert list(db.scan("nothing")) == []


def test_a_count_counts(db: Client) -> None:
    fill(db, 30)
    db.put("other", "1")
    assert (db.count("k"), db.count(), db.count(start="k0001", stop="k0002")) == (30, 31, 10)


def test_a_scan_that_was_interrupted_goes_on_where_it_was(cluster: Cluster, db: Client) -> None:
    keys = fill(db, 1500)
    scan = db.scan("k", timeout_ms=300)
    found = [next(scan).key for _ in range(1000)]
    cluster.on(Op.SCAN, server.answer(NotLeader("an election")), times=1000)
    with pytest.raises(KritaError):
        list(scan)
    cluster.do(cluster.rules.clear)
    assert found + [item.key for item in scan] == keys


@pytest.mark.parametrize(
    ("prefix", "stop"),
    [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff", None), (b"", None), (b"a\xff\xff", b"b")],
)
def test_a_prefix_is_a_range(prefix: bytes, stop: bytes | None) -> None:
    assert checks.range_of(prefix, None, None) == (prefix or None, stop)
    assert Range(prefix or None, stop).single is None


# The past


def test_a_key_can_be_read_as_it_was(cluster: Cluster, db: Client) -> None:
    db.retention_set("cfg/", 60_000)
    first = db.put("cfg/a", "1")
    cluster.advance(1000)
    db.put("cfg/a", "2")
    cluster.advance(1000)
    for moment in (
        {"at_revision": first.revision},
        {"at": START_MS + 500},
        {"at": datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(seconds=0.5)},
    ):
        value = db.get("cfg/a", **moment)
        assert value is not None
        assert (value.data, value.revision) == (b"1", first.revision)
    with pytest.raises(Compacted):
        db.get("other", at=START_MS)


def test_a_history_has_every_version_the_newest_first(db: Client) -> None:
    db.retention_set("cfg/", 60_000)
    for number in range(5):
        db.put("cfg/a", str(number))
    db.delete("cfg/a")
    found = db.history("cfg/a")
    assert [v.text() for v in found.versions] == ["4", "3", "2", "1", "0", None]
    assert found.complete_from_ms == START_MS
    assert [v.text() for v in db.history("cfg/a", limit=2).versions] == ["4", "3"]
    (rule,) = db.retention_list()
    assert (rule.prefix, rule.retention_ms) == (b"cfg/", 60_000)


def test_a_history_is_whole_when_its_versions_are_larger_than_an_answer(db: Client) -> None:
    db.retention_set("cfg/", 60_000)
    for letter in "abc":
        db.put("cfg/a", letter * 700_000)
    assert len(db.history("cfg/a", limit=3).versions) == 3
    db.undo("cfg/a")
    value = db.get("cfg/a")
    assert value is not None
    assert value.text()[0] == "b"


def test_a_history_is_whole_when_it_has_more_versions_than_an_answer(
    db: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krita.blocking.past.VERSIONS_MAX", 3)
    db.retention_set("cfg/", 60_000)
    for number in range(10):
        db.put("cfg/a", str(number))
    found = db.history("cfg/a").versions
    assert [v.text() for v in found] == [*map(str, range(9, -1, -1)), None]
    assert len(db.history("cfg/a", limit=4).versions) == 4


def test_an_undo_puts_back_what_was_before_and_can_be_undone(db: Client) -> None:
    db.retention_set("cfg/", 60_000)

    def now() -> bytes | None:
        value = db.get("cfg/a")
        return None if value is None else value.data

    db.put("cfg/a", "1", content_type="text/plain")
    db.put("cfg/a", "2")
    db.undo("cfg/a")
    value = db.get("cfg/a")
    assert value is not None
    assert (value.data, value.content_type) == (b"1", "text/plain")
    db.undo("cfg/a")
    assert now() == b"2"
    db.delete("cfg/a")
    db.undo("cfg/a")
    assert now() == b"2"
    db.put("cfg/new", "1")
    db.undo("cfg/new")
    assert db.get("cfg/new") is None
    with pytest.raises(Compacted):
        db.undo("other")


def test_a_difference_is_of_two_moments(db: Client) -> None:
    db.retention_set("cfg/", 60_000)
    first, second = db.put("cfg/a", "1").revision, db.put("cfg/a", "2").revision
    since = db.diff("cfg/a", first)
    assert since.before is not None
    assert since.after is not None
    assert (since.before.data, since.after.data, since.changed) == (b"1", b"2", True)
    assert not db.diff("cfg/a", second, second).changed


# The cluster


def test_a_key_is_explained(three: Cluster) -> None:
    with Client(three.seeds) as db:
        told = db.explain("{user:1}cart")
    assert (told.tag, told.leader, told.address) == (b"user:1", 1, three.address(1))
    assert told.nodes == {number: three.address(number) for number in (1, 2, 3)}
