"""Leases, locks and elections of the blocking client."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from krita.client import LAST_WORD_S, Client
from krita.errors import (
    BadRequest,
    ConditionFailed,
    DeadlineExceeded,
    Forbidden,
    LeaseUnknown,
    Locked,
    LockLost,
    OutcomeUnknown,
)
from krita.operations import Op
from tests.protocol import server
from tests.protocol.server import Cluster


@pytest.fixture
def other(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.seeds) as client:
        yield client


def waiting(cluster: Cluster) -> int:
    """How many polls wait for a change."""
    return sum(held.polls.count for held in cluster.holdings.replicas.values())


class Deadlines:
    """How long requests are given; they are executed as usual."""

    def __init__(self) -> None:
        self.found_ms: list[int] = []

    def __call__(self, exchange: server.Exchange) -> None:
        assert exchange.request.deadline_ms is not None
        self.found_ms.append(exchange.request.deadline_ms)
        exchange.finish()


# Leases


def test_keys_end_with_their_lease(cluster: Cluster, db: Client) -> None:
    with db.lease(1000) as lease:
        db.put("a", "1", lease=lease)
        db.put("b", "1", lease=lease.id)
        shown = lease.show()
        assert (shown.ttl_ms, shown.left_ms, shown.keys) == (1000, 1000, (b"a", b"b"))
        cluster.advance(900)
        assert lease.keepalive() == 1000
        cluster.advance(900)
        value = db.get("a")
        assert value is not None
        assert value.lease == lease.id
    assert db.get("a") is None
    assert db.count() == 0


def test_a_lease_that_is_not_kept_alive_ends(cluster: Cluster, db: Client) -> None:
    lease = db.lease(1000)
    lease.grant()
    db.put("a", "1", lease=lease)
    cluster.advance(1000)
    assert db.get("a") is None
    with pytest.raises(LeaseUnknown):
        lease.keepalive()
    with pytest.raises(LeaseUnknown):
        db.put("a", "1", lease=lease)
    assert lease.revoke() == 0


def test_a_grant_whose_answer_is_lost_is_one_lease(cluster: Cluster, db: Client) -> None:
    cluster.on(Op.LEASE_GRANT, server.apply_then_drop)
    lease = db.lease(1000)
    assert lease.grant() == lease.id
    granted = {fields[1] for _, op, fields in cluster.requests if op == Op.LEASE_GRANT}
    assert granted == {lease.id}


def test_a_known_lease_can_be_taken_up_by_its_id(db: Client) -> None:
    lease = db.lease(1000)
    lease.grant()
    again = db.lease(id=lease.id)
    assert again.keepalive() == 1000
    assert again.ttl_ms == 1000
    db.put("a", "1", lease=again)
    assert again.revoke() == 1


# Locks


def test_a_lock_is_held_by_one_and_its_token_fences_the_others_off(
    cluster: Cluster, db: Client, other: Client
) -> None:
    lock = db.lock("{r}lock", ttl_ms=1000)
    with lock:
        db.put("{r}text", "mine", if_lock=lock)
        with pytest.raises(Locked) as caught:
            other.lock("{r}lock", ttl_ms=1000).acquire(wait_ms=0)
        detail = caught.value.detail
        assert (detail["token"], detail["owner"]) == (lock.token, lock.owner)
        assert detail["left_ms"] == 1000
        token = lock.token
    assert not lock.held
    with other.lock("{r}lock", ttl_ms=1000, owner="me") as second:
        assert second.token > token
        with pytest.raises(ConditionFailed):
            db.put("{r}text", "too late", if_lock=("{r}lock", token))
        value = db.get("{r}lock")
        assert value is not None
        assert value.data == b"me"
    assert db.get("{r}lock") is None
    assert not waiting(cluster)


def test_whoever_waits_for_a_lock_gets_it_when_it_is_released(
    cluster: Cluster, db: Client, other: Client
) -> None:
    lock, tokens = db.lock("l", ttl_ms=60_000), []
    lock.acquire()

    def wait() -> None:
        with other.lock("l", ttl_ms=1000) as second:
            tokens.append(second.token)

    thread = threading.Thread(target=wait)
    thread.start()
    while not waiting(cluster):
        thread.join(0.001)
    first = lock.token
    assert lock.release()
    thread.join(10)
    assert tokens[0] > first
    assert cluster.count(Op.LOCK) == 3, "it asked again before anything had changed"


def test_a_lock_whose_holder_is_gone_ends_by_itself(
    cluster: Cluster, db: Client, other: Client
) -> None:
    lost = db.lock("l", ttl_ms=1000)
    lost.acquire()
    cluster.advance(1000)
    taken = other.lock("l", ttl_ms=1000)
    assert taken.acquire(wait_ms=0) > lost.token
    with pytest.raises(LockLost):
        lost.renew()
    assert not lost.release()
    taken.renew()


def test_renewing_keeps_a_lock_and_its_token(cluster: Cluster, db: Client) -> None:
    lock = db.lock("l", ttl_ms=1000)
    token = lock.acquire()
    for _ in range(3):
        cluster.advance(900)
        lock.renew()
    assert lock.token == token
    assert lock.release()


def test_waiting_for_a_lock_ends_when_it_is_to(cluster: Cluster, db: Client, other: Client) -> None:
    db.lock("l", ttl_ms=60_000).acquire()
    with pytest.raises(Locked):
        other.lock("l", ttl_ms=1000).acquire(wait_ms=60)
    with pytest.raises(Locked), other.lock("l", ttl_ms=1000, wait_ms=0):
        raise AssertionError("it was not to be entered")
    cluster.do(lambda: cluster.holdings.forget_changes())
    with pytest.raises(Locked):
        other.lock("l", ttl_ms=1000).acquire(wait_ms=60)


def test_a_wait_that_nobody_answers_is_no_reason_to_give_up_the_lock(
    cluster: Cluster, db: Client, other: Client
) -> None:
    db.lock("l", ttl_ms=60_000).acquire()
    cluster.on(Op.CHANGES, server.answer(DeadlineExceeded("a node was slow")), times=1000)
    with pytest.raises(Locked):
        other.lock("l", ttl_ms=1000, timeout_ms=100).acquire(wait_ms=50)
    cluster.do(cluster.rules.clear)
    cluster.on(Op.CHANGES, server.answer(Forbidden("not you")))
    with pytest.raises(Forbidden):
        other.lock("l", ttl_ms=1000).acquire(wait_ms=50)


@pytest.mark.parametrize("act", [
    lambda db: db.lease(1000, timeout_ms=60).grant(),
    lambda db: db.lease(id=7, timeout_ms=60).keepalive(),
    lambda db: db.lease(id=7, timeout_ms=60).revoke(),
    lambda db: db.retention_set("p/", 1000, timeout_ms=60),
])  # fmt: skip
def test_what_is_done_in_all_shards_and_is_not_answered_may_have_been_done(
    cluster: Cluster, db: Client, act: Callable[[Client], object]
) -> None:
    db.ping()
    for op in (Op.LEASE_GRANT, Op.LEASE_KEEPALIVE, Op.LEASE_REVOKE, Op.RETENTION_SET):
        cluster.on(op, server.ignore, times=1000)
    with pytest.raises(OutcomeUnknown):
        act(db)


def test_an_acquisition_whose_answer_is_lost_is_one(cluster: Cluster, db: Client) -> None:
    db.put("l0", "opens the session")
    cluster.on(Op.LOCK, server.apply_then_drop)
    lock = db.lock("l", ttl_ms=1000)
    assert lock.acquire() == lock.token
    assert lock.release()


# Elections


def test_a_leader_is_elected_and_seen_by_all(cluster: Cluster, db: Client, other: Client) -> None:
    election, watched = db.election("e", ttl_ms=1000), other.election("e", ttl_ms=1000)
    assert watched.leader() is None
    seen = watched.observe()
    assert next(seen) is None
    token = election.campaign("one")
    leader = next(seen)
    assert leader is not None
    assert (leader.text(), leader.token) == ("one", token)
    with pytest.raises(Locked):
        watched.campaign("two", wait_ms=0)
    election.renew()
    assert election.resign()
    assert next(seen) is None
    with watched.lead("two") as lead:
        leader = election.leader()
        assert leader is not None
        assert (leader.name, leader.token) == (b"two", lead.token)
        cluster.advance(1000)
    assert [next(seen), next(seen)] == [leader, None]
    seen.close()
    with pytest.raises(BadRequest):
        election.resign()


def test_what_is_done_behind_a_block_or_a_failure_takes_no_second_timeout(
    cluster: Cluster,
) -> None:
    given = Deadlines()
    cluster.on(Op.TXN, given)
    cluster.on(Op.DELETE, given, times=2)
    with Client(cluster.seeds, timeout_ms=60_000, sessions=False) as db:
        cluster.on(Op.LOCK, server.apply_then_drop)
        lock = db.lock("l", ttl_ms=10_000)
        with pytest.raises(OutcomeUnknown):
            lock.acquire(wait_ms=100)
        with db.lock("l", ttl_ms=10_000, wait_ms=0):
            pass
        lock.acquire()
        lock.release()
    lost, block, asked_for = given.found_ms
    assert max(lost, block) <= LAST_WORD_S * 1000 < asked_for
