"""Which other node should answer a read that may be stale, where this one has no replica.

A pure function of what is known: the meta shard's view, who can be spoken to, who leads.
"""

from __future__ import annotations

from collections.abc import Collection

from kritad.cluster.view import MetaView
from kritad.host.leaders import NO_NODE


def nearest_voter(
    view: MetaView, shard: int, node: int, reachable: Collection[int], leader: int
) -> int:
    """A node in ``node``'s zone that votes in the shard; NO_NODE when the request should
    take its usual way, to the leader. Without a leader to go to, any voter will do.

    Only voters: a replica that is still being filled has next to nothing to tell.
    Shards choose different ones of several, so that none gets all the reads.
    """
    record, own = view.shards.get(shard), view.nodes.get(node)
    if record is None:
        return NO_NODE
    others = [voter for voter in record.report.voters if voter != node and voter in reachable]
    zone = own.zone if own is not None else ""
    near = [voter for voter in others if zone and view.nodes[voter].zone == zone]
    found = near or ([] if leader in others else others)
    return found[shard % len(found)] if found else NO_NODE
