"""Letting time pass in shards in which nothing else happens.

A shard's clock moves with its log, so a key without anybody who writes would never end.
Whoever leads looks at the time (stamps.py), and proposes an EXPIRE when something is due:
the entry's stamp moves the shard's clock, and applying it ends what is due then. If the
leader changes meanwhile, the next one does the same: a deadline is a time, not a timer.

One such entry at a time in each shard, and as many in a row as it takes. None while the disk
is nearly full: what is deleted goes through the WAL, up to a thousand keys with one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from krita.codec import encode_body
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.buggify import buggify
from kritad.host.clock import Clock
from kritad.host.replica import Replica
from kritad.raft.errors import ProposalRefused
from kritad.state.command import pack_command
from kritad.state.machine import ShardState
from kritad.storage.errors import StorageError


class Reaper:
    """See the module's docstring."""

    def __init__(self, clock: Clock, mark: Callable[[Replica], None]) -> None:
        self._clock = clock
        self._mark = mark
        self.disk_nearly_full = False
        self._proposed: dict[int, tuple[int, int]] = {}  # shard -> (term, index) of its newest

    def step(self, replicas: Iterable[Replica]) -> None:
        """Propose what is due. ~1 µs for a replica that has nothing to end."""
        if self.disk_nearly_full:
            return
        for replica in replicas:
            if not replica.leads or replica.shard == META_SHARD:
                continue
            now_ms, state = replica.stamp_ms(self._clock), replica.state
            reached_ms = max(now_ms, state.clock_ms)
            if state.keys.due_ms <= reached_ms and _is_due(state, reached_ms):
                self._propose(replica, now_ms)

    def _propose(self, replica: Replica, now_ms: int) -> None:
        term, index = self._proposed.get(replica.shard, (0, 0))
        if term == replica.raft.term and index > replica.state.index:
            return  # it is under way
        if buggify("expiry.late"):
            return
        body = encode_body(Op.EXPIRE, replica.shard)
        try:
            index, term = replica.raft.propose(pack_command(now_ms, Op.EXPIRE, body))
        except ProposalRefused:
            return  # too much is under way, or it leads no more: the next tick asks again
        self._proposed[replica.shard] = term, index
        self._mark(replica)


def _is_due(state: ShardState, clock_ms: int) -> bool:
    try:
        return state.keys.is_due(clock_ms)
    except StorageError:
        return True  # applying it asks the same of the disk, and knows what to do then
