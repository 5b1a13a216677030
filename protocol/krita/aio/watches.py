"""A watch that is under way: ``krita.watching`` decides, this asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from krita import requests, wide_requests
from krita.errors import BadRequest, ProtocolError, Unavailable
from krita.ring import META_SHARD, RING_SIZE
from krita.ring import token as place_of
from krita.watching import Position, Positions, Range, Watching, decode_token

if TYPE_CHECKING:
    from types import TracebackType

    from krita.aio.mailbox import AsyncMailbox
    from krita.aio.runner import AsyncRunner
    from krita.call import Call
    from krita.request import Request
    from krita.ring import ShardMap
    from krita.watching import Event

SPLIT_PAUSE_S = 0.05  # until a shard map that lacks a split is asked for again
NODE_TIMEOUT_MS = 1_000.0  # for a replica that need not be there


class AsyncWatch:
    """An iterator of events; made by ``AsyncClient.watch``.

    It begins with the first event that is asked for, or with ``begin``. ``token`` is the
    place behind the last event that was handed out, for a watch that goes on there, later or
    elsewhere. Close it, or use it in a ``with`` block, to stop the polls under way.

    Iterating raises Compacted, what ends a poll for good (Unauthenticated, Forbidden), and
    Unavailable or another KritaError once two polls of one shard have failed in a row; it can be
    gone on with after each of them.
    """

    def __init__(
        self,
        client: AsyncRunner,
        keys: Range,
        *,
        token: str | None,
        progress: bool,
        timeout_ms: float | None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._progress = progress
        self._timeout_ms = timeout_ms
        self._mailbox: AsyncMailbox = client.mailbox()
        self._watching: Watching | None = None
        if token is not None:
            self._watching = Watching(keys, decode_token(token, keys), progress=progress)

    @property
    def token(self) -> str:
        """Where it is, as text. Raises BadRequest before it has begun."""
        if self._watching is None:
            raise BadRequest("the watch has not begun", hint="call its `begin` before")
        return self._watching.token

    async def begin(self) -> str:
        """Fix where the watch begins: now, unless it has begun already. Returns the token.

        So nothing is missed between reading and watching: begin, read, then iterate. Raises
        as ``get`` does, and Unavailable when a shard was being split for all that time.
        """
        return (await self._begun()).token

    async def _begun(self) -> Watching:
        if self._watching is None:
            positions = await self._positions()
            self._watching = Watching(self._keys, positions, progress=self._progress)
        return self._watching

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Event:
        watching = await self._begun()
        while True:
            event = watching.next()
            if event is not None:
                return event
            for request in watching.polls():
                assert request.shard is not None
                probe = watching.node_asked(request.shard)
                self._mailbox.post(request, NODE_TIMEOUT_MS if probe else self._timeout_ms)
            self._take(watching, await self._mailbox.take())

    def close(self) -> None:
        """Forget the polls under way. Iterating on starts them again. Idempotent."""
        self._mailbox.close()
        watching = self._watching
        if watching is not None:
            self._watching = Watching(self._keys, watching.positions, progress=self._progress)

    async def __aenter__(self) -> AsyncWatch:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _take(self, watching: Watching, call: Call) -> None:
        shard = call.request.shard
        assert shard is not None
        if call.error is None:
            watching.answered(shard, call.result)
            return
        known = self._client.map_known
        info = None if known is None else known.shard(shard)
        others = () if info is None else [node for node in info.nodes if node != info.leader]
        watching.failed(shard, call.error, others)

    async def _positions(self) -> Positions:
        """How far the shards are now. All of them, also one that was just split off and is
        in no map yet: the arcs that the shards themselves tell have to fit together."""
        timeout_ms = self._client.timeout_ms if self._timeout_ms is None else self._timeout_ms
        deadline = time.monotonic() + timeout_ms / 1000
        key = self._keys.single
        while True:
            shard_map = await self._client.run(requests.shard_map(), self._timeout_ms)
            told = await self._ask_all(_shards(shard_map, key))
            arcs = sorted((lo, hi) for _, lo, hi in told.values())
            if _cover(arcs, key):
                return {shard: Position(revision) for shard, (revision, _, _) in told.items()}
            if time.monotonic() >= deadline:
                raise Unavailable("a shard is being split", hint="try again")
            await self._client.pause(SPLIT_PAUSE_S)

    async def _ask_all(self, shards: list[int]) -> dict[int, tuple[int, int, int]]:
        mailbox = self._client.mailbox()
        told: dict[int, tuple[int, int, int]] = {}
        try:
            for shard in shards:
                place: Request[list[Any]] = wide_requests.place(shard)
                mailbox.post(place, self._timeout_ms)
            for _ in shards:
                call = await mailbox.take()
                assert call.request.shard is not None
                told[call.request.shard] = _place(call.value())
        finally:
            mailbox.close()
        return told

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._watching or self._keys!r}>"


def _shards(shard_map: ShardMap, key: bytes | None) -> list[int]:
    if key is not None:
        return [shard_map.shard_of(key).shard]
    return [info.shard for info in shard_map.shards if info.shard != META_SHARD]


def _place(reply: object) -> tuple[int, int, int]:
    match reply:
        case [_, _, int(revision), int(lo), int(hi), *_]:
            return revision, lo, hi
    raise ProtocolError("the reply to shard_scan is malformed")


def _cover(arcs: list[tuple[int, int]], key: bytes | None) -> bool:
    """Whether the arcs are the whole ring, or have the key."""
    if key is not None:
        return any(lo <= place_of(key) < hi for lo, hi in arcs)
    end = 0
    for lo, hi in arcs:
        if lo != end:
            return False
        end = hi
    return end == RING_SIZE
