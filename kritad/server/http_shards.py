"""Which shards there are, and how far each has come: where a watch begins.

The map that a node has may lack a split that has just happened. So the shards themselves
are asked for their arcs, and only when these cover the ring does a watch know of all of
them. A map that does not fit yet is asked for again: it is a matter of milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import trio

from krita.errors import KritaError, ProtocolError, Unavailable
from krita.operations import Op, What
from krita.ring import ShardMap
from krita.ring import token as token_of
from kritad.scan_page import cover_the_ring
from kritad.server.http_exchange import Exchange

_TRIES_MAX = 20
_PAUSE_S = 0.1


async def shard_map(exchange: Exchange) -> ShardMap:
    """The cluster's shards, as this node knows them. Raises KritaError."""
    return ShardMap.from_wire(await exchange.ask(Op.SHARD_MAP, ()))


async def shard_of(exchange: Exchange, key: bytes) -> int:
    """The shard that owns the key, as this node knows. Raises KritaError."""
    return (await shard_map(exchange)).shard_of(key).shard


async def beginnings(exchange: Exchange, key: bytes | None) -> dict[int, int]:
    """How far the shard of the key has come, or with None each of all shards: what is behind
    that happens after this call has begun. Raises KritaError."""
    for _ in range(_TRIES_MAX):
        known = await shard_map(exchange)
        shards = [info.shard for info in known.shards if info.hash_hi]
        if key is not None:
            shards = [known.shard_of(key).shard]
        found = await _ask_all(exchange, shards)
        if key is None and cover_the_ring([(lo, hi) for _, lo, hi in found.values()]):
            return {shard: revision for shard, (revision, _, _) in found.items()}
        if key is not None:
            ((shard, (revision, lo, hi)),) = found.items()
            if lo <= token_of(key) < hi:
                return {shard: revision}
        await trio.sleep(_PAUSE_S)
    raise Unavailable("a shard is being split", hint="ask again")


async def _ask_all(exchange: Exchange, shards: Iterable[int]) -> dict[int, tuple[int, int, int]]:
    found: dict[int, tuple[int, int, int]] = {}

    def take(shard: int, reply: Any) -> None:
        match reply:
            case [_, _, int(revision), int(lo), int(hi), *_]:
                found[shard] = revision, lo, hi
            case _:
                raise ProtocolError("the reply to shard_scan is malformed")

    # No key at all is below an empty stop: what is wanted is the place, and the arc.
    fields = (b"", b"", 1, False, int(What.KEYS), None)
    asked = {shard: (shard, *fields) for shard in shards}
    for problem in (await ask_each(exchange, Op.SHARD_SCAN, asked, take)).values():
        raise problem
    return found


async def ask_each(
    exchange: Exchange,
    op: Op,
    fields: Mapping[int, tuple[object, ...]],
    take: Callable[[int, object], None],
) -> dict[int, KritaError]:
    """Ask several shards at once, and ``take`` each one's answer. Returns the others'
    problems."""
    problems: dict[int, KritaError] = {}

    async def one(shard: int) -> None:
        try:
            take(shard, await exchange.ask(op, fields[shard]))
        except KritaError as problem:
            problems[shard] = problem

    async with trio.open_nursery() as nursery:
        for shard in fields:
            nursery.start_soon(one, shard)
    return problems
