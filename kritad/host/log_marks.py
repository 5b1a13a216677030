"""How long the applied log is, in bytes: what its compaction is measured with.

A mark every so many bytes is enough: a tail is kept that is at most that much too long.
"""

from __future__ import annotations

import attrs

from kritad.raft.types import Entry

_MARK_BYTES = 64 << 10


@attrs.define
class LogMarks:
    """How many bytes of log lie behind which index, to within ``_MARK_BYTES``."""

    total_bytes: int = 0
    _marks: list[tuple[int, int]] = attrs.field(factory=list)  # (index, total up to it)

    def count(self, entry: Entry) -> None:
        """An entry was applied."""
        self.total_bytes += len(entry.data) + 32
        if not self._marks or self.total_bytes - self._marks[-1][1] >= _MARK_BYTES:
            self._marks.append((entry.index, self.total_bytes))

    def index_before_tail(self, tail_bytes: int) -> int:
        """The highest marked index with at least ``tail_bytes`` of log behind
        it; 0: there is none."""
        limit = self.total_bytes - tail_bytes
        found = 0
        for index, total in self._marks:
            if total > limit:
                break
            found = index
        return found

    def forget_below(self, index: int) -> None:
        """The log was cut at ``index``."""
        self._marks = [mark for mark in self._marks if mark[0] >= index]
