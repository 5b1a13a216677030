"""When which rows of data.db are read again, and what becomes of what is found.

A slice each second, of so many rows that the whole file is read once in ``pass_ms``, whatever
people read (storage/scrubbing.py tells why). It begins somewhere, so that a node which is started
anew every day gets everywhere in the end.

Rules:
* What is damaged costs its replica its life as any damaged row that a reader meets: the
  cluster makes it anew. Rows that are no replica's any more, or not yet, are nobody's matter.
* Where SQLite cannot read the table itself, nobody can say whose rows are there. It is said
  in the log once a pass, and the scrub goes on behind it.
* A slice waits behind flushes, on their thread, and none is begun while one is out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from kritad.host.clock import Clock
from kritad.host.replica import Replica
from kritad.host.writer import Finished, Worker
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import REBUILD_HINT, Corrupt, StorageError
from kritad.storage.scrubbing import Scrubbed

log = logging.getLogger(__name__)

_PAUSE_MS = 1_000.0
_ROWS_MIN = 64  # 1 ms: a small file is read in less time than it has
_ROWS_MAX = 2_000


class Scrubber:
    """See the module's docstring."""

    def __init__(
        self,
        database: DataDatabase,
        worker: Worker,
        clock: Clock,
        replicas: Mapping[int, Replica],
        *,
        pass_ms: float,
        begins_at: float,
        on_damage: Callable[[Replica, StorageError], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """``pass_ms`` 0: never. It ``begins_at`` that part of the file, from 0 to 1."""
        self._database = database
        self._worker = worker
        self._clock = clock
        self._replicas = replicas
        self._pass_ms = pass_ms
        self._begins_at: float | None = begins_at
        self._on_damage = on_damage
        self._on_failure = on_failure
        self._due_ms = clock.monotonic_ms() + _PAUSE_MS
        self._busy = False
        self._behind_id = 0
        self._id_max = 0
        self._unreadable = False  # in this pass
        self.rows = 0  # read since the start
        self.passes = 0

    def __repr__(self) -> str:
        return f"<Scrubber at {self._behind_id} of {self._id_max}, {self.passes} passes>"

    def tick(self) -> None:
        """Begin a slice when it is time for one. 0.1 µs."""
        now = self._clock.monotonic_ms()
        if now < self._due_ms or self._busy or not self._pass_ms:
            return
        self._busy, self._due_ms = True, now + _PAUSE_MS
        behind_id, count = self._behind_id, self._rows_wanted()
        self._worker.submit(lambda: self._database.scrub(behind_id, count), self._done)

    def _rows_wanted(self) -> int:
        """As many as a pass needs of each slice; ids are no fewer than rows."""
        needed = int(self._id_max * _PAUSE_MS / self._pass_ms) + 1
        return min(max(needed, _ROWS_MIN), _ROWS_MAX)

    def _done(self, finished: Finished[Scrubbed]) -> None:
        self._busy = False
        if isinstance(finished.error, Corrupt):
            self._note_unreadable(finished.error)
            return
        if finished.error is not None:
            self._on_failure(finished.error)
            return
        slice_ = finished.unwrap()
        self.rows += slice_.rows
        for generation, key in slice_.unsound:
            self._lay_to_its_replica(generation, key)
        self._go_on(slice_.id_last, slice_.id_max)

    def _go_on(self, id_last: int, id_max: int) -> None:
        self._behind_id, self._id_max = id_last, id_max
        if self._begins_at is not None:
            self._behind_id, self._begins_at = int(self._begins_at * id_max), None
        elif id_last >= id_max:
            self._behind_id, self._unreadable = 0, False
            self.passes += 1

    def _note_unreadable(self, problem: Corrupt) -> None:
        if not self._unreadable:
            log.error(
                "data.db is damaged at rows behind %d, and whose they are cannot be told: %s",
                self._behind_id, problem,
            )  # fmt: skip
            self._unreadable = True
        self._go_on(self._behind_id + _ROWS_MIN, self._id_max)

    def _lay_to_its_replica(self, generation: int, key: bytes) -> None:
        """A generation may have rows of two shards, and of none: of a half that has moved away.
        (Where the key itself is damaged it may be nobody's. Its readers, who come by the index,
        find that the row does not match its digest.)"""
        for replica in list(self._replicas.values()):
            uses = replica.state.table.generation == generation
            if uses and key and replica.state.owns(key):
                problem = f"a row of data.db is damaged or not in its index: key {key!r:.64}"
                self._on_damage(replica, Corrupt(replica.shard, problem, REBUILD_HINT))
