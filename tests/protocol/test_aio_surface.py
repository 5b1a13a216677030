"""The async client's iterators and blocks on trio and on asyncio.

Its operations are the blocking client's, from one source (tests/client_sources.py); here is
what tasks add: cancellation, waiting side by side, and keeping alive what is held.
"""

from __future__ import annotations

import inspect
import time

import anyio
import pytest

from krita import steps
from krita.aio import (
    AsyncClient,
    AsyncElection,
    AsyncLease,
    AsyncLock,
    AsyncPipeline,
    AsyncScan,
    AsyncWatch,
)
from krita.client import LAST_WORD_S
from krita.errors import KritaError, LeaseUnknown, Locked, LockLost
from krita.operations import Op
from tests.protocol import server
from tests.protocol.server import Cluster
from tests.protocol.test_aio import Run, run, until

__all__ = ["run"]


SURFACE = (
    AsyncClient, AsyncElection, AsyncLease, AsyncLock, AsyncPipeline, AsyncScan, AsyncWatch,
)  # fmt: skip
QUIET = {"pause", "run_batch"}  # not for callers, or with nothing to raise


@pytest.mark.parametrize("cls", SURFACE)
def test_every_method_to_be_awaited_says_what_it_raises(cls: type[object]) -> None:
    methods = inspect.getmembers(cls, inspect.iscoroutinefunction)
    public = {name: inspect.getdoc(one) for name, one in methods if not name.startswith("_")}
    assert public
    silent = [name for name, doc in public.items() if not doc or "raise" not in doc.lower()]
    assert set(silent) <= QUIET


def test_every_kind_of_operation_answers(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.retention_set("k", 60_000)
            await db.put("k", "1", ttl_ms=1000)
            assert (await db.add("n", 2)).number == 2
            assert (await db.append("k", "0")).value_bytes == 2
            assert (await db.persist("k")).existed
            assert list(await db.get_many(["k", "n"])) == ["k", "n"]
            assert len(await db.bulk(steps.put(f"b{n}", "1") for n in range(10))) == 10
            assert (await db.txn(then=[steps.get("k")])).succeeded
            assert len((await db.history("k")).versions) == 3
            await db.undo("k")
            assert await db.count("b") == 10
            assert (await db.explain("k")).leader == 1
            assert len(await db.retention_list()) == 1

    run(main)


def test_a_transaction_takes_generators(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("a", "1")
            done = await db.txn(
                compare=(steps.value(key, "==", "another") for key in ("a",)),
                then=(steps.put(key, "2") for key in ("a", "b")),
                otherwise=(steps.get(key) for key in ("a",)),
            )
            assert not done.succeeded
            assert [getattr(result, "data", None) for result in done.results] == [b"1"]
            assert await db.get("b") is None

    run(main)


def test_a_scan_is_an_async_iterator(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.bulk(steps.put(f"k{number:04}", "v") for number in range(1200))
            found = [item.key async for item in db.scan("k")]
            assert len(found) == 1200
            assert found == sorted(found)
            assert len(await db.scan("k", limit=7).items()) == 7

    run(main)


def test_a_watch_that_is_cancelled_loses_nothing(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db, db.watch(prefix="k") as watch:
            await watch.begin()
            with anyio.move_on_after(0.01):
                async for event in watch:
                    raise AssertionError(event)
            await db.bulk(steps.put(f"k{number}", "v") for number in range(10))
            got = set()
            async for event in watch:
                got.add(event.key)
                if len(got) == 10:
                    break
        assert cluster.connections == 1

    run(main)


def test_many_watches_wait_side_by_side(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            begun: list[str] = []
            seen: list[int] = []

            async def watch(key: str) -> None:
                async with db.watch(key) as events:
                    await events.begin()
                    begun.append(key)
                    async for event in events:
                        seen.append(int(event.text() or ""))
                        return

            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(watch, f"k{number}")
                await until(lambda: len(begun) == 50)
                for number in range(50):
                    await db.put(f"k{number}", str(number))
            assert sorted(seen) == list(range(50))

    run(main)


def test_a_lease_is_kept_alive_while_its_block_runs(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            async with db.lease(900) as lease:
                await db.put("k", "v", lease=lease)
                await until(lambda: cluster.count(Op.LEASE_KEEPALIVE) >= 2)
            assert await db.get("k") is None

    run(main)


def test_a_block_ends_when_its_lease_has_ended(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:

            async def hold() -> None:
                async with db.lease(60):
                    cluster.advance(60)
                    await anyio.sleep_forever()

            with pytest.raises(LeaseUnknown):
                await hold()

    run(main)


def test_a_block_ends_when_nobody_could_keep_its_lease_alive_in_time(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:

            async def hold() -> None:
                async with db.lease(100):
                    cluster.on(Op.LEASE_KEEPALIVE, server.ignore, times=1000)
                    cluster.on(Op.LEASE_REVOKE, server.answer(LeaseUnknown("gone")))
                    await anyio.sleep_forever()

            with pytest.raises(LeaseUnknown, match="in time"):
                await hold()

    run(main)


def test_a_block_ends_when_its_lock_was_lost(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db, AsyncClient(cluster.seeds) as other:

            async def hold() -> None:
                async with db.lock("l", ttl_ms=100):
                    with anyio.CancelScope(shield=True):  # it may be found out in between
                        await other.delete("l")
                        await other.lock("l", ttl_ms=60_000).acquire()
                    await anyio.sleep_forever()

            with pytest.raises(LockLost):
                await hold()
            value = await db.get("l")
            assert value is not None, "whoever has lost a lock does not release another's"

    run(main)


def test_what_was_given_up_within_its_block_does_not_end_the_block(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            async with db.lease(60) as lease, db.lock("l", ttl_ms=60) as lock:
                assert await lock.release()
                await lease.revoke()
                await anyio.sleep(0.1)  # longer than either would last
                assert await db.put("k", "still here")
            assert not lock.held

    run(main)


def test_the_error_of_a_block_is_raised_as_it_is_and_what_it_held_is_let_go(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:

            async def fail() -> None:
                async with db.lease(60_000) as lease, db.lock("l", ttl_ms=60_000):
                    await db.put("k", "v", lease=lease)
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            assert await db.get("l") is None
            assert await db.get("k") is None

    run(main)


def test_a_cancelled_block_lets_go_what_it_held(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            with anyio.CancelScope() as scope:
                async with db.lock("l", ttl_ms=60_000):
                    scope.cancel()
                    await anyio.sleep_forever()
            assert await db.get("l") is None

    run(main)


def test_an_acquisition_that_is_cancelled_leaves_no_lock_behind(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            cluster.on(Op.LOCK, server.apply_then_ignore)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(db.lock("l", ttl_ms=60_000).acquire)
                await until(lambda: cluster.count(Op.LOCK) == 1)
                tasks.cancel_scope.cancel()
            assert await db.get("l") is None

    run(main)


def test_a_client_that_is_cancelled_with_its_block_does_not_wait_for_itself(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        started = time.monotonic()
        with anyio.CancelScope() as scope:
            async with AsyncClient(cluster.seeds) as db, db.lock("l", ttl_ms=60_000):
                scope.cancel()
                await anyio.sleep_forever()
        assert time.monotonic() - started < LAST_WORD_S

    run(main)


def test_tasks_take_turns_with_a_lock(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        inside, most, tokens = 0, 0, []

        async def work(db: AsyncClient) -> None:
            nonlocal inside, most
            async with db.lock("{l}", ttl_ms=10_000) as lock:
                inside += 1
                most = max(most, inside)
                tokens.append(lock.token)
                await db.add("{l}n", 1, if_lock=lock)
                inside -= 1

        async with AsyncClient(cluster.seeds) as one, AsyncClient(cluster.seeds) as two:
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(work, (one, two)[number % 2])
            assert (await one.add("{l}n", 0)).number == 10
        assert most == 1
        assert tokens == sorted(set(tokens))

    run(main)


def test_an_election_is_observed(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            election = db.election("e", ttl_ms=10_000)
            names = []
            seen = election.observe()
            async with anyio.create_task_group() as tasks:

                async def observe() -> None:
                    async for leader in seen:
                        names.append(None if leader is None else leader.text())
                        if len(names) == 3:
                            return

                tasks.start_soon(observe)
                await until(lambda: len(names) == 1)
                async with election.lead("one"):
                    await until(lambda: len(names) == 2)
                    with pytest.raises(Locked):
                        await election.campaign("two", wait_ms=0)
            assert names == [None, "one", None]
            seen.close()

    run(main)


def test_a_closed_client_refuses_what_needs_its_tasks(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        db = AsyncClient(cluster.seeds)
        with pytest.raises(KritaError, match="async with"):
            async with db.lock("l", ttl_ms=1000):
                pass

    run(main)
