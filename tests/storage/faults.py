"""Ways to hurt a store that need no privileges."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    """A disk that takes no more than this in any one file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def damage(path: Path, query: str) -> None:
    """Change one row behind Krita's back. The query must hit exactly one."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute(query).rowcount == 1
        connection.commit()
