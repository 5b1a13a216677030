"""Whole nodes in virtual time: what their simulation rests on, and a few seeds of it."""

from __future__ import annotations

import inspect
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio._core._run as trio_run

from tests.simulator.mutants.registry import planted
from tests.simulator.whole.digest import Digest
from tests.simulator.whole.disk import Disk, DiskWorker
from tests.simulator.whole.network import MemoryListening, Network
from tests.simulator.whole.scheduling import run_virtually
from tests.simulator.whole.stream import MemoryStream
from tests.simulator.whole.world import Outcome, run_whole

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
SEEDS = range(504, 504 + int(os.environ.get("KRITA_WHOLE_SEEDS", "4")))
SEEDS_COMPARED = (505, 506)
SEED_PLANTED = 6  # the product's client retries there what was executed already

A, B = "10.0.0.1", "10.0.0.2"
DELAY_S = 0.01


# --- what it rests on ------------------------------------------------------------------


def test_trio_can_still_be_made_to_schedule_by_a_seed() -> None:
    source = inspect.getsource(trio_run.unrolled_run)
    assert "if _ALLOW_DETERMINISTIC_SCHEDULING:" in source
    assert "_r.shuffle(batch)" in source
    assert isinstance(trio_run._r, random.Random)


def test_the_order_of_tasks_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def note(number: int) -> None:
            await trio.sleep(1.0)
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(note, number)
        assert trio.current_time() == 1.0
        return order

    assert run_virtually(main, 1) == run_virtually(main, 1) != run_virtually(main, 2)


# --- the network -----------------------------------------------------------------------


def on_a_network(script: Callable[[Network, MemoryListening], object]) -> None:
    """Run ``script(network, listening on B)``, an async function."""

    async def main() -> None:
        network = Network(random.Random(1), Digest(), delay_s=DELAY_S, jitter_s=0.001)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.run)
            network.up(A)
            await script(network, network.listen(B, 1))  # type: ignore[misc]
            nursery.cancel_scope.cancel()

    run_virtually(main, 1)


async def connected(
    network: Network, listening: MemoryListening
) -> tuple[MemoryStream, MemoryStream]:
    stream = await network.connect(A, B, 1)
    await listening.wait()
    return stream, listening.accept()


async def gathered(stream: MemoryStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive()
    return data


def test_bytes_arrive_in_order_after_a_while_and_then_the_end() -> None:
    async def script(network: Network, listening: MemoryListening) -> None:
        one, other = await connected(network, listening)
        sent = bytes(range(256)) * 4000  # more than a window
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send, sent)
            assert await gathered(other, len(sent)) == sent
        assert trio.current_time() > began_s + DELAY_S / 2
        one.finish()
        assert await other.receive() == b""
        await other.send(b"still here")
        assert await gathered(one, 10) == b"still here"

    on_a_network(script)


def test_what_is_sent_over_a_cut_link_arrives_when_it_is_mended() -> None:
    async def script(network: Network, listening: MemoryListening) -> None:
        one, other = await connected(network, listening)
        network.cut(A, B)
        await one.send(b"late")
        with trio.move_on_after(60) as scope:
            await other.receive()
        assert scope.cancelled_caught
        await other.send(b"the other way is open")
        assert await gathered(one, 21) == b"the other way is open"
        network.mend(A, B)
        assert await gathered(other, 4) == b"late"

    on_a_network(script)


@pytest.mark.parametrize("way", [(A, B), (B, A)], ids=["bytes lost", "acknowledgements lost"])
def test_a_sender_that_is_not_acknowledged_breaks_after_its_time(way: tuple[str, str]) -> None:
    async def script(network: Network, listening: MemoryListening) -> None:
        one, _ = await connected(network, listening)
        one.close_when_silent(2000)
        await trio.sleep(10)  # idle is not silent
        network.cut(*way)
        await one.send(b"?")
        began_s = trio.current_time()
        with pytest.raises(TimeoutError):
            await one.receive()
        assert trio.current_time() == pytest.approx(began_s + 2.0)

    on_a_network(script)


def test_a_killed_process_ends_its_connections_and_a_dead_machine_says_nothing() -> None:
    async def script(network: Network, listening: MemoryListening) -> None:
        one, _ = await connected(network, listening)
        network.end_process(B)
        assert await one.receive() == b""
        with pytest.raises(ConnectionRefusedError):
            await network.connect(A, B, 1)
        one, _ = await connected(network, network.listen(B, 1))
        network.end_machine(B)
        await one.send(b"anybody?")
        with trio.move_on_after(60) as scope:
            await one.receive()
        assert scope.cancelled_caught
        network.up(B)  # and knows nothing of the connection
        with pytest.raises(ConnectionResetError):
            await one.receive()

    on_a_network(script)


def test_closing_with_unread_bytes_resets_the_connection() -> None:
    async def script(network: Network, listening: MemoryListening) -> None:
        one, other = await connected(network, listening)
        await one.send(b"unread")
        await trio.sleep(1)
        other.close()
        with pytest.raises(ConnectionResetError):
            await one.receive()
        with pytest.raises(trio.ClosedResourceError):
            await other.receive()

    on_a_network(script)


# --- runs ------------------------------------------------------------------------------


def checked(outcome: Outcome) -> Outcome:
    assert not outcome.problems, "\n".join(outcome.problems)
    assert outcome.operations > 0
    return outcome


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_of_whole_nodes_survives_its_mishaps(seed: int, tmp_path: Path) -> None:
    checked(run_whole(seed, tmp_path))


_PROGRAM = """
import sys
from pathlib import Path
from tests.simulator.whole.world import run_whole
for number, seed in enumerate(sys.argv[2:]):
    print(run_whole(int(seed), Path(sys.argv[1]) / str(number)).hash)
"""


def hashes(hash_seed: str, directory: Path) -> list[str]:
    """Of the compared seeds' runs in a process of their own."""
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protocol'}",
    }
    command = [sys.executable, "-c", _PROGRAM, str(directory), *map(str, SEEDS_COMPARED)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True)
    return done.stdout.decode().split()


def test_a_seed_gives_the_same_run_in_another_process_with_another_hash_seed(
    tmp_path: Path,
) -> None:
    first, second = hashes("1", tmp_path / "first"), hashes("2", tmp_path / "second")
    assert first == second
    assert len(set(first)) == len(SEEDS_COMPARED)


def test_a_planted_bug_is_found_by_what_clients_were_told(tmp_path: Path) -> None:
    assert not run_whole(SEED_PLANTED, tmp_path / "sound").problems
    with planted("retries-are-executed-again"):
        assert run_whole(SEED_PLANTED, tmp_path / "planted").problems


def test_a_worker_does_its_jobs_in_order_and_a_dead_ones_are_left() -> None:
    async def main() -> None:
        disk = Disk(random.Random(1))
        worker = DiskWorker(disk)
        done: list[str] = []

        def submit(name: str) -> None:
            worker.submit(lambda: done.append(name), lambda _: done.append(f"{name} told"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            submit("one")
            submit("two")
            await trio.sleep(1)
            assert done == ["one", "one told", "two", "two told"]
            disk.stall()
            submit("three")
            await trio.sleep(60)
            assert not worker.close(1)
            disk.dead = True
            disk.resume()
            await trio.sleep(1)
            assert done[-1] in ("two told", "three")  # a kill may come between
            nursery.cancel_scope.cancel()

    run_virtually(main, 1)
