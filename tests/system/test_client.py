"""The Python client against real nodes that die: watches, locks, leases, scans."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

import krita
from krita import steps
from krita.aio import AsyncClient
from krita.operations import Op
from tests.system.cluster import Cluster, split
from tests.system.conftest import TOKEN, MakeCluster
from tests.system.node import TIMEOUT_S, wait_until

pytestmark = pytest.mark.slow

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function to its end."""

    async def limited(main: Callable[[], Awaitable[None]]) -> None:
        with anyio.fail_after(2 * TIMEOUT_S):
            await main()

    return lambda main: anyio.run(limited, main, backend=request.param)


async def until(condition: Callable[[], bool]) -> None:
    """Wait, within the time of the test, for what other tasks do."""
    while not condition():  # noqa: ASYNC110 (it has no event)
        await anyio.sleep(0.01)


@pytest.fixture
def guarded(make_cluster: MakeCluster) -> Cluster:
    """Three nodes whose administration is open to whoever has the token."""
    cluster = make_cluster(extra={"KRITA_ADMIN_TOKEN": TOKEN})
    cluster.start()
    return cluster


def test_a_watch_tells_every_change_once_although_leaders_are_killed(
    cluster: Cluster, run: Run
) -> None:
    """Writers go on, while the busiest leader is killed, restarted, and the next one is."""
    writers, watched, expected = 4, 120, {}
    seen: dict[bytes, list[int]] = {}

    async def write(db: AsyncClient, number: int) -> None:
        key = f"w/{number}"
        for count in range(watched):
            await db.put(key, str(count))
        expected[key.encode()] = list(range(watched))

    async def watch(db: AsyncClient, begun: anyio.Event) -> None:
        async with db.watch(prefix="w/") as events:
            await events.begin()
            begun.set()
            async for event in events:
                seen.setdefault(event.key, []).append(int(event.text() or ""))
                if sum(map(len, seen.values())) == writers * watched:
                    return

    def count_reaches(wanted: int) -> bool:
        return sum(map(len, seen.values())) >= wanted

    async def hurt() -> None:
        for _ in range(2):
            done = sum(map(len, seen.values()))
            await until(partial(count_reaches, min(done + 60, writers * watched)))
            victim = await anyio.to_thread.run_sync(cluster.busiest)
            victim.kill()
            await anyio.to_thread.run_sync(victim.restart)

    async def main() -> None:
        async with AsyncClient(cluster.addresses, timeout_ms=20_000) as db:
            begun = anyio.Event()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch, db, begun)
                await begun.wait()
                tasks.start_soon(hurt)
                for number in range(writers):
                    tasks.start_soon(write, db, number)

    run(main)
    assert seen == expected


def test_a_watch_goes_on_elsewhere_from_its_token(cluster: Cluster) -> None:
    with cluster.client(timeout_ms=20_000) as db:
        watch = db.watch(prefix="w/")
        watch.begin()
        for number in range(20):
            db.put(f"w/{number}", "1")
        first = [next(watch).key for _ in range(7)]
        victim = cluster.busiest()
        victim.kill()
        for number in range(20, 40):
            db.put(f"w/{number}", "1")
        with cluster.client(timeout_ms=20_000) as other:
            again = other.watch(prefix="w/", token=watch.token)
            rest = [next(again).key for _ in range(33)]
    assert sorted(first + rest) == sorted(f"w/{number}".encode() for number in range(40))


def test_two_clients_never_hold_a_lock_at_once_although_its_leader_is_killed(
    cluster: Cluster, run: Run
) -> None:
    holders, most, tokens = 0, 0, []

    async def work(db: AsyncClient) -> None:
        nonlocal holders, most
        for _ in range(10):
            async with db.lock("{l}lock", ttl_ms=20_000) as lock:
                holders += 1
                most = max(most, holders)
                tokens.append(lock.token)
                await db.add("{l}count", 1, if_lock=lock)
                holders -= 1

    async def hurt() -> None:
        await until(lambda: len(tokens) >= 5)
        async with AsyncClient(cluster.addresses) as db:
            leader = (await db.explain("{l}lock")).leader
        node = await anyio.to_thread.run_sync(partial(cluster.node_of, leader))
        node.kill()

    async def main() -> None:
        first = AsyncClient(cluster.addresses, timeout_ms=20_000)
        second = AsyncClient(cluster.addresses, timeout_ms=20_000)
        async with first as one, second as two, anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(work, (one, two)[number % 2])
            tasks.start_soon(hurt)
        async with AsyncClient(cluster.addresses, timeout_ms=20_000) as db:
            assert (await db.add("{l}count", 0)).number == 40

    run(main)
    assert most == 1
    assert tokens == sorted(set(tokens)), "a fencing token was given out twice, or fell"


def test_what_a_dead_client_held_is_free_when_its_time_is_over(cluster: Cluster) -> None:
    with cluster.client() as dead:
        lease = dead.lease(1000)
        lease.grant()
        dead.put("worker", "here", lease=lease)
        lost = dead.lock("l", ttl_ms=1000)
        lost.acquire()
    with cluster.client() as db:
        gone = db.watch("worker")
        gone.begin()
        lock = db.lock("l", ttl_ms=5000)
        assert lock.acquire() > lost.token, "it is waited for, not polled"
        if db.get("worker") is not None:
            assert next(gone).kind == "expire"
        assert db.get("worker") is None


def test_a_lease_is_kept_alive_through_the_loss_of_a_node(cluster: Cluster, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.addresses, timeout_ms=20_000) as db:
            async with db.lease(6000) as lease:
                await db.put("worker", "here", lease=lease)
                victim = await anyio.to_thread.run_sync(cluster.busiest)
                victim.kill()
                await anyio.to_thread.run_sync(cluster.wait_leaders, [victim])
                kept = await lease.show()
                while (await lease.show()).left_ms <= kept.left_ms:
                    await db.ping()  # until it was renewed once more
                assert (await lease.show()).keys == (b"worker",)
            assert await db.get("worker") is None

    run(main)


def test_a_scan_is_whole_although_leaders_change_meanwhile(guarded: Cluster) -> None:
    keys = [f"s/{number:05}".encode() for number in range(3000)]
    with guarded.client(timeout_ms=20_000, token=TOKEN) as db:
        db.bulk(steps.put(key, key) for key in keys)
        assert db.count("s/") == len(keys)
        scan = db.scan("s/")
        found = [next(scan).key for _ in range(500)]
        victim = guarded.busiest()
        victim.kill()
        found += [next(scan).key for _ in range(1000)]
        leaders = guarded.wait_leaders([victim])
        victim.restart()
        shard, leader = next(iter(leaders.items()))
        other = next(n for n in (1, 2, 3) if n not in (leader, guarded.id_of(victim)))
        db.call(Op.LEADER_TRANSFER, shard, other)
        found += [item.key for item in scan]
        assert found == keys
        assert [item.key for item in db.scan("s/", reverse=True)] == keys[::-1]


def test_the_past_of_a_key_outlives_its_leader(cluster: Cluster) -> None:
    with cluster.client(timeout_ms=20_000) as db:
        db.retention_set("cfg/", 600_000)
        first = db.put("cfg/a", "1").revision
        db.put("cfg/a", "2")
        cluster.busiest().kill()
        assert [v.text() for v in db.history("cfg/a").versions] == ["2", "1", None]
        old = db.get("cfg/a", at_revision=first)
        assert old is not None
        assert old.data == b"1"
        db.undo("cfg/a")
        value = db.get("cfg/a")
        assert value is not None
        assert value.data == b"1"


def test_a_watch_follows_its_keys_when_a_shard_is_split(guarded: Cluster) -> None:
    with guarded.client(timeout_ms=20_000, token=TOKEN) as db:
        watch = db.watch(prefix="w/")
        watch.begin()
        for number in range(30):
            db.put(f"w/{number}", "1")
        shard_new = split(db, 1)

        def is_there() -> bool:
            return db.shard_map().shard(shard_new) is not None

        wait_until("the shard is split", is_there)
        for number in range(30):
            db.put(f"w/{number}", "2")
        events = [next(watch) for _ in range(60)]
    for number in range(30):
        own = [event.data for event in events if event.key == f"w/{number}".encode()]
        assert own == [b"1", b"2"]
    assert isinstance(events[0], krita.Event)
