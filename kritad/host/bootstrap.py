"""What a data directory says: begin a cluster, join one, or go on.

Rules (design 4):
* A directory with an identity wins over every flag: a restart is a restart.
* Without one, a node that was told of others joins them; one that was not
  begins a cluster of itself. It never guesses between the two.
* A join is repeated until somebody answers or says no; the store's uuid makes
  the repetition harmless (the same store is given the same node id again).
* At each start the store counts a boot and draws a nonce for it, durably, before anybody
  is told of either: a copy of the store, restored or running elsewhere, has drawn others
  (admission.py).
* A directory whose data.db has states and whose raft.db says nothing is not new: raft.db was
  lost. To begin or to join with it would drop these states, so the start is refused.
* The meta replica is made before the store is given its number: a crash in between
  leaves a store that begins or joins again, not a node without its meta shard.
* After a crash, a shard's log may begin ahead of its state: a snapshot was saved
  there and its rows were not yet installed. They are installed now. (A state
  ahead of its log is damage: the log has lost what it had promised to keep.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs

from krita.address import parse as parse_address
from krita.codec import decode_body, encode_body
from krita.errors import ProtocolError
from krita.hello import Identity
from krita.operations import Op
from krita.ring import equal_arcs
from kritad.host.surroundings import MACHINE
from kritad.raft.configuration import encode_configuration
from kritad.raft.types import Boot, Configuration, SnapshotMeta
from kritad.storage.data_db import Applied, DataDatabase
from kritad.storage.digests import HASH_MODULUS, session_digest
from kritad.storage.errors import REBUILD_HINT, Corrupt, DirectoryRefused
from kritad.storage.extent import NO_ARC, Arc, Extent
from kritad.storage.raft_db import RaftDatabase

META_SHARD = 0
FIRST_NODE = 1
FIRST_META_REPLICA = 1


@attrs.frozen
class Membership:
    """What a join gave: who we are now, and whom to talk to."""

    cluster_id: bytes
    node: int
    meta_replica: int
    members: tuple[tuple[int, str], ...]  # (node, address)

    def others_at(self, address: str) -> list[int]:
        """The members that were last seen where we are now."""
        return [node for node, where in self.members if where == address and node != self.node]


def refuse_without_log(raft_db: RaftDatabase, data_db: DataDatabase) -> None:
    """Raise DirectoryRefused for states whose raft.db is not there any more: it has no
    identity, or one that is no node yet. To be called before anything is written.

    A crash in a first start leaves no such pair: a state is made by a replica, and a
    replica is opened only when the identity is on the disk.
    """
    known = raft_db.identity()
    if (known is None or known.node_id == 0) and data_db.inhabited():
        raise log_lost(raft_db.path)


def log_lost(raft_path: Path) -> DirectoryRefused:
    """The refusal of a directory that has lost its raft.db."""
    return DirectoryRefused(
        f"{raft_path} is gone or was emptied, and the data.db beside it has data: without its "
        "log and its votes this is no node, and a new one would throw the data away",
        "put raft.db and raft.db-wal back; if they are lost, move the data directory away and "
        "start with --join_ip; if there is no other node to join, keep the directory",
    )


def store_of(raft_db: RaftDatabase, make_uuid: Callable[[], bytes] = MACHINE.make_uuid) -> bytes:
    """The store's uuid, made durable before anybody is told of it: a node that
    dies half way through a join is the same node when it tries again."""
    known = raft_db.identity()
    if known is None:
        known = raft_db.initialise(b"", 0, make_uuid())
    return known.store_uuid


def next_boot(
    raft_db: RaftDatabase, address: str, make_uuid: Callable[[], bytes] = MACHINE.make_uuid
) -> Identity:
    """Count one more start of a store that is a node, durably: who we are from now on."""
    known = raft_db.count_boot(make_uuid())
    return Identity(
        known.cluster_id,
        known.node_id,
        known.store_uuid,
        known.boot_counter,
        address,
        known.nonces,
    )


def announce_body(identity: Identity) -> bytes:
    """The request with which a node tells its cluster that it has started."""
    *before, nonce = identity.boot_nonces
    return encode_body(
        Op.NODE_ANNOUNCE,
        identity.node,
        identity.store_uuid,
        identity.boot_counter,
        identity.address,
        nonce,
        before,
    )


def begin_cluster(
    raft_db: RaftDatabase, store_uuid: bytes, make_uuid: Callable[[], bytes] = MACHINE.make_uuid
) -> bytes:
    """Make this directory the first node of a new cluster; its id is returned.

    Only identity and the meta shard's replica are made here. The first entry of
    the meta shard's log (``bootstrap_body``) makes the rest, so that a crash in
    between leaves a node that simply proposes it when it starts again.
    """
    cluster_id = make_uuid()
    first = Configuration(
        version=1,
        voters=frozenset({FIRST_META_REPLICA}),
        nodes={FIRST_META_REPLICA: FIRST_NODE},
    )
    _make_meta_replica(raft_db, FIRST_META_REPLICA, SnapshotMeta(configuration=first))
    raft_db.initialise(cluster_id, FIRST_NODE, store_uuid)
    return cluster_id


def bootstrap_body(
    cluster_id: bytes,
    store_uuid: bytes,
    *,
    shards: int,
    replication_factor: int,
    address: str,
    zone: str,
) -> bytes:
    """The first command of the meta shard's log."""
    return encode_body(
        Op.META_BOOTSTRAP, cluster_id, shards, replication_factor, store_uuid, address, zone
    )


def accept_membership(raft_db: RaftDatabase, store_uuid: bytes, joined: Membership) -> None:
    """Make this directory the node that the cluster says it is. The meta replica
    is empty and has no say until the meta shard's leader sends it the log."""
    _make_meta_replica(raft_db, joined.meta_replica, None)
    raft_db.initialise(joined.cluster_id, joined.node, store_uuid)


def _make_meta_replica(raft_db: RaftDatabase, replica: int, first: SnapshotMeta | None) -> None:
    """Make it, in place of one that an attempt which a crash has ended left behind:
    nobody has heard of that one."""
    left = {row.shard: row.replica for row in raft_db.replicas()}.get(META_SHARD)
    if left == replica:
        return
    if left is not None:
        raft_db.remove_replica(META_SHARD, left)
    raft_db.create_replica(META_SHARD, replica, first)


def parse_membership(reply: object) -> Membership:
    """The reply of ``node_join``. Raises ProtocolError."""
    match reply:
        case [bytes(cluster_id), int(node), int(meta_replica), list(members), *_] if (
            len(cluster_id) == 16 and node > 0 and meta_replica > 0
        ):
            pairs = []
            for member in members:
                match member:
                    case [int(number), str(address), *_]:
                        pairs.append((number, address))
                    case _:
                        raise ProtocolError("a member in the answer to node_join is malformed")
            return Membership(cluster_id, node, meta_replica, tuple(pairs))
    raise ProtocolError("the answer to node_join is malformed")


def parse_join(body: bytes) -> tuple[bytes, str, str]:
    """``(store_uuid, address, zone)`` of a ``node_join`` request. Raises ProtocolError, and
    AddressError for an address that the others could not dial."""
    match decode_body(Op.NODE_JOIN, body):
        case [bytes(store_uuid), str(address), str(zone), *_] if len(store_uuid) == 16:
            parse_address(address)
            return store_uuid, address, zone
    raise ProtocolError("node_join is [store_uuid, address, zone]")


def load_boot(
    raft_db: RaftDatabase, data_db: DataDatabase, applied: Applied
) -> tuple[Boot, Applied]:
    """What the replica wakes up with, and its state's place in the log. Completes
    the installation of a snapshot that a crash has interrupted."""
    boot = raft_db.load(applied.shard, applied.index)
    if boot.snapshot.index <= applied.index:
        return boot, applied
    received = data_db.received(boot.snapshot.generation)
    if received is None:
        raise Corrupt(
            applied.shard,
            f"shard {applied.shard}: the log begins behind a snapshot that data.db does not have",
            REBUILD_HINT,
        )
    data_db.install(received)
    applied = received
    return raft_db.load(applied.shard, applied.index), applied


def birth_arc(shards: int, shard: int) -> Arc:
    """The arc that a shard began with, in a cluster that was founded with so many shards.

    A replica without a state needs it when it is given the log from the first entry on: it
    lives through the shard's splits itself. NO_ARC for a shard that came of a split: its
    log begins behind the split on every node, so whoever comes later gets a snapshot,
    and the arc with it. ``ShardState`` asserts that. The meta shard needs none.
    """
    return equal_arcs(shards)[shard - 1] if 1 <= shard <= shards else NO_ARC


def fresh_applied(
    data_db: DataDatabase, shard: int, replica: int, first: Configuration, arc: Arc
) -> Applied:
    """The state of a replica that has applied nothing yet. ``arc``: see birth_arc. For the
    loop's thread: nothing is written, which would have to wait for a flush."""
    generation = data_db.reserve_generation()
    extent = _empty_extent(shard, arc)
    return Applied(
        shard=shard,
        replica=replica,
        generation=generation,
        index=0,
        term=0,
        clock_ms=0,
        state_hash=0,
        configuration=encode_configuration(first),
        rows=generation,
        hash_lo=extent.hash_lo,
        hash_hi=extent.hash_hi,
        cells=extent.encode(),
    )


def counted(data_db: DataDatabase, applied: Applied, arc: Arc) -> Applied:
    """What a kritad has flushed that did not keep arcs: with its cells, counted now, for
    which all of its rows are gone over. Raises Corrupt."""
    if applied.cells:
        return applied
    empty = _empty_extent(applied.shard, arc)
    extent = data_db.count(applied.rows, empty, applied.shard)
    lo, hi = extent.arc
    return attrs.evolve(applied, hash_lo=lo, hash_hi=hi, cells=extent.encode())


def _empty_extent(shard: int, arc: Arc) -> Extent:
    return Extent.everything() if shard == META_SHARD else Extent.of(arc)


def check_sum(applied: Applied, sessions: list[tuple[int, bytes]]) -> None:
    """Whether cells and sessions add up to the state hash. Raises Corrupt."""
    total = Extent.decode(applied.hash_lo, applied.hash_hi, applied.cells).rows_hash
    total += sum(session_digest(*session) for session in sessions)
    if total % HASH_MODULUS != applied.state_hash:
        raise Corrupt(
            applied.shard,
            f"the rows and sessions of shard {applied.shard} do not add up to its state hash "
            f"at index {applied.index}",
            REBUILD_HINT,
        )


def all_sessions(data_db: DataDatabase, generation: int) -> list[tuple[int, bytes]]:
    """Every session of a generation. Raises Corrupt."""
    found: list[tuple[int, bytes]] = []
    after = -(1 << 63)  # the shard's notes have numbers below 0 (state/notes.py)
    while some := data_db.scan_sessions(generation, after, 1000):
        found += some
        after = some[-1][0]
    return found
