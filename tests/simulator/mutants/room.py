"""Planted bugs: what waits while there is no room in memory, and what is moved to make some."""

from __future__ import annotations

from kritad.host import flush
from kritad.host.drive import Drive
from kritad.host.flush import Flusher
from kritad.host.replica import Replica
from kritad.host.writer import Finished
from tests.simulator.mutants.mutant import Mutant

_logged = Drive._logged
_checkpoint = Flusher._checkpoint
_look = Drive._look


def _look_past_the_waiting(drive: Drive, replica: Replica) -> None:
    """What is committed now is applied in front of what was committed while there was no
    room: that is put behind it."""
    waiting = drive._backlog.get(replica)
    take = replica.take_ready
    before = len(waiting) if waiting else 0
    _look(drive, replica)
    assert take == replica.take_ready
    after = drive._backlog.get(replica)
    if before and after is not None and len(after) > before:
        drive._backlog[replica] = after[before:] + after[:before]


def _keep_what_waits(drive: Drive, finished: Finished[None]) -> None:
    """What waits stays when a snapshot is installed that has it."""
    waiting, drive._backlog = drive._backlog, {}
    _logged(drive, finished)
    drive._backlog = waiting


def _never_resume(_drive: Drive) -> None:
    """Nobody hears that there is room again."""


class _Never(int):
    """An overdue checkpoint waits for a pause between two flushes."""


def _believe_any_checkpoint(flusher: Flusher) -> None:
    """A checkpoint that a reader has kept from ending counts as one."""
    database = flusher._database

    class _Credulous:
        def checkpoint(self) -> bool:
            database.checkpoint()
            return True

    flusher._database = _Credulous()  # type: ignore[assignment]
    try:
        _checkpoint(flusher)
    finally:
        flusher._database = database


MUTANTS = (
    Mutant(
        name="entries-overtake-those-that-wait",
        rule="committed entries wait for room in their order",
        source="host/drive.py, host/room.py",
        hint="crash: little memory, and a slow disk",
        patches=((Drive, "_look", _look_past_the_waiting),),
    ),
    Mutant(
        name="what-waits-outlives-a-snapshot",
        rule="what waited for room goes when a snapshot is installed that has it",
        source="host/drive.py",
        hint="crash: a follower with little memory and a slow disk, that needs a snapshot",
        patches=((Drive, "_logged", _keep_what_waits),),
    ),
    Mutant(
        name="nobody-goes-on-when-there-is-room",
        rule="what waits for room is applied as soon as there is some",
        source="host/drive.py, host/flush.py",
        hint="liveness: little memory, and a slow disk",
        patches=((Drive, "resume", _never_resume),),
    ),
    Mutant(
        name="overdue-checkpoint-waits-for-a-pause",
        rule="a checkpoint that is overdue goes before a flush",
        source="host/flush.py",
        hint="checkpoints: flushes that take longer than the time between two of them",
        patches=((flush, "_OVERDUE_INTERVALS", _Never(1 << 40)),),
    ),
    Mutant(
        name="checkpoint-that-did-not-end-counts",
        rule="a log is cut behind a checkpoint that has moved everything",
        source="host/flush.py, storage/data_wal.py",
        hint="undamaged: snapshots that are read, and power cuts",
        patches=((Flusher, "_checkpoint", _believe_any_checkpoint),),
    ),
)
