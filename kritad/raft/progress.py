"""A follower (or learner) as its leader sees it.

::

    PROBE      not known where the logs agree: one Append at a time, then wait
      | accepted                                   for its answer or a heartbeat's
      v
    REPLICATE  known: `next` moves on when sending, a bounded window is in flight
      | refused, unreachable -> PROBE
      v
    SNAPSHOT   what it needs was compacted: nothing is sent until it has a
               snapshot, or until its transfer has failed -> PROBE

``match < next`` always. The replica itself has a Progress too (when it is a
member): its ``match`` is what its own disk has confirmed.

Sources: etcd raft's Progress (there ``tracker``); thesis 10.2.1 for pipelining.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping

import attrs

from kritad.raft.config import RaftConfig
from kritad.raft.ready import Fetch
from kritad.raft.types import Configuration


class ProgressState(enum.IntEnum):
    """See the module's docstring."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


@attrs.define
class Progress:
    """One member of the group; see the module's docstring."""

    replica: int
    next: int  # the first index not sent yet (REPLICATE), or the one to probe behind
    match: int = 0  # known to be durable there and equal to the leader's log
    state: ProgressState = ProgressState.PROBE
    # Heard from within the last one to two election timeouts.
    recent_active: bool = False
    heard: bool = False  # since the last check-quorum
    probe_sent: bool = False  # PROBE: wait, the one Append is on its way
    empty_due: bool = False  # send an Append even if there is nothing to send
    poke_due: bool = False  # the next heartbeat's answer shall cause such an Append
    match_noted: int = -1  # `match` at the last heartbeat
    append_sent: bool = False  # since the last tick that looked
    commit_sent: int = 0  # the highest commit index told
    read_sequence: int = 0  # the highest read counter echoed
    fetch: Fetch | None = None  # entries are being read from the disk
    inflight: deque[tuple[int, int]] = attrs.field(factory=deque)  # (last index, bytes)
    inflight_bytes: int = 0

    def window_full(self, config: RaftConfig) -> bool:
        """Whether nothing more may be sent before something is acknowledged."""
        return (
            len(self.inflight) >= config.inflight_messages_max
            or self.inflight_bytes >= config.inflight_bytes_max
        )

    def sent(self, last_index: int, bytes_sent: int) -> None:
        """Entries up to ``last_index`` are on their way."""
        self.next = last_index + 1
        self.inflight.append((last_index, bytes_sent))
        self.inflight_bytes += bytes_sent

    def note_match(self, index: int) -> bool:
        """The follower holds everything up to ``index``; whether that is news."""
        inflight = self.inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_bytes -= inflight.popleft()[1]
        if index <= self.match:
            return False
        self.match = index
        if self.next <= index:
            self.next = index + 1
        return True

    def become_probe(self, next_index: int) -> None:
        """Look for agreement from ``next_index`` down."""
        self._enter(ProgressState.PROBE)
        self.next = max(next_index, self.match + 1)

    def become_replicate(self) -> None:
        """Agreement is known; send behind it."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self) -> None:
        """Wait for a snapshot to arrive there."""
        self._enter(ProgressState.SNAPSHOT)

    def _enter(self, state: ProgressState) -> None:
        self.state = state
        self.probe_sent = self.empty_due = False
        self.fetch = None
        self.inflight.clear()
        self.inflight_bytes = 0


def track(
    progress: Mapping[int, Progress], configuration: Configuration, next_index: int
) -> dict[int, Progress]:
    """The progress of the members of ``configuration``, in the order of their ids.

    Who was followed already is followed on (a demotion resets nothing), who is
    new starts at ``next_index`` and counts as heard from, so that adding it
    cannot fail the next check-quorum.
    """
    return {
        replica: progress.get(replica)
        or Progress(replica, next_index, recent_active=True, heard=True)
        for replica in sorted(configuration.members)
    }
