"""Where a request's time goes: the stages add up, and each is told where it was passed."""

from __future__ import annotations

from pathlib import Path

import pytest

from krita.codec import encode
from krita.errors import Status
from krita.operations import Op
from kritad.trail import APPLY, FORWARD, FSYNC, QUEUE, QUORUM, Trail, Trails
from tests.host.cluster import Cluster
from tests.host.lone import Replies
from tests.kritad.service_bench import LOCAL, Bench, bench_of


class Watch:
    """A clock that a test sets."""

    now = 10.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


def trail_of(watch: Watch) -> tuple[Trail, Replies]:
    replies = Replies()
    return Trail(replies, watch.now, watch, {}), replies


def test_the_time_since_the_last_stage_is_the_stage_s(watch: Watch) -> None:
    trail, replies = trail_of(watch)
    for stage, until in ((QUEUE, 11.0), (FSYNC, 13.0), (QUORUM, 16.0)):
        watch.now = until
        trail.passed(stage)
    watch.now = 20.0
    trail(Status.OK, None)
    assert list(trail.stages.items()) == [(QUEUE, 1.0), (FSYNC, 2.0), (QUORUM, 3.0), (APPLY, 4.0)]
    assert replies.one == (Status.OK, None)


def test_a_stage_that_is_passed_twice_counts_twice(watch: Watch) -> None:
    trail, _ = trail_of(watch)
    for stage, until in ((QUEUE, 11.0), (FORWARD, 15.0), (QUEUE, 18.0), (FORWARD, 20.0)):
        watch.now = until
        trail.passed(stage)
    trail(Status.OK, None)
    assert trail.stages == {QUEUE: 4.0, FORWARD: 6.0}


def test_the_operations_of_one_request_add_up(watch: Watch) -> None:
    first, _ = trail_of(watch)
    for stage, until in ((QUEUE, 11.0), (QUORUM, 12.0)):
        watch.now = until
        first.passed(stage)
    watch.now = 13.0
    first(Status.OK, None)
    second = Trail(replies := Replies(), 10.0, watch, first.stages)
    for stage, until in ((QUEUE, 15.0), (QUORUM, 18.0)):
        watch.now = until
        second.passed(stage)
    second(Status.OK, None)
    assert second.stages == {QUEUE: 3.0, QUORUM: 4.0, APPLY: 1.0}
    assert len(replies.all) == 1


def test_what_came_no_further_has_been_in_the_queue(watch: Watch) -> None:
    trail, _ = trail_of(watch)
    watch.now = 15.0
    trail(Status.DEADLINE, None)
    assert trail.stages == {QUEUE: 5.0}


def test_what_has_passed_no_stage_has_none(watch: Watch) -> None:
    trail, _ = trail_of(watch)
    watch.now = 15.0
    trail(Status.OK, None)
    assert trail.stages == {}


def test_a_majority_that_is_faster_than_the_own_disk_leaves_no_fsync(watch: Watch) -> None:
    trails = Trails()
    (slow, _), (quick, _) = trail_of(watch), trail_of(watch)
    trails.add(5, slow)
    trails.add(6, quick)
    trails.saved(5)
    trails.committed(5)
    trails.committed(6)
    trails.saved(6)
    assert list(slow.stages) == [QUEUE, FSYNC, QUORUM]
    assert list(quick.stages) == [QUEUE, QUORUM]
    assert not trails


def test_a_log_that_may_lose_its_end_forgets_who_waited(watch: Watch) -> None:
    trails = Trails()
    lost, _ = trail_of(watch)
    trails.add(5, lost)
    trails.clear()
    trails.saved(5)
    trails.committed(5)
    assert list(lost.stages) == [QUEUE]


# --- through a cluster ---------------------------------------------------------------------


def stages(bench: Bench, node: int, op: Op, *fields: object) -> list[bytes]:
    """What a request at this node has passed; it has to succeed."""
    clock = bench.cluster.nodes[node - 1].host.clock
    replies = Replies()
    trail = Trail(replies, clock.monotonic_ms(), clock.monotonic_ms, {})
    bench.services[node].submit(op, encode(fields), LOCAL, None, 0, trail)
    bench.cluster.run_until(lambda: bool(replies.all))
    assert replies.one[0] == Status.OK
    return list(trail.stages)


def leader_of(cluster: Cluster, key: bytes) -> int:
    host = cluster.nodes[0].host
    return host.leaders.of(host.owner(key))[0]


def test_the_leader_tells_all_stages_and_others_where_they_sent_it(three: Bench) -> None:
    leader = leader_of(three.cluster, b"k")
    other = leader % 3 + 1
    write = (Op.PUT, None, None, None, b"k", b"v")
    passed = stages(three, leader, *write)
    assert [stage for stage in passed if stage != FSYNC] == [QUEUE, QUORUM, APPLY]
    assert stages(three, other, *write) == [QUEUE, FORWARD]
    assert stages(three, leader, Op.GET, b"k") == [QUEUE, QUORUM, APPLY]
    assert stages(three, other, Op.GET, b"k") == [QUEUE, FORWARD]


def test_a_node_alone_waits_for_its_own_disk(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, shards=4, factor=1)
    passed = stages(bench_of(cluster), 1, Op.PUT, None, None, None, b"k", b"v")
    assert passed == [QUEUE, FSYNC, QUORUM, APPLY]
    cluster.close()
