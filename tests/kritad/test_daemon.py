"""The end of a node's life, where no real disk can be made to behave as it has to."""

from __future__ import annotations

import signal
from pathlib import Path

import attrs
import pytest
import trio

from kritad import daemon
from kritad.config import Config
from kritad.host.surroundings import MACHINE
from kritad.host.writer import WorkerThread
from kritad.server.listener import bind


class Ended(Exception):
    """What the process does of itself, with this status."""


class HangingThread(WorkerThread):
    """Says that it has not got to its end, as one does whose disk hangs."""

    def close(self, timeout_s: float) -> bool:
        super().close(timeout_s)
        return False


def start_hanging(name: str) -> HangingThread:
    return HangingThread(name, trio.lowlevel.current_trio_token())


def end(status: int) -> None:
    raise Ended(status)


async def test_a_disk_that_hangs_when_the_node_stops_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To close its files would mean to wait for it."""
    config = Config.make(data_dir=tmp_path / "data", shards=1, start_cluster=True)
    surroundings = attrs.evolve(MACHINE, start_worker=start_hanging, end=end)
    sender, signals = trio.open_memory_channel[int](1)
    sender.send_nowait(signal.SIGTERM)
    with pytest.raises(Ended, match="1"):
        await daemon.live(config, bind("127.0.0.1", 0), signals, surroundings)
    assert "the disk hangs: ending without it" in caplog.text
