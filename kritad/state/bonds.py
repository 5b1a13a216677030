"""Which keys of a shard end by themselves: at a deadline, or with a lease.

Every write has to know at once whether something is due. So the deadlines up to a *horizon*,
about a minute ahead of the shard's clock, are in memory, and the keys of all leases. What
ends later is in its row and nowhere else: kept answers and older versions, the sessions of a
web site may be millions. An index of data.db tells it when the horizon moves on.

Rules:
* Deadlines are times of the shard's own clock, which only entries move, so what is due
  is the same on every replica (raft.md 6); they are part of the row and its digest.
* Up to the horizon all deadlines are known here, behind it none. Where it is differs from
  replica to replica: nothing is told to be due, or not to be, by a clock ahead of it.
* What is due goes in the order of (deadline, key), at most so many with one entry: an entry
  that ends a million keys would stop the node. What has to wait is absent all the same, for
  whoever looks at its row: ``UserKeys.is_over``.
"""

from __future__ import annotations

import heapq

from kritad.state.deadlines import NEVER_MS, Deadlines
from kritad.storage.places import stored_token
from kritad.storage.rows import Row, Stamp
from kritad.storage.table import Table

AHEAD_MS = 60_000


class Bonds:
    """See the module's docstring."""

    def __init__(self, table: Table | None = None) -> None:
        """Of the keys in ``table``, which has nothing in memory yet; None: there are none, and
        will be none but what is ``put``. Raises StoreFailed, Corrupt."""
        self._table = table
        self._horizon_ms = NEVER_MS if table is None else 0
        self._near: dict[bytes, int] = {}  # key to deadline, up to the horizon
        self._deadlines = Deadlines(self._near, int)
        self._by_lease: dict[int, set[bytes]] = {}
        # As a heap, of a lease with very many keys that was asked for the first of them; it
        # keeps those that the lease has lost since, and goes when the lease gets a key.
        self._heaps: dict[int, list[bytes]] = {}
        for key, lease in () if table is None else table.leased():
            self._by_lease.setdefault(lease, set()).add(key)

    def __repr__(self) -> str:
        return (
            f"<Bonds {len(self._near)} deadlines up to {self._horizon_ms},"
            f" {len(self._by_lease)} leases>"
        )

    @property
    def next_ms(self) -> int:
        """Nothing is due before it."""
        return min(self._deadlines.next_ms, self._horizon_ms + 1)

    def put(self, key: bytes, expires_ms: int, lease: int, before: Row | Stamp | None) -> None:
        """The key ends so from now on; with 0 and 0 it does not. ``before`` says how it was to
        end until now. ~1 µs."""
        if before is not None and before.lease:
            self._untie(key, before.lease)
        if lease:
            self._by_lease.setdefault(lease, set()).add(key)
            self._heaps.pop(lease, None)
        if 0 < expires_ms <= self._horizon_ms:
            self._near[key] = expires_ms
            self._deadlines.changed(key)
        elif self._near.pop(key, None) is not None:
            self._deadlines.changed(key)

    def is_due(self, clock_ms: int) -> bool:
        """Whether a deadline has passed by then. Raises StoreFailed, Corrupt."""
        while self._deadlines.next_ms > clock_ms > self._horizon_ms:
            self._look_ahead(clock_ms)
        return self._deadlines.next_ms <= clock_ms

    def due(self, clock_ms: int, limit: int) -> list[bytes]:
        """The next keys whose deadlines have passed. They stay here until their rows go.
        Raises StoreFailed, Corrupt."""
        while True:
            found = self._deadlines.due(clock_ms, limit)
            if len(found) == limit or clock_ms <= self._horizon_ms:
                return found
            self._look_ahead(clock_ms)

    def leased(self, lease: int, limit: int) -> list[bytes]:
        """The first keys that end with the lease, in order: 1 µs for each. Of more than
        ``limit`` a heap is made the first time, 0.1 µs for each that there is."""
        keys = self._by_lease.get(lease, set())
        if len(keys) <= limit:
            return sorted(keys)
        heap = self._heaps.get(lease)
        if heap is None:
            heap = self._heaps[lease] = list(keys)
            heapq.heapify(heap)
        found: list[bytes] = []
        while len(found) < limit:
            key = heapq.heappop(heap)
            if key in keys:
                found.append(key)
        for key in found:  # they stay until their rows go
            heapq.heappush(heap, key)
        return found

    def leased_count(self, lease: int) -> int:
        """How many keys end with the lease."""
        return len(self._by_lease.get(lease, ()))

    def cut(self, at: int, table: Table | None) -> Bonds:
        """Give away the keys at and behind the token ``at``, which are in ``table`` from now
        on. 1 µs for each that is in memory."""
        behind = Bonds()
        behind._table, behind._horizon_ms = table, self._horizon_ms
        for key in [key for key in self._near if stored_token(key) >= at]:
            behind._near[key] = self._near.pop(key)
        for lease, keys in list(self._by_lease.items()):
            theirs = {key for key in keys if stored_token(key) >= at}
            if theirs:
                behind._by_lease[lease] = theirs
            for key in theirs:
                self._untie(key, lease)
        for bonds in (self, behind):
            bonds._deadlines = Deadlines(bonds._near, int)
        return behind

    def _look_ahead(self, clock_ms: int) -> None:
        """Move the horizon on: past that clock, unless very much ends before."""
        assert self._table is not None, f"{self!r} knows all there are"
        found, horizon_ms = self._table.ending(self._horizon_ms, clock_ms + AHEAD_MS)
        assert horizon_ms > self._horizon_ms, (self, horizon_ms)
        self._horizon_ms = horizon_ms
        for expires_ms, key in found:
            self._near[key] = expires_ms
            self._deadlines.changed(key)

    def _untie(self, key: bytes, lease: int) -> None:
        # A flipped bit may have made another lease of it: whoever reads the row finds that.
        keys = self._by_lease.get(lease, set())
        keys.discard(key)
        if not keys:
            self._by_lease.pop(lease, None)
            self._heaps.pop(lease, None)
