"""Asking a running cluster to become a member of it.

Rules:
* Both sides prove that they hold the key derived from the admin token before
  anything is asked (krita/handshake.py); a join is therefore no administration.
* The addresses are tried in turn, again and again: a node is often started a
  moment before the one it is to join. A cluster that answers *no* is final.
* The store's uuid was written to the disk before the first attempt, so that a
  node that dies half way is the same node when it tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing

import trio

from krita.address import Address
from krita.codec import encode_body
from krita.connection import Connection
from krita.errors import (
    Foreign,
    KritaError,
    Status,
    Unauthenticated,
    Unavailable,
    Unsupported,
    from_wire,
)
from krita.events import Goodbye, Reply
from krita.hello import Identity
from krita.operations import Op
from kritad.host.bootstrap import Membership, parse_membership
from kritad.host.link import dial, peer_hello
from kritad.host.surroundings import MACHINE, Surroundings
from kritad.host.transport import REQUESTS
from kritad.stream import Stream

log = logging.getLogger(__name__)

_ATTEMPT_TIMEOUT_S = 10.0
_PAUSE_S = 0.3


async def join(
    seeds: Sequence[Address],
    *,
    store_uuid: bytes,
    address: str,
    zone: str,
    peer_key: bytes,
    timeout_s: float,
    surroundings: Surroundings = MACHINE,
) -> Membership:
    """Become a member through any of ``seeds``.

    Raises Foreign, Unauthenticated or Unsupported (another release) when the cluster says
    no, Unavailable when none of the seeds has answered within ``timeout_s``.
    """
    newcomer = Identity(b"", 0, store_uuid, 0, address)
    said: dict[Address, str] = {}
    with trio.move_on_after(timeout_s):
        while True:
            for seed in seeds:
                try:
                    return await _ask(seed, newcomer, zone, peer_key, surroundings)
                except (Foreign, Unauthenticated, Unsupported):
                    raise
                except (OSError, trio.TooSlowError, KritaError) as why:
                    text = str(why) or type(why).__name__
                    if said.get(seed) != text:
                        said[seed] = text
                        log.info("joining through %s: %s; trying on", seed, text)
            await trio.sleep(_PAUSE_S * (0.5 + surroundings.chance.random()))
    tried = "; ".join(f"{seed}: {text}" for seed, text in said.items()) or "no answer"
    raise Unavailable(
        f"no node to join has answered within {timeout_s:.0f} s ({tried})",
        hint="is kritad running there? --join_ip wants the address of a running node",
    )


async def _ask(
    seed: Address, newcomer: Identity, zone: str, peer_key: bytes, surroundings: Surroundings
) -> Membership:
    hello = peer_hello(newcomer, REQUESTS, surroundings)
    stream, connection, _ = await dial(seed, hello, peer_key, surroundings)
    with closing(stream):
        with trio.fail_after(_ATTEMPT_TIMEOUT_S):
            body = encode_body(Op.NODE_JOIN, newcomer.store_uuid, newcomer.address, zone)
            _, data = connection.request(Op.NODE_JOIN, body, int(_ATTEMPT_TIMEOUT_S * 1000))
            await stream.send(data)
            return parse_membership(await _reply(stream, connection, seed))


async def _reply(stream: Stream, connection: Connection, seed: Address) -> object:
    while data := await stream.receive():
        for event in connection.receive_data(data):
            if isinstance(event, Goodbye):
                raise event.error
            if isinstance(event, Reply):
                if event.status != Status.OK:
                    raise from_wire(event.status, event.body)
                return event.body
    raise Unavailable(f"{seed} closed the connection before it answered")
