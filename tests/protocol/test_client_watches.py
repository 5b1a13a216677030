"""Watches against a cluster on real sockets: nothing twice, nothing left out, in order."""

from __future__ import annotations

import pytest

from krita import steps
from krita.client import Client
from krita.errors import Compacted, Forbidden, NotLeader
from krita.operations import Op
from tests.protocol import server
from tests.protocol.server import Cluster


def test_a_watch_tells_what_happens_from_its_beginning_on(cluster: Cluster, db: Client) -> None:
    db.put("w/0", "before")
    with db.watch(prefix="w/") as watch:
        watch.begin()
        put = db.put("w/1", "1", content_type="text/plain")
        db.put("other", "x")
        first = next(watch)
        assert (first.kind, first.key, first.text()) == ("put", b"w/1", "1")
        assert (first.revision, first.content_type) == (put.revision, "text/plain")
        gone = db.delete("w/0")
        second = next(watch)
        assert (second.kind, second.key, second.data) == ("delete", b"w/0", None)
        assert second.text() is None
        assert second.revision == gone.revision
        db.put("w/2", "2", ttl_ms=100)
        cluster.advance(101)
        assert [next(watch).kind, next(watch).kind] == ["put", "expire"]


def test_a_watch_of_a_key_asks_its_shard_alone(cluster: Cluster, db: Client) -> None:
    with db.watch("k") as watch:
        watch.begin()
        db.put("k", "1")
        db.put("k0", "2")
        db.put("k", "3")
        assert [next(watch).data, next(watch).data] == [b"1", b"3"]
    shards = {fields[0] for _, op, fields in cluster.requests if op == Op.CHANGES}
    assert shards == {cluster.holdings.shard_of(b"k")}


def test_a_watch_goes_on_from_a_token_between_two_events_of_one_step(db: Client) -> None:
    watch = db.watch(prefix="{g}")
    watch.begin()
    db.txn(then=[steps.put(f"{{g}}{number}", str(number)) for number in range(4)])
    db.put("{g}9", "9")
    keys = [next(watch).key, next(watch).key]
    rest = db.watch(prefix="{g}", token=watch.token)
    keys += [next(rest).key for _ in range(3)]
    assert keys == [b"{g}0", b"{g}1", b"{g}2", b"{g}3", b"{g}9"]


def test_a_poll_may_take_longer_than_a_call_and_than_an_attempt(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krita.watching.WAIT_MS", 700)
    with Client(cluster.seeds, timeout_ms=600) as db:
        db._dispatcher.links._attempt_timeout_s = 0.1
        watch = db.watch("k", progress=True)
        watch.begin()
        assert next(watch).kind == "progress"
    assert cluster.count(Op.CHANGES) == 1
    assert cluster.connections == 1


def test_a_watch_follows_its_keys_through_a_split(cluster: Cluster, db: Client) -> None:
    keys = [f"w/{number}" for number in range(40)]
    with db.watch(prefix="w/") as watch:
        watch.begin()
        for key in keys[:20]:
            db.put(key, "1")
        cluster.split(1, 5)
        cluster.split(5, 6)
        for key in keys:
            db.put(key, "2")
        seen = [next(watch) for _ in range(60)]
    assert sorted(e.key for e in seen if e.data == b"1") == sorted(k.encode() for k in keys[:20])
    assert sorted(e.key for e in seen if e.data == b"2") == sorted(k.encode() for k in keys)
    for key in keys[:20]:
        assert [e.data for e in seen if e.key == key.encode()] == [b"1", b"2"]
    assert {e.shard for e in seen} >= {1, 2, 5, 6}


def test_a_watch_of_one_key_follows_it_to_another_shard(cluster: Cluster, db: Client) -> None:
    moving = next(k for k in map(str, range(100)) if db.explain(k).place >> 30 == 1)
    assert db.explain(moving).shard == 1
    with db.watch(moving) as watch:
        watch.begin()
        db.put(moving, "1")
        cluster.split(1, 5)
        db.put(moving, "2")
        first, second = next(watch), next(watch)
    assert [(e.shard, e.data) for e in (first, second)] == [(1, b"1"), (5, b"2")]


def test_a_watch_that_begins_while_a_map_lacks_a_split_misses_nothing(
    cluster: Cluster, db: Client
) -> None:
    db.put("w/0", "0")
    old = cluster.shard_map(cluster.leaders).to_wire()
    cluster.split(1, 5)
    cluster.on(Op.SHARD_MAP, lambda exchange: exchange.answer(0, old))
    with db.watch(prefix="w/") as watch:
        watch.begin()
        assert cluster.count(Op.SHARD_MAP) >= 3
        for number in range(20):
            db.put(f"w/{number}", "1")
        assert len({next(watch).key for _ in range(20)}) == 20


def test_a_watch_survives_the_loss_of_the_leader(three: Cluster) -> None:
    with Client(three.seeds) as db, Client(three.address(2)) as writer:
        watch = db.watch(prefix="w/")
        watch.begin()
        writer.put("w/1", "1")
        assert next(watch).key == b"w/1"
        three.lead(2, term=2)
        three.stop(1)
        writer.put("w/2", "2")
        assert next(watch).key == b"w/2"
        assert db.explain("w/2").leader == 2


def test_a_watch_is_told_when_the_changes_are_not_kept_and_goes_on_behind_the_gap(
    three: Cluster,
) -> None:
    with Client(three.seeds) as db:
        watch = db.watch("k")
        watch.begin()
        db.put("k", "1")
        three.forget_changes()
        with pytest.raises(Compacted) as caught:
            next(watch)
        # The other replicas were asked before: theirs might have reached back.
        assert {node for node, op, _ in three.requests if op == Op.CHANGES} == {1, 2, 3}
        token = caught.value.detail["token"]
        assert isinstance(token, str)
        db.put("k", "2")
        again = db.watch("k", token=token)
        assert next(watch).data == next(again).data == b"2"


def test_an_error_ends_a_loop_and_not_the_watch(cluster: Cluster, db: Client) -> None:
    watch = db.watch("k")
    watch.begin()
    cluster.on(Op.CHANGES, server.answer(Forbidden("not you")))
    with pytest.raises(Forbidden):
        next(watch)
    db.put("k", "1")
    assert next(watch).data == b"1"


def test_a_shard_that_stays_out_of_reach_is_told(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("krita.watching.WAIT_MS", 0)
    with Client(cluster.seeds) as db:
        watch = db.watch("k", timeout_ms=150)
        watch.begin()
        cluster.on(Op.CHANGES, server.answer(NotLeader("an election")), times=10_000)
        with pytest.raises(NotLeader):
            next(watch)
        cluster.do(cluster.rules.clear)
        db.put("k", "1")
        assert next(watch).data == b"1"


def test_a_closed_watch_leaves_nothing_in_flight(cluster: Cluster, db: Client) -> None:
    with db.watch(prefix="") as watch:
        watch.begin()
        db.put("k", "1")
        assert next(watch).data == b"1"
        assert watch._mailbox.in_flight
    assert not db._dispatcher._calls
    db.put("k", "2")
    assert next(watch).data == b"2"
    assert cluster.connections == 1
