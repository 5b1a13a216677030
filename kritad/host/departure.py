"""When a node that is to be removed may stop: nobody counts on it any more.

The meta shard says that it has LEFT once it holds no data. It may still be one of the
meta shard's own voters then, for the moment until that shard's leader has demoted it; in
a cluster of two, its going would take the other's majority away for good. So both
are asked for: the state, and that it does not vote in a configuration that is committed.
Who cannot say who votes says of nobody else that he has gone.
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
    """Whether another node is no member any more and votes in nothing, as far as is known
    here. ``meta`` is the meta shard's replica that is here. If there is none, or one that
    does not know of its own membership yet, because it is being made anew, nobody knows here
    who votes: a voter that was sent away then may have been the meta shard's majority."""
    if meta is None or meta.id not in meta.raft.configuration.members:
        return False
    return _is_left(view, node) and not _may_vote(node, meta)


def may_leave(view: MetaView, node: int, meta: Replica | None) -> bool:
    """The same for the node that this is. ``meta`` None: it was let go."""
    return _is_left(view, node) and (meta is None or not _may_vote(node, meta))


def _is_left(view: MetaView, node: int) -> bool:
    known = view.nodes.get(node)
    return known is not None and known.left


def _may_vote(node: int, meta: Replica) -> bool:
    conf = meta.raft.configuration
    voting = {conf.nodes.get(member) for member in conf.voters_all}
    return node in voting or not meta.raft.configuration_committed


def removed_from_cluster(node: int) -> Foreign:
    """What such a node is told. ``detail`` tells it from whom nobody knows."""
    return Foreign(
        f"node {node} has been removed from this cluster",
        hint=JOIN_AS_NEW,
        detail={"removed": node},
    )
