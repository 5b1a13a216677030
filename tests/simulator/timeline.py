"""One key along its shard's log: which answers can be true together.

The key's known writes cut the log into reigns: from each write to the next the
key is as that write left it, unless a write of unknown outcome came between.
Each answer says something of a place in a reign, and a reign that cannot be
explained by its own write *needs* a write of unknown outcome in some range of
indexes. In the end the needs are counted against those writes that there are.

A write of unknown outcome has a first index at which it can have happened and
no last one. Hence, of needs sorted by their last index, the first n can be met
if n such writes can have happened by the last index of the n-th; no search is
needed. Part of ``witness.py``, which places the operations.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Protocol

import attrs

from tests.simulator.history import Fate, Kind, Operation

EVER = 1 << 62  # an index that no log reaches
# By name here: each look-up of an enum's member costs a tenth of a microsecond.
_GET, _PUT = Kind.GET, Kind.PUT
_OK, _FAILED, _UNKNOWN = Fate.OK, Fate.FAILED, Fate.UNKNOWN


class Complain(Protocol):
    def __call__(self, what: str, *operations: Operation | None) -> None: ...


@attrs.define(eq=False)
class _Reign:
    """What is known of the key from ``start`` until just before ``end``."""

    start: int
    writer: Operation | None  # None: before all writes. A nameless put: who saw it
    present: bool  # whether the writer left a value
    nameless: bool = False
    end: int = EVER
    seen_at: int = 0  # the last index at which the writer's value was surely there
    seen_by: Operation | None = None
    gone_at: int = EVER  # the first index at which the key was surely absent
    gone_last_at: int = 0  # and the last one
    gone_by: Operation | None = None


@attrs.frozen
class _Need:
    """A write of unknown outcome is needed at an index of at most ``until``."""

    until: int
    what: str
    operations: tuple[Operation | None, ...]
    revision: int = -1  # a delete: of the value of this revision


class Timeline:
    """All operations of one key, added one by one and then checked."""

    def __init__(self, key: bytes, complain: Complain) -> None:
        self._key = key
        self._complain = complain
        self._reigns = [_Reign(0, None, present=False)]
        self._starts: list[int] = []
        self._first_delete = self._first_put = EVER
        self._unseen: list[int] = []  # revisions of no known write that a delete asked for
        self._absent_starts: list[int] = []  # of those reigns that began with a delete
        self._reads: list[Operation] = []  # at an index
        self._ranges: list[tuple[Operation, int, int]] = []  # in [lower, upper]
        self._puts: list[tuple[int, Operation]] = []  # of unknown outcome, with first index
        self._deletes: list[int] = []  # of unknown outcome, their first indexes
        self._first_delete_of: dict[int, int] = {}  # of those with a condition, by revision
        self._needs_of_delete: list[_Need] = []
        self._needs_of_put: list[_Need] = []
        self._needs_of_any_put: list[_Need] = []

    def add(self, one: Operation, position: int, lower: int, upper: int) -> None:
        """``position`` 0: it is somewhere in [lower, upper], if at all."""
        if one.fate == _FAILED or (one.kind == _GET and one.fate == _UNKNOWN):
            return
        if one.kind != _GET and position:
            self._reigns.append(
                _Reign(position, one, present=one.kind == _PUT, seen_at=position, seen_by=one)
            )
        elif position:
            self._reads.append(one)
        elif one.wrote:
            return  # it has no place, which was complained about
        elif one.fate == _OK:
            self._ranges.append((one, lower, upper))
        elif one.kind == _PUT:
            self._puts.append((lower, one))
        elif one.if_revision is None:
            self._deletes.append(lower)
        elif one.if_revision:  # else it deletes only what is absent
            first = self._first_delete_of.get(one.if_revision, EVER)
            self._first_delete_of[one.if_revision] = min(first, lower)

    def add_nameless(self, revision: int, seen_by: Operation) -> None:
        """Some put took effect at ``revision``: ``seen_by`` found it there."""
        self._reigns.append(
            _Reign(revision, seen_by, present=True, nameless=True, seen_at=revision)
        )

    def check(self) -> None:
        """Complain about all that cannot be. To be called once."""
        self._reigns.sort(key=lambda reign: reign.start)
        for reign, successor in zip(self._reigns, self._reigns[1:], strict=False):
            reign.end = successor.start
        self._starts = [reign.start for reign in self._reigns]
        self._deletes.sort()
        self._first_delete = self._deletes[0] if self._deletes else EVER
        self._first_put = min((at for at, _ in self._puts), default=EVER)
        self._unseen = sorted(self._first_delete_of.keys() - self._starts)
        self._absent_starts = [reign.start for reign in self._reigns if not reign.present]
        for read in self._reads:
            self._check_read(read)
        for before, reign in zip(self._reigns, self._reigns[1:], strict=False):
            if reign.nameless:
                self._check_nameless(reign, before)
            else:
                self._check_before(reign, before)
        for one, lower, upper in self._ranges:
            self._check_range(one, lower, upper)
        for reign in self._reigns:
            if reign.present and reign.gone_at < EVER:
                self._check_gone(reign)
        self._count_puts()
        self._count_deletes()

    def _reign_at(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1

    def _check_read(self, read: Operation) -> None:
        """A read sees the newest write up to its index."""
        reign = self._reigns[self._reign_at(read.index)]
        if read.value is None:
            if reign.present and read.index < reign.gone_at:
                reign.gone_at, reign.gone_by = read.index, read
            reign.gone_last_at = max(reign.gone_last_at, read.index)
        elif read.revision and (read.revision != reign.start or not reign.present):
            self._complain(
                f"read revision {read.revision} at index {read.index}, where it had been "
                f"overwritten at {reign.start}",
                reign.writer,
                read,
            )
        elif read.revision and read.index > reign.seen_at:
            reign.seen_at, reign.seen_by = read.index, read

    def _check_before(self, reign: _Reign, before: _Reign) -> None:
        """What the writer of ``reign`` found agrees with the reign before."""
        one = reign.writer
        assert one is not None
        condition, existed = one.if_revision, one.existed
        if condition is not None and existed is not None and existed != (condition > 0):
            self._complain("the condition held, yet the answer says otherwise", one)
        elif condition:
            if before.start != condition or not before.present or before.gone_at < EVER:
                self._complain(
                    f"took effect, although the key was not at revision {condition} "
                    f"just before index {reign.start}",
                    before.gone_by or before.writer,
                    one,
                )
        elif existed is False or condition == 0:
            if before.present and before.gone_at == EVER:
                before.gone_at, before.gone_by = reign.start - 1, one
        elif existed and (not before.present or before.gone_at < EVER):
            since = max(before.start, before.gone_last_at)
            what = f"existed just before index {reign.start}, and nobody can have put it"
            self._need_put(since, _Need(reign.start - 1, what, (before.gone_by, one)))

    def _check_nameless(self, reign: _Reign, before: _Reign) -> None:
        """Some put of unknown outcome can have begun ``reign``."""
        what = f"nobody can have put the value of revision {reign.start}"
        conditions = {one.if_revision for at, one in self._puts if at <= reign.start}
        present = before.present and before.gone_at == EVER
        if None in conditions or (present and before.start in conditions):
            pass
        elif 0 in conditions and (not present or self._may_vanish(before, reign.start - 1)):
            if present:
                before.gone_at, before.gone_by = reign.start - 1, reign.writer
        else:
            self._complain(what, before.writer, reign.writer)
            return
        self._needs_of_any_put.append(_Need(reign.start, what, (reign.writer,)))

    def _may_vanish(self, reign: _Reign, until: int) -> bool:
        """Whether its value may have been deleted by that index, behind all who saw it."""
        first = min(self._first_delete, self._first_delete_of.get(reign.start, EVER))
        return reign.seen_at < until and (first <= until or self._replaced(reign.start, until))

    def _replaced(self, start: int, until: int) -> bool:
        """Whether a put that nobody saw may have come first, and then a delete on
        condition of just that revision: one that is none of the known writes'."""
        first, last = bisect_right(self._unseen, start), bisect_left(self._unseen, until)
        return any(
            self._first_delete_of[revision] <= until and self._first_put <= revision
            for revision in self._unseen[first:last]
        )

    def _need_put(self, since: int, need: _Need) -> None:
        """Somewhere behind ``since``."""
        if since < need.until:
            self._needs_of_put.append(need)
        else:
            self._complain(f"{need.what}: no index is left for it", *need.operations)

    def _check_range(self, one: Operation, lower: int, upper: int) -> None:
        """Some place in [lower, upper] agrees with the answer."""
        seen = one.revision if one.refused is None else one.refused
        if one.kind != _GET:  # a refusal is an entry of its own, and saw the state before it
            lower, upper = lower - 1, upper - 1
        if lower > upper:
            return  # what was invoked later has been complained about
        if seen:
            self._check_seen(one, seen, lower, upper)
        elif one.kind != _GET or one.value is None:
            self._check_absent(one, lower, upper)

    def _check_seen(self, one: Operation, seen: int, lower: int, upper: int) -> None:
        """The key was at revision ``seen`` somewhere in [lower, upper]."""
        reign = self._reigns[self._reign_at(seen)]
        if reign.start != seen:
            return  # there is no such revision, and that was said
        last = min(reign.end, reign.gone_at) - 1
        if seen > upper:
            what = f"saw revision {seen}, of a write invoked later than index {upper} was read"
            self._complain(what, reign.writer, one)
        elif lower > last:
            self._complain(
                f"saw revision {seen} at index {lower} or later, although it was overwritten "
                f"or gone at {last + 1}",
                reign.gone_by or self._writer_at(reign.end),
                one,
            )

    def _writer_at(self, start: int) -> Operation | None:
        at = bisect_left(self._starts, start)
        return self._reigns[at].writer if at < len(self._reigns) else None

    def _check_absent(self, one: Operation, lower: int, upper: int) -> None:
        """The key was absent somewhere in [lower, upper]."""
        first, last = self._reign_at(lower), self._reign_at(upper)
        if last < first:
            return  # an empty range: somebody else's answer is wrong
        starts = self._absent_starts
        after = bisect_left(starts, self._reigns[first].start)
        if after < len(starts) and starts[after] <= upper:
            return
        if first == last:
            reign = self._reigns[first]
            until = min(upper, reign.end - 1)
            if until < reign.gone_at:
                reign.gone_at, reign.gone_by = until, one
        elif not any(
            reign.gone_at < EVER or self._may_vanish(reign, min(upper, reign.end - 1))
            for reign in self._reigns[first : last + 1]
        ):
            self._complain(
                "absent, although it was there all the time and nobody can have deleted it",
                self._reigns[first].writer,
                one,
            )

    def _check_gone(self, reign: _Reign) -> None:
        """A value that went away before the next write needs a delete."""
        about = (reign.writer, reign.seen_by, reign.gone_by)
        if reign.gone_at <= reign.seen_at:
            self._complain(
                f"revision {reign.start} was gone by index {reign.gone_at}, and yet it was "
                f"there at {reign.seen_at}",
                *dict.fromkeys(about),
            )
            return
        by = f"by index {reign.gone_at}" if reign.gone_at < EVER - 1 else "in the end"
        what = f"revision {reign.start} was gone {by}, and nobody can have deleted it"
        need = _Need(reign.gone_at, what, (reign.writer, reign.gone_by), reign.start)
        self._needs_of_delete.append(need)

    def _count_deletes(self) -> None:
        # A delete on condition of a revision can meet no other need: it is used first.
        needs = [
            need
            for need in self._needs_of_delete
            if self._first_delete_of.get(need.revision, EVER) > need.until
            and not self._replaced(need.revision, need.until)
        ]
        self._count(needs, self._deletes)

    def _count_puts(self) -> None:
        every = sorted(at for at, _ in self._puts)
        onto_absent = sorted(at for at, one in self._puts if not one.if_revision)
        if self._count(self._needs_of_put, onto_absent):
            self._count(self._needs_of_put + self._needs_of_any_put, every)

    def _count(self, needs: Sequence[_Need], firsts: Sequence[int]) -> bool:
        """Whether all needs can be met. ``firsts``: the first index of each write
        that may meet one, sorted."""
        met = 0
        for need in sorted(needs, key=lambda need: need.until):
            if bisect_right(firsts, need.until) > met:
                met += 1
            else:
                self._complain(need.what, *need.operations)
        return met == len(needs)
