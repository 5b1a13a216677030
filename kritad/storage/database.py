"""Opening a SQLite file the way Krita needs it, and the two statements that matter.

Rules (ecosystem.md 3, the WAL-reset bug of SQLite 3.7.0 to 3.51.2):
* One connection per file writes, and only it checkpoints. All others are
  ``query_only``. No ``mmap_size``.
* Automatic checkpoints are off: SQLite ignores their errors, and a failed fsync
  that nobody hears of is how acknowledged writes get lost. Who owns the writer
  checkpoints explicitly.
* ``isolation_level=None``: transactions begin where the code says BEGIN.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import attrs

from kritad.storage.errors import Corrupt, DirectoryRefused, StorageError, StoreFailed

SQLITE_VERSION_MIN = (3, 40, 0)
SQLITE_VERSION_SOUND = (3, 51, 3)

BUSY_TIMEOUT_S = 5.0
# Above SQLite's own default of 4 MiB, so that the file is rarely cut and regrown.
JOURNAL_BYTES_MAX = 64 << 20

_CORRUPT_CODES = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
ROWS_EXACT_MAX = 16  # a save of a node with the default number of shards is one statement
_ROWS_PER_STATEMENT = 128  # times 6 columns: far below SQLite's 32766 parameters


def version_warnings(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> list[str]:
    """What the operator should know about the SQLite linked into this process.

    Raises StorageError when it is too old to be used at all.
    """
    text = ".".join(map(str, version))
    if version < SQLITE_VERSION_MIN:
        raise StorageError(
            f"SQLite {text} is too old",
            "Krita needs 3.40.0 or later: use a newer Python, or the single-file kritad",
        )
    if version < SQLITE_VERSION_SOUND:
        return [
            f"SQLite {text} has the WAL-reset bug fixed in 3.51.3; Krita keeps to one writing "
            "and checkpointing connection per file, which avoids it, but no other program may "
            "write to the data directory while kritad runs"
        ]
    return []


@contextlib.contextmanager
def opening(path: Path) -> Iterator[contextlib.ExitStack]:
    """What is entered or pushed within is closed, the last first, unless all goes well; an
    sqlite3.Error is raised as what it means (``failure``)."""
    with contextlib.ExitStack() as opened:
        try:
            yield opened
        except sqlite3.Error as error:
            raise failure(path, "read", error) from error
        opened.pop_all()


def open_writer(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """The one connection that writes to ``path``; makes the file (0600) if it is missing.

    Usable from any one thread at a time. Raises StoreFailed, Corrupt(None) for a file that
    SQLite cannot read, or DirectoryRefused where SQLite cannot keep it as we need it.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        raise StoreFailed(f"cannot open {path}: {error.strerror}") from error
    connection = _connect(path)
    try:
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint=0").fetchone()
        # Debian builds SQLite to overwrite with zeros whatever is deleted: each page that becomes
        # free is written once more, to the WAL and to the file (docs/decisions.md 3).
        connection.execute("PRAGMA secure_delete=0").fetchone()
        connection.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES_MAX}").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # The latter is Python's of SQLite's own message, which quotes from the file.
        connection.close()
        raise failure(path, "open", error) from error
    if mode != "wal":
        # SQLite would go on with another journal, which a power cut may leave behind and which
        # takes the newest commits back then; and say that every checkpoint is complete.
        connection.close()
        raise DirectoryRefused(
            f"{path} cannot have a write-ahead log here: SQLite would use mode {mode!r}",
            "put the data directory on a disk of this machine, not on a network file system",
        )
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads. Finish every SELECT: an open one pins the WAL.

    Raises StoreFailed or Corrupt(None).
    """
    connection = _connect(path)
    connection.execute("PRAGMA query_only=1")
    return connection


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(  # this reads the file's first bytes
            path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
    except sqlite3.Error as error:
        raise failure(path, "open", error) from error
    connection.execute("PRAGMA trusted_schema=0")  # these touch no file
    connection.execute("PRAGMA cell_size_check=1")
    connection.execute("PRAGMA temp_store=MEMORY")
    return connection


def failure(path: Path, doing: str, error: sqlite3.Error | UnicodeDecodeError) -> StorageError:
    """What an sqlite3.Error means: Corrupt(None) where damage was found by SQLite itself, or
    by Python in a text that is no UTF-8 (an OperationalError without a code, or its own);
    StoreFailed for everything else. A read error of the disk may surface as either."""
    code = getattr(error, "sqlite_errorcode", None)
    undecodable = code is None and isinstance(error, (sqlite3.OperationalError, UnicodeDecodeError))
    if undecodable or (code is not None and code & 0xFF in _CORRUPT_CODES):
        return Corrupt(
            None,
            f"cannot {doing} {path}: {error}",
            "the file is damaged: move the data directory away and start with --join_ip; the "
            "cluster rebuilds this node's replicas",
        )
    return write_failure(path, doing, error)


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk had no room for it."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_FULL


def write_failure(path: Path, doing: str, error: Exception) -> StoreFailed:
    """What any error of a writer means."""
    return StoreFailed(
        f"cannot {doing} {path}: {error}",
        "check the disk (space, dmesg); kritad must be started again before it can go on",
    )


@attrs.frozen
class CheckpointResult:
    """``frames`` in the WAL, of which ``copied`` are in the main file and durable."""

    busy: bool
    frames: int
    copied: int

    @property
    def complete(self) -> bool:
        """Whether everything committed before is durable in the main file."""
        return not self.busy and self.frames == self.copied


def checkpoint(
    connection: sqlite3.Connection, mode: Literal["PASSIVE", "TRUNCATE"]
) -> CheckpointResult:
    """Copy the WAL into the main file and fsync that. Raises sqlite3.Error, which is
    as fatal as a failed commit. PASSIVE: ~8 ms per 1000 pages, never waits for readers."""
    busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return CheckpointResult(bool(busy), frames, copied)


def forget_wal(connection: sqlite3.Connection) -> None:
    """Empty a WAL that is wholly in the main file, unless somebody reads it just now. Raises
    sqlite3.Error. ~0.2 ms.

    Its frames do no good any more, and some harm: with a bit flipped in them, SQLite
    would replay those in front of it over the newer pages that the main file has.
    """
    connection.execute("PRAGMA busy_timeout=0")
    checkpoint(connection, "TRUNCATE")
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")


def execute_rows(
    connection: sqlite3.Connection, head: str, rows: Sequence[tuple[Any, ...]], tail: str = ""
) -> None:
    """``head`` VALUES rows... ``tail`` for any number of rows, in few large statements.

    ``executemany`` gives the GIL back and takes it again once per row. With a
    busy main thread 16 log rows and 16 hard states took 7.5 ms that way and
    2.9 ms so; alone both take 0.3 ms. Few rows are one statement; of many, sizes are
    powers of two, so that the prepared statements serve every batch.
    """
    start, left, size = 0, len(rows), _ROWS_PER_STATEMENT
    while left:
        if left <= ROWS_EXACT_MAX:
            size = left
        while size > left:
            size >>= 1
        some = rows if size == len(rows) else rows[start : start + size]
        statement = _insert(head, len(rows[0]), size, tail)
        connection.execute(statement, list(chain.from_iterable(some)))
        start, left = start + size, left - size


@lru_cache(maxsize=256)
def _insert(head: str, columns: int, rows: int, tail: str) -> str:
    place = "(" + ",".join("?" * columns) + ")"
    return f"{head} VALUES {','.join([place] * rows)} {tail}"
