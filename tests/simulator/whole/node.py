"""A whole kritad in virtual surroundings: started, stopped, killed, started again.

What runs is ``kritad.daemon.live``: the daemon's own code from the opening of the data
directory on, on real files. Killing cancels it between two steps of the event loop,
and what it starts from the next time is a copy of its files as they were then: that
is what kill -9 leaves behind, whatever the cancelled tasks still do to the old ones.
"""

from __future__ import annotations

import contextvars
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio

from krita.errors import Unavailable
from kritad import daemon
from kritad.config import Config
from kritad.host.surroundings import Surroundings
from tests.simulator.whole.disk import Disk, DiskWorker
from tests.simulator.whole.network import Network

if TYPE_CHECKING:
    from kritad.stream import Stream

PORT = 8080
TOKEN = b"a token of thirty-two characters"
_EPOCH_MS = 1_700_000_000_000  # when virtual time begins, by everybody's calendar
_RESTART_PAUSE_S = 1.0  # as a service manager waits after a failure

# Which node is at work: for reports of what it logs.
at_work: contextvars.ContextVar[str] = contextvars.ContextVar("at_work", default="nobody")


@attrs.define
class NodeClock:
    """Virtual time as one node's clocks show it."""

    wall_offset_ms: int = 0

    def monotonic_ms(self) -> float:
        """See kritad/host/clock.py."""
        return trio.current_time() * 1000.0

    def wall_ms(self) -> int:
        """See kritad/host/clock.py."""
        return _EPOCH_MS + self.wall_offset_ms + int(trio.current_time() * 1000.0)


class Node:
    """See the module's docstring. ``start`` returns at once; the rest as well."""

    def __init__(
        self,
        number: int,
        directory: Path,
        network: Network,
        chance: random.Random,
        settings: dict[str, Any],
        report: Callable[[str], None],
    ) -> None:
        self.number = number
        self.host = f"10.0.0.{number}"
        self.clock = NodeClock()
        self.disk = Disk(chance)
        self.running = False
        self.wanted = False  # whether it is to run, and so to be started again if it fails
        self.lives = 0
        self.path = directory / f"node{number}"
        self._directory = directory
        self._network = network
        self._chance = chance
        self._settings = settings
        self._report = report
        self._scope = trio.CancelScope()
        self._killed = False
        self._ended = trio.Event()
        self._signals: trio.MemorySendChannel[int] | None = None

    def __repr__(self) -> str:
        return f"<Node {self.number} {'up' if self.running else 'down'}, life {self.lives}>"

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{self.host}:{PORT}"

    def start(self, nursery: trio.Nursery) -> None:
        """Begin another life, and further ones should it fail."""
        assert not self.running
        self.running = self.wanted = True
        self._ended = trio.Event()
        nursery.start_soon(self._live_on)

    async def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        self.wanted = False
        if self._signals is not None:
            self._signals.send_nowait(signal.SIGTERM)
        await self._ended.wait()

    async def kill(self, *, machine: bool) -> None:
        """kill -9, or the power of the whole machine goes (but no disk forgets)."""
        self.wanted = False
        if not self.running:
            return
        self._killed = True
        self.disk.dead = True
        copy = self._directory / f"node{self.number}.{self.lives}"
        if self.path.exists():
            shutil.copytree(self.path, copy)
        self.disk.resume()
        self._scope.cancel()  # first: no task of its own shall see its connections close
        if machine:
            self._network.end_machine(self.host)
        else:
            self._network.end_process(self.host)
        await self._ended.wait()
        shutil.rmtree(self.path, ignore_errors=True)
        self.path = copy

    # --- its lives ---------------------------------------------------------------------

    async def _live_on(self) -> None:
        at_work.set(f"node {self.number}")
        try:
            while self.wanted:
                await self._live_once()
                if self.wanted:
                    await trio.sleep(_RESTART_PAUSE_S)
        finally:
            self.running = False
            self._ended.set()

    async def _live_once(self) -> None:
        self.lives += 1
        self._killed = False
        self.disk = Disk(self._chance, self.disk.slowness)
        sender, signals = trio.open_memory_channel[int](4)
        self._signals = sender
        status = 0
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                surroundings = self._surroundings(nursery)
                listening = self._network.listen(self.host, PORT)
                try:
                    status = await daemon.live(self._config(), [listening], signals, surroundings)
                finally:
                    self._network.end_process(self.host)
                nursery.cancel_scope.cancel()
        except Exception as error:  # judged here, as daemon.run does
            if not self._killed:
                self._judge(error)
        finally:
            self._signals = None
        if status and not self._killed:
            self._report(f"node {self.number} ended with status {status}")

    def _judge(self, error: Exception) -> None:
        """A node may give up joining a cluster that does not answer; nothing else."""
        leaves = daemon._leaves(error)
        if not all(isinstance(leaf, Unavailable) for leaf in leaves):
            self._report(f"node {self.number} ended with {leaves!r}")

    def _surroundings(self, nursery: trio.Nursery) -> Surroundings:
        def start_worker(_name: str) -> DiskWorker:
            worker = DiskWorker(self.disk)
            nursery.start_soon(worker.run)
            return worker

        async def connect(host: str, port: int) -> Stream:
            return await self._network.connect(self.host, host, port)

        return Surroundings(
            self.clock, self._chance, connect, self.disk.off_loop, start_worker,
            end=lambda _status: None,  # a process of ours holds all nodes; its files can be closed
        )  # fmt: skip

    def _config(self) -> Config:
        return Config.make(
            admin_token=TOKEN,
            listen_ip=self.host,
            port=PORT,
            data_dir=self.path,
            join_ip=tuple(f"10.0.0.{number}:{PORT}" for number in range(1, min(self.number, 3))),
            disk_reserve_bytes=1,
            **self._settings,
        )
