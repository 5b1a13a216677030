"""The log of one replica: a window of entries in memory, terms of all the rest.

::

    snapshot.index   first_held      applied  handed   commit        last_index
         |  on disk only | in memory    |        |        |               |
    -----+---------------+--------------+--------+--------+---------------+

Rules:
* ``snapshot.index <= applied <= handed <= commit <= last_index`` (while a just
  installed snapshot is not durable, ``applied`` lags behind it).
* Nothing at or below ``commit`` is ever truncated.
* Everything behind ``applied`` is in memory, and about ``window_bytes`` before
  it; older entries are the storage's (``Ready.fetches``). The *term* of every
  entry behind the snapshot is known without the disk, as runs of equal terms.
* ``configurations`` holds every conf entry of the log, the snapshot's first.
  The last one is in force, committed or not (thesis 4.1, raft.md B20); a
  truncation takes its conf entries along, which is the whole rollback.
* Sizes are counted as running sums (``_ends``), never as counters that are
  raised here and lowered there: those leak (raft.md B36).

What of the log is durable is the ledger's business (ledger.py); here is only
what the next save must carry: ``unsaved``, ``truncate_from``, ``snapshot_unsaved``.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from operator import itemgetter

from kritad.raft.configuration import decode_configuration
from kritad.raft.errors import InvariantBroken
from kritad.raft.records import HEADER_BYTES
from kritad.raft.types import Boot, Configuration, Entry, EntryKind, SnapshotMeta

UNKNOWN_TERM = -1  # what term() says of places before the snapshot and behind the end

_CONF = EntryKind.CONF
_first_index = itemgetter(0)


class Log:
    """See the module's docstring.

    Raises ValueError for a ``boot`` that contradicts itself: a log that lost
    entries must not be voted with.
    """

    __slots__ = (
        "_base",
        "_ends",
        "_entries",
        "_runs",
        "_window_bytes",
        "applied",
        "bytes_commit",
        "bytes_last",
        "commit",
        "configurations",
        "first_held",
        "handed",
        "last_index",
        "last_term",
        "snapshot",
        "snapshot_unsaved",
        "truncate_from",
        "unsaved",
    )

    def __init__(self, boot: Boot, window_bytes: int) -> None:
        _check_boot(boot)
        self._window_bytes = window_bytes
        self.snapshot = boot.snapshot
        self.last_index = boot.last_index
        self.commit = max(boot.hard_state.commit, boot.applied_index)
        self.applied = self.handed = boot.applied_index
        self._runs: list[tuple[int, int]] = list(boot.terms)  # (first index, term)
        self.last_term = self._runs[-1][1] if self._runs else boot.snapshot.term
        self.configurations: list[tuple[int, Configuration]] = [
            (boot.snapshot.index, boot.snapshot.configuration),
            *boot.configurations,
        ]
        self._entries: list[Entry] = list(boot.entries)
        self.first_held = boot.last_index + 1 - len(boot.entries)
        # _ends[i] = bytes of all entries up to _entries[i]; _base = those before _entries[0].
        self._base = 0
        self._ends: list[int] = []
        self.bytes_last = 0
        for entry in self._entries:
            self.bytes_last += len(entry.data) + HEADER_BYTES
            self._ends.append(self.bytes_last)
        self.bytes_commit = self._end_of(self.commit)
        self.unsaved = self.last_index + 1  # the first index no save has carried yet
        self.truncate_from = 0  # 0: nothing that a save has carried was truncated
        self.snapshot_unsaved: SnapshotMeta | None = None

    def __repr__(self) -> str:
        return (
            f"<Log {self.snapshot.index}<{self.first_held} applied={self.applied} "
            f"commit={self.commit} last={self.last_index}@{self.last_term}>"
        )

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self.configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """Where the configuration in force stands (or the snapshot's index)."""
        return self.configurations[-1][0]

    @property
    def uncommitted_bytes(self) -> int:
        """Bytes of the entries behind ``commit``."""
        return self.bytes_last - self.bytes_commit

    def term(self, index: int) -> int:
        """The term at ``index``, or UNKNOWN_TERM. ~0.2 µs in memory."""
        position = index - self.first_held
        if position >= 0:
            return self._entries[position].term if index <= self.last_index else UNKNOWN_TERM
        if index == self.snapshot.index:
            return self.snapshot.term
        if index < self.snapshot.index:
            return UNKNOWN_TERM
        return self._runs[bisect_right(self._runs, index, key=_first_index) - 1][1]

    def terms_agree(self) -> bool:
        """Whether the runs of terms ascend and say of the entries in memory what these
        say themselves. For checks: 0.1 µs for each of them."""
        runs = [(self.snapshot.index, self.snapshot.term), *self._runs]
        if any(
            earlier[0] >= later[0] or earlier[1] > later[1] for earlier, later in pairwise(runs)
        ):
            return False
        ends = [first for first, _ in runs[1:]] + [self.last_index + 1]
        for (first, term), end in zip(runs, ends, strict=True):
            start = max(first, self.first_held)
            if start < end and any(e.term != term for e in self.held(start, end - 1)):
                return False
        return True

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up to date as this (thesis 3.6.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def guess(self, index: int, term: int) -> int:
        """The largest place up to ``index`` whose term is at most ``term``.

        Both ends of a refused Append use it to skip whole terms (thesis 3.5):
        whatever lies between it and ``index`` cannot agree with the other log.
        """
        index = min(index, self.last_index)
        position = bisect_right(self._runs, index, key=_first_index) - 1
        while position >= 0:
            first, run_term = self._runs[position]
            if run_term <= term:
                return index
            index = first - 1
            position -= 1
        return index

    def batch(self, first: int, bytes_max: int) -> list[Entry]:
        """Entries from ``first`` (in memory) on: at least one, else ``bytes_max`` at most."""
        start = first - self.first_held
        if self.bytes_last - (before := self._end_of(first - 1)) <= bytes_max:
            return self._entries[start:]
        end = bisect_right(self._ends, before + bytes_max, start)
        return self._entries[start : max(end, start + 1)]

    def held(self, first: int, last: int) -> list[Entry]:
        """Entries ``first`` to ``last``, both in memory."""
        return self._entries[first - self.first_held : last + 1 - self.first_held]

    def append(self, entries: list[Entry]) -> bool:
        """Adds entries that follow ``last_index``; whether a conf entry was among them."""
        conf_before = len(self.configurations)
        end = self.bytes_last
        # A term goes on behind a snapshot without having a run there yet.
        term = self.last_term if self._runs else UNKNOWN_TERM
        add_end = self._ends.append
        for entry in entries:
            end += len(entry.data) + HEADER_BYTES
            add_end(end)
            if entry.term != term:
                term = entry.term
                self._runs.append((entry.index, term))
            if entry.kind is _CONF:
                self.configurations.append((entry.index, _configuration_of(entry)))
        self._entries += entries
        self.bytes_last = end
        self.last_term = self._runs[-1][1] if self._runs else self.last_term
        self.last_index += len(entries)
        return len(self.configurations) > conf_before

    def truncate(self, index: int) -> bool:
        """Drops everything from ``index`` on; whether a conf entry went along."""
        if index <= self.commit:
            raise InvariantBroken(f"truncation at {index}, committed up to {self.commit}")
        position = index - self.first_held
        del self._entries[position:]
        del self._ends[position:]
        self.bytes_last = self._end_of(index - 1)
        self.last_index = index - 1
        while self._runs and self._runs[-1][0] >= index:
            self._runs.pop()
        self.last_term = self._runs[-1][1] if self._runs else self.snapshot.term
        if index < self.unsaved:
            self.truncate_from = self.unsaved = index
        conf_before = len(self.configurations)
        while self.configuration_index >= index:
            self.configurations.pop()
        return len(self.configurations) < conf_before

    def restart(self, snapshot: SnapshotMeta) -> None:
        """Drops everything; the log begins anew behind an installed snapshot."""
        if snapshot.index <= self.commit:
            raise InvariantBroken(f"snapshot at {snapshot.index}, committed up to {self.commit}")
        self.snapshot = self.snapshot_unsaved = snapshot
        self.configurations = [(snapshot.index, snapshot.configuration)]
        self._entries, self._ends, self._runs = [], [], []
        self._base = self.bytes_commit = self.bytes_last
        self.last_index = self.commit = self.handed = snapshot.index
        self.last_term = snapshot.term
        self.first_held = self.unsaved = snapshot.index + 1
        self.truncate_from = 0

    def commit_to(self, index: int) -> None:
        """Raises the commit index; never lowers it."""
        if index > self.last_index:
            raise InvariantBroken(f"commit index {index}, the log ends at {self.last_index}")
        if index > self.commit:
            self.commit = index
            self.bytes_commit = self._end_of(index)

    def applied_to(self, index: int) -> None:
        """Raises the applied index; drops what leaves the window, a quarter at a time.

        An index not above the present one is an old answer and ignored (raft.md B31).
        """
        if index > self.handed:
            raise InvariantBroken(f"applied {index}, handed out up to {self.handed}")
        if index <= self.applied:
            return
        self.applied = index
        if index < self.first_held:
            return  # applied before the log began anew behind a snapshot
        end = self._end_of(index)
        if end - self._base > self._window_bytes + self._window_bytes // 4:
            self._drop(bisect_right(self._ends, end - self._window_bytes))

    def snapshot_at(self, index: int) -> SnapshotMeta:
        """The description of a snapshot at ``index`` (applied, behind the present one).

        Its configuration is the one in force *there*, not now (raft.md B21).
        """
        if not self.snapshot.index <= index <= self.applied:
            raise InvariantBroken(
                f"snapshot at {index}, not between {self.snapshot.index} and {self.applied}"
            )
        position = bisect_right(self.configurations, index, key=_first_index) - 1
        return SnapshotMeta(index, self.term(index), self.configurations[position][1])

    def compact(self, index: int) -> None:
        """Forgets everything up to ``index``, which the storage has cut off."""
        if index <= self.snapshot.index:
            return
        snapshot = self.snapshot_at(index)
        if index >= self.first_held:
            self._drop(index + 1 - self.first_held)
        self._runs = self._runs[bisect_right(self._runs, index, key=_first_index) - 1 :]
        if index == self.last_index:
            self._runs.clear()
        elif self._runs[0][0] <= index:
            self._runs[0] = (index + 1, self._runs[0][1])
            if len(self._runs) > 1 and self._runs[1][0] == index + 1:
                del self._runs[0]
        position = bisect_right(self.configurations, index, key=_first_index) - 1
        self.configurations[: position + 1] = [(index, snapshot.configuration)]
        self.snapshot = snapshot

    def _drop(self, count: int) -> None:
        """Takes the first ``count`` entries out of memory."""
        if count > 0:
            self._base = self._ends[count - 1]
            del self._entries[:count]
            del self._ends[:count]
            self.first_held += count

    def _end_of(self, index: int) -> int:
        """Bytes up to ``index``, which is in memory or right before it."""
        position = index - self.first_held
        return self._ends[position] if position >= 0 else self._base


def _configuration_of(entry: Entry) -> Configuration:
    try:
        return decode_configuration(entry.data)
    except ValueError as error:
        raise InvariantBroken(f"conf entry {entry.index}@{entry.term}: {error}") from error


def _check_boot(boot: Boot) -> None:
    """Raises ValueError when the disk's story cannot be true."""
    applied, last = boot.applied_index, boot.last_index
    if not boot.snapshot.index <= applied <= last:
        raise ValueError(
            f"snapshot {boot.snapshot.index}, applied {applied} and last index {last} are not "
            "in this order: entries or state were lost"
        )
    if boot.hard_state.commit > last:
        raise ValueError(f"commit index {boot.hard_state.commit}, but the log ends at {last}")
    first = last + 1 - len(boot.entries)
    if [entry.index for entry in boot.entries] != list(range(first, last + 1)):
        raise ValueError("the entries are not contiguous up to the last index")
    if first > applied + 1:
        raise ValueError(f"applied {applied}, but the entries begin at {first}")
    if bool(boot.terms) != (last > boot.snapshot.index):
        raise ValueError("the terms do not cover the log")
