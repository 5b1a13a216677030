"""Requests that wait for a change: woken by what concerns them, and by nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.codec import encode_body
from krita.errors import Outcome, Status
from krita.operations import Change, Op
from kritad.host import replica as replica_module
from kritad.host.polls import Polls
from kritad.host.request import Request
from kritad.state import feed
from kritad.state.feed import keep_within
from tests.host.cluster import Cluster, Node, grown_cluster, key_in, write_some
from tests.host.lone import SHARD, LoneNode, Replies


def poll(
    after: int, start: bytes | None = None, stop: bytes | None = None, wait_until_ms: float = 1e12
) -> tuple[Request, Replies]:
    replies = Replies()
    request = Request(Op.CHANGES, b"", b"", SHARD, replies, 1e12, wait_until_ms=wait_until_ms)
    request.fields = [after, start, stop, None, None, None]
    return request, replies


# --- by themselves -------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_change_wakes_exactly_those_whose_range_has_the_key(seed: int) -> None:
    chance = random.Random(seed)
    keys = [b"a", b"a\0", b"a\0\0", b"b", b"c"]
    polls, waiting = Polls(), dict[Request, tuple[bytes | None, bytes | None]]()
    for _ in range(200):
        if chance.random() < 0.6:
            start = chance.choice([None, *keys])
            stop = chance.choice([None, b"b", b"c", (start or b"") + b"\0"])
            request, _ = poll(0, start, stop)
            polls.add(request)
            waiting[request] = start, stop
        else:
            changed = chance.sample(keys, chance.randint(1, 2))
            woken = polls.woken([(1, Change.DELETE, key, None) for key in changed])
            concerned = {
                request
                for request, (start, stop) in waiting.items()
                if any(k >= (start or b"") and (stop is None or k < stop) for k in changed)
            }
            assert len(woken) == len(set(woken))
            assert set(woken) == concerned
            for request in woken:
                del waiting[request]
        assert polls.count == len(waiting)
    assert set(polls.all()) == set(waiting)
    assert polls.count == 0
    assert polls.woken([(2, Change.DELETE, key, None) for key in keys]) == []


def test_a_split_wakes_everybody() -> None:
    polls = Polls()
    requests = [poll(0, b"a", b"a\0")[0], poll(0)[0]]
    for request in requests:
        polls.add(request)
    assert set(polls.woken([(1, Change.SPLIT, b"", (5, 1))])) == set(requests)


def test_those_whose_time_has_passed_wait_no_longer() -> None:
    polls = Polls()
    early, _ = poll(0, b"a", b"a\0", 10.0)
    late, _ = poll(0, wait_until_ms=20.0)
    woken, _ = poll(0, b"b", b"b\0", wait_until_ms=20.0)
    for request in (late, woken, early):
        polls.add(request)
    assert polls.overdue(10.0) == [early]
    assert woken in polls.woken([(1, Change.DELETE, b"b", None)])
    polls.add(late)
    assert polls.overdue(19.9) == []
    assert polls.overdue(20.0) == [late]
    assert polls.count == 0


def test_a_tick_looks_only_at_polls_whose_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all of them, 10,000 at each of eight replicas took twice the time that there is."""
    polls, looked_at = Polls(), list[Request]()
    for number in range(1_000):
        polls.add(poll(0, b"k%d" % number, b"k%d\0" % number, 10.0 + number)[0])
    waits = polls._waits

    def noting(request: Request) -> bool:
        looked_at.append(request)
        return waits(request)

    monkeypatch.setattr(polls, "_waits", noting)
    monkeypatch.setattr(polls, "_each", None)
    assert len(polls.overdue(12.0)) == len(looked_at) == 3


def test_polls_that_are_woken_again_and_again_leave_nothing_behind() -> None:
    polls = Polls()
    again, _ = poll(0, b"a", b"a\0")
    for _ in range(10_000):
        polls.add(again)
        assert polls.woken([(1, Change.PUT, b"a", None)]) == [again]
    assert len(polls._times) < 2_000


# --- at a replica ----------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path, voters=1)
    lone.lead()
    yield lone
    lone.close()


def put(node: LoneNode, key: bytes) -> int:
    replies = Replies()
    body = encode_body(Op.PUT, 0, 0, 0, key, b"v")
    node.replica.propose(Request(Op.PUT, body, key, SHARD, replies, 1e12, write=True), 1000)
    node.drive.mark(node.replica)
    node.settle()
    status, reply = replies.one
    assert status == Status.OK
    assert isinstance(reply, list)
    return int(reply[0])


def test_a_poll_that_comes_late_is_answered_at_once(node: LoneNode) -> None:
    before = node.replica.state.index
    at = put(node, b"k")
    request, replies = poll(before)
    node.replica.poll(request, 0.0)
    assert replies.one == (Status.OK, [[[0, b"k", b"v", at, None, at]], at, 0])


def test_a_poll_that_waits_is_answered_with_the_change_it_waits_for(node: LoneNode) -> None:
    request, replies = poll(node.replica.state.index, b"k", b"k\0")
    node.replica.poll(request, 0.0)
    put(node, b"other")
    assert replies.all == []
    at = put(node, b"k")
    assert replies.one[1] == [[[0, b"k", b"v", at, None, at]], at, 0]
    assert node.replica.polls.count == 0


def test_more_changes_at_once_than_are_looked_at_hide_none_from_who_waits(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_SCAN_MAX", 3)
    before = node.replica.state.index
    request, replies = poll(before, b"k", b"k\0")
    node.replica.poll(request, 0.0)
    for key in (b"a", b"b", b"c", b"d", b"k"):
        body = encode_body(Op.PUT, 0, 0, 0, key, b"v")
        write = Request(Op.PUT, body, key, SHARD, Replies(), 1e12, write=True)
        node.replica.propose(write, 1000)
    node.drive.mark(node.replica)
    node.settle()
    status, answer = replies.one
    assert status == Status.OK
    assert isinstance(answer, list)
    again, replies = poll(answer[1], b"k", b"k\0")  # from where it says to go on
    node.replica.poll(again, 0.0)
    assert [event[1] for event in answer[0] + replies.one[1][0]] == [b"k"]  # type: ignore[index]


def test_a_poll_whose_time_is_over_is_told_how_far_it_has_seen(node: LoneNode) -> None:
    request, replies = poll(node.replica.state.index, b"k", b"k\0", 50.0)
    node.replica.poll(request, 0.0)
    at = put(node, b"other")
    node.replica.end_polls(49.0)
    assert replies.all == []
    node.replica.end_polls(50.0)
    assert replies.one == (Status.OK, [[], at, 0])


def test_a_poll_that_would_not_wait_is_answered_at_once(node: LoneNode) -> None:
    request, replies = poll(node.replica.state.index, wait_until_ms=5.0)
    node.replica.poll(request, 5.0)
    assert replies.one == (Status.OK, [[], node.replica.state.index, 0])


def test_a_poll_from_the_future_of_a_replica_that_lags_is_not_told_what_it_knows(
    node: LoneNode,
) -> None:
    ahead = node.replica.state.index + 2
    request, replies = poll(ahead, wait_until_ms=50.0)
    node.replica.poll(request, 0.0)
    put(node, b"k")
    put(node, b"k")
    assert replies.all == [], "it has been told of these elsewhere"
    at = put(node, b"k")
    assert [event[5] for event in replies.one[1][0]] == [at]  # type: ignore[index]


def test_a_bookmark_never_leads_back(node: LoneNode) -> None:
    ahead = node.replica.state.index + 5
    request, replies = poll(ahead, wait_until_ms=50.0)
    node.replica.poll(request, 0.0)
    node.replica.end_polls(50.0)
    assert replies.one == (Status.OK, [[], ahead, 0])


def test_only_so_many_wait_at_one_replica(node: LoneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "POLLS_MAX", 2)
    replies = []
    for _ in range(3):
        request, answer = poll(node.replica.state.index)
        node.replica.poll(request, 0.0)
        replies.append(answer)
    assert [len(answer.all) for answer in replies] == [0, 0, 1]
    assert replies[2].one[0] == Status.BUSY


def test_a_replica_that_goes_away_answers_those_who_wait(node: LoneNode) -> None:
    request, replies = poll(node.replica.state.index)
    node.replica.poll(request, 0.0)
    node.replica.abandon("it goes")
    assert (replies.one[0], replies.outcome) == (Status.UNAVAILABLE, Outcome.NOT_APPLIED)
    assert node.replica.polls.count == 0


def test_changes_that_the_feed_no_longer_has_are_refused_to_who_waits_for_them(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "FEED_BYTES_MAX", 100)
    before = node.replica.state.index
    put(node, b"k")
    put(node, b"l")
    request, replies = poll(before)
    node.replica.poll(request, 0.0)
    assert replies.one[0] == Status.COMPACTED


# --- in a cluster ------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    grown = grown_cluster(tmp_path, 3, shards=1)
    grown.run(1_000)
    yield grown
    grown.close()


def followers(cluster: Cluster) -> list[Node]:
    return [node for node in cluster.alive if not node.replica(SHARD).leads]


def test_a_follower_wakes_those_who_wait_there(cluster: Cluster) -> None:
    leader = cluster.leader(SHARD)
    assert leader is not None
    replies = []
    for node in cluster.alive:
        request, answer = poll(node.replica(SHARD).state.index)
        node.replica(SHARD).poll(request, 0.0)
        replies.append(answer)
    write_some(cluster, 1, key_in(leader, SHARD))
    cluster.run(500)
    bodies = [answer.one[1] for answer in replies]
    assert bodies[0] == bodies[1] == bodies[2], "every replica tells the same"


def test_who_waits_at_a_replica_that_a_snapshot_replaces_is_answered(cluster: Cluster) -> None:
    node = followers(cluster)[0]
    others = [other for other in cluster.alive if other is not node]
    cluster.cut(node, *others)
    request, replies = poll(node.replica(SHARD).state.index)
    node.replica(SHARD).poll(request, 0.0)
    fill(cluster, others[0])
    cluster.run(34_000)  # a flush, a checkpoint: the leader cuts its log
    sent_before = cluster.snapshots_sent
    cluster.heal()
    cluster.run_until(lambda: bool(replies.all))
    assert cluster.snapshots_sent > sent_before
    assert (replies.one[0], replies.outcome) == (Status.UNAVAILABLE, Outcome.NOT_APPLIED)


def fill(cluster: Cluster, node: Node) -> None:
    replies = [cluster.put(node, b"f%d" % n, b"x" * 1_500) for n in range(200)]
    cluster.run_until(lambda: all(reply.all for reply in replies))


def test_a_tick_bounds_the_feeds_of_all_replicas_together(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_some(cluster, 40)
    node = cluster.nodes[0]
    kept = [replica.state.feed.memory_bytes for replica in node.host.replicas.values()]
    monkeypatch.setattr(keep_within, "__defaults__", (max(kept),))
    cluster.tick()
    assert sum(r.state.feed.memory_bytes for r in node.host.replicas.values()) <= max(kept)
