"""What a save adds to raft.db: rows of ``log``, and of each shard touched its row of ``hard``.

Both go through one statement. sqlite3 gives the interpreter's lock back and takes it again
several times for each, and while the loop is busy each of these is a wait and two switches of
thread: with BEGIN, two INSERTs and COMMIT a save of five shards took 1.1 ms and 330 µs of CPU
beside a busy loop, with one statement 0.86 ms and 280 µs. So the rows are inserted into a view,
whose triggers put each where it belongs, and a statement outside of any transaction is one.

The view is the connection's own (TEMP): nothing of it is in the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kritad.raft.records import HEADER_BYTES, pack_entry, pack_run
from kritad.raft.types import Entry, Save
from kritad.storage.catalog import Catalog
from kritad.storage.database import ROWS_EXACT_MAX, execute_rows
from kritad.storage.runs import LogIndex

# One row holds at most about this much (always at least one entry): what a slow
# follower is sent is read back by whole rows.
RUN_BYTES_MAX = 512 << 10

# A row with ``id`` NULL has nothing for the log. ``last_index`` is the tail's.
_SAVING = (
    """CREATE TEMP VIEW saving AS SELECT
       0 AS id, 0 AS shard, 0 AS first_index, 0 AS run_last_index, x'' AS records,
       0 AS term, 0 AS vote, 0 AS commit_index, 0 AS last_index, 0 AS seal""",
    """CREATE TEMP TRIGGER saving_log INSTEAD OF INSERT ON saving WHEN NEW.id IS NOT NULL
       BEGIN INSERT INTO log VALUES
       (NEW.id, NEW.shard, NEW.first_index, NEW.run_last_index, NEW.records); END""",
    """CREATE TEMP TRIGGER saving_hard INSTEAD OF INSERT ON saving
       BEGIN INSERT OR REPLACE INTO hard VALUES
       (NEW.shard, NEW.term, NEW.vote, NEW.commit_index, NEW.last_index, NEW.seal); END""",
)


def fits_one_statement(batch: Sequence[tuple[int, Save]]) -> bool:
    """Whether nothing but appending is asked for, and so little that it is one statement."""
    if len(batch) > ROWS_EXACT_MAX:
        return False
    if any(save.snapshot is not None or save.truncate_from for _, save in batch):
        return False
    return (
        sum([len(entry.data) + HEADER_BYTES for _, save in batch for entry in save.entries])
        <= RUN_BYTES_MAX
    )


class LogWriter:
    """Writes by ``connection``, and tells ``log`` which row holds what."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, log: LogIndex) -> None:
        """Raises sqlite3.Error."""
        self._connection = connection
        self._catalog = catalog
        self._log = log
        for statement in _SAVING:
            connection.execute(statement)

    def write(self, appended: Mapping[int, list[Entry]], touched: Iterable[int]) -> int:
        """Add what each shard appended, as one row each (or a few, when it is much), and
        write the tails of all that were ``touched``. The pages this makes, about. Raises
        sqlite3.Error."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        for shard in touched:
            tail = self._catalog.tail_row(shard)
            entries = appended.get(shard)
            if not entries:
                rows.append((None, shard, None, None, None, *tail))
                continue
            records = pack_run(shard, entries)
            runs = [(entries, records)] if len(records) <= RUN_BYTES_MAX else _split(shard, entries)
            for run, records in runs:
                first, last = run[0].index, run[-1].index
                row_id = self._log.append(shard, first, last)
                rows.append((row_id, shard, first, last, records, *tail))
                size += len(records)
        execute_rows(self._connection, "INSERT INTO saving", rows)
        return 4 + size // 2048


def _split(shard: int, entries: list[Entry]) -> Iterator[tuple[list[Entry], bytes]]:
    """Runs of at most RUN_BYTES_MAX each, with their records."""
    run: list[Entry] = []
    size = 0
    for entry in entries:
        record = entry.record or pack_entry(shard, entry)
        if run and size + len(record) > RUN_BYTES_MAX:
            yield run, pack_run(shard, run)
            run, size = [], 0
        run.append(entry)
        size += len(record)
    yield run, pack_run(shard, run)
