"""What reaches over all shards, through the door of one node: scans, leases, retentions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from krita.codec import encode_body
from krita.errors import KritaError, LeaseUnknown, Outcome, Status, Unavailable, to_wire
from krita.operations import LeaseChange, Op
from krita.ring import RING_SIZE
from kritad.gather import Gather
from kritad.host.request import Request
from tests.host.clock import VirtualClock
from tests.host.cluster import Cluster, write_some
from tests.host.lone import Replies
from tests.host.splits import OLD, is_told
from tests.host.splits import ask as split_shard
from tests.kritad.service_bench import NODE, Bench

GRANT = int(LeaseChange.GRANT)


def body_of(bench: Bench, op: int, *fields: object) -> Any:
    status, body = bench.do(op, *fields)
    assert status == Status.OK, body
    return body


def put(bench: Bench, key: bytes, *more: object) -> None:
    assert bench.put(key, b"v", *more)[0] == Status.OK


def leased(bench: Bench, key: bytes, lease: int) -> tuple[int, object]:
    return bench.do(Op.PUT, None, None, None, key, b"v", None, None, None, lease)


def test_a_scan_has_the_keys_of_all_shards_in_order(bench: Bench) -> None:
    keys = [b"k%02d" % number for number in range(40)]
    for key in keys:
        put(bench, key)
    rows, edge = body_of(bench, Op.SCAN)
    assert ([row[0] for row in rows], edge) == (keys, None)
    rows, edge = body_of(bench, Op.SCAN, b"k10", b"k30", 5, False, 1)
    assert ([row[:2] for row in rows], edge) == (
        [[b"k%d" % n, None] for n in range(10, 15)],
        b"k15",
    )
    rows, edge = body_of(bench, Op.SCAN, b"k10", b"k30", 5, True)
    assert [row[0] for row in rows] == [b"k%d" % n for n in range(29, 24, -1)]
    assert body_of(bench, Op.SCAN, b"k10", edge, 1, True)[0][0][0] == b"k24"
    assert body_of(bench, Op.SCAN, b"k1", b"k2", None, False, 2) == [10, None]


@pytest.mark.parametrize("limit", [0, -1, "5", 1.5, True])
def test_a_limit_that_is_none_is_refused(bench: Bench, limit: object) -> None:
    assert bench.do(Op.SCAN, None, None, limit)[0] == Status.BAD_REQUEST


@pytest.mark.parametrize("what", [3, 9, -1, 1.0, 2.0, True, "1"])
def test_what_a_scan_cannot_tell_is_refused(bench: Bench, what: object) -> None:
    assert bench.do(Op.SCAN, None, None, 5, False, what)[0] == Status.BAD_REQUEST
    assert bench.do(Op.SHARD_SCAN, 1, None, None, 5, False, what)[0] == Status.BAD_REQUEST


@pytest.mark.parametrize("start", ["text", 5, []])
def test_a_start_that_is_no_key_is_refused(bench: Bench, start: object) -> None:
    assert bench.do(Op.SCAN, start)[0] == Status.BAD_REQUEST


def test_a_lease_is_known_in_every_shard_and_its_keys_end_together(bench: Bench) -> None:
    lease, ttl_ms = body_of(bench, Op.LEASE_GRANT, 60_000)
    assert ttl_ms == 60_000
    keys = [b"k%02d" % number for number in range(20)]
    for key in keys:
        assert leased(bench, key, lease)[0] == Status.OK
    assert body_of(bench, Op.LEASE_KEEPALIVE, lease) == [60_000]
    found = body_of(bench, Op.LEASE_SHOW, lease)
    assert (found[0], found[2]) == (60_000, keys)
    assert 0 < found[1] <= 60_000
    assert body_of(bench, Op.LEASE_REVOKE, lease) == [20]
    assert body_of(bench, Op.SCAN, None, None, None, False, 2) == [0, None]
    for op in (Op.LEASE_KEEPALIVE, Op.LEASE_REVOKE, Op.LEASE_SHOW):
        assert bench.do(op, lease)[0] == Status.LEASE_UNKNOWN
    assert leased(bench, b"k", lease)[0] == Status.LEASE_UNKNOWN


def test_a_lease_that_nobody_keeps_alive_ends_though_nobody_writes(bench: Bench) -> None:
    lease, _ = body_of(bench, Op.LEASE_GRANT, 1_000)
    assert leased(bench, b"k", lease)[0] == Status.OK
    bench.cluster.run(1_500)
    assert body_of(bench, Op.GET, b"k")[0] is None
    assert bench.do(Op.LEASE_SHOW, lease)[0] == Status.LEASE_UNKNOWN


def test_a_lease_that_was_revoked_in_part_can_be_revoked_altogether(bench: Bench) -> None:
    lease, _ = body_of(bench, Op.LEASE_GRANT, 60_000)
    assert leased(bench, b"k", lease)[0] == Status.OK
    (shard,) = {bench.cluster.shard_of(bench.cluster.nodes[0], b"k")}
    others = [number for number in range(1, 5) if number != shard]
    for other in others:  # as far as the first try came
        change = [other, lease, int(LeaseChange.REVOKE), None]
        assert bench.do(Op.LEASE_CHANGE, *change, who=NODE)[0] == Status.OK
    assert body_of(bench, Op.LEASE_REVOKE, lease) == [1]
    assert bench.do(Op.LEASE_REVOKE, lease)[0] == Status.LEASE_UNKNOWN


def test_the_number_of_a_lease_may_be_chosen_and_granted_again(bench: Bench) -> None:
    assert body_of(bench, Op.LEASE_GRANT, 1_000, 77) == [77, 1_000]
    assert body_of(bench, Op.LEASE_GRANT, 2_000, 77) == [77, 2_000]
    assert body_of(bench, Op.LEASE_KEEPALIVE, 77) == [2_000]


@pytest.mark.parametrize("fields", [(None,), (0,), ("1",), (1_000, 0), (1_000, 1 << 60)])
def test_a_lease_that_is_none_is_refused(bench: Bench, fields: tuple[object, ...]) -> None:
    assert bench.do(Op.LEASE_GRANT, *fields)[0] == Status.BAD_REQUEST


def test_a_retention_holds_in_every_shard_until_it_is_taken_away(bench: Bench) -> None:
    assert body_of(bench, Op.RETENTION_SET, b"k", 60_000) == []
    for number in range(10):
        put(bench, b"k%d" % number)
        put(bench, b"k%d" % number)
    for number in range(10):
        versions, _ = body_of(bench, Op.KEY_HISTORY, b"k%d" % number)
        assert len(versions) == 3
    (rules,) = body_of(bench, Op.RETENTION_LIST)
    assert [rule[:2] for rule in rules] == [[b"k", 60_000]]
    assert body_of(bench, Op.RETENTION_SET, b"k", 0) == []
    assert body_of(bench, Op.RETENTION_LIST) == [[]]


def test_a_history_of_large_versions_fits_into_a_frame(bench: Bench) -> None:
    body_of(bench, Op.RETENTION_SET, b"k", 60_000)
    for number in range(5):
        assert bench.put(b"k", b"%d" % number * 400)[0] == Status.OK
    first, _ = body_of(bench, Op.KEY_HISTORY, b"k")
    assert len(first) == 2, "a value has at most 1000 bytes here, and an answer no more"
    more, _ = body_of(bench, Op.KEY_HISTORY, b"k", None, first[-1][0])
    assert [version[1][:1] for version in first + more] == [b"4", b"3", b"2", b"1"]


# --- by answers that a test gives --------------------------------------------------------------


class FakeHost:
    """Answers for shards as it is told to; None: later."""

    def __init__(self, answers: Callable[[int, int], Any], shards: Sequence[int] = (1, 2)) -> None:
        self.view = self
        self.replicas = dict.fromkeys([0, *shards])
        self.data_shards: list[Any] = []
        self.answers = answers
        self.asked: list[int] = []
        self.clock = VirtualClock()

    def after(self, pause_ms: float, call: Callable[[], None]) -> None:
        self.clock.advance(int(pause_ms))
        call()

    def submit(self, request: Request) -> None:
        self.asked.append(request.shard)
        found = self.answers(request.shard, self.asked.count(request.shard))
        if isinstance(found, KritaError):
            request.answer(found.status, to_wire(found))
        else:
            request.answer(Status.OK, found)


def tell(host: FakeHost, op: Op, *fields: object) -> tuple[int, Any]:
    replies = Replies()
    gather = Gather(host, 1 << 20)  # type: ignore[arg-type]
    deadline_ms = host.clock.monotonic_ms() + 60_000
    gather.handlers[op](op, encode_body(op, *fields), deadline_ms, False, replies)
    return replies.one


HALF = RING_SIZE // 2
ARCS = {1: [0, HALF], 2: [HALF, RING_SIZE]}


@pytest.mark.parametrize("outcome", [Outcome.NOT_APPLIED, Outcome.UNKNOWN])
def test_a_lease_that_only_some_shards_have_is_granted_perhaps(outcome: Outcome) -> None:
    def answers(shard: int, _time: int) -> Any:
        return Unavailable("lost", outcome=outcome) if shard == 2 else [5, 0, *ARCS[shard]]

    status, body = tell(FakeHost(answers), Op.LEASE_GRANT, 5)
    assert (status, body[2]) == (Status.UNAVAILABLE, Outcome.UNKNOWN)


def test_a_lease_that_no_shard_has_is_surely_not_granted() -> None:
    host = FakeHost(lambda _shard, _time: Unavailable("no leader"))
    status, body = tell(host, Op.LEASE_GRANT, 5)
    assert (status, body[2]) == (Status.UNAVAILABLE, Outcome.NOT_APPLIED)


def test_the_other_half_of_a_shard_that_was_split_meanwhile_is_told_too() -> None:
    """It has a copy of what its parent had before: a lease that came later it never heard of."""
    quarter = [HALF, HALF + 1], [HALF + 1, RING_SIZE]

    def answers(shard: int, time: int) -> list[Any]:
        if shard == 2 and time == 1:
            host.replicas[3] = None  # the node hears of it
        return [5, shard, *{1: ARCS[1], 2: quarter[0], 3: quarter[1]}[shard]]

    for op, fields in ((Op.LEASE_GRANT, (5,)), (Op.RETENTION_SET, (b"k", 5))):
        host = FakeHost(answers)
        assert tell(host, op, *fields)[0] == Status.OK
        assert sorted(host.asked) == [1, 1, 2, 2, 3]


def test_the_other_half_of_a_shard_that_was_split_meanwhile_is_asked_too() -> None:
    """What a lease ends, and what is kept, is told whole; what the shards said before counts
    no more."""
    quarter = [HALF, HALF + 1], [HALF + 1, RING_SIZE]
    arcs = {1: ARCS[1], 2: quarter[0], 3: quarter[1]}

    def hear(shard: int, time: int) -> list[Any]:
        if shard == 2 and time == 1:
            host.replicas[3] = None
        return arcs[shard]

    host = FakeHost(lambda shard, time: [9, 5 + time, [b"k%d" % shard], *hear(shard, time)])
    assert tell(host, Op.LEASE_SHOW, 7) == (Status.OK, [9, 6, [b"k1", b"k2", b"k3"]])
    assert sorted(host.asked) == [1, 1, 2, 2, 3]
    host = FakeHost(lambda shard, time: [[[b"%d" % shard, 5, 1]], *hear(shard, time)])
    _, (rules,) = tell(host, Op.RETENTION_LIST)
    assert [prefix for prefix, *_ in rules] == [b"1", b"2", b"3"]


def test_a_lease_is_not_shown_in_part() -> None:
    host = FakeHost(lambda _shard, _time: [9, 5, [b"k"], *ARCS[1]], shards=[1])
    status, body = tell(host, Op.LEASE_SHOW, 7)
    assert (status, body[2]) == (Status.UNAVAILABLE, Outcome.NOT_APPLIED)


def test_a_split_that_the_node_does_not_hear_of_leaves_it_unknown() -> None:
    host = FakeHost(lambda _shard, _time: [5, 0, *ARCS[1]], shards=[1])
    status, body = tell(host, Op.LEASE_GRANT, 5)
    assert (status, body[2]) == (Status.UNAVAILABLE, Outcome.UNKNOWN)


def test_a_lease_that_ended_in_one_shard_is_not_kept_alive() -> None:
    gone = LeaseUnknown("gone")
    host = FakeHost(lambda shard, _: gone if shard == 2 else [5, 0, *ARCS[shard]])
    assert tell(host, Op.LEASE_KEEPALIVE, 9)[0] == Status.LEASE_UNKNOWN


def test_rules_that_shards_differ_about_are_told_with_the_least_that_is_kept() -> None:
    rules = {1: [[b"a", 10, 100], [b"b", 5, 7]], 2: [[b"a", 20, 90]]}
    host = FakeHost(lambda shard, _: [rules[shard], *ARCS[shard]])
    assert tell(host, Op.RETENTION_LIST) == (Status.OK, [[[b"a", 10, 100], [b"b", 5, 7]]])


def test_a_node_without_a_replica_of_a_shard_that_is_split_waits_until_it_hears_of_it(
    tmp_path: Path,
) -> None:
    """The meta shard is told by the new shard's leader some 0.2 s later."""
    cluster = Cluster(tmp_path, shards=1)
    for _ in range(4):
        cluster.join()
    cluster.run_until(lambda: cluster.grown_shard(OLD, 3))
    write_some(cluster, 50)
    outside = next(node for node in cluster.nodes if OLD not in node.host.replicas)
    gather = Gather(outside.host, 1 << 20)
    asked: list[Replies] = []
    split_shard(cluster)
    while not is_told(cluster):
        for op, fields in ((Op.SCAN, ()), (Op.LEASE_GRANT, (5_000,))):
            asked.append(Replies())
            deadline_ms = cluster.clock.monotonic_ms() + 10_000
            gather.handlers[op](op, encode_body(op, *fields), deadline_ms, False, asked[-1])
        cluster.tick()
    cluster.run_until(lambda: all(replies.all for replies in asked))
    assert {replies.one[0] for replies in asked} == {Status.OK}
    cluster.close()
