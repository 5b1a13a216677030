"""What is checked of a request about keys before anything is appended, and who may wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krita.codec import encode_body
from krita.errors import Compacted, Status, TooLarge, from_wire
from krita.operations import OPERATIONS, LeaseChange, Op
from kritad.data_service import DataService
from kritad.gather import Gather
from kritad.state.user_keys import KEYED
from tests.host.cluster import grown_cluster, key_in
from tests.host.lone import Replies
from tests.kritad.service_bench import LOCAL, NODE, VALUE_BYTES_MAX, Bench, bench_of

_WRITES: dict[Op, dict[str, Any]] = {
    Op.PUT: {"value": b"1"},
    Op.DELETE: {},
    Op.ADD: {"delta": 1},
    Op.APPEND: {"data": b"1"},
    Op.TOUCH: {},
    Op.LOCK: {"owner": b"1"},
    Op.TXN: {"then": []},
}
IDS = [op.name.lower() for op in _WRITES]


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Bench]:
    cluster = grown_cluster(tmp_path, 3, shards=1)
    cluster.run(2_000)
    yield bench_of(cluster)
    cluster.close()


def write(bench: Bench, op: Op, key: object, **more: object) -> tuple[int, Any]:
    given = {**_WRITES[op], "key": key, **more}
    names = OPERATIONS[op].fields
    assert set(given) <= set(names)
    return bench.do(op, *[given.get(name) for name in names])


def logged(bench: Bench) -> int:
    """How many entries there are in all logs."""
    return sum(r.raft.last_index for r in bench.cluster.nodes[0].host.replicas.values())


def test_every_write_of_a_key_is_tried_here() -> None:
    assert set(map(int, _WRITES)) == KEYED


@pytest.mark.parametrize("op", _WRITES, ids=IDS)
@pytest.mark.parametrize("key", [b"", b"\xff", b"\xffi" + b"x" * 20, None, "k", 5, b"x" * 4097])
def test_what_cannot_be_a_user_s_key_is_in_no_log(bench: Bench, op: Op, key: object) -> None:
    before = logged(bench)
    assert write(bench, op, key)[0] in (Status.BAD_REQUEST, Status.TOO_LARGE)
    assert logged(bench) == before


@pytest.mark.parametrize("op", [Op.GET, Op.KEY_HISTORY])
def test_the_store_s_own_rows_cannot_be_read(bench: Bench, op: Op) -> None:
    assert bench.do(op, b"\xffhk")[0] == Status.BAD_REQUEST


@pytest.mark.parametrize("consistency", [2, -1, 0.0, 1.0, False, True, "0"])
@pytest.mark.parametrize("at_revision", [None, 1])
def test_a_consistency_that_is_none_is_refused(
    bench: Bench, consistency: object, at_revision: object
) -> None:
    fields = (b"k", consistency, None, None, at_revision)
    assert bench.do(Op.GET, *fields)[0] == Status.BAD_REQUEST


@pytest.mark.parametrize("op", _WRITES, ids=IDS)
@pytest.mark.parametrize("name", [b"", "text", 5, b"x" * 256])
def test_what_is_no_idempotency_key_is_in_no_log(bench: Bench, op: Op, name: object) -> None:
    before = logged(bench)
    assert write(bench, op, b"k", idempotency=name)[0] == Status.BAD_REQUEST
    assert logged(bench) == before


@pytest.mark.parametrize(
    ("if_lock", "status"),
    [
        ([b"{g}lock", 1], Status.CONDITION_FAILED),
        ([b"lock", 1], Status.SEVERAL_GROUPS),
        ([b"\xff{g}", 1], Status.BAD_REQUEST),
        ([b"", 1], Status.BAD_REQUEST),
        ([b"{g}lock", 0], Status.BAD_REQUEST),
        ([b"{g}lock", "1"], Status.BAD_REQUEST),
        ([b"{g}lock"], Status.BAD_REQUEST),
        ("lock", Status.BAD_REQUEST),
    ],
    ids=str,
)
def test_a_lock_is_of_the_key_s_group(bench: Bench, if_lock: object, status: Status) -> None:
    for op in (Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH):
        assert write(bench, op, b"{g}k", if_lock=if_lock)[0] == status


def test_a_transaction_has_a_limit_in_operations_and_in_its_values(bench: Bench) -> None:
    many = [[int(Op.GET), b"k"]] * 1025
    assert write(bench, Op.TXN, b"k", then=many)[0] == Status.TOO_LARGE
    large = [[int(Op.PUT), b"k", b"x" * (VALUE_BYTES_MAX + 1)]]
    assert write(bench, Op.TXN, b"k", then=large)[0] == Status.TOO_LARGE


def test_limits_that_are_set_lower_hold_and_are_named(bench: Bench) -> None:
    host = bench.cluster.nodes[0].host
    service = DataService(host, VALUE_BYTES_MAX, txn_operations_max=2)
    gets = [[int(Op.GET), b"k"]] * 3
    body = encode_body(Op.TXN, None, None, None, b"k", [], gets, [])
    with pytest.raises(TooLarge, match="txn_operations_max"):
        service.handlers[Op.TXN](Op.TXN, body, 1e9, False, lambda *_: None)
    for number in range(5):
        bench.put(b"key %d" % number, b"v")
    replies = Replies()
    gather = Gather(host, VALUE_BYTES_MAX, scan_rows_max=3)
    gather.handlers[Op.SCAN](Op.SCAN, encode_body(Op.SCAN, None, None, None), 1e9, False, replies)
    bench.cluster.run_until(lambda: bool(replies.all))
    status, page = replies.one
    assert status == Status.OK
    assert isinstance(page, list)
    assert ([row[0] for row in page[0]], page[1]) == ([b"key 0", b"key 1", b"key 2"], b"key 3")


@pytest.mark.parametrize("asked", [None, 32 << 20, 0, 1])
def test_a_value_grows_to_the_cluster_s_limit_whatever_its_client_asks(
    bench: Bench, asked: object
) -> None:
    limit = 1 if asked in (0, 1) else VALUE_BYTES_MAX
    assert write(bench, Op.APPEND, b"k", data=b"x" * limit, value_bytes_max=asked)[0] == Status.OK
    assert write(bench, Op.APPEND, b"k", data=b"x", value_bytes_max=asked)[0] == Status.CONFLICT
    step = [[int(Op.APPEND), b"k", b"x"]]
    assert write(bench, Op.TXN, b"k", then=step, value_bytes_max=asked)[0] == Status.CONFLICT


def test_a_content_type_has_a_limit_because_nothing_else_counts_it(bench: Bench) -> None:
    for length, status in ((255, Status.OK), (256, Status.TOO_LARGE)):
        assert write(bench, Op.PUT, b"k", content_type="x" * length)[0] == status
        step = [[int(Op.PUT), b"k", b"v", "x" * length]]
        assert write(bench, Op.TXN, b"k", then=step)[0] == status


@pytest.mark.parametrize("asked", ["1", -1, 1.5])
def test_a_limit_that_is_none_is_refused(bench: Bench, asked: object) -> None:
    assert write(bench, Op.APPEND, b"k", value_bytes_max=asked)[0] == Status.BAD_REQUEST


def test_an_append_or_an_owner_over_the_limit_is_refused(bench: Bench) -> None:
    large = b"x" * (VALUE_BYTES_MAX + 1)
    assert write(bench, Op.APPEND, b"k", data=large)[0] == Status.TOO_LARGE
    assert write(bench, Op.LOCK, b"k", owner=large)[0] == Status.TOO_LARGE


@pytest.mark.parametrize("op", [Op.SHARD_SCAN, Op.CHANGES, Op.LEASE_STATE, Op.RETENTION_STATE])
@pytest.mark.parametrize("shard", [0, -1, "1", None, True, 1 << 40])
def test_the_meta_shard_and_what_is_no_shard_have_no_keys_to_be_read(
    bench: Bench, op: Op, shard: object
) -> None:
    assert bench.do(op, shard, 1)[0] == Status.BAD_REQUEST


def test_a_shard_that_the_node_has_not_heard_of_may_be_new(bench: Bench) -> None:
    assert bench.do(Op.SHARD_SCAN, 99)[0] == Status.UNAVAILABLE


@pytest.mark.parametrize("op", [Op.LEASE_CHANGE, Op.RETENTION_CHANGE])
def test_what_all_shards_have_to_be_told_is_not_for_clients_to_tell_one(
    bench: Bench, op: Op
) -> None:
    fields: dict[Op, list[object]] = {
        Op.LEASE_CHANGE: [1, 5, int(LeaseChange.GRANT), 9],
        Op.RETENTION_CHANGE: [1, b"", 5],
    }
    assert bench.do(op, *fields[op], who=LOCAL)[0] == Status.FORBIDDEN
    assert bench.do(op, *fields[op], who=NODE)[0] == Status.OK


def test_expiry_is_nobody_s_request(bench: Bench) -> None:
    assert bench.do(Op.EXPIRE, 1, who=NODE)[0] == Status.UNSUPPORTED


# --- reads ------------------------------------------------------------------------------------


def test_a_key_is_read_as_it_was(bench: Bench) -> None:
    assert bench.do(Op.RETENTION_SET, b"k", 60_000)[0] == Status.OK
    revisions = [write(bench, Op.PUT, b"k", value=b"%d" % n)[1][0] for n in range(3)]
    for number, revision in enumerate(revisions):
        status, body = bench.do(Op.GET, b"k", 0, None, None, revision)
        assert (status, body[:2]) == (Status.OK, [b"%d" % number, revision])  # type: ignore[index]
    assert bench.do(Op.GET, b"k", 0, None, None, 10**9)[0] == Status.BAD_REQUEST
    assert bench.do(Op.GET, b"k", 0, None, None, "1")[0] == Status.BAD_REQUEST
    assert bench.do(Op.GET, b"k", 0, None, None, None, 0)[0] == Status.COMPACTED
    assert bench.do(Op.GET, b"other", 0, None, None, 1)[0] == Status.COMPACTED


@pytest.mark.parametrize("before", [0, 1, (1 << 64) - 1])
def test_a_history_may_begin_before_any_revision(bench: Bench, before: int) -> None:
    assert bench.do(Op.KEY_HISTORY, b"k", None, before) == (Status.OK, [[], None])


@pytest.mark.parametrize("fields", [(0,), ("1",), (None, -1), (None, "1")])
def test_a_history_that_is_none_is_refused(bench: Bench, fields: tuple[object, ...]) -> None:
    assert bench.do(Op.KEY_HISTORY, b"k", *fields)[0] == Status.BAD_REQUEST


# --- changes ----------------------------------------------------------------------------------


def test_a_watch_begins_where_the_shard_is_and_hears_what_comes(bench: Bench) -> None:
    node = bench.cluster.nodes[0]
    shard = bench.cluster.shard_of(node, b"k")
    status, begin = bench.do(Op.CHANGES, shard, None)
    assert status == Status.OK
    at = begin[1]  # type: ignore[index]
    waiting = bench.submit(Op.CHANGES, shard, at, b"k", b"k\0", None, 5_000, deadline_ms=10_000)
    bench.cluster.settle()
    assert waiting.all == []
    revision = write(bench, Op.PUT, b"k")[1][0]
    assert waiting.one == (Status.OK, [[[0, b"k", b"1", revision, None, revision]], revision, 0])


def test_a_watch_is_answered_before_its_deadline(bench: Bench) -> None:
    at = bench.do(Op.CHANGES, 1, None)[1][1]  # type: ignore[index]
    waiting = bench.submit(Op.CHANGES, 1, at, None, None, None, 60_000, deadline_ms=1_500)
    bench.cluster.run(900)
    assert waiting.all == []
    bench.cluster.run(200)
    assert waiting.one == (Status.OK, [[], at, 0])


def test_a_question_without_a_wait_is_answered_at_once(bench: Bench) -> None:
    at = bench.do(Op.CHANGES, 1, None)[1][1]  # type: ignore[index]
    assert bench.do(Op.CHANGES, 1, at) == (Status.OK, [[], at, 0])


def test_who_is_ahead_of_the_shard_s_log_is_told_and_does_not_wait(bench: Bench) -> None:
    """It has its place from before the cluster was set back: what comes until the log is as
    long again would pass unseen."""
    at = bench.do(Op.CHANGES, 1, None)[1][1]  # type: ignore[index]
    waiting = bench.submit(Op.CHANGES, 1, at + 1, None, None, None, 60_000, deadline_ms=60_000)
    bench.cluster.settle()
    told = from_wire(*waiting.one)
    assert isinstance(told, Compacted)
    assert told.detail["oldest"] == 0


def test_who_is_ahead_of_a_follower_is_sent_to_the_leader(three: Bench) -> None:
    leader = three.cluster.leader(1)
    assert leader is not None
    follower = next(node for node in three.cluster.nodes if node is not leader)
    at = follower.replica(1).raft.last_index
    waiting = three.submit(
        Op.CHANGES, 1, at + 1, None, None, None, 60_000, node=follower.number, deadline_ms=60_000
    )
    three.cluster.run(500)
    assert waiting.one[0] == Status.COMPACTED
    assert (follower.replica(1).polls.count, leader.replica(1).polls.count) == (0, 0)


def test_who_is_ahead_of_what_the_leader_has_applied_waits_for_it(three: Bench) -> None:
    """A new leader may not know yet what is committed of its log: no reason to refuse anybody
    who has heard of it from the one before."""
    cluster = three.cluster
    leader = cluster.leader(1)
    assert leader is not None
    replica, key = leader.replica(1), key_in(leader, 1)
    cluster.settle()
    at = replica.state.index
    written = three.submit(Op.PUT, None, None, None, key, b"v", node=leader.number)
    waiting = three.submit(Op.CHANGES, 1, at + 1, None, None, None, 60_000, node=leader.number)
    assert replica.state.index == at, "it is ahead when it comes"
    cluster.run(500)
    assert written.one == (Status.OK, [at + 1, False])
    assert (waiting.all, replica.polls.count) == ([], 1)


@pytest.mark.parametrize("place", range(1, 7))
def test_a_question_of_the_wrong_kind_is_refused(bench: Bench, place: int) -> None:
    fields: list[object] = [1, 0, None, None, None, None, None]
    fields[place] = "text"
    assert bench.do(Op.CHANGES, *fields)[0] == Status.BAD_REQUEST


def test_a_follower_answers_a_watch_and_a_node_that_lags_sends_it_to_the_leader(
    three: Bench,
) -> None:
    cluster = three.cluster
    leader = cluster.leader(1)
    assert leader is not None
    follower = next(node for node in cluster.nodes if node is not leader)
    key = key_in(leader, 1)
    at = follower.replica(1).state.index
    here = three.submit(Op.CHANGES, 1, at, None, None, None, 5_000, node=follower.number)
    cluster.settle()
    assert (follower.replica(1).polls.count, leader.replica(1).polls.count) == (1, 0)
    write(three, Op.PUT, key)
    cluster.run(500)
    assert here.one[0] == Status.OK
    follower.replica(1).state.feed.oldest = 10**9  # as if it had begun later
    there = three.submit(Op.CHANGES, 1, at, None, None, None, 5_000, node=follower.number)
    cluster.run(500)
    assert there.one[1][0] == here.one[1][0]  # type: ignore[index]
