"""Transactions over several shards whose coordinator dies, in a cluster of hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krita.codec import encode_body
from krita.errors import Busy, NotLeader, Status
from krita.operations import Op
from kritad.coordinator import Coordinator
from kritad.host.replica import Replica
from kritad.state.two_phase import effect_to_wire
from kritad.state.verbs import Action, Effect
from kritad.txn_steps import HOLD_MS
from tests.host.cluster import Cluster, Node
from tests.host.lone import Replies
from tests.host.splits import is_told

ATTEMPT = 77
ADD, GET, PUT = int(Op.ADD), int(Op.GET), int(Op.PUT)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes, two shards; the coordinators of these tests are on the second node."""
    made = Cluster(tmp_path)
    for _ in range(2):
        made.join()
    made.run_until(made.grown)
    yield made
    made.close()


def keys_of(cluster: Cluster, shard: int, count: int = 1) -> list[bytes]:
    names = (b"k%d" % number for number in range(200))
    return [name for name in names if cluster.shard_of(cluster.nodes[0], name) == shard][:count]


def some_keys(cluster: Cluster) -> tuple[bytes, bytes]:
    """One of shard 1, one of shard 2, each with the value 5."""
    (one,), (two,) = keys_of(cluster, 1), keys_of(cluster, 2)
    for key in (one, two):
        answered(cluster, cluster.put(cluster.nodes[0], key, b"5"))
    return one, two


def answered(cluster: Cluster, replies: Replies) -> list[Any]:
    cluster.run_until(lambda: bool(replies.all))
    status, body = replies.one
    assert status == Status.OK, replies.one
    assert isinstance(body, list)
    return body


def txn(cluster: Cluster, node: Node, home: bytes, *then: list[object]) -> Replies:
    fields = [0, 0, 0, home, None, list(then), None, None, 1 << 20]
    replies = Replies()
    deadline_ms = cluster.clock.monotonic_ms() + 9_000.0
    Coordinator(node.host).begin(fields, deadline_ms, replies)
    return replies


def prepare(cluster: Cluster, node: Node, home: bytes, shard: int, *keys: bytes) -> list[Any]:
    fields = (shard, ATTEMPT, home, list(keys), [0], HOLD_MS, 1 << 20, 0)
    body = encode_body(Op.TXN_PREPARE, *fields)
    return answered(cluster, cluster.submit(node, Op.TXN_PREPARE, body, shard))


def decide(cluster: Cluster, node: Node, plan: list[Any], home: bytes) -> list[Any]:
    shard = cluster.shard_of(node, home)
    leader = cluster.leader(shard)
    assert leader is not None
    begun_ms = leader.replica(shard).state.clock_ms
    body = encode_body(Op.TXN_DECIDE, home, ATTEMPT, True, plan, None, begun_ms)
    return answered(cluster, cluster.submit(node, Op.TXN_DECIDE, body, shard, key=home))


def finish(cluster: Cluster, node: Node, shard: int, plan: list[Any]) -> list[Any]:
    body = encode_body(Op.TXN_FINISH, shard, ATTEMPT, plan)
    return answered(cluster, cluster.submit(node, Op.TXN_FINISH, body, shard))


def plan_of(*keys: bytes) -> list[Any]:
    return [effect_to_wire(Effect(Action.PUT, key, b"6")) for key in keys]


def replicas(cluster: Cluster) -> list[Replica]:
    return [replica for node in cluster.alive for replica in node.host.replicas.values()]


def is_settled(cluster: Cluster) -> bool:
    """Nothing is held and nothing has to be done any more, on any replica."""
    return not any(
        replica.state.keys.intents.by_key or replica.state.keys.two_phase.decisions.open
        for replica in replicas(cluster)
    )


def settle(cluster: Cluster) -> None:
    cluster.run_until(lambda: is_settled(cluster), limit_ms=60_000)


def read_both(cluster: Cluster, *keys: bytes) -> list[object]:
    return [cluster.read(cluster.alive[0], key) for key in keys]


def test_a_transaction_over_two_shards_happens_and_leaves_nothing_behind(cluster: Cluster) -> None:
    one, two = some_keys(cluster)
    replies = txn(cluster, cluster.nodes[1], one, [ADD, one, -1], [ADD, two, 1])
    assert answered(cluster, replies) == [0, True, [[None, 1, 4], [None, 1, 6]]]
    assert read_both(cluster, one, two) == [b"4", b"6"]
    cluster.run(1_000)
    assert is_settled(cluster)


def test_keys_whose_coordinator_dies_before_it_decides_are_let_go_unchanged(
    cluster: Cluster,
) -> None:
    one, two = some_keys(cluster)
    prepare(cluster, cluster.nodes[1], one, 1, one)
    prepare(cluster, cluster.nodes[1], one, 2, two)
    cluster.run(HOLD_MS // 2)
    assert not is_settled(cluster)
    settle(cluster)
    assert read_both(cluster, one, two) == [b"5", b"5"]
    assert decide(cluster, cluster.nodes[1], plan_of(one, two), one)[0] == 0, "it is too late"
    assert read_both(cluster, one, two) == [b"5", b"5"]


@pytest.mark.parametrize("finished", [0, 1, 2])
@pytest.mark.parametrize("lost", [None, 1, 2])
def test_what_was_decided_is_done_everywhere_whoever_dies(
    cluster: Cluster, finished: int, lost: int | None
) -> None:
    one, two = some_keys(cluster)
    for shard, key in ((1, one), (2, two)):
        prepare(cluster, cluster.nodes[1], one, shard, key)
    decide(cluster, cluster.nodes[1], plan_of(one, two), one)
    if finished:
        finish(cluster, cluster.nodes[1], finished, plan_of(one, two))
    if lost is not None:
        leader = cluster.leader(lost)
        assert leader is not None
        cluster.crash(leader)
        cluster.run_until(lambda: cluster.leader(lost) not in (None, leader))
        leader.restart()
    settle(cluster)
    assert read_both(cluster, one, two) == [b"6", b"6"]


def test_a_late_finish_does_not_do_what_was_done_before(cluster: Cluster) -> None:
    one, two = some_keys(cluster)
    for shard, key in ((1, one), (2, two)):
        prepare(cluster, cluster.nodes[1], one, shard, key)
    decide(cluster, cluster.nodes[1], plan_of(one, two), one)
    settle(cluster)
    answered(cluster, cluster.put(cluster.nodes[0], two, b"9"))
    finish(cluster, cluster.nodes[1], 2, plan_of(one, two))
    assert read_both(cluster, one, two) == [b"6", b"9"]


def test_a_clock_that_stands_still_holds_nobody_up(cluster: Cluster) -> None:
    """The shards' clocks were set by somebody whose clock was hours ahead."""
    one, two = some_keys(cluster)
    cluster.clock.jump(5 * 3_600_000)
    for key in (one, two):
        answered(cluster, cluster.put(cluster.nodes[0], key, b"5"))
    cluster.clock.jump(-5 * 3_600_000)
    for shard, key in ((1, one), (2, two)):
        prepare(cluster, cluster.nodes[1], one, shard, key)
    decide(cluster, cluster.nodes[1], plan_of(one, two), one)
    settle(cluster)
    assert read_both(cluster, one, two) == [b"6", b"6"]


def test_a_reader_and_a_writer_wait_for_what_becomes_of_the_keys(cluster: Cluster) -> None:
    one, two = some_keys(cluster)
    for shard, key in ((1, one), (2, two)):
        prepare(cluster, cluster.nodes[1], one, shard, key)
    decide(cluster, cluster.nodes[1], plan_of(one, two), one)
    finish(cluster, cluster.nodes[1], 1, plan_of(one, two))
    read, write = cluster.get(cluster.nodes[0], two), cluster.put(cluster.nodes[0], two, b"7")
    scan = cluster.submit(
        cluster.nodes[0], Op.GET, encode_body(Op.GET, one), 1, key=one, write=False
    )
    cluster.run(500)
    assert (read.all, write.all) == ([], [])
    assert answered(cluster, scan)[0] == b"6"
    finish(cluster, cluster.nodes[1], 2, plan_of(one, two))
    assert answered(cluster, read)[0] == b"6"
    answered(cluster, write)
    assert cluster.read(cluster.nodes[0], two) == b"7"


def test_a_reader_does_not_wait_for_those_who_come_later(cluster: Cluster) -> None:
    one, two = some_keys(cluster)
    leader = cluster.leader(1)
    assert leader is not None
    prepare(cluster, leader, one, 1, one)
    read = cluster.get(leader, one)
    cluster.run(500)
    assert not read.all
    other = (1, ATTEMPT + 1, one, [one], [0], HOLD_MS, 1 << 20, 1_000)
    waiting = cluster.submit(leader, Op.TXN_PREPARE, encode_body(Op.TXN_PREPARE, *other), 1)
    cluster.settle()
    assert waiting.one[0] == Busy("").status, "it was asked for without its keys: it may not wait"
    finish(cluster, leader, 1, plan_of(one))
    second = cluster.submit(leader, Op.TXN_PREPARE, encode_body(Op.TXN_PREPARE, *other), 1)
    cluster.settle()
    assert second.one[0] == Status.OK
    assert answered(cluster, read)[0] == b"6"
    assert two != one


def test_a_writer_that_has_waited_for_long_is_told_that_it_is_busy(cluster: Cluster) -> None:
    one, _ = some_keys(cluster)
    prepare(cluster, cluster.nodes[1], one, 1, one)
    replies = cluster.put(cluster.nodes[0], one, b"7")
    cluster.run(900)
    assert not replies.all
    cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Busy("").status


def test_writers_that_wait_at_a_leader_that_steps_down_are_sent_on(cluster: Cluster) -> None:
    one, two = some_keys(cluster)
    for shard, key in ((1, one), (2, two)):
        prepare(cluster, cluster.nodes[1], one, shard, key)
    leader = cluster.leader(1)
    assert leader is not None
    reads = [cluster.get(node, one) for node in cluster.nodes]
    writes = [cluster.put(node, one, b"7") for node in cluster.nodes]
    cluster.run(200)
    assert len(leader.replica(1).line) == 3
    cluster.cut(leader, *(node for node in cluster.nodes if node is not leader))
    cluster.run_until(lambda: cluster.leader(1) not in (None, leader))
    cluster.run_until(lambda: not leader.replica(1).leads)
    assert len(leader.replica(1).line) == 0
    cluster.heal()
    settle(cluster)
    for replies in (*reads, *writes):
        cluster.run_until(lambda one=replies: bool(one.all))  # type: ignore[misc]
    assert is_settled(cluster)


def test_a_read_that_was_not_of_one_moment_is_not_told(cluster: Cluster) -> None:
    """A shard gives its keys back while another one keeps its coordinator waiting."""
    one, two = some_keys(cluster)
    leader = cluster.leader(2)
    assert leader is not None
    others = [node for node in cluster.nodes if node is not leader]
    replies = txn(cluster, others[0], one, [GET, one], [GET, two])
    cluster.cut(leader, *others)  # both prepares are on their way, one of them for long
    cluster.run_until(lambda: bool(replies.all))
    cluster.heal()
    status, body = replies.one
    if status == Status.OK:
        assert isinstance(body, list)
        assert [row[0] for row in body[2]] == [b"5", b"5"]
    settle(cluster)


@pytest.mark.parametrize("decided", [False, True])
def test_a_split_between_two_steps_leaves_nothing_held(tmp_path: Path, decided: bool) -> None:
    """The keys that are only read go to the new half, and nobody has anything to do there."""
    cluster = Cluster(tmp_path, shards=1, factor=1)
    cluster.run_until(lambda: cluster.grown(1))
    node = cluster.nodes[0]
    keys = [b"k%d" % number for number in range(16)]
    for key in keys:
        answered(cluster, cluster.put(node, key, b"5"))
    prepare(cluster, node, keys[0], 1, *keys)
    body = encode_body(Op.SHARD_SPLIT, 1)
    answered(cluster, cluster.submit(node, Op.SHARD_SPLIT, body, 0))
    cluster.run_until(lambda: is_told(cluster))
    new = [key for key in keys if cluster.shard_of(node, key) == 2]
    assert new
    assert set(node.replica(2).state.keys.intents.by_key) == set(new)
    if decided:
        old = next(key for key in keys if key not in new)
        decide(cluster, node, plan_of(old), keys[0])
        assert finish(cluster, node, 1, plan_of(old))[1] == []
        forget = encode_body(Op.TXN_FORGET, keys[0], ATTEMPT)
        home = cluster.shard_of(node, keys[0])
        answered(cluster, cluster.submit(node, Op.TXN_FORGET, forget, home, key=keys[0]))
    settle(cluster)
    for key in new:
        assert cluster.read(node, key) == b"5"
    cluster.close()


def test_writers_that_the_leader_refuses_when_it_is_their_turn_leave_the_line(
    cluster: Cluster,
) -> None:
    """They came back at once to the end of the line, and it never ended."""
    one, _ = some_keys(cluster)
    leader = cluster.leader(1)
    assert leader is not None
    prepare(cluster, leader, one, 1, one)
    body = encode_body(Op.PUT, 0, 0, 0, one, b"7")
    writes = [cluster.submit(leader, Op.PUT, body, 1, key=one, forwarded=True) for _ in range(3)]
    cluster.run(100)
    line = leader.replica(1).line
    assert len(line) == 3
    raft = leader.replica(1).raft
    raft.transfer(next(member for member in raft.configuration.voters if member != raft.replica))
    leader.replica(1).state.keys.intents.release(ATTEMPT)
    leader.replica(1).end_waits(cluster.clock.monotonic_ms())
    assert len(line) == 0
    assert {replies.one[0] for replies in writes} == {NotLeader("").status}
