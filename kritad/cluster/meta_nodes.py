"""The meta shard's operations on nodes: they join, start, are wanted or not, and die.

The states that people give a node, and what the cluster makes of them:

    UP  <->  DRAINING          drained, and back
    UP, DRAINING  ->  REMOVING  ->  UP        taken back in time
    REMOVING  ->  LEFT         by itself: no data shard wants or reports the node

LEFT is for ever. ``dead`` stands beside the state: the meta shard's leader has not
heard of the node for too long. It is taken back by the leader, or by the node's
next announcement.

Sources: raft.md 4.4 (Identity) and 4.5; design 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from krita.errors import BadRequest, ConditionFailed, Foreign, Status
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.cluster.fields import Fields
from kritad.cluster.model import WEIGHT_MAX, NodeRecord, NodeState, ReplicaRecord
from kritad.cluster.tables import Tables, placed, write_departures
from kritad.cluster.view import Records

_OK = int(Status.OK)
_INTENDED = {NodeState.UP: "up", NodeState.DRAINING: "drained", NodeState.REMOVING: "removed"}
_JOIN_AS_NEW = "start with an empty data directory to join as a new node"


def node_add(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_NODE_ADD: a new member, or the ids that this store has already got."""
    fields = Fields(Op.META_NODE_ADD, values)
    store_uuid = fields.uuid("store_uuid")
    address, zone = fields.address("address"), fields.zone("zone")
    tables = Tables(records, index)
    meta = tables.shard(META_SHARD)
    known = next((n for n in tables.nodes().values() if n.store_uuid == store_uuid), None)
    if known is not None:
        _check_member(known)
        replica = next(r.replica for r in meta.replicas if r.node == known.node)
        tables.write([attrs.evolve(known, address=address, zone=zone)])
        return _OK, [known.node, replica]
    cluster = tables.cluster
    node, replica = cluster.node_next, cluster.replica_next
    tables.write(
        [NodeRecord(node, store_uuid, address, zone, 0)],
        [placed(meta, (*meta.replicas, ReplicaRecord(replica, node)))],
        attrs.evolve(cluster, node_next=node + 1, replica_next=replica + 1),
    )
    return _OK, [node, replica]


def node_announce(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_NODE_ANNOUNCE: a member has started. FOREIGN for a disk that is not
    the one we know, or is an older copy of it (raft.md 4.4, Identity)."""
    fields = Fields(Op.META_NODE_ANNOUNCE, values)
    node, store_uuid = fields.count("node", 1), fields.uuid("store_uuid")
    boot_counter, address = fields.count("boot_counter"), fields.address("address")
    nonce, nonces_before = fields.nonce("nonce"), fields.nonces("nonces_before")
    tables = Tables(records, index)
    if not tables.has_node(node):
        raise Foreign(f"this cluster has no node {node}")
    known = tables.node(node)
    if known.store_uuid != store_uuid:
        raise Foreign(
            f"node {node} came back with another disk: its store is {store_uuid.hex()}, "
            f"known is {known.store_uuid.hex()}",
            hint="a wiped or exchanged disk joins as a new node",
        )
    _check_member(known)
    _check_newest(known, boot_counter, nonce, nonces_before)
    started = attrs.evolve(
        known,
        boot_counter=boot_counter,
        address=address,
        nonce=nonce or known.nonce,
        dead=False,
    )
    tables.write([started])
    return _OK, []


def node_dead(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """META_NODE_DEAD: what the leader has found out about a member. "Dead" counts only
    with the boot counter that is known: a verdict that comes late does not hit the
    node that has started again meanwhile."""
    fields = Fields(Op.META_NODE_DEAD, values)
    node, dead = fields.count("node", 1), fields.flag("dead")
    boot_counter = fields.count("boot_counter")
    tables = Tables(records, index)
    known = tables.node(node)
    if known.left or (dead and boot_counter != known.boot_counter):
        return _OK, []
    tables.write([attrs.evolve(known, dead=dead)])
    return _OK, []


def node_set(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """NODE_SET: what the cluster intends with a node. Replies with the state that the
    node is in now: LEFT at once for one that holds nothing and is to be removed."""
    fields = Fields(Op.NODE_SET, values)
    node, state = fields.count("node", 1), fields.count("state")
    successor = fields.optional_count("successor", 1)
    tables = Tables(records, index)
    tables.node(node)
    write_departures(tables, [intended(tables.nodes(), node, state, successor)])
    return _OK, [int(tables.node(node).state)]


def node_label(records: Records, values: list[object], index: int) -> tuple[int, object]:
    """NODE_LABEL: a node's zone and weight; null leaves either as it is."""
    fields = Fields(Op.NODE_LABEL, values)
    node, zone = fields.count("node", 1), fields.optional_zone("zone")
    weight = fields.optional_count("weight", 1, WEIGHT_MAX)
    tables = Tables(records, index)
    known = tables.node(node)
    if known.left:
        raise _has_left(node)
    labelled = attrs.evolve(
        known,
        zone=known.zone if zone is None else zone,
        weight=known.weight if weight is None else weight,
    )
    tables.write([labelled])
    return _OK, []


def intended(
    nodes: Mapping[int, NodeRecord], node: int, state: int, successor: int | None
) -> NodeRecord:
    """The node's record once the cluster intends that with it; the same for the
    same again. Raises BadRequest for what is no intention, ConditionFailed for
    what cannot be done now.

    Pure, so that a plan (forecast.py) refuses what the entry would refuse.
    """
    if node not in nodes or (successor is not None and successor not in nodes):
        raise BadRequest(f"this cluster has no node {successor if node in nodes else node}")
    if state not in _INTENDED:
        raise BadRequest("node_set: state has to be 0 (up), 1 (drain) or 4 (remove)")
    known, wanted = nodes[node], NodeState(state)
    if wanted is NodeState.UP and successor is not None:
        raise BadRequest("node_set: only a node that shall go has a successor")
    if successor == node:
        raise BadRequest("node_set: a node cannot be its own successor")
    if known.left:
        if wanted is NodeState.REMOVING:
            return known  # repeated: it has left since
        raise _has_left(node)
    if known.state is NodeState.REMOVING and wanted is NodeState.DRAINING:
        raise ConditionFailed(
            f"node {node} is being removed, which drains it too",
            hint="to keep it as a member, recommission it first",
        )
    changed = attrs.evolve(known, state=wanted, successor=successor or 0)
    if changed != known and wanted is not NodeState.UP:
        _check_spare(nodes, node, _INTENDED[wanted], successor)
    return changed


def _check_spare(
    nodes: Mapping[int, NodeRecord], node: int, what: str, successor: int | None
) -> None:
    """Refuses to empty the only node that can hold anything, or into one that cannot."""
    if not any(other.usable for other in nodes.values() if other.node != node):
        raise ConditionFailed(
            f"node {node} cannot be {what}: no other node is up to hold anything",
            hint="add a node first, or recommission one",
        )
    if successor is not None and not nodes[successor].usable:
        raise ConditionFailed(
            f"node {successor} cannot be the successor of node {node}: it is not up",
            hint="name a node that is up, or none",
        )


def _has_left(node: int) -> ConditionFailed:
    return ConditionFailed(f"node {node} has been removed from this cluster", hint=_JOIN_AS_NEW)


def _check_member(known: NodeRecord) -> None:
    if known.left:
        raise Foreign(
            f"node {known.node} has been removed from this cluster",
            hint=_JOIN_AS_NEW,
            detail={"removed": known.node},
        )


def _check_newest(
    known: NodeRecord, boot_counter: int, nonce: bytes, nonces_before: list[bytes]
) -> None:
    """Refuses a store that does not know the newest start that we know of it."""
    hint = "a node restored from an old copy may have forgotten its votes; join it as new"
    if boot_counter < known.boot_counter:
        raise Foreign(
            f"node {known.node}'s disk was rolled back: it has started {boot_counter} times, "
            f"and was seen at {known.boot_counter}",
            hint=hint,
        )
    # A release without nonces sends none: the counter is all there is.
    if nonce and known.nonce and known.nonce not in (nonce, *nonces_before):
        raise Foreign(
            f"node {known.node}'s disk was rolled back, or copied: it does not remember "
            f"its start number {known.boot_counter}, which this cluster has seen",
            hint=hint,
        )
