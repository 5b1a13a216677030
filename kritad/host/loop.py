"""The host's tasks: the thin trio code that calls it.

One task turns the drive loop whenever there is something to do, one lets time
pass, one sees to the cluster's shape, one watches the disk's free space. All of
them run on one thread, so nothing of the host needs a lock.
"""

from __future__ import annotations

import trio

from kritad.host.clock import Clock
from kritad.host.host import Host
from kritad.host.snapshots import SnapshotSender
from kritad.storage.space import DiskReserve

# How often all other tasks run between a wake and its turn, as long as they bring something: what
# they bring shares the turn, its frames and its save. One that brings nothing costs 8 µs.
_PASSES_MAX = 6
_STEWARD_INTERVAL_S = 0.2
_LEADERS_INTERVAL_S = 1.0
# What a fast disk takes in this time has to be less than the reserve by far.
_SPACE_INTERVAL_S = 0.1
# A late tick is made up for by no more than this many: a process that was
# stopped for a minute must not count a minute of silence against its leaders.
_TICKS_AT_ONCE_MAX = 2


class Wake:
    """Wakes one task. ``set`` costs 0.1 µs while the task is awake anyway."""

    def __init__(self) -> None:
        self._pending = False
        self._event = trio.Event()

    def set(self) -> None:
        """Have ``wait`` return, now or the next time it is called."""
        if not self._pending:
            self._pending = True
            self._event.set()

    async def wait(self) -> None:
        """Until ``set`` was called. Always lets other tasks run first."""
        if self._pending:
            await trio.lowlevel.checkpoint()
        else:
            await self._event.wait()
        self._event = trio.Event()
        self._pending = False


async def drive(host: Host, wake: Wake, snapshots: SnapshotSender) -> None:
    """Turn the drive loop until the node has failed, or is no member any more."""
    while host.failure is None and not host.belonging.removed:
        await wake.wait()
        await _gather(host)
        host.turn()
        snapshots.start_wanted()


async def _gather(host: Host) -> None:
    """Let other tasks run while they bring more for the turn."""
    for _ in range(_PASSES_MAX):
        marks = host.drive.marks
        await trio.lowlevel.checkpoint()
        if host.drive.marks == marks:
            return


async def pass_time(host: Host, clock: Clock, tick_ms: int) -> None:
    """Tick until cancelled."""
    due_ms = clock.monotonic_ms() + tick_ms
    while True:
        await trio.sleep(max(0.0, due_ms - clock.monotonic_ms()) / 1000.0)
        now_ms = clock.monotonic_ms()
        ticks = min(_TICKS_AT_ONCE_MAX, 1 + int((now_ms - due_ms) / tick_ms))
        for _ in range(ticks):
            host.tick()
        due_ms += ticks * tick_ms
        if due_ms <= now_ms:
            due_ms = now_ms + tick_ms  # what was not made up for is let go


async def keep_shape(host: Host) -> None:
    """Steer towards what the meta shard wants, and say who leads what."""
    told_at = trio.current_time()
    while True:
        await trio.sleep(_STEWARD_INTERVAL_S)
        host.steward.step(host.view)
        if trio.current_time() - told_at >= _LEADERS_INTERVAL_S:
            told_at = trio.current_time()
            host.tell_leaders()


async def watch_space(host: Host, reserve: DiskReserve) -> None:
    """Look at the free space ten times a second (a statvfs costs 3 µs)."""
    while True:
        look_at_space(host, reserve)
        await trio.sleep(_SPACE_INTERVAL_S)


def look_at_space(host: Host, reserve: DiskReserve) -> None:
    """Once. To be done before the first turn, which applies all that the logs have: with how
    much room there is."""
    low = reserve.update(host.flusher.promised_bytes(), host.flusher.spare_bytes)
    host.note_space(reserve.free_bytes, low, nearly_full=reserve.nearly_full)
    host.flusher.room_bytes = reserve.room_bytes
