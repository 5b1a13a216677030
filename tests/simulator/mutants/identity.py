"""Planted bugs: who somebody is, and who never comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from krita.hello import Identity
from kritad.cluster import meta_nodes, meta_shards
from kritad.cluster.model import ClusterRecord, NodeRecord, ShardRecord
from kritad.host import admission, belonging, residence
from kritad.host.admission import Twins
from kritad.host.births import give_log
from kritad.raft.types import SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.raft_db import RaftDatabase
from tests.simulator.mutants.mutant import Mutant
from tests.simulator.raft_store import MemoryRaftDatabase

_create_replica = RaftDatabase.create_replica
_create_replica_in_memory = MemoryRaftDatabase.create_replica
_wanting = meta_shards._wanting


def _want_with_the_next_id(
    record: ShardRecord, nodes: Sequence[int], cluster: ClusterRecord
) -> tuple[ShardRecord, ClusterRecord]:
    """New replicas get the next ids, and nobody writes down that these are gone."""
    return _wanting(record, nodes, cluster)[0], cluster


def _bury_nobody(
    store: RaftDatabase, shard: int, replica: int, snapshot: SnapshotMeta | None
) -> None:
    """Nobody remembers that a replica was removed from here."""
    store._catalog.tombstones.pop(shard, None)
    _create_replica(store, shard, replica, snapshot)


def _bury_nobody_in_memory(
    store: MemoryRaftDatabase, shard: int, replica: int, snapshot: SnapshotMeta | None
) -> None:
    """Nobody remembers that a replica was removed from here."""
    store._catalog.tombstones.pop(shard, None)
    _create_replica_in_memory(store, shard, replica, snapshot)


def _take_for_newborn(raft_db: RaftDatabase, data_db: DataDatabase) -> None:
    """A state without a log is taken for one whose birth a crash has interrupted."""
    held = {row.shard for row in raft_db.replicas()}
    for shard, state in sorted(data_db.applied().items()):
        if shard not in held:
            give_log(raft_db, state)


def _compare_no_nonce(_known: NodeRecord, _identity: Identity) -> bool:
    """The counter of boots is all that tells an old copy of a disk from the disk."""
    return False


def _admit_twins(
    _twins: Twins,
    _newcomer: Identity,
    _running: Identity | None,
    _attempts: int,
    _redial: Callable[[], None],
) -> None:
    """Whether the node runs already is not asked."""


def _take_back_whoever_left(_known: NodeRecord) -> None:
    """A node that has left announces or joins again like any other."""


def _nobody_has_gone(_view: object, _node: int, _meta: object) -> bool:
    """A node that has left is let in like any other."""
    return False


def _remember_every_copy(_given_up: object, _identity: Identity) -> None:
    """A node that was given up by a recovery is let in again."""


MUTANTS = (
    Mutant(
        name="replica-ids-are-given-out-twice",
        rule="ids only ever grow",
        source="cluster/meta.py, raft.md 4.4",
        hint="one vote a term, sender: two moves of one shard",
        patches=((meta_shards, "_wanting", _want_with_the_next_id),),
    ),
    Mutant(
        name="no-tombstones",
        rule="a replica that was removed is dead for ever",
        source="host/upkeep.py, raft.md 4.4",
        hint="the part: who comes back is in no configuration any more, until a disk is half gone",
        patches=(
            (RaftDatabase, "create_replica", _bury_nobody),
            (MemoryRaftDatabase, "create_replica", _bury_nobody_in_memory),
        ),
    ),
    Mutant(
        name="state-without-a-log-gets-one",
        rule="a log that is lost is not made anew: its votes are gone",
        source="host/births.py (complete)",
        hint="one vote a term: a replica is removed, and its node stops before its state is",
        patches=((residence, "complete", _take_for_newborn),),
    ),
    Mutant(
        name="nonces-are-not-compared",
        rule="a disk that has drawn another nonce at a known boot has been set back",
        source="host/admission.py, raft.md 4.4",
        hint="the part: no life sets a disk back",
        patches=((admission, "_drew_another_nonce", _compare_no_nonce),),
    ),
    Mutant(
        name="copy-runs-beside-its-original",
        rule="a node runs once",
        source="host/admission.py, raft.md 4.4",
        hint="the part: no life starts a disk's copy",
        patches=((Twins, "judge", _admit_twins),),
    ),
    Mutant(
        name="removed-node-comes-back",
        rule="a node that has left is turned away",
        source="host/departure.py, cluster/meta_nodes.py",
        hint="the part: whom a life has removed is not started again",
        patches=(
            (meta_nodes, "_check_member", _take_back_whoever_left),
            (belonging, "has_gone", _nobody_has_gone),
        ),
    ),
    Mutant(
        name="given-up-node-comes-back",
        rule="who was given up by a recovery never comes back",
        source="host/admission.py, kritad/recover.py",
        hint="the part: no life is recovered by hand",
        patches=((belonging, "check_kept", _remember_every_copy),),
    ),
)
