"""As much of sqlite3.Connection as kritad's storage uses, over APSW.

The standard library's module cannot be given a VFS written in Python. Differences
that matter are undone here:
* sqlite3's cursor is one row ahead, so that fetching the only row there is also ends
  the read transaction; APSW's steps when asked.
* Errors become the sqlite3 ones, with ``sqlite_errorcode`` (extended) set.
* close() does not report what goes wrong with the last checkpoint.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apsw

# Which class CPython's _sqlite/util.c gives each primary code; all others: OperationalError.
_CLASSES: dict[int, type[sqlite3.Error]] = {
    sqlite3.SQLITE_CORRUPT: sqlite3.DatabaseError,
    sqlite3.SQLITE_NOTADB: sqlite3.DatabaseError,
    sqlite3.SQLITE_CONSTRAINT: sqlite3.IntegrityError,
    sqlite3.SQLITE_MISMATCH: sqlite3.IntegrityError,
    sqlite3.SQLITE_TOOBIG: sqlite3.DataError,
    sqlite3.SQLITE_INTERNAL: sqlite3.InternalError,
    sqlite3.SQLITE_MISUSE: sqlite3.InterfaceError,
}


def translated(error: apsw.Error | UnicodeDecodeError) -> sqlite3.Error:
    """The sqlite3.Error that CPython would have raised."""
    if isinstance(error, UnicodeDecodeError):
        return sqlite3.OperationalError(f"Could not decode to UTF-8: {error}")
    code: int = error.extendedresult  # type: ignore[attr-defined]  # missing in APSW's stub
    translation = _CLASSES.get(code & 0xFF, sqlite3.OperationalError)(str(error))
    translation.sqlite_errorcode = code
    return translation


class DiskConnection:
    """See the module's docstring. For one thread. ``isolation_level`` is always None."""

    isolation_level = None

    def __init__(
        self,
        path: str,
        vfs: str,
        *,
        timeout: float = 5.0,
        isolation_level: None = None,
        check_same_thread: bool = False,
        cached_statements: int = 128,
    ) -> None:
        """Open ``path`` on the disk registered as ``vfs``."""
        assert isolation_level is None
        assert not check_same_thread
        try:
            self._connection = apsw.Connection(path, vfs=vfs, statementcachesize=cached_statements)
        except apsw.Error as error:
            raise translated(error) from error
        self._connection.set_busy_timeout(int(timeout * 1000))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    @property
    def total_changes(self) -> int:
        """How many rows were changed since it was opened."""
        return self._connection.total_changes()

    def cursor(self) -> DiskCursor:
        """A cursor of its own."""
        return DiskCursor(self._connection)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> DiskCursor:
        """Run one statement on a new cursor."""
        return self.cursor().execute(statement, values)

    def create_function(
        self, name: str, narg: int, func: Callable[..., Any], *, deterministic: bool = False
    ) -> None:
        """Let statements call ``func``."""
        self._connection.create_scalar_function(name, func, narg, deterministic=deterministic)

    def commit(self) -> None:
        """End the transaction, if there is one."""
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        """Take the transaction back, if there is one."""
        if self.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Close, whatever is open on it. Again: nothing."""
        try:
            self._connection.close(True)
        except apsw.Error:
            # SQLite has closed it all the same, and said nothing: the exception is the
            # disk's, which APSW brings up whenever it was raised.
            assert not self._is_open()

    def _is_open(self) -> bool:
        try:
            self._connection.cursor()
        except apsw.ConnectionClosedError:
            return False
        return True


class DiskCursor:
    """One statement's rows."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._ahead: Any = None  # the next row
        self.rowcount = -1

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def execute(self, statement: str, values: Sequence[Any] = ()) -> DiskCursor:
        """Run one statement up to its first row."""
        before = self._connection.total_changes()
        try:
            self._cursor.execute(statement, values)
            self._ahead = self._cursor.fetchone()
        except (apsw.Error, UnicodeDecodeError) as error:
            raise translated(error) from error
        self.rowcount = self._connection.total_changes() - before
        return self

    def fetchone(self) -> Any:
        """The next row, or None."""
        row = self._ahead
        if row is not None:
            try:
                self._ahead = self._cursor.fetchone()
            except (apsw.Error, UnicodeDecodeError) as error:
                raise translated(error) from error
        return row

    def fetchall(self) -> list[Any]:
        """All rows that are left."""
        return list(self)

    def close(self) -> None:
        """Give the statement back."""
        self._ahead = None
        self._cursor.close(True)
