"""The data directory: ours alone, and used by one kritad at a time.

It holds the log of every write of its shards and the cluster's secrets, so
anything but mode 0700, our own uid and a real directory is refused. Nothing is ever
repaired here: the operator is told the command instead.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from kritad.storage.errors import DirectoryRefused

LOCK_NAME = "LOCK"


class DataDirectory:
    """An open, locked data directory. The lock ends with ``close`` or the process."""

    def __init__(self, path: Path) -> None:
        """Make it if it is missing, check it, lock it. Raises DirectoryRefused."""
        self.path = path
        _make(path)
        _inspect(path)
        self._lock = _lock(path)

    def __repr__(self) -> str:
        return f"<DataDirectory {self.path} {'closed' if self._lock < 0 else 'locked'}>"

    @property
    def raft_path(self) -> Path:
        """Where raft.db is."""
        return self.path / "raft.db"

    def has_log(self) -> bool:
        """Whether there is a raft.db with anything in it."""
        return self.raft_path.is_file() and self.raft_path.stat().st_size > 0

    @property
    def data_path(self) -> Path:
        """Where data.db is."""
        return self.path / "data.db"

    def close(self) -> None:
        """Give up the lock. The file stays: removing it would let two take "the" lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _make(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True)
        os.chmod(path, 0o700)  # a peculiar umask may have taken bits away
    except FileExistsError:
        return
    except OSError as error:
        raise DirectoryRefused(
            f"cannot make the data directory {path}: {error.strerror}"
        ) from error


def _inspect(path: Path) -> None:
    """Raise unless ``path`` is a directory of ours that nobody else may enter."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise DirectoryRefused(
            f"the data directory {path} is a symbolic link",
            f"name its target instead: {os.path.realpath(path)}",
        )
    if not stat.S_ISDIR(found.st_mode):
        raise DirectoryRefused(f"the data directory {path} is not a directory")
    if found.st_uid != os.geteuid():
        raise DirectoryRefused(
            f"the data directory {path} belongs to user {found.st_uid}, "
            f"and kritad runs as user {os.geteuid()}",
            f"start kritad as that user, or: chown -R {os.geteuid()} {path}",
        )
    if found.st_mode & 0o077:
        raise DirectoryRefused(
            f"the data directory {path} is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
            f"chmod 700 {path}",
        )


def _lock(path: Path) -> int:
    """Take the lock and write our pid into it. Returns the descriptor that holds it."""
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(path / LOCK_NAME, flags, 0o600)
    except OSError as error:
        raise DirectoryRefused(f"cannot open {path / LOCK_NAME}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        pid = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise DirectoryRefused(
            f"the data directory {path} is already used by pid {pid}",
            "stop that kritad, or give this one a --data_dir of its own",
        ) from error
    except OSError as error:
        os.close(lock)
        raise DirectoryRefused(f"cannot lock {path / LOCK_NAME}: {error.strerror}") from error
    return lock
