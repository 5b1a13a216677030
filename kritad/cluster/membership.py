"""Which of a shard's replicas shall vote.

In a data shard all of them do. The meta shard has a replica on every node, and
a group of thirty voters would be slow for nothing: five vote, three while there
are fewer than five, and the others learn, so that every node can read the
cluster's state locally.
"""

from __future__ import annotations

from collections import Counter

import attrs

from krita.ring import META_SHARD
from kritad.cluster.model import NodeState, ReplicaRecord
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

    Five of five or more members, three of three or four, else all: two vote both,
    because a second copy of the cluster's state is worth more than an odd number.
    Preferred are usable nodes, zones that have no voter yet, those who vote
    already (so the choice is stable), and low node ids.
    """
    if META_SHARD not in view.shards:
        return {}
    record = view.shards[META_SHARD]
    voting = {replica.replica for replica in record.report.replicas if replica.voter}
    left = {node for node, known in view.nodes.items() if known.state is NodeState.LEFT}
    candidates = [replica for replica in record.replicas if replica.node not in left]
    zones: Counter[str] = Counter()

    def rank(replica: ReplicaRecord) -> tuple[bool, int, bool, int]:
        node = view.nodes[replica.node]
        return not node.usable, zones[node.zone], replica.replica not in voting, node.node

    voters: dict[int, int] = {}
    for _ in range(_voters_count(len(candidates))):
        chosen = min(candidates, key=rank)
        candidates.remove(chosen)
        zones[view.nodes[chosen.node].zone] += 1
        voters[chosen.replica] = chosen.node
    return voters


def _voters_count(members: int) -> int:
    if members <= 2:
        return members
    return min(META_VOTERS_MAX, members - 1 if members % 2 == 0 else members)
