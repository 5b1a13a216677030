"""A disk under the real SQLite whose power can be cut at any operation, and which can fail.

SQLite reaches files only through its VFS interface; APSW lets that be written in
Python. Data lives in memory (files.py). The main file is also opened by SQLite's
"unix" VFS, as an empty placeholder on the real disk: from there come locks and the
shared memory of the WAL index, so that writer, reader and snapshot readers are
connections of their own, as in production. (With locking_mode=EXCLUSIVE, which
needs no shared memory, there can be one connection only: a reader would see
what is not committed, and nothing could hold back a checkpoint.)

Everything is drawn from the random.Random handed in, the salts of the WAL too.
The SQLite is the one within APSW, not the one that kritad is linked to.

Source: sqlite.org/c3ref/vfs.html; how SQLite tests itself: sqlite.org/testing.html 3.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import attrs

from kritad.storage import walscan
from kritad.storage.errors import StoreFailed
from tests.simulator.platter.connection import DiskConnection
from tests.simulator.platter.files import SECTOR_BYTES, SimulatedFile

_numbers = itertools.count(1)  # of the disks of this process: VFS names must differ


class Operation(enum.Enum):
    """What SQLite asks of a disk, each with the code of its failure."""

    OPEN = apsw.SQLITE_CANTOPEN
    READ = apsw.SQLITE_IOERR_READ
    WRITE = apsw.SQLITE_IOERR_WRITE
    SYNC = apsw.SQLITE_IOERR_FSYNC
    TRUNCATE = apsw.SQLITE_IOERR_TRUNCATE
    DELETE = apsw.SQLITE_IOERR_DELETE


_ALL = tuple(Operation)


@attrs.frozen
class Fault:
    """The ``number``-th operation among ``kinds`` (counted from 1, from when the fault is
    set) fails; if ``sticky``, all of them after it too."""

    number: int
    sticky: bool = False
    kinds: tuple[Operation, ...] = _ALL


class Disk:
    """Files by path. Use as a context manager; ``mounted()`` puts kritad's storage on it."""

    def __init__(
        self, chance: random.Random, files: dict[str, SimulatedFile] | None = None
    ) -> None:
        """An empty disk, or one that holds copies of ``files`` (see ``image``)."""
        self.chance = chance
        self.files = {path: file.copy() for path, file in (files or {}).items()}
        self.counts: Counter[Operation] = Counter()
        self.alive = True  # False: the power is gone, or the process that used it
        self.lying = False  # sync says OK and does nothing
        self.capacity_bytes: int | None = None
        self.faulted = False  # whether ``fault`` has struck
        self._deleted: dict[str, SimulatedFile] = {}  # a power cut may bring them back
        self._stop_in: int | None = None  # operations until the end
        self._stop_power = True  # whether the end is a power cut
        self._fault: Fault | None = None
        self._fault_count = 0
        self._connections: list[DiskConnection] = []
        self._vfs = _Vfs(f"krita-disk-{next(_numbers)}", self)
        apsw.randomness(0)  # drawn anew, from this disk's chance

    def __repr__(self) -> str:
        state = "alive" if self.alive else "dead"
        return f"<Disk {state} {self.files} {sum(self.counts.values())} operations>"

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._vfs.unregister()

    @property
    def operations(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    # What happens to disks.

    def stop_in(self, operations: int, *, power: bool = True) -> None:
        """Cut the power at the ``operations``-th operation from now; not ``power``: only
        kill the process there."""
        self._stop_in, self._stop_power = operations, power

    def cut(self) -> None:
        """Cut the power now. Every operation fails until ``restart``."""
        self.alive = False
        for path, file in list(self.files.items()):
            if not file.named and self.chance.random() < 0.5:
                del self.files[path]
        for path, file in self._deleted.items():
            if path not in self.files and self.chance.random() < 0.5:
                self.files[path] = file
        for file in self.files.values():
            file.cut(self.chance)
            file.named = True
        self._deleted.clear()

    def stop(self) -> None:
        """The process is gone, as by kill -9: what it has written stays, synced or not."""
        self.alive = False
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def restart(self) -> None:
        """Everything works again and nobody has a file open."""
        self.stop()
        self.alive = True
        self.lying = False
        self.capacity_bytes = None
        self._stop_in = self._fault = None

    def fail(self, fault: Fault) -> None:
        """From now on, fail as told."""
        self._fault, self._fault_count, self.faulted = fault, 0, False

    def image(self) -> dict[str, SimulatedFile]:
        """Copies of all files, for another disk to begin with."""
        return {path: file.copy() for path, file in self.files.items()}

    # What the storage sees.

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """Within, sqlite3.connect and what walscan.py does by path come to this disk."""
        with (
            mock.patch.object(sqlite3, "connect", self.connect),
            mock.patch.object(walscan, "scan_wal", self.scan_wal),
            mock.patch.object(walscan, "rewrite_wal", self.rewrite_wal),
            mock.patch.object(walscan, "bytes_of", self.bytes_of),
        ):
            yield

    def connect(self, path: Path, **options: Any) -> DiskConnection:
        """Stands in for sqlite3.connect."""
        connection = DiskConnection(os.fspath(path), self._vfs.name, **options)
        self._connections.append(connection)
        return connection

    def scan_wal(self, path: Path) -> walscan.Verdict:
        """Stands in for walscan.scan_wal."""
        file = self.files.get(os.fspath(path))
        if file is None:
            return walscan.Verdict.ABSENT
        try:
            self._admit(Operation.READ)
        except apsw.Error as error:
            raise StoreFailed(f"cannot read {path}: {error}") from error
        data = bytes(file.content)
        return walscan.judge_wal(data) if data else walscan.Verdict.ABSENT

    def rewrite_wal(self, path: Path) -> None:
        """Stands in for walscan.rewrite_wal."""
        file = self.files.get(os.fspath(path))
        if file is None or not file.content:
            return
        try:
            self.write(file, 0, self.read(file, 0, len(file.content)))
            self.sync(file)
        except apsw.Error as error:
            raise StoreFailed(f"cannot write {path}: {error}") from error

    def bytes_of(self, path: Path) -> int:
        """Stands in for walscan.bytes_of."""
        file = self.files.get(os.fspath(path))
        return 0 if file is None else len(file.content)

    # For _Vfs and its files.

    def open(self, path: str) -> SimulatedFile:
        """Find or make a file."""
        self._admit(Operation.OPEN)
        return self.files.setdefault(path, SimulatedFile())

    def read(self, file: SimulatedFile, offset: int, amount: int) -> bytes:
        """``amount`` bytes, or fewer at the end."""
        self._admit(Operation.READ)
        return bytes(file.content[offset : offset + amount])

    def write(self, file: SimulatedFile, offset: int, data: bytes) -> None:
        """Where it fails, some sectors may be written. Raises FullError past the capacity."""
        self._check_alive()
        growth = offset + len(data) - len(file.content)
        if self.capacity_bytes is not None and growth > 0:
            used = sum(len(each.content) for each in self.files.values())
            if used + growth > self.capacity_bytes:
                self.faulted = True
                raise _error(apsw.SQLITE_FULL)
        if self._stop_in == 1:
            file.write(offset, data)  # for the cut to tear
        try:
            self._admit(Operation.WRITE)
        except apsw.Error:
            if self.alive:
                end = self.chance.randrange(offset, offset + len(data) + 1)
                end -= end % SECTOR_BYTES
                file.write(offset, data[: max(0, end - offset)])
            raise
        file.write(offset, data)

    def sync(self, file: SimulatedFile) -> None:
        """Durable afterwards, with its name; what SQLite's unix VFS does for new files."""
        try:
            self._admit(Operation.SYNC)
        except apsw.Error:
            if self.alive:
                file.fail_sync(self.chance)
            raise
        if self.lying:
            return
        if not file.named:
            self._deleted.clear()
        file.sync()

    def truncate(self, file: SimulatedFile, size: int) -> None:
        """Set a file's size."""
        if self._stop_in == 1:
            file.truncate(size)
        self._admit(Operation.TRUNCATE)
        file.truncate(size)

    def delete(self, path: str) -> None:
        """Not durable until something new is synced."""
        self._admit(Operation.DELETE)
        file = self.files.pop(path, None)
        if file is not None:
            self._deleted[path] = file

    def _admit(self, operation: Operation) -> None:
        """Count an operation; raise where it has to fail."""
        self._check_alive()
        self.counts[operation] += 1
        if self._stop_in is not None:
            self._stop_in -= 1
            if self._stop_in == 0:
                self._stop_in = None
                self.alive = False
                if self._stop_power:
                    self.cut()
        self._check_alive()
        fault = self._fault
        if fault is not None and operation in fault.kinds:
            self._fault_count += 1
            if self._fault_count == fault.number or (
                fault.sticky and self._fault_count > fault.number
            ):
                self.faulted = True
                raise _error(operation.value)

    def _check_alive(self) -> None:
        if not self.alive:
            raise _error(apsw.SQLITE_IOERR)


def _error(code: int) -> apsw.Error:
    """The exception that makes APSW hand ``code`` to SQLite."""
    error = apsw.exception_for(code)
    assert isinstance(error, apsw.Error)
    return error


class _Vfs(apsw.VFS):
    """Hands SQLite's calls to a Disk."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.name = name
        self._disk = disk
        # The default one is where SQLite's own random numbers come from.
        super().__init__(name, "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Any:
        assert name is not None, "temp_store=MEMORY: no temporary files"
        path = name if isinstance(name, str) else name.filename()
        file = self._disk.open(path)
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _MainFile(self._disk, file, name, flags)
        return _SideFile(self._disk, file)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: ARG002
        self._disk.delete(filename)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: ARG002
        return pathname in self._disk.files

    def xRandomness(self, numbytes: int) -> bytes:
        return self._disk.chance.randbytes(numbytes)

    def xSleep(self, microseconds: int) -> int:
        return microseconds  # nobody else runs: waiting changes nothing


class _Content:
    """A file's bytes, which are the Disk's."""

    _disk: Disk
    _file: SimulatedFile

    def xRead(self, amount: int, offset: int) -> bytes:
        return self._disk.read(self._file, offset, amount)

    def xWrite(self, data: Any, offset: int) -> None:
        self._disk.write(self._file, offset, bytes(data))

    def xSync(self, flags: int) -> None:  # noqa: ARG002
        self._disk.sync(self._file)

    def xTruncate(self, newsize: int) -> None:
        self._disk.truncate(self._file, newsize)

    def xFileSize(self) -> int:
        return len(self._file.content)


class _SideFile(_Content):
    """A WAL or a journal. Only one connection has each at a time or the WAL's locks, which
    are the main file's, keep them apart."""

    def __init__(self, disk: Disk, file: SimulatedFile) -> None:
        self._disk = disk
        self._file = file

    def xClose(self) -> None:
        """Nothing to give back."""

    def xLock(self, level: int) -> None:
        """See the class's docstring."""

    def xUnlock(self, level: int) -> None:
        """See the class's docstring."""

    def xCheckReservedLock(self) -> bool:
        return False

    # What SQLite's unix VFS says, too.

    def xSectorSize(self) -> int:
        return 4096

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: ARG002
        return False


class _MainFile(_Content, apsw.VFSFile):
    """A database: content from the Disk, locks and shared memory from an empty real file."""

    def __init__(
        self, disk: Disk, file: SimulatedFile, name: str | apsw.URIFilename, flags: list[int]
    ) -> None:
        self._disk = disk
        self._file = file
        super().__init__("unix", name, flags)
