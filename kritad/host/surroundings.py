"""What a node takes from the machine it runs on, in one place and handed in.

Time, chance, connections to others, and the threads in which disks are waited for:
whoever gives a node all of these decides everything that happens to it, which is
how the simulator runs whole nodes (tests/simulator/whole). ``MACHINE`` is the real
thing, and the default wherever a part of the host can be used by itself.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import attrs
import trio

from kritad.host.clock import Clock, SystemClock
from kritad.host.writer import Worker, WorkerThread
from kritad.stream import Stream, connect

T = TypeVar("T")

Connect = Callable[[str, int], Awaitable[Stream]]


class OffLoop(Protocol):
    """Does work that may wait for a disk, while the loop goes on. Who is cancelled does not wait
    for its end: a disk that hangs must not keep the node from stopping."""

    async def __call__(self, work: Callable[..., T], *args: object) -> T:
        """``work(*args)``, whatever it raises included."""


class OwnedWorker(Worker, Protocol):
    """A worker that whoever started it has to end."""

    def close(self, timeout_s: float) -> bool:
        """Stop once everything submitted is done. False when that takes longer."""


@attrs.frozen
class Surroundings:
    """See the module's docstring."""

    clock: Clock
    chance: random.Random  # for identities, nonces and pauses; the disk decides Raft's
    connect: Connect  # by host and port; raises OSError
    off_loop: OffLoop
    start_worker: Callable[[str], OwnedWorker]  # by name; called on the loop
    end: Callable[[int], object] = os._exit  # at once, closing nothing

    def make_uuid(self) -> bytes:
        """16 random bytes, for a cluster, a store or a transfer."""
        return self.chance.randbytes(16)


async def _in_thread(work: Callable[..., T], *args: object) -> T:
    return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True)


def _start_thread(name: str) -> WorkerThread:
    return WorkerThread(name, trio.lowlevel.current_trio_token())


# SystemRandom asks the kernel each time: what it gives cannot be foretold.
MACHINE = Surroundings(SystemClock(), random.SystemRandom(), connect, _in_thread, _start_thread)
