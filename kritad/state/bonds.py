"""Which keys of a shard end by themselves: at a deadline, or with a lease.

All in memory, because every write has to know at once whether something is due: two
dict entries and one of a heap for each such key, about 300 bytes. Rebuilt from
data.db's small indexes when the shard is opened (Table.bonds).

Rules:
* Deadlines are times of the shard's own clock, which only entries move, so what is due
  is the same on every replica (raft.md 6); they are part of the row and its digest.
* What is due goes in the order of (deadline, key), at most so many with one entry: an entry
  that ends a million keys would stop the node. What has to wait is absent all the same,
  for whoever asks: see ``is_over``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from operator import attrgetter

from kritad.state.deadlines import Deadlines
from kritad.storage.places import stored_token
from kritad.storage.rows import Bond


class Bonds:
    """See the module's docstring. ``by_key`` is for reading: whether it is empty is asked by
    every write."""

    def __init__(self, bonds: Iterable[Bond] = ()) -> None:
        self.by_key = {bond.key: bond for bond in bonds}
        self._deadlines = Deadlines(self.by_key, attrgetter("expires_ms"))
        self._by_lease: dict[int, set[bytes]] = {}
        # As a heap, of a lease with very many keys that was asked for the first of them; it
        # keeps those that the lease has lost since, and goes when the lease gets a key.
        self._heaps: dict[int, list[bytes]] = {}
        for bond in self.by_key.values():
            if bond.lease:
                self._by_lease.setdefault(bond.lease, set()).add(bond.key)

    def __repr__(self) -> str:
        return f"<Bonds {len(self.by_key)} keys, {len(self._by_lease)} leases>"

    @property
    def next_ms(self) -> int:
        """Nothing is due before it."""
        return self._deadlines.next_ms

    def of(self, key: bytes) -> tuple[int, int]:
        """The key's deadline and lease; 0 for none."""
        bond = self.by_key.get(key)
        return (0, 0) if bond is None else (bond.expires_ms, bond.lease)

    def is_over(self, key: bytes, clock_ms: int) -> bool:
        """Whether the key's deadline has passed: it is absent, though its row is there."""
        bond = self.by_key.get(key)
        return bond is not None and 0 < bond.expires_ms <= clock_ms

    def put(self, key: bytes, expires_ms: int, lease: int) -> None:
        """The key ends so from now on; with 0 and 0 it does not. ~1 µs."""
        before = self.by_key.get(key)
        if before is not None:
            self._forget(before)
        if expires_ms or lease:
            self.by_key[key] = Bond(key, expires_ms, lease)
        if lease:
            self._by_lease.setdefault(lease, set()).add(key)
            self._heaps.pop(lease, None)
        self._deadlines.changed(key)

    def due(self, clock_ms: int, limit: int) -> list[bytes]:
        """The next keys whose deadlines have passed. They stay here until their rows go."""
        return self._deadlines.due(clock_ms, limit)

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

    def cut(self, at: int) -> Bonds:
        """Give away the keys at and behind the token ``at``. 1 µs for each there is."""
        behind = [bond for bond in self.by_key.values() if stored_token(bond.key) >= at]
        kept = [bond for bond in self.by_key.values() if stored_token(bond.key) < at]
        self.__init__(kept)  # type: ignore[misc]
        return Bonds(behind)

    def _forget(self, bond: Bond) -> None:
        del self.by_key[bond.key]
        if bond.lease:
            keys = self._by_lease[bond.lease]
            keys.discard(bond.key)
            if not keys:
                del self._by_lease[bond.lease]
                self._heaps.pop(bond.lease, None)
