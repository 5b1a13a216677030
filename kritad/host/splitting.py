"""What the leader of a shard does when the shard is to be split. Pure: nothing is kept.

The meta shard decides (SHARD_SPLIT): it gives out the new shard's number and the ids of
its replicas (``ShardRecord.split``). The rest follows from that record and the leader's
own replica, so any later leader goes on at the same place:

* while the shard's log has not cut it, an entry SPLIT is due (``split_body``);
* once it has, the meta shard is told where, until its record shows it
  (``split_done_body``); also when the shard turns out to be of one piece.

Rules:
* The log must not hold two SPLIT entries for one decision. The state refuses the second
  (state/split.py), but a leader does not count on that: it proposes when it has applied
  all that earlier leaders left, and again only when the entry of its own was applied
  and refused.
* Only a shard whose configuration is what the meta shard has given ids for is cut: each
  of its replicas has to know its other half's id from the entry alone.

What comes of a cut on each replica is in host/births.py.
"""

from __future__ import annotations

from krita.codec import encode_body
from krita.operations import Op
from kritad.cluster.meta_splits import NO_CUT
from kritad.cluster.model import ShardRecord
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.raft.errors import ProposalRefused
from kritad.storage.extent import Extent


def propose_split(replica: Replica, record: ShardRecord, clock_ms: int) -> bool:
    """Propose the SPLIT entry if it is due; ``clock_ms`` is the wall clock's. Whether it
    was proposed: the replica has to be looked at then (Drive.mark)."""
    body = split_body(replica, record)
    if body is None:
        return False
    # Nobody waits for the answer: what the log has done shows in the state.
    request = Request(Op.SPLIT, body, b"", replica.shard, None, 0.0, write=True)
    try:
        replica.propose(request, clock_ms)
    except ProposalRefused:
        return False  # the next step will see the same
    replica.split_proposed = replica.raft.term, replica.raft.last_index
    return True


def split_body(replica: Replica, record: ShardRecord) -> bytes | None:
    """The entry that cuts the shard, if it is this replica's turn to propose it."""
    split, raft, state = record.split, replica.raft, replica.state
    if split is None or is_cut(replica, record) or not replica.leads or raft.transferring:
        return None
    term, index = replica.split_proposed
    if state.index < (index if term == raft.term else raft.term_start):
        return None  # an entry that is not applied yet may be the one
    conf = raft.configuration
    members = {half.replica: half.node for half in split.replicas}
    if (
        conf.joint
        or not raft.configuration_committed
        or conf.voters != members.keys()
        or conf.members != conf.voters
        or any(conf.nodes[member] != node for member, node in members.items())
    ):
        return None
    at = cut_point(state.extent)
    if at is None:
        return None
    halves = [[half.replica, half.replica_new, half.node] for half in split.replicas]
    return encode_body(Op.SPLIT, replica.shard, split.shard_new, at, conf.version, halves)


def cut_point(extent: Extent) -> int | None:
    """Where to cut: so that the bytes are halved. Where that cannot be, because all are in
    one cell, in the middle: what was decided has to be done, if it does not help either.
    None for a single cell, which nothing can cut."""
    at = extent.halving()
    if at is not None:
        return at
    middle = extent.hash_lo + len(extent.cell_keys) // 2 * extent.step
    return middle if extent.has_edge(middle) else None


def is_cut(replica: Replica, record: ShardRecord) -> bool:
    """Whether the split that the record asks for is in the state of this replica."""
    cut = replica.state.splits
    return record.split is not None and cut is not None and cut.shard_new == record.split.shard_new


def split_done_body(replica: Replica, record: ShardRecord) -> bytes | None:
    """The META_SPLIT_DONE to propose to the meta shard, if its record lacks a split that
    the shard's log has done, or asks for one that cannot be done. Until it shows."""
    cut, split, raft = replica.state.splits, record.split, replica.raft
    if not replica.leads or split is None:
        return None
    if cut is not None and is_cut(replica, record):
        at, version = cut.at, cut.version
    elif cut_point(replica.state.extent) is None and replica.state.index >= raft.term_start:
        # No log can have cut it either, and never will: cells are not divided.
        at, version = NO_CUT, record.version
    else:
        return None
    return encode_body(
        Op.META_SPLIT_DONE,
        replica.shard,
        split.shard_new,
        at,
        version,
        raft.configuration.version,
        raft.term,
    )


def has_outgrown(replica: Replica, record: ShardRecord, shard_bytes_max: int) -> bool:
    """Whether this leader should ask the meta shard for a split (SHARD_SPLIT), because the
    shard holds more than ``shard_bytes_max`` (0: no limit) and a cut would help. Cost: ~5 µs;
    what was asked for and refused should not be asked for again at once."""
    if not shard_bytes_max or not replica.leads or record.split is not None:
        return False
    if record.held or record.in_motion:
        return False
    extent = replica.state.extent
    # Until the record shows the newest cut, it does not show that split as done either.
    settled = (record.hash_lo, record.hash_hi) == extent.arc
    return settled and extent.bytes > shard_bytes_max and extent.halving() is not None
