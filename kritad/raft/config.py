"""The numbers a replica works by. Bytes are bytes of entry records."""

from __future__ import annotations

import attrs

KIB = 1024
MIB = 1024 * KIB


@attrs.frozen
class RaftConfig:
    """Handed in by the host; all replicas of a shard should have equal ones."""

    shard: int
    replica: int
    # A follower that hears nothing for [election_ticks, 2 * election_ticks)
    # campaigns; a leader that hears no majority for election_ticks steps down.
    election_ticks: int = 20
    heartbeat_ticks: int = 4
    # What one Append carries, at the most; always at least one entry.
    append_bytes_max: int = 256 * KIB
    # What may be on its way to one follower without having been acknowledged.
    inflight_bytes_max: int = 4 * MIB
    inflight_messages_max: int = 64
    # What a leader appends without its being committed, before it says BUSY.
    uncommitted_bytes_max: int = 8 * MIB
    # Entries kept in memory behind the applied index, for followers a bit late.
    window_bytes: int = 1 * MIB
    entry_bytes_max: int = 2 * MIB
    # How far behind the commit index a learner may be when it is made a voter.
    promotion_lag_max: int = 1000
    # Raise InvariantBroken out of the core instead of only poisoning the
    # replica. For tests: a poisoned replica is easily overlooked.
    strict: bool = False

    def __attrs_post_init__(self) -> None:
        assert self.replica > 0, "replica id 0 means nobody"
        assert 0 < self.heartbeat_ticks < self.election_ticks, "heartbeats must beat elections"
        assert self.inflight_messages_max > 0, "nothing could ever be sent"
