"""Lives of stores on a disk whose power is cut again and again: what the tests have in common."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from unittest import mock

import attrs

from kritad.storage import raft_db
from kritad.storage.errors import StorageError
from tests.simulator.platter.data_life import DataLife
from tests.simulator.platter.files import SimulatedFile
from tests.simulator.platter.node_life import NodeLife
from tests.simulator.platter.raft_life import RaftLife
from tests.simulator.platter.vfs import Disk

# So that a few dozen saves reach several checkpoints, asked for and unasked.
CHECKPOINT_PAGES = 24

STEPS = 60  # of a life between two cuts, at most


class Life(Protocol):
    """raft_life.py, data_life.py, node_life.py."""

    def boot(self) -> None:
        """Start and compare."""

    def step(self) -> None:
        """Do one thing."""

    def close(self) -> None:
        """Stop cleanly."""


Maker = Callable[[Path, random.Random], Life]


def raft_life(directory: Path, chance: random.Random) -> Life:
    """A raft.db in ``directory``."""
    return RaftLife(directory / "raft.db", chance)


def data_life(directory: Path, chance: random.Random) -> Life:
    """A data.db in ``directory``."""
    return DataLife(directory / "data.db", chance)


# The kinds of life, by name, for parametrized tests.
MAKERS: dict[str, Maker] = {"raft.db": raft_life, "data.db": data_life, "both": NodeLife}


@attrs.define
class Tally:
    """What happened, so that a test can demand that enough did."""

    stops: int = 0
    stops_in_boot: int = 0
    steps: int = 0


@contextlib.contextmanager
def running(disk: Disk) -> Iterator[Disk]:
    """The storage on ``disk``, with checkpoints of raft.db due after a few pages."""
    with (
        mock.patch.object(raft_db, "CHECKPOINT_PAGES", CHECKPOINT_PAGES),
        mock.patch.object(raft_db, "CHECKPOINT_PAGES_FORCED", 2 * CHECKPOINT_PAGES),
        disk,
        disk.mounted(),
    ):
        yield disk


def live(
    make: Maker,
    directory: Path,
    seed: int,
    stops: int,
    *,
    prepare: Callable[[Disk], None] = Disk.restart,
    power: bool = True,
) -> Tally:
    """One store from its making through ``stops`` power cuts (not ``power``: kill -9s), each
    at some operation, perhaps of the start after the previous one. ~3 ms each.

    ``prepare`` is called with the disk before each start. Raises AssertionError
    when a start does not find what it has to find.
    """
    chance = random.Random(seed)
    tally = Tally()
    with running(Disk(chance)) as disk:
        life = make(directory, chance)
        for _ in range(stops):
            prepare(disk)
            disk.stop_in(chance.randrange(1, chance.choice((40, 400, 2000))), power=power)
            booting = True
            try:
                life.boot()
                booting = False
                for _ in range(chance.randrange(STEPS)):
                    life.step()
                    tally.steps += 1
            except StorageError as error:
                if disk.alive:
                    raise AssertionError(f"seed {seed}, after {tally}: {error}") from error
                tally.stops_in_boot += booting
            if disk.alive and power:
                disk.cut()
            tally.stops += 1
            disk.restart()
        life.boot()
    return tally


@attrs.frozen
class Origin:
    """A store with something in it, to which things are then done, each time anew."""

    files: dict[str, SimulatedFile]
    _life: Life

    @classmethod
    def make(
        cls, make: Maker, directory: Path, seed: int, steps: int, *, closed: bool = True
    ) -> Origin:
        """Run a life for ``steps`` and stop it, cleanly if ``closed``, else as kill -9 does."""
        chance = random.Random(seed)
        with running(Disk(chance)) as disk:
            life = make(directory, chance)
            life.boot()
            for _ in range(steps):
                life.step()
            if closed:
                life.close()
            else:
                disk.restart()
            return cls(disk.image(), life)

    def life(self) -> Life:
        """Another life that goes on from here; boot() it on a disk with ``files``."""
        return copy.deepcopy(self._life)
