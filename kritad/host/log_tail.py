"""How much of a shard's log stays behind what is on the disk: for followers that lag.

``log_tail_bytes`` stay for those that lag a little. A follower that is heard from and needs
more pins the log up to ``_PIN_FACTOR`` times that, or up to as much as the state has: from
there on a snapshot is less to send, and below it whoever has just got one could never catch up
(raft.md B35: both extremes have hurt others).
"""

from __future__ import annotations

from kritad.buggify import buggify
from kritad.host.replica import Replica
from kritad.raft.types import Role

_PIN_FACTOR = 4


def pin_bytes_max(log_tail_bytes: int, state_bytes: int) -> int:
    """How much of a shard's log is kept for a follower that needs it."""
    return max(_PIN_FACTOR * log_tail_bytes, state_bytes)


def cut_index(replica: Replica, log_tail_bytes: int) -> int:
    """Where the tail that must stay begins, as far as bytes and followers are concerned; 0
    when the log is shorter than that."""
    if buggify("flush.no-tail"):
        return replica.state.index  # whoever lags needs a snapshot now
    tail = replica.marks.index_before_tail(log_tail_bytes)
    if replica.raft.role is not Role.LEADER:
        return tail
    matches = [p.match for p in replica.raft.progress.values() if p.recent_active]
    pinned = min([tail, *matches])
    pinned_bytes = pin_bytes_max(log_tail_bytes, replica.state.extent.bytes)
    floor = replica.marks.index_before_tail(pinned_bytes)
    return max(pinned, floor)
