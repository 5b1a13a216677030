"""Which of a shard's replicas shall vote.

In a data shard all of them do. The meta shard has a replica on every node, and
a group of thirty voters would be slow for nothing: five vote, three while there
are fewer than five, and the others learn, so that every node can read the
cluster's state locally.

Their number is odd by itself: five, three or one; only two members both vote, because
a second copy of the cluster's state is worth more than an odd number. A node that is
dead, or shall go, votes only while there are not three others: with two voters alone
each of them would be needed.
"""

from __future__ import annotations

from collections import Counter

import attrs

from krita.ring import META_SHARD
from kritad.cluster.model import ReplicaRecord
from kritad.cluster.view import MetaView

META_VOTERS_MAX = 5


@attrs.frozen
class Members:
    """The wanted members of a shard, replica id -> node id."""

    voters: dict[int, int]
    learners: dict[int, int]


def wanted_members(view: MetaView, shard: int) -> Members:
    """Whom a shard's configuration shall come to consist of. See reconcile.py."""
    replicas = {replica.replica: replica.node for replica in view.shards[shard].replicas}
    if shard != META_SHARD:
        return Members(replicas, {})
    voters = meta_voters(view)
    learners = {replica: node for replica, node in replicas.items() if replica not in voters}
    return Members(voters, learners)


def meta_voters(view: MetaView) -> dict[int, int]:
    """The meta shard's wanted voters, replica id -> node id.

    Preferred are usable nodes, then those that shall go but live, zones that have no
    voter yet, those who vote already (so the choice is stable), and low node ids.
    """
    if META_SHARD not in view.shards:
        return {}
    record = view.shards[META_SHARD]
    voting = {replica.replica for replica in record.report.replicas if replica.voter}
    candidates = [replica for replica in record.replicas if not view.nodes[replica.node].left]
    usable = sum(view.nodes[replica.node].usable for replica in candidates)
    zones: Counter[str] = Counter()

    def rank(replica: ReplicaRecord) -> tuple[bool, bool, int, bool, int]:
        node = view.nodes[replica.node]
        spread, known = zones[node.zone], replica.replica in voting
        return node.dead, not node.usable, spread, not known, node.node

    voters: dict[int, int] = {}
    for _ in range(_voters_count(len(candidates), usable)):
        chosen = min(candidates, key=rank)
        candidates.remove(chosen)
        zones[view.nodes[chosen.node].zone] += 1
        voters[chosen.replica] = chosen.node
    return voters


def _voters_count(members: int, usable: int) -> int:
    """Five if so many can, else three if there are so many members, else all."""
    if usable >= META_VOTERS_MAX:
        return META_VOTERS_MAX
    return min(3, members)
