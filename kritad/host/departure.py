"""When a node that is to be removed may stop: nobody counts on it any more.

The meta shard says that it has LEFT once it holds no data. It may still be one of the
meta shard's own voters then, for the moment until that shard's leader has demoted it; in
a cluster of two, its going would take the other's majority away for good. So both
are asked for: the state, and that it does not vote in a configuration that is committed.
"""

from __future__ import annotations

from krita.errors import Foreign
from kritad.cluster.model import NodeState
from kritad.cluster.view import MetaView
from kritad.host.replica import Replica

JOIN_AS_NEW = (
    "to have this machine join as a new node, start with an empty data directory and --join_ip"
)

LEAVING = (NodeState.REMOVING, NodeState.LEFT)


def has_gone(view: MetaView, node: int, meta: Replica | None) -> bool:
    """Whether the node is no member any more and votes in nothing, as far as is known
    here. ``meta`` is the meta shard's replica that is here; None: it was let go."""
    known = view.nodes.get(node)
    if known is None or known.state is not NodeState.LEFT:
        return False
    if meta is None:
        return True
    conf = meta.raft.configuration
    voting = {conf.nodes.get(member) for member in conf.voters_all}
    return meta.raft.configuration_committed and node not in voting


def removed_from_cluster(node: int) -> Foreign:
    """What such a node is told. ``detail`` tells it from whom nobody knows."""
    return Foreign(
        f"node {node} has been removed from this cluster",
        hint=JOIN_AS_NEW,
        detail={"removed": node},
    )
