"""The thread that does the disk's work: order, failures, stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import trio

from kritad.host.surroundings import MACHINE
from kritad.host.writer import Finished, WorkerThread


class Loop:
    """A token that calls at once, on the worker's thread."""

    def __init__(self) -> None:
        self.ended = False

    def run_sync_soon(self, sync_fn: Callable[..., object], *args: object) -> object:
        if self.ended:
            raise trio.RunFinishedError
        return sync_fn(*args)


def test_work_is_done_in_the_order_in_which_it_was_submitted() -> None:
    done: list[int] = []
    worker = WorkerThread("test", Loop())
    for number in range(100):
        worker.submit(lambda n=number: done.append(n), lambda _: None)  # type: ignore[misc]
    assert worker.close(10)
    assert done == list(range(100))


async def test_what_came_of_it_is_reported_on_the_loop() -> None:
    threads: list[threading.Thread] = []
    reported = trio.Event()
    worker = WorkerThread("test", trio.lowlevel.current_trio_token())

    def done(finished: Finished[int]) -> None:
        threads.append(threading.current_thread())
        assert finished.unwrap() == 42
        reported.set()

    worker.submit(lambda: 42, done)
    with trio.fail_after(10):
        await reported.wait()
    assert threads == [threading.current_thread()]
    assert worker.close(10)


def test_an_exception_is_handed_over_and_the_thread_goes_on() -> None:
    results: list[Finished[object]] = []
    worker = WorkerThread("test", Loop())

    def fail() -> object:
        raise OSError("no disk")

    worker.submit(fail, results.append)
    worker.submit(lambda: "fine", results.append)
    assert worker.close(10)
    with pytest.raises(OSError, match="no disk"):
        results[0].unwrap()
    assert results[1].unwrap() == "fine"


def test_closing_waits_for_what_was_submitted() -> None:
    may_go, done = threading.Event(), list[str]()
    worker = WorkerThread("test", Loop())
    worker.submit(lambda: may_go.wait(10), lambda _: done.append("slow"))
    threading.Timer(0.01, may_go.set).start()
    assert worker.close(10)
    assert done == ["slow"]


def test_closing_says_when_the_disk_hangs() -> None:
    hung = threading.Event()
    worker = WorkerThread("test", Loop())
    worker.submit(lambda: hung.wait(10), lambda _: None)
    assert not worker.close(0.01)
    hung.set()
    assert worker.close(10)


def test_a_loop_that_has_ended_stops_the_thread_without_a_trace() -> None:
    loop = Loop()
    worker = WorkerThread("test", loop)
    loop.ended = True
    worker.submit(lambda: 1, lambda _: None)
    assert worker.close(10)


async def test_who_is_cancelled_does_not_wait_for_a_disk_that_hangs() -> None:
    """A node that was sending a snapshot from it could not be stopped."""
    token, began = trio.lowlevel.current_trio_token(), trio.Event()
    answers, waited = threading.Event(), list[bool]()

    def read() -> None:
        token.run_sync_soon(began.set)
        answers.wait(10)
        waited.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(MACHINE.off_loop, read)
        await began.wait()
        nursery.cancel_scope.cancel()
    assert not waited
    answers.set()
