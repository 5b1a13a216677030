"""From an open data directory to a member that serves: who the node is, and telling the others.

``identify`` comes before anything of the node runs: it answers nobody before it knows
who it is. ``arrive`` is a task of the running node: it founds the cluster if that is
still to be done, says that the node has started, and ends when the node can serve.
"""

from __future__ import annotations

import logging

import trio

from krita.address import parse
from krita.errors import Foreign, Status, from_wire
from krita.hello import Identity
from krita.operations import Op
from kritad.access import PEER, Principal
from kritad.config import Config
from kritad.host.admission import lost_advice
from kritad.host.bootstrap import (
    META_SHARD,
    accept_membership,
    announce_body,
    begin_cluster,
    bootstrap_body,
    next_boot,
    store_of,
)
from kritad.host.host import Host
from kritad.host.join import join
from kritad.host.request import Request
from kritad.host.surroundings import Surroundings
from kritad.notify import notify
from kritad.service import Service
from kritad.storage.raft_db import RaftDatabase

log = logging.getLogger(__name__)

_JOIN_TIMEOUT_S = 60.0
_FOUND_TIMEOUT_MS = 5_000.0
_ANNOUNCE_PAUSE_S = 0.2
_LOOK_S = 0.02


async def identify(
    raft_db: RaftDatabase, config: Config, peer_key: bytes, surroundings: Surroundings
) -> Identity:
    """Who we are: known from the disk, just founded, or just joined. Counts the boot.

    Raises what ``join`` raises.
    """
    store_uuid = store_of(raft_db, surroundings.make_uuid)
    known = raft_db.identity()
    assert known is not None
    if known.node_id == 0 and config.join_ip:
        joined = await join(
            [parse(text) for text in config.join_ip],
            store_uuid=store_uuid,
            address=config.address,
            zone=config.zone,
            peer_key=peer_key,
            timeout_s=_JOIN_TIMEOUT_S,
            surroundings=surroundings,
        )
        accept_membership(raft_db, store_uuid, joined)
        log.info("joined cluster %s as node %d", joined.cluster_id.hex(), joined.node)
        if lost := joined.others_at(config.address):
            log.warning("%s", lost_advice(lost, config.address))
    elif known.node_id == 0:
        cluster_id = begin_cluster(raft_db, store_uuid, surroundings.make_uuid)
        log.info("began cluster %s", cluster_id.hex())
    return next_boot(raft_db, config.address, surroundings.make_uuid)


async def arrive(host: Host, service: Service, config: Config) -> None:
    """Found the cluster if that is still to be done, tell it that we have started, and
    tell the service manager once we can serve. Ends early when the cluster refuses us."""
    await _found(host, config)
    if not await _announce(host, service):
        return
    while not service.health().serving:  # noqa: ASYNC110 - it is many conditions at once
        await trio.sleep(_LOOK_S)
    notify("READY=1")
    log.info("ready: serving CBOR and HTTP on %s", host.identity.address)


async def _found(host: Host, config: Config) -> None:
    """Propose the first entry of a new cluster's life, until it is there. The first node
    does so at each start: a repetition is refused at apply."""
    identity = host.identity
    while host.node == 1 and not host.view.cluster_id:
        done = trio.Event()

        def respond(_status: int, _body: object, done: trio.Event = done) -> None:
            done.set()

        request = Request(
            op=Op.META_BOOTSTRAP,
            body=bootstrap_body(
                identity.cluster_id,
                identity.store_uuid,
                shards=config.shards,
                replication_factor=config.replication_factor,
                address=identity.address,
                zone=config.zone,
            ),
            key=b"",
            shard=META_SHARD,
            respond=respond,
            deadline_ms=host.clock.monotonic_ms() + _FOUND_TIMEOUT_MS,
            forwarded=True,  # only ever proposed here
            write=True,
        )
        host.submit(request)
        await done.wait()
        await trio.sleep(_LOOK_S)


async def _announce(host: Host, service: Service) -> bool:
    """Tell the cluster that we have started, until it has heard; whether it takes us."""
    body = announce_body(host.identity)
    itself = Principal(PEER, host.node, loopback=True)
    while True:
        status, reply = await service.call(Op.NODE_ANNOUNCE, body, itself)
        if status == Status.OK:
            host.upkeep.acknowledge_boot()
            return True
        if status == Status.FOREIGN:
            refusal = from_wire(status, reply)
            if isinstance(refusal, Foreign):
                host.belonging.refused(refusal)
            else:
                host.fail(refusal)
            return False
        await trio.sleep(_ANNOUNCE_PAUSE_S)
