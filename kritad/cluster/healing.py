"""Which damaged replicas are to be made anew now: a pure function of the view.

A damaged replica neither votes nor acknowledges any more (host/residence.py), and no
restart mends it. It is made anew on the node that it is on, under a new id, filled by
the shard's leader: the others hold the data, and nothing is moved. The old one is of no
use meanwhile, so to let it go before its successor is filled, which there cannot be
beside it on one node, costs neither a copy nor a vote that counted: a group of three of
which one is silent takes writes as long as the two others answer, and so does one of
these two alone.

Rules:
* Only when the sound voters that can be counted on are a majority of all: the cluster
  then loses nothing, and can carry it out.
* One replica of a shard at a time, and none of a shard that is on the move, held, paused
  or being split.
* At most two replicas are made on a node at a time, moves that come there counted. The
  meta shard's is not: without it the node does not hear what is wanted of it.
* Not on a node that shall go, as long as there is another for it (the planner takes the
  replica there), nor on one that is dead or has no room on its disk.
* Of the meta shard too, whether it votes or learns, also while moves are paused. Its node
  has no other way to hear of the new id than by what the shard's leader sends to it
  (host/residence.py).

Where a disk goes on rotting, this goes on: a replica at a time, at the pace of all moves.
It is people who have to see the disk; the doctor says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import attrs

from krita.ring import META_SHARD
from kritad.cluster.model import ShardRecord
from kritad.cluster.moves import MOVES_PER_NODE
from kritad.cluster.view import MetaView

# (shard, replica id) of those that their nodes say are damaged.
Damaged = Collection[tuple[int, int]]


@attrs.frozen
class Rebuild:
    """A META_REBUILD to propose: refused when the shard's placement has moved on."""

    shard: int
    expected_version: int
    replica: int


def rebuilds(
    view: MetaView,
    damaged: Damaged,
    present: Collection[int],
    full: Collection[int] = (),
    limit_per_node: int = MOVES_PER_NODE,
) -> list[Rebuild]:
    """What may begin now, the shard with the fewest sound voters first. ``present`` are the
    nodes that can be counted on, ``full`` those without room. Nothing is looked at, and it
    costs nothing, while nothing is damaged."""
    if not damaged:
        return []
    coming = Counter(node for record in view.data_shards for node in record.arriving)
    begun = []
    for record, replica, node in _candidates(view, damaged, present):
        if not _may_stay(view, record, node) or node in full:
            continue
        if record.shard != META_SHARD:
            again = node in record.arriving  # it was coming, and is damaged before it has voted
            if coming[node] - again >= limit_per_node:
                continue
            coming[node] += not again
        begun.append(Rebuild(record.shard, record.placement_version, replica))
    return begun


def _may_stay(view: MetaView, record: ShardRecord, node: int) -> bool:
    """Whether the node's replica of the shard is to be made anew there, and not elsewhere."""
    known = view.nodes.get(node)
    if known is None or known.dead or known.left:
        return False
    return known.usable or all(record.holds(other.node) for other in view.usable_nodes)


def _candidates(
    view: MetaView, damaged: Damaged, present: Collection[int]
) -> list[tuple[ShardRecord, int, int]]:
    """(shard, replica, node) of at most one damaged replica of each shard that may do
    without it; the most urgent first."""
    found = []
    for shard in sorted({shard for shard, _ in damaged}):
        record = view.shards.get(shard)
        if record is None or _stands(view, record):
            continue
        lost = {replica for number, replica in damaged if number == shard}
        sound = _sound_voters(record, lost, present)
        voters = len(record.report.voters)
        chosen = _chosen(record, lost)
        if chosen is not None and 2 * sound > voters:
            found.append((sound, record, *chosen))
    found.sort(key=lambda item: (item[0], item[1].shard))
    return [(record, replica, node) for _, record, replica, node in found]


def _stands(view: MetaView, record: ShardRecord) -> bool:
    """Whether nothing of the shard is to move now. The meta shard is never stopped."""
    stopped = view.paused or record.held or record.split is not None
    return stopped and record.shard != META_SHARD


def _sound_voters(record: ShardRecord, lost: Collection[int], present: Collection[int]) -> int:
    return sum(
        member.voter and member.replica not in lost and member.node in present
        for member in record.report.replicas
    )


def _chosen(record: ShardRecord, lost: Collection[int]) -> tuple[int, int] | None:
    """The replica that is next, and its node; None: none, or others are on their way."""
    wanted = {replica.replica: replica.node for replica in record.replicas}
    meta = record.shard == META_SHARD  # of which some learn for good
    there = {member.replica for member in record.report.replicas if member.voter or meta}
    coming, going = wanted.keys() - there, there - wanted.keys()
    if coming:  # none but one that is damaged before it is there; who was to go for it may
        damaged = min(coming)
        return (damaged, wanted[damaged]) if len(coming) == 1 and damaged in lost else None
    if going and not meta:  # there it may be the damaged one that the other waits for
        return None
    replica = min(wanted.keys() & lost, default=None)
    return None if replica is None else (replica, wanted[replica])
