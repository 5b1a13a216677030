"""The load generator against a small cluster: it measures what happened, and no
failure makes it lie or stop."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Callable

import pytest

from krita.codec import decode
from krita.errors import Unauthenticated
from krita.operations import OPERATIONS, Op
from krita.ring import ShardMap
from krita.routing import Router
from krita.session import Session
from kritash.bench_load import Load
from kritash.bench_report import Latency, Report, quantile
from kritash.bench_workload import VALUES, Work, Workload, in_session
from tests.kritash.server import Cluster
from tests.kritash.shell import kritash


def make_workload(shard_map: ShardMap, keys: int = 50, prefix: bytes = b"bench:") -> Workload:
    return Workload(keys, 16, prefix, lambda key: shard_map.shard_of(key).shard, seed=1)


def make_load(
    cluster: Cluster,
    following: Callable[[], Work | None],
    *,
    shard_map: ShardMap | None = None,
    token: bytes | None = None,
    timeout_s: float = 5.0,
    repeatable: bool = False,
) -> Load:
    router = Router([node.address for node in cluster.nodes], random.Random(1))
    router.learn_map(shard_map or cluster.shard_map(), 0.0)
    return Load(router, following, 2, 8, token=token, timeout_s=timeout_s, repeatable=repeatable)


def test_preassembled_bodies_are_what_the_table_of_operations_says() -> None:
    with Cluster() as cluster:
        work = make_workload(cluster.shard_map())
    shard, op, body, _ = work.put_of(7)
    fields = decode(body)
    assert isinstance(fields, list)
    named = dict(zip(OPERATIONS[op].fields, fields, strict=False))
    value = named.pop("value")
    assert isinstance(value, bytes)
    assert len(value) == 16
    assert named == {
        "session": 0, "sequence": 0, "acked_to": 0, "key": b"bench:00000007",
        "content_type": None, "if_revision": None,
    }  # fmt: skip
    assert shard == cluster.shard_map().shard_of(b"bench:00000007").shard
    _, op, body, _ = work.get()
    fields = decode(body)
    assert isinstance(fields, list)
    assert op == Op.GET
    assert fields[1:] == [0], "linearizable, and nothing more"
    session = Session(shard, 300)
    session.take()
    numbered = in_session(work.put_of(7), session.take())
    fields = decode(numbered[2])
    assert isinstance(fields, list)
    assert fields[:4] == [300, 2, 0, b"bench:00000007"]


def test_one_seed_gives_one_order_of_keys_and_several_values() -> None:
    with Cluster() as cluster:
        shard_map = cluster.shard_map()
    one, other = make_workload(shard_map), make_workload(shard_map)
    assert [one.put() for _ in range(20)] == [other.put() for _ in range(20)]
    assert len({one.put_of(index)[2][-18:] for index in range(VALUES)}) == VALUES


def test_fill_writes_every_key_once_and_ends() -> None:
    with Cluster(3) as cluster:
        work = make_workload(cluster.shard_map(), keys=500)
        load = make_load(cluster, work.fill())
        load.run(30)
        assert load.tally.done == 500
        assert set(cluster.rows) == {work.key(index) for index in range(500)}
        assert cluster.revision == 500


def test_requests_follow_the_hint_when_the_map_is_out_of_date() -> None:
    with Cluster(3) as cluster:
        old = cluster.shard_map()
        for shard in range(1, 5):
            cluster.transfer(shard, cluster.leaders[shard] % 3 + 1)
        load = make_load(cluster, make_workload(old, keys=500).fill(), shard_map=old)
        load.run(30)
        assert load.tally.done == 500
        assert not load.tally.errors
        assert 4 <= load.tally.retries["NotLeader"] <= 2 * 2 * 8


def test_a_refusal_without_a_hint_makes_it_ask_for_the_map() -> None:
    with Cluster(3) as cluster:
        cluster.hints = False
        old = cluster.shard_map()
        cluster.transfer(1, 3)
        load = make_load(cluster, make_workload(old, keys=500).fill(), shard_map=old)
        load.run(30)
        assert (load.tally.done, dict(load.tally.errors)) == (500, {})
        assert load.router.leader(1, 0.0) == cluster.nodes[2].address


def test_a_dead_leaders_requests_go_through_the_other_nodes() -> None:
    with Cluster(3) as cluster:
        whole = cluster.shard_map()
        dead = "127.0.0.1:1"
        shard_map = ShardMap(1, whole.shards, {**whole.nodes, 2: dead})
        router = Router([cluster.nodes[0].address], random.Random(1))
        router.learn_map(shard_map, 0.0)
        work = make_workload(whole, keys=500)
        load = Load(router, work.fill(), 2, 8, token=None, timeout_s=5.0, repeatable=False)
        load.run(30)
        assert (load.tally.done, dict(load.tally.errors)) == (500, {})


def test_a_put_whose_answer_was_lost_is_unknown_and_is_not_sent_again() -> None:
    with Cluster() as cluster:
        work = make_workload(cluster.shard_map(), keys=20, prefix=b"lose:")
        load = make_load(cluster, work.fill())
        load.run(30)
        assert load.tally.done == 0
        assert sum(load.tally.errors.values()) == load.tally.errors["OutcomeUnknown"] == 20
        assert cluster.repeated == 0


def test_with_sessions_a_put_whose_answer_was_lost_is_sent_again_until_it_is_known() -> None:
    with Cluster() as cluster:
        work = make_workload(cluster.shard_map(), keys=20, prefix=b"lose:")
        session = Session(1, 1)
        fill = work.fill()

        def numbered() -> Work | None:
            found = fill()
            return None if found is None else in_session(found, session.take())

        load = make_load(cluster, numbered, repeatable=True)
        load.run(30)
        assert (load.tally.done, dict(load.tally.errors)) == (20, {})
        assert cluster.repeated == 20
        assert session.acked_to == 20


def test_a_node_that_keeps_silent_is_given_up_after_the_timeout() -> None:
    with Cluster() as cluster:
        work = make_workload(cluster.shard_map(), keys=20, prefix=b"hang:")
        load = make_load(cluster, work.fill(), timeout_s=0.2)
        assert load.run(30) < 10
        assert dict(load.tally.errors) == {"OutcomeUnknown": 20}


def test_a_refused_token_ends_the_run_with_its_reason() -> None:
    with Cluster(token=b"right") as cluster:
        work = make_workload(cluster.shard_map())
        load = make_load(cluster, work.get, token=b"wrong")
        with pytest.raises(Unauthenticated):
            load.run(30)


@pytest.mark.parametrize(
    ("count", "share", "value"),
    [(1, 0.5, 1), (2, 0.5, 1), (100, 0.95, 95), (100, 0.99, 99), (1000, 0.999, 999), (3, 1.0, 3)],
)
def test_quantiles_are_the_nearest_rank(count: int, share: float, value: float) -> None:
    assert quantile([float(number + 1) for number in range(count)], share) == value


def test_latencies_are_reported_in_milliseconds() -> None:
    found = Latency.of(array("d", [0.004, 0.001, 0.002, 0.003]))
    assert found == Latency(count=4, mean=2.5, p50=2.0, p95=4.0, p99=4.0, max=4.0)
    assert Latency.of(array("d")) is None


@pytest.mark.parametrize("operation", ["put", "get", "mixed"])
def test_bench_reports_throughput_and_latency(operation: str) -> None:
    with Cluster(3) as cluster:
        done = kritash(
            "bench", operation, "--connections", "2", "--in-flight", "4", "--keys", "100",
            "--seconds", "0.3", "--value-size", "10", "--json", KRITA_NODES=cluster.addresses,
        )  # fmt: skip
        report = json.loads(done.out)
        assert (done.code, done.err, report["errors"]) == (0, "", {})
        measured = {"put": {"put"}, "get": {"get"}, "mixed": {"get", "put", "all"}}[operation]
        assert report["latency_ms"].keys() == measured
        for latency in report["latency_ms"].values():
            assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        assert report["throughput_per_s"] > 0
        assert (report["prefix"], report["wrote"]) == ("bench:", True)
        assert all(len(value) == 10 for value, _ in cluster.rows.values())
        assert len(cluster.rows) == 100 or operation == "put"


def test_bench_mixed_keeps_to_its_read_ratio() -> None:
    with Cluster() as cluster:
        done = kritash(
            "bench", "mixed", "--read-ratio", "0.75", "--seconds", "0.5", "--keys", "50",
            "--sessions", "--json", KRITA_NODES=cluster.addresses,
        )  # fmt: skip
        latency = json.loads(done.out)["latency_ms"]
        share = latency["get"]["count"] / latency["all"]["count"]
        assert 0.7 < share < 0.8


def test_bench_shows_its_progress_and_a_readable_report() -> None:
    with Cluster() as cluster:
        done = kritash("bench", "put", "--seconds", "1.3", KRITA_NODES=cluster.addresses)
        assert "put  1 of 1.3 s  " in done.err
        text = done.out.decode()
        assert "put: 8 connections, 64 in flight each, 10000 keys" in text
        for word in ("throughput", "p50", "p95", "p99", "max", "errors      none"):
            assert word in text
        left = "left        up to 10000 keys: kritash key delete --prefix bench: removes them"
        assert left in text


@pytest.mark.parametrize(
    ("prefix", "wrote", "said"),
    [
        ("two words:", True, "kritash key delete --prefix 'two words:' removes them"),
        ("", True, "left        up to 50 keys, from 00000000 on"),
        ("bench:", False, None),
    ],
)
def test_a_report_says_what_was_left_and_how_it_goes_away(
    prefix: str, wrote: bool, said: str | None
) -> None:
    report = Report("put", 1, 1, 50, 10, 1.0, 0.1, {}, {}, {}, prefix=prefix, wrote=wrote)
    assert ("left" in report.to_text()) == (said is not None)
    assert said is None or said in report.to_text()
    assert (report.to_document()["prefix"], report.to_document()["wrote"]) == (prefix, wrote)


def test_a_bench_of_nothing_but_failures_has_their_exit_code() -> None:
    with Cluster() as cluster:
        done = kritash(
            "bench", "put", "--prefix", "drop:", "--seconds", "0.3", KRITA_NODES=cluster.addresses
        )
        assert done.code == 7, done
        assert "OutcomeUnknown" in done.out.decode()
