"""Bugs of our own that the simulator found, brought back: it has to find them again."""

from __future__ import annotations

from krita.errors import KritaError, Unavailable
from krita.hello import Identity
from krita.routing import Router
from kritad.data_service import DataService, check_key
from kritad.host.admission import check_member
from kritad.host.bootstrap import META_SHARD
from kritad.host.host import Host
from kritad.host.replica import Replica
from kritad.host.residence import Residence
from kritad.storage.errors import Tombstoned
from tests.simulator.mutants.mutant import Mutant


def _remember_while_ignorant(host: Host, identity: Identity) -> None:
    """Whoever connects is remembered only as long as this node knows no member at all."""
    if not identity.node:
        return
    check_member(host.view, identity)
    if identity.node not in host.view.nodes and not host.view.cluster_id:
        host.transport.learn(identity.node, identity.address)


def _take_old_wishes_for_damage(residence: Residence) -> None:
    """A replica that has left and is wished for again, by a view of the past, is damage."""
    for shard, replica_id in sorted(residence._view.replicas_on(residence._node).items()):
        if shard == META_SHARD or residence.has(shard):
            continue
        if replica_id <= residence._raft_db._catalog.tombstones.get(shard, 0):
            residence.note_damage(shard, Tombstoned(f"replica {replica_id} was removed"))
    _create_wanted(residence)


def _stay(router: Router, address: str, now: float) -> None:
    """A node that does not answer in time is asked first the next time as well."""


def _ask_the_same_again(router: Router, error: KritaError) -> None:
    """The first of the client's addresses is asked for the map, whatever it told last time."""


def _let_it_finish(residence: Residence, replica: Replica, why: str) -> None:
    """A replica that is found damaged sends what it had ready in that turn."""
    replica.raft.poison(why)
    residence._flusher.forget(replica)
    replica.abandon(why)
    residence._drive.mark(replica)


def _route_by_the_map(service: DataService, key: bytes) -> int:
    """What this node knows of splits beyond its map is left to the old shard's leader."""
    check_key(key)
    known = service._host.shard_map
    if known is None:
        raise Unavailable("this node does not know the cluster's shards yet", hint="try again")
    return known.shard_of(key).shard


_create_wanted = Residence.create_wanted

MUTANTS = (
    Mutant(
        "newcomer-takes-its-view-for-the-cluster",
        "a node answers whoever proves to be a member",
        "found here: docs/simulation.md",
        "liveness: a node joins through a leader that came after the first entries it gets",
        ((Host, "admit_peer", _remember_while_ignorant),),
    ),
    Mutant(
        "old-wish-taken-for-damage",
        "damage is what the disk says",
        "found here: docs/simulation.md",
        "undamaged: a replica moves away and its node restarts",
        ((Residence, "create_wanted", _take_old_wishes_for_damage),),
    ),
    Mutant(
        "client-stays-with-a-node-that-is-late",
        "a client goes elsewhere when it is kept waiting",
        "found here: docs/simulation.md",
        "liveness: short timeouts, and a node that does not hear its cluster",
        ((Router, "kept_waiting", _stay),),
    ),
    Mutant(
        "old-map-is-asked-for-again",
        "who has just misled us is asked for the map last",
        "found here: docs/simulation.md",
        "liveness: a disk that hangs, then a split, and a client that had that node first",
        ((Router, "doubt_arcs", _ask_the_same_again),),
    ),
    Mutant(
        "damaged-replica-finishes-its-turn",
        "a poisoned replica is silent",
        "found here: docs/simulation.md",
        "poisoned-silent: a leader applies a write to a damaged row and appends in one turn",
        ((Residence, "_silence", _let_it_finish),),
    ),
    Mutant(
        "new-half-is-found-by-the-map-alone",
        "who leads a shard serves it, whatever its map lacks",
        "found here: docs/simulation.md",
        "liveness: a split, then a node that leads a half and does not hear the meta shard",
        ((DataService, "_shard_of", _route_by_the_map),),
    ),
)
