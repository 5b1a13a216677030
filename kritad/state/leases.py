"""The leases of one shard: what many keys share, and end with.

Every shard has a record of every lease of the cluster, with a deadline by its own clock
(kritad/gather.py tells all of them). So a write that ties a key to a lease needs to ask
nobody, and what ends is decided by the log of the shard that has the key. The price is a
small entry in each shard for every keepalive (docs/decisions.md).

A lease whose time is over is not alive, even while some of its keys wait for their end.
"""

from __future__ import annotations

import heapq

import attrs

from krita.codec import decode, encode
from krita.errors import Busy
from krita.limits import LEASE_LIMIT
from kritad.state.bonds import NEVER_MS
from kritad.state.notes import Notes

LEASES_MAX = 100_000  # in a shard: what memory they take is bounded
_STALE_MAX = 1_000  # deadlines that are not so any more, besides as many as there are leases


@attrs.frozen
class Lease:
    """How long it lasts when it is kept alive, and until when it does if it is not."""

    ttl_ms: int
    deadline_ms: int  # by the shard's clock


class Leases:
    """See the module's docstring. ``next_ms``: none is over before it."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._leases: dict[int, Lease] = {}
        self._heap: list[tuple[int, int]] = []
        self.next_ms = NEVER_MS
        for number, blob in notes:
            if -LEASE_LIMIT < number < 0:
                self._keep(-number, Lease(*_fields(blob)))

    def __repr__(self) -> str:
        return f"<Leases {len(self._leases)}>"

    def __len__(self) -> int:
        return len(self._leases)

    def get(self, lease: int) -> Lease | None:
        """What is known of it; of one that is over, too, as long as it has keys."""
        return self._leases.get(lease)

    def is_alive(self, lease: int, clock_ms: int) -> bool:
        """Whether keys may be tied to it."""
        known = self._leases.get(lease)
        return known is not None and known.deadline_ms > clock_ms

    def put(self, lease: int, ttl_ms: int, deadline_ms: int) -> None:
        """Grant it, or let it last until then. Raises Busy."""
        if lease not in self._leases and len(self._leases) >= LEASES_MAX:
            raise Busy(f"there are {LEASES_MAX} leases already", hint="let several keys share one")
        self._notes.put(-lease, encode([ttl_ms, deadline_ms]))
        self._keep(lease, Lease(ttl_ms, deadline_ms))

    def over(self, clock_ms: int) -> int | None:
        """The next lease whose time is over. None: there is none."""
        return self._heap[0][1] if self.next_ms <= clock_ms else None

    def end(self, lease: int) -> None:
        """Forget it: it has no keys any more."""
        del self._leases[lease]
        self._notes.remove(-lease)
        self._settle()

    def _keep(self, lease: int, known: Lease) -> None:
        self._leases[lease] = known
        heapq.heappush(self._heap, (known.deadline_ms, lease))
        if len(self._heap) > 2 * len(self._leases) + _STALE_MAX:
            # Each keepalive has left one behind.
            self._heap = [(each.deadline_ms, number) for number, each in self._leases.items()]
            heapq.heapify(self._heap)
        self._settle()

    def _settle(self) -> None:
        heap = self._heap
        while heap:
            deadline_ms, lease = heap[0]
            known = self._leases.get(lease)
            if known is not None and known.deadline_ms == deadline_ms:
                self.next_ms = deadline_ms
                return
            heapq.heappop(heap)
        self.next_ms = NEVER_MS


def _fields(blob: bytes) -> list[int]:
    """ttl_ms and deadline_ms; storage has checked that these are its bytes."""
    fields = decode(blob)
    assert isinstance(fields, list), "a lease's note is an array"
    return fields
