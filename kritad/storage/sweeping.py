"""What of data.db nobody uses any more, and how it goes away: in slices, a little at a time.

Of a generation that no shard names, everything goes. Where two shards share the rows of
one generation (a split leaves them where they are), and one of them moves on or is
dropped, its rows go, and those of the other stay: they are told apart by the arcs.

Rules:
* A row that the arc of a user contains is never touched. Arcs only shrink, so a row that
  no user's arc contains now is in nobody's arc later either.
* Whoever makes the users of a generation cover less of the ring writes down, in the
  same transaction, that it is to be gone over (table ``orphans``), from its first key on.
  Each slice writes down how far it came. So a crash loses nothing, and repeats a slice.
* As long as nothing is shared, that costs the comparison of a few numbers per flush.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol

import attrs

from kritad.storage.extent import Arc
from kritad.storage.places import stored_token
from kritad.storage.rows import Applied

# Of values in one slice: SQLite goes over all the pages of what it deletes, 4 ms a MiB, and
# flushes wait for it. A thousand rows of a MiB in one piece took four seconds.
SLICE_BYTES = 16 << 20

What = Literal["kv", "sessions"]


class Store(Protocol):
    """The tables, inside a transaction."""

    def listed(self) -> list[int]:
        """Every generation that there is, ascending."""

    def unlist(self, generation: int) -> None:
        """There is nothing left of it."""

    def delete_some(self, what: What, generation: int, limit: int) -> int:
        """Delete up to so many rows or sessions of a generation, of rows what can be deleted
        ``at_once``; how many it was."""

    def keys_behind(self, generation: int, after: bytes, limit: int) -> list[bytes]:
        """The next keys of a generation, in order."""

    def delete_keys(self, generation: int, keys: Sequence[bytes]) -> int:
        """Delete the first of these rows, what can be deleted ``at_once``; how many it was."""

    def note_orphans(self, generation: int, after: bytes | None) -> None:
        """Write down how far a generation with orphans was gone over; None: to its end."""


@attrs.frozen
class Uses:
    """Who uses what."""

    rows: Mapping[int, list[Arc]]  # generation -> the arcs of those whose rows are in it
    sessions: frozenset[int]

    @classmethod
    def of(cls, users: Iterable[Applied], held: Collection[int] = ()) -> Uses:
        """``held``: generations of which nothing may go yet."""
        rows: dict[int, list[Arc]] = {generation: [] for generation in held}
        sessions = set(held)
        for applied in users:
            rows.setdefault(applied.rows, []).append(applied.arc)
            sessions.add(applied.generation)
        return cls(rows, frozenset(sessions))

    def covered(self, generation: int) -> int:
        """How much of the ring the users of its rows have; no two have the same token."""
        return sum(hi - lo for lo, hi in self.rows.get(generation, ()))


def left_behind(before: Iterable[Applied], after: Iterable[Applied]) -> list[int]:
    """The generations some of whose rows have lost their users, and others not."""
    were, are = Uses.of(before), Uses.of(after)
    return [g for g in sorted(are.rows) if are.covered(g) < were.covered(g)]


def sweep_slice(store: Store, uses: Uses, orphans: Mapping[int, bytes], limit: int) -> int:
    """Delete at most ``limit`` rows that nothing refers to. Returns how many rows were
    deleted or gone over; 0 when there is nothing left to do.

    ``orphans``: as noted, generation to the last key that was gone over.
    """
    listed = store.listed()
    for generation in listed:
        unused = generation not in uses.rows
        deleted = store.delete_some("kv", generation, limit) if unused else 0
        if generation not in uses.sessions:
            deleted += store.delete_some("sessions", generation, limit - deleted)
            # The newest stays listed, so that no number is given twice.
            if unused and not deleted and generation != listed[-1]:
                store.unlist(generation)
        if deleted:
            return deleted
    for generation, after in sorted(orphans.items()):
        looked_at = _sweep_orphans(store, generation, after, uses.rows.get(generation, []), limit)
        if looked_at:
            return looked_at
    return 0


def _sweep_orphans(store: Store, generation: int, after: bytes, arcs: list[Arc], limit: int) -> int:
    keys = store.keys_behind(generation, after, limit) if arcs else []
    gone = []
    for key in keys:
        at = stored_token(key)
        if not any(lo <= at < hi for lo, hi in arcs):
            gone.append(key)
    deleted = store.delete_keys(generation, gone)
    if deleted < len(gone):
        store.note_orphans(generation, gone[deleted - 1])
        return deleted
    store.note_orphans(generation, keys[-1] if keys else None)
    return len(keys)


def at_once(sizes: Iterable[int]) -> int:
    """How many rows, the first of those whose values have these sizes, one slice deletes: at
    least one, if there is one."""
    count = bytes_before = 0
    for size in sizes:
        if bytes_before >= SLICE_BYTES:
            break
        count += 1
        bytes_before += size
    return count
