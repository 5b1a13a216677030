"""The leases of one shard: what many keys share, and end with.

Every shard has a record of every lease of the cluster, with a deadline by its own clock
(kritad/gather.py tells all of them). So a write that ties a key to a lease needs to ask
nobody, and what ends is decided by the log of the shard that has the key. The price is a
small entry in each shard for every keepalive (docs/decisions.md).

A lease whose time is over is not alive, even while some of its keys wait for their end.
"""

from __future__ import annotations

from operator import attrgetter

import attrs

from krita.codec import decode, encode
from krita.errors import Busy
from krita.limits import LEASE_LIMIT
from kritad.state.deadlines import Deadlines
from kritad.state.notes import Notes

LEASES_MAX = 100_000  # in a shard: what memory they take is bounded


@attrs.frozen
class Lease:
    """How long it lasts when it is kept alive, and until when it does if it is not."""

    ttl_ms: int
    deadline_ms: int  # by the shard's clock


class Leases:
    """See the module's docstring."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._leases = {
            -number: Lease(*_fields(blob)) for number, blob in notes if -LEASE_LIMIT < number < 0
        }
        self._deadlines = Deadlines(self._leases, attrgetter("deadline_ms"))

    def __repr__(self) -> str:
        return f"<Leases {len(self._leases)}>"

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def next_ms(self) -> int:
        """None is over before it."""
        return self._deadlines.next_ms

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
        self._leases[lease] = Lease(ttl_ms, deadline_ms)
        self._deadlines.changed(lease)

    def over(self, clock_ms: int) -> int | None:
        """The next lease whose time is over. None: there is none."""
        return next(iter(self._deadlines.due(clock_ms, 1)), None)

    def end(self, lease: int) -> None:
        """Forget it: it has no keys any more."""
        del self._leases[lease]
        self._notes.remove(-lease)
        self._deadlines.changed(lease)


def _fields(blob: bytes) -> list[int]:
    """ttl_ms and deadline_ms; storage has checked that these are its bytes."""
    fields = decode(blob)
    assert isinstance(fields, list), "a lease's note is an array"
    return fields
