"""What the file data.db would hold, in dicts: the tables behind MemoryDataDatabase."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from kritad.storage.rows import Applied, Row
from tests.simulator.transactions import Undo, put_back


@attrs.define(eq=False)
class Generation:
    """One copy of one shard's state."""

    rows: dict[bytes, Row] = attrs.field(factory=dict)
    sessions: dict[int, bytes] = attrs.field(factory=dict)
    _keys: list[bytes] | None = None  # of rows, sorted; None: not known

    def sorted_keys(self) -> list[bytes]:
        """The keys of all rows in order. Free until the next change; not to be changed."""
        if self._keys is None:
            self._keys = sorted(self.rows)
        return self._keys

    def change(
        self,
        rows: Sequence[tuple[bytes, Row | None]],
        sessions: Sequence[tuple[int, bytes | None]],
    ) -> Undo:
        """Set what is given and delete (None)."""
        known, known_sessions = self.rows, self.sessions
        old_rows = {key: known.get(key) for key, _ in rows}
        old_sessions = {session: known_sessions.get(session) for session, _ in sessions}
        for key, row in rows:
            put_back(known, key, row)
        for session, blob in sessions:
            put_back(known_sessions, session, blob)
        self._keys = None
        return self._restore, (old_rows, old_sessions)

    def _restore(self, rows: dict[bytes, Row | None], sessions: dict[int, bytes | None]) -> None:
        self.change(list(rows.items()), list(sessions.items()))


@attrs.frozen
class Receipt:
    """A shard's row of the table ``receiving``: how far the transfer of a snapshot is."""

    applied: Applied  # what it brings, in the generation that it is received into
    transfer: bytes
    next_chunk: int
    count: int
    digest_sum: int
    complete: bool


@attrs.define(eq=False)
class Tables:
    """All that is in the file, and how often something was written to it."""

    applied: dict[int, Applied] = attrs.field(factory=dict)  # by shard
    receiving: dict[int, Receipt] = attrs.field(factory=dict)  # by shard
    listed: list[int] = attrs.field(factory=list)  # table generation, ascending
    generations: dict[int, Generation] = attrs.field(factory=dict)
    applied_damaged: set[int] = attrs.field(factory=set)  # shards
    orphans: dict[int, bytes] = attrs.field(factory=dict)  # by generation
    commits: int = 0
