"""The host's tasks: waking, ticking, and what a process that was stopped makes up for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from kritad.host import loop
from kritad.host.clock import SystemClock
from kritad.host.loop import Wake
from kritad.state.command import pack_command

TICK_MS = 50


class TrioClock:
    """Trio's virtual time; ``stopped_ms`` is time in which the process did not run."""

    def __init__(self, clock: MockClock) -> None:
        self._clock = clock
        self.stopped_ms = 0.0

    def monotonic_ms(self) -> float:
        return self._clock.current_time() * 1000.0 + self.stopped_ms

    def wall_ms(self) -> int:
        return int(self.monotonic_ms())


class HostStandIn:
    """What the loop calls of a Host."""

    def __init__(self) -> None:
        self.ticks = 0
        self.turns = 0
        self.told = 0
        self.steps = 0
        self.failure: BaseException | None = None
        self.removed = False
        self.on_turn: Callable[[], None] = lambda: None
        self.view = None
        self.steward = self
        self.belonging = self
        self.drive: Any = self
        self.marks = 0
        self.spaces: list[tuple[int, bool, bool]] = []
        self.flusher = self
        self.room_bytes = 0
        self.spare_bytes = 6

    def tick(self) -> None:
        self.ticks += 1

    def turn(self) -> None:
        self.turns += 1
        self.on_turn()

    def step(self, _view: object) -> None:
        self.steps += 1

    def tell_leaders(self) -> None:
        self.told += 1

    def note_space(self, free_bytes: int, low: bool, *, nearly_full: bool) -> None:
        self.spaces.append((free_bytes, low, nearly_full))

    def promised_bytes(self) -> int:
        return 5

    def start_wanted(self) -> None:
        """As SnapshotSender's."""


@pytest.fixture
def autojump_clock() -> MockClock:
    return MockClock(autojump_threshold=0)


async def run_for(seconds: float, task: Callable[..., Any], *args: object) -> None:
    with trio.move_on_after(seconds):
        await task(*args)


async def test_time_passes_in_ticks_of_the_length_that_was_asked_for(
    autojump_clock: MockClock,
) -> None:
    host = HostStandIn()
    await run_for(10.01, loop.pass_time, host, TrioClock(autojump_clock), TICK_MS)
    assert host.ticks == 200


async def test_a_late_tick_is_made_up_for_once_and_not_more(autojump_clock: MockClock) -> None:
    host, clock = HostStandIn(), TrioClock(autojump_clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, 60, loop.pass_time, host, clock, TICK_MS)
        await trio.sleep(1.01)
        assert host.ticks == 20
        clock.stopped_ms += 70  # a pause of one tick and a half
        await trio.sleep(1.0)
        assert host.ticks == 20 + 20 + 1
        nursery.cancel_scope.cancel()


async def test_a_minute_of_standing_still_is_no_minute_of_silence(
    autojump_clock: MockClock,
) -> None:
    host, clock = HostStandIn(), TrioClock(autojump_clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, 60, loop.pass_time, host, clock, TICK_MS)
        await trio.sleep(1.01)
        before = host.ticks
        clock.stopped_ms += 60_000
        await trio.sleep(1.0)
        assert host.ticks - before <= 22
        nursery.cancel_scope.cancel()


async def test_the_cluster_is_steered_five_times_a_second_and_leaders_told_once(
    autojump_clock: MockClock,
) -> None:
    host = HostStandIn()
    await run_for(10.1, loop.keep_shape, host)
    assert autojump_clock.current_time() >= 10
    assert host.steps == 50
    assert 9 <= host.told <= 10


async def test_the_disk_is_looked_at_all_the_time(autojump_clock: MockClock) -> None:
    class Reserve:
        free_bytes = 77
        nearly_full = True
        room_bytes = 9

        def update(self, promised_bytes: int, spare_bytes: int) -> bool:
            return (promised_bytes, spare_bytes) == (5, 6)

    host = HostStandIn()
    await run_for(9.5 * loop._SPACE_INTERVAL_S, loop.watch_space, host, Reserve())
    assert autojump_clock.current_time() < 60
    assert host.spaces == [(77, True, True)] * 10
    assert host.room_bytes == 9


async def test_a_wake_that_was_set_before_the_wait_is_not_lost() -> None:
    wake = Wake()
    wake.set()
    with trio.fail_after(10):
        await wake.wait()


async def test_a_wake_that_is_set_often_wakes_once() -> None:
    wake, woken = Wake(), 0

    async def count() -> None:
        nonlocal woken
        while True:
            await wake.wait()
            woken += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await wait_all_tasks_blocked()
        for _ in range(100):
            wake.set()
        await wait_all_tasks_blocked()
        assert woken == 1
        wake.set()
        await wait_all_tasks_blocked()
        assert woken == 2
        nursery.cancel_scope.cancel()


async def test_the_drive_loop_turns_when_it_is_woken_and_ends_with_the_node() -> None:
    host, wake, ended = HostStandIn(), Wake(), trio.Event()

    async def drive() -> None:
        await loop.drive(host, wake, host)  # type: ignore[arg-type]
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive)
        await wait_all_tasks_blocked()
        assert host.turns == 0
        wake.set()
        await wait_all_tasks_blocked()
        assert host.turns == 1
        host.failure = OSError("the disk is gone")
        wake.set()
        with trio.fail_after(10):
            await ended.wait()


class Bringing:
    """A drive to which something comes in so many passes, one after the other."""

    def __init__(self, passes: int) -> None:
        self._left = passes
        self.looks = 0

    @property
    def marks(self) -> int:
        self.looks += 1
        if self.looks % 2 == 0 and self._left:  # a look behind a pass
            self._left -= 1
            return -self.looks
        return 0


@pytest.mark.parametrize(("bringing", "passes"), [(0, 1), (2, 3), (1000, loop._PASSES_MAX)])
async def test_a_turn_waits_while_passes_bring_something_and_not_for_ever(
    bringing: int, passes: int
) -> None:
    host, wake = HostStandIn(), Wake()
    host.drive = drive = Bringing(bringing)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, 60, loop.drive, host, wake, host)
        await wait_all_tasks_blocked()
        wake.set()
        await wait_all_tasks_blocked()
        assert (host.turns, drive.looks) == (1, 2 * passes)
        nursery.cancel_scope.cancel()


async def test_the_drive_loop_ends_with_the_membership() -> None:
    host, wake = HostStandIn(), loop.Wake()
    host.belonging.removed = True
    with trio.fail_after(1):
        await loop.drive(host, wake, host)  # type: ignore[arg-type]
    assert host.turns == 0


async def test_what_wakes_it_during_a_turn_is_the_next_turn() -> None:
    host, wake = HostStandIn(), Wake()
    host.on_turn = lambda: wake.set() if host.turns < 3 else None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, 60, loop.drive, host, wake, host)
        wake.set()
        await wait_all_tasks_blocked()
        assert host.turns == 3
        nursery.cancel_scope.cancel()


def test_a_clock_from_before_1970_stands_at_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry cannot say it, and a write must not end the node."""
    monkeypatch.setattr(time, "time_ns", lambda: -5_000_000)
    assert pack_command(SystemClock().wall_ms(), 1, b"")
