"""The async client on trio and on asyncio, against a cluster on real sockets."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import anyio
import pytest

from krita import requests
from krita.aio import AsyncClient, connect
from krita.call import Call
from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    ConnectionFailed,
    KritaError,
    Outcome,
    OutcomeUnknown,
    Unauthenticated,
    Unavailable,
)
from krita.operations import Op
from krita.pipeline import Batch
from krita.values import read_put
from tests.protocol import server
from tests.protocol.conftest import once
from tests.protocol.server import Cluster

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=["trio", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs an async function to its end, within ten seconds."""

    async def limited(main: Callable[[], Awaitable[None]]) -> None:
        with anyio.fail_after(10):
            await main()

    return lambda main: anyio.run(limited, main, backend=request.param)


async def until(condition: Callable[[], bool]) -> None:
    """Wait, within the ten seconds of the test, for the cluster's thread."""
    while not condition():  # noqa: ASYNC110 (another thread's doing has no event)
        await anyio.sleep(0.001)


def test_operations_do_what_those_of_the_blocking_client_do(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            revision = (await db.put("k", "1", content_type="text/plain")).revision
            value = await db.get("k")
            assert value is not None
            assert (value.text(), value.revision) == ("1", revision)
            with pytest.raises(ConditionFailed):
                await db.put("k", "2", if_revision=0)
            assert (await db.delete("k")).existed
            assert await db.get("k", consistency="stale") is None
            assert (await db.ping()).node == 1
            assert (await db.shard_map()).version == 1
            assert await db.call("node_status", node=1) == [{"node": 1}]

    run(main)


def test_a_call_that_cannot_be_sent_leaves_the_client_alone(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            wrong = requests.Request(Op.PUT, (b"k", object()), read_put, b"k")
            with pytest.raises(BadRequest, match="put cannot be sent"):
                await db.run(wrong)  # it waits for the map and for a session before
            await db.put("k", "1")

    run(main)


def test_many_tasks_share_one_connection(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:

            async def work(name: str) -> None:
                for number in range(20):
                    await db.put(name, str(number))
                    value = await db.get(name)
                    assert value is not None
                    assert value.text() == str(number)

            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(work, f"k{number}")

    run(main)
    assert cluster.connections == 1
    assert once(cluster)
    assert len(cluster.executed) == 1000


def test_what_the_tasks_of_one_turn_ask_for_leaves_in_one_send(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.get("k")
            before = cluster.receives
            async with anyio.create_task_group() as tasks:
                for _ in range(200):
                    tasks.start_soon(db.get, "k")
            # The first may go ahead alone; the others make one batch.
            assert cluster.receives - before <= 3

    run(main)
    assert cluster.count(Op.GET) == 201


def test_a_cancelled_call_is_forgotten_and_disturbs_nobody(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("k", "0")
            held = server.Hold()
            cluster.on(Op.PUT, held)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(db.put, "k", "cancelled")
                await until(lambda: held.held == 1)
                tasks.cancel_scope.cancel()
            await db.put("k", "1")
            await db.put("k", "2")
            cluster.do(held.release)  # too late: its sequence was given up
            value = await db.get("k")
            assert value is not None
            assert value.text() == "2"

    run(main)
    assert cluster.connections == 1


def test_a_call_cancelled_before_it_was_sent_is_never_sent(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            with anyio.move_on_after(0):
                await db.put("k", "1")
            assert await db.get("k") is None

    run(main)
    assert not cluster.executed


def test_a_write_whose_answer_is_lost_is_repeated_and_happens_once(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("k", "0")
            cluster.on(Op.PUT, server.apply_then_drop)
            await db.put("k", "1")

    run(main)
    assert cluster.count(Op.PUT) == 3
    assert once(cluster)


def test_writes_of_many_tasks_happen_once_although_their_connection_breaks(
    run: Run, three: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(three.seeds) as db:

            async def work(name: str) -> None:
                for number in range(10):
                    await db.put(name, str(number))

            three.on(Op.PUT, server.apply_then_drop, times=3)
            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(work, f"k{number}")
                await until(lambda: three.count(Op.PUT) > 100)
                three.lead(2, term=2)

    run(main)
    assert once(three)
    assert len(three.executed) == 300


def test_a_call_ends_at_its_deadline(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("k", "0")
            cluster.on(Op.PUT, server.ignore)
            with pytest.raises(OutcomeUnknown):
                await db.put("k", "1", timeout_ms=30)
            cluster.on(Op.GET, server.answer(Busy("full")), times=1000)
            with pytest.raises(Busy):
                await db.get("k", timeout_ms=30)

    run(main)


def test_answers_that_came_while_the_loop_was_busy_count(
    run: Run, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    late_s = 0.0

    async def main() -> None:
        nonlocal late_s
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s)
        monkeypatch.setattr("krita.aio.client.time", clock)
        async with AsyncClient(cluster.seeds, sessions=False) as db:
            held = server.Hold()
            cluster.on(Op.PUT, held, times=10)
            for _ in range(10):  # trio runs what is ready in any order
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(db.put, "k", "1")
                    await until(lambda: held.held == 1)
                    cluster.do(held.release)
                    late_s += 60.0  # of which the loop sees nothing
                    assert db._timer_event is not None
                    db._timer_event.set()

    run(main)
    assert cluster.connections == 1


def test_a_cluster_that_is_not_there_is_told_with_the_reason(run: Run) -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:1", timeout_ms=60) as db:
            with pytest.raises(ConnectionFailed, match=r"Connection refused; gave up"):
                await db.get("k")

    run(main)


def test_a_pipeline_that_was_cut_short_in_its_block_is_left_at_that(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("k", "0")
            held = server.Hold()
            cluster.on(Op.PUT, held)
            async with db.pipeline() as p:
                p.put("k", "1")
                p.put("k", "2")
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(p.execute)
                    await until(lambda: held.held == 1)
                    tasks.cancel_scope.cancel()
            with pytest.raises(BadRequest, match="not to its end"):
                _ = p.results
            assert cluster.count(Op.PUT) == 2

    run(main)


def test_what_a_full_socket_does_not_take_is_told_to_the_dispatcher(
    run: Run, cluster: Cluster
) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("k", "0")
            (link,) = db._dispatcher.links
            cluster.freeze(1)
            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(db.put, f"k{number}", bytes(1_000_000))
                await until(lambda: link.unsent_bytes > 0)
                assert link.unsent_bytes <= link.bytes_in_flight
                tasks.cancel_scope.cancel()

    run(main)


def test_a_pipeline_is_carried_out_in_order(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            async with db.pipeline() as p:
                for number in range(100):
                    p.put(f"k{number % 10}", str(number))
                last = p.get("k9")
            assert getattr(last.value(), "data", None) == b"99"
            assert len(p.results) == 101
            async with db.pipeline() as empty:
                pass
            assert empty.results == []

    run(main)
    assert once(cluster)


def test_more_is_sent_than_a_socket_holds(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            async with db.pipeline() as p:
                for number in range(40):
                    p.put(f"k{number}", bytes([number]) * 500_000)
            assert not p.errors
            value = await db.get("k39")
            assert value is not None
            assert value.data == bytes([39]) * 500_000

    run(main)


def test_a_submitted_request_calls_back_once(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        outcomes: list[Call] = []
        event = anyio.Event()

        async with AsyncClient(cluster.seeds) as db:

            def done(call: Call) -> None:
                outcomes.append(call)
                if len(outcomes) < 50:
                    db.submit(requests.put("k", str(len(outcomes))), done)
                else:
                    event.set()

            db.submit(requests.put("k", "0"), done)
            await event.wait()
            forgotten = db.submit(requests.get("k"), done)
            db.cancel(forgotten)
            await db.get("k")
        assert len(outcomes) == 50
        assert all(call.error is None for call in outcomes)

    run(main)


@pytest.mark.parametrize("wrong", [ConditionFailed("as it is"), ValueError("another")])
def test_what_a_block_raises_leaves_it_as_it_is(
    run: Run, cluster: Cluster, wrong: Exception
) -> None:
    async def fail() -> None:
        async with AsyncClient(cluster.seeds) as one, AsyncClient(cluster.seeds) as two:
            await one.put("k", "1")
            await two.put("k", "2")
            raise wrong

    async def main() -> None:
        with pytest.raises(type(wrong)) as caught:
            await fail()
        assert caught.value is wrong

    run(main)


def test_what_a_block_in_the_block_raises_leaves_both(run: Run, cluster: Cluster) -> None:
    async def fail() -> None:
        async with AsyncClient(cluster.seeds) as db, db.lock("l", ttl_ms=10_000):
            await db.put("k", "1")
            await db.put("k", "2", if_revision=0)

    async def main() -> None:
        with pytest.raises(ConditionFailed):
            await fail()

    run(main)


def test_a_group_that_a_block_raises_leaves_it_as_it_is(run: Run, cluster: Cluster) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def fail_together() -> None:
        async with AsyncClient(cluster.seeds), anyio.create_task_group() as tasks:
            tasks.start_soon(fail, ValueError("one"))
            tasks.start_soon(fail, KeyError("two"))

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await fail_together()
        assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}

    run(main)


def test_what_fails_beside_the_block_is_not_hidden(run: Run, cluster: Cluster) -> None:
    def fail(_: Call) -> None:
        raise ValueError("a function of the caller's")

    async def fail_twice() -> None:
        async with AsyncClient(cluster.seeds) as db:
            db.submit(requests.get("k"), fail)
            try:
                await anyio.sleep_forever()
            finally:
                raise KeyError("the block's")

    async def main() -> None:
        with pytest.raises(BaseExceptionGroup) as caught:
            await fail_twice()
        assert caught.value.subgroup(ValueError)
        assert caught.value.subgroup(KeyError)

    run(main)


def test_connecting_asks_the_cluster_before_the_block_begins(run: Run, cluster: Cluster) -> None:
    cluster.token = b"secret"

    async def main() -> None:
        async with connect(cluster.seeds, token="secret") as db:
            assert cluster.count(Op.PING) == 1
            await db.put("k", "1")
        with pytest.raises(Unauthenticated):
            await connect(cluster.seeds, token="wrong").__aenter__()
        with pytest.raises(ConnectionFailed):
            await connect("127.0.0.1:1", timeout_ms=30).__aenter__()
        with anyio.move_on_after(0.01) as scope:
            cluster.on(Op.PING, server.ignore)
            await connect(cluster.seeds, token="secret").__aenter__()
        assert scope.cancelled_caught

    run(main)


def test_a_client_is_entered_once(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        db = AsyncClient(cluster.seeds)
        async with db:
            with pytest.raises(BadRequest, match="entered once"):
                await db.__aenter__()
            await db.put("k", "1")
        with pytest.raises(BadRequest, match="entered once"):
            await db.__aenter__()

    run(main)


def test_a_block_that_is_cancelled_ends_quietly(run: Run, cluster: Cluster) -> None:
    async def main() -> None:
        with anyio.move_on_after(0.01) as scope:
            async with AsyncClient(cluster.seeds) as db:
                await db.put("k", "1", timeout_ms=1000)
                await anyio.sleep_forever()
        assert scope.cancelled_caught

    run(main)


def test_leaving_the_block_ends_what_is_under_way(run: Run, cluster: Cluster) -> None:
    outcomes: list[KritaError | None] = []

    async def main() -> None:
        async with AsyncClient(cluster.seeds) as db:
            await db.put("k", "0")
            held = server.Hold()
            cluster.on(Op.PUT, held)
            cluster.on(Op.GET, held)
            db.submit(requests.put("k", "1"), lambda call: outcomes.append(call.error))
            db.submit(requests.get("k"), lambda call: outcomes.append(call.error))
            await until(lambda: held.held == 2)
            late = Batch()
            late.put("k", "2")
            late.put("k", "3")  # to be started when the one before has ended
            held_put = server.Hold()
            cluster.on(Op.PUT, held_put)
            late.begin(db.submit)
            await until(lambda: held_put.held == 1)
        assert [type(error) for error in late.errors] == [OutcomeUnknown, Unavailable]
        with pytest.raises(BadRequest, match="not open"):
            await db.get("k")

    run(main)
    assert {type(error) for error in outcomes} == {OutcomeUnknown, Unavailable}
    assert {error.outcome for error in outcomes if error} == {Outcome.UNKNOWN, Outcome.NOT_APPLIED}
