"""Planted bugs: reads that are answered too early."""

from __future__ import annotations

from collections.abc import Callable

from kritad.host.replica import Replica
from kritad.raft import core, dispatch, replication
from kritad.raft import reads as product
from kritad.raft.progress import Progress
from kritad.raft.ready import ReadReady
from kritad.raft.state import RaftState
from kritad.raft.types import Configuration
from tests.simulator.mutants.mutant import Mutant

_heard = dispatch._heard
_lead = core.Raft._lead
_serve_reads = Replica.serve_reads


def _read_at_once(raft: core.Raft) -> None:
    """A round of reads begins before the leader has committed in its own term."""
    if raft.reads.waiting and raft.log.commit < raft.term_start:
        replication.begin_read_round(raft)
        replication.confirm_reads(raft)
    _lead(raft)


def _any_round_is_this_one(raft: RaftState, replica: int, _read_sequence: int) -> Progress | None:
    """Whatever a follower answers, it confirms the newest round."""
    return _heard(raft, replica, raft.reads.sequence)


def _confirm_alone(
    queue: product.ReadQueue,
    _configuration: Configuration,
    _echoed_by: Callable[[int], int],
) -> list[ReadReady]:
    """A leader need not ask whether it still is one."""
    ready = [ReadReady(token, index) for _, index, tokens in queue._rounds for token in tokens]
    queue._rounds.clear()
    return ready


def _confirm_with_one_less(
    queue: product.ReadQueue, configuration: Configuration, echoed_by: Callable[[int], int]
) -> list[ReadReady]:
    """The leader counts itself on top of the majority that it asks."""
    echoes = sorted([echoed_by(voter) for voter in sorted(configuration.voters)], reverse=True)
    confirmed = echoes[max(0, len(echoes) // 2 - 1)] if echoes else 0
    ready: list[ReadReady] = []
    while queue._rounds and queue._rounds[0][0] <= confirmed:
        _, index, tokens = queue._rounds.popleft()
        ready.extend([ReadReady(token, index) for token in tokens])
    return ready


def _serve_unapplied(replica: Replica) -> None:
    """A confirmed read is answered from whatever has been applied by then."""
    replica._reads._confirmed = [(0, requests) for _, requests in replica._reads._confirmed]
    _serve_reads(replica)


def _read_what_is_applied(raft: RaftState) -> None:
    """A read waits for what was applied when it came, not for what was committed."""
    raft.reads.begin_round(raft.log.applied)
    for progress in raft.followers:
        replication.send_heartbeat(raft, progress)


MUTANTS = (
    Mutant(
        name="reads-before-its-own-commit",
        rule="a leader serves reads once an entry of its own term is committed",
        source="thesis 6.4, raft.md B39 (etcd#7331)",
        hint="linearizability: stale read of a new leader that does not know all that is committed",
        patches=((core.Raft, "_lead", _read_at_once),),
    ),
    Mutant(
        name="reads-confirmed-by-an-older-round",
        rule="a round is confirmed by answers to itself or a later one",
        source="raft.md B39 (etcd#20418)",
        hint="linearizability: stale read of a deposed leader that gets late answers; needs "
        "partitions and clogged links",
        patches=((dispatch, "_heard", _any_round_is_this_one),),
    ),
    Mutant(
        name="reads-without-a-quorum",
        rule="a leader asks a quorum whether it still leads",
        source="thesis 6.4, raft.md B39 (d-engine#381)",
        hint="linearizability: stale read of a deposed leader; needs partitions and pauses",
        patches=((product.ReadQueue, "confirm", _confirm_alone),),
    ),
    Mutant(
        name="reads-confirmed-by-one-too-few",
        rule="a leader counts itself as one of the quorum, not on top of it",
        source="raft.md B39 (openraft d60f1e85)",
        hint="linearizability: with three voters the same as no quorum, with five it needs a "
        "partition two to three",
        patches=((product.ReadQueue, "confirm", _confirm_with_one_less),),
    ),
    Mutant(
        name="reads-served-before-they-are-applied",
        rule="a read is answered once the index that was confirmed is applied",
        source="thesis 6.4",
        hint="linearizability: stale read of a new leader whose own disk is slow: what it has "
        "committed is not durable and so not applied there",
        patches=((Replica, "serve_reads", _serve_unapplied),),
    ),
    Mutant(
        name="reads-at-the-applied-index",
        rule="a read's index is the commit index at the time it came",
        source="thesis 6.4",
        hint="linearizability: as for reads that are served before they are applied",
        patches=((replication, "begin_read_round", _read_what_is_applied),),
    ),
)
