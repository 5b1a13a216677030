"""Locks, elections and leases that several tasks or threads use as one object."""

from __future__ import annotations

import threading

import anyio
import pytest

from krita.aio import AsyncClient
from krita.client import Client
from krita.errors import BadRequest, Locked, LockLost
from krita.operations import Op
from tests.protocol import server
from tests.protocol.server import Cluster
from tests.protocol.test_aio import Run, run, until

__all__ = ["run"]


def test_tasks_that_share_a_lock_object_hold_it_one_after_the_other(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        inside, most, tokens = 0, 0, []
        async with AsyncClient(cluster.seeds) as db:
            lock = db.lock("{l}", ttl_ms=10_000)

            async def work() -> None:
                nonlocal inside, most
                async with lock:
                    inside += 1
                    most = max(most, inside)
                    tokens.append(lock.token)
                    await db.add("{l}n", 1, if_lock=lock)
                    inside -= 1

            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(work)
        assert most == 1
        assert len(tokens) == 5
        assert tokens == sorted(set(tokens))

    run(main)


def test_threads_that_share_a_lock_object_hold_it_one_after_the_other(db: Client) -> None:
    lock, tokens, refused = db.lock("l", ttl_ms=60_000), [], threading.Event()

    def wait() -> None:
        with pytest.raises(Locked) as caught:
            lock.acquire(wait_ms=0)
        assert caught.value.detail == {"owner": lock.owner, "token": lock.token}
        refused.set()
        with lock:
            tokens.append(lock.token)

    first = lock.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    assert refused.wait(10)
    assert lock.release()
    thread.join(10)
    assert tokens[0] > first
    assert not lock.held


def test_a_turn_is_waited_for_as_long_as_was_said_and_may_be_cancelled(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            lock = db.lock("l", ttl_ms=60_000)

            async def wait() -> None:
                with pytest.raises(Locked, match="share"):
                    await lock.acquire(wait_ms=10)
                with anyio.move_on_after(0.01) as scope:
                    await lock.acquire()
                assert scope.cancelled_caught

            async with lock, anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
            async with lock:
                assert lock.held
            assert await db.get("l") is None

    run(main)


def test_a_block_is_left_before_the_next_one_of_its_lock_object_begins(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            lock, entered = db.lock("l", ttl_ms=60_000), anyio.Event()

            async def follow() -> None:
                async with lock:
                    entered.set()

            async with anyio.create_task_group() as tasks, lock:
                tasks.start_soon(follow)
                await lock.release()
                await db.put("k", "so that the other task has had its time")
                assert not entered.is_set()
            assert entered.is_set()

    run(main)


def test_whoever_has_a_lock_may_acquire_it_again_and_enters_no_second_block(
    cluster: Cluster, db: Client
) -> None:
    lock = db.lock("l", ttl_ms=1000)
    token = lock.acquire()
    cluster.advance(900)
    assert lock.acquire() == token
    cluster.advance(900)
    assert lock.acquire(wait_ms=0) == token
    with pytest.raises(BadRequest, match="acquired it already"), lock:
        raise AssertionError("it was not to be entered")
    assert lock.release()
    with lock:
        cluster.advance(1000)
        with pytest.raises(LockLost):
            lock.renew()
        assert lock.acquire() > token
    assert db.get("l") is None


def test_a_lock_object_that_has_lost_its_lock_is_free_for_others(
    cluster: Cluster, db: Client
) -> None:
    lock, tokens = db.lock("l", ttl_ms=1000), []
    tokens.append(lock.acquire())
    cluster.advance(1000)
    with pytest.raises(LockLost):
        lock.renew()
    assert not lock.release()
    thread = threading.Thread(target=lambda: tokens.append(lock.acquire(wait_ms=10_000)))
    thread.start()
    thread.join(10)
    assert tokens[1] > tokens[0]


@pytest.mark.parametrize("again", ["acquire", "campaign"])
def test_what_is_held_survives_that_it_is_asked_for_again_and_cancelled(
    run: Run, cluster: Cluster, again: str
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            lock, election = db.lock("l", ttl_ms=60_000), db.election("l", ttl_ms=60_000)

            async def take() -> None:
                await (lock.acquire() if again == "acquire" else election.campaign("w7"))

            await take()
            cluster.on(Op.LOCK, server.apply_then_ignore)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel() -> None:
                        await until(lambda: cluster.count(Op.LOCK) == 2)
                        scope.cancel()

                    tasks.start_soon(cancel)
                    await take()
            assert scope.cancelled_caught
            assert await election.leader() is not None
            await (lock.renew() if again == "acquire" else election.renew())

    run(main)


def test_a_lease_has_one_block_at_a_time(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            lease = db.lease(60_000)
            async with lease:
                await db.put("k", "v", lease=lease)
                with pytest.raises(BadRequest, match="in its block already"):
                    await lease.__aenter__()
                assert (await lease.show()).keys == (b"k",)
            assert await db.get("k") is None
            async with lease:
                await db.put("k", "v", lease=lease)

    run(main)
