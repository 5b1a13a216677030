"""A lock, and the block that holds it.

The lock is a key whose value says who holds it, and its fencing token is that key's
revision: higher than any that was given out before. Whoever finds it held waits for the
key to change, by a poll of its shard, and tries again.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

from krita import checks, requests, steps, wide_requests
from krita.aio.turns import AsyncTurns
from krita.errors import (
    BadRequest,
    Compacted,
    ConditionFailed,
    KritaError,
    Locked,
    LockLost,
    Outcome,
    ProtocolError,
)
from krita.watching import FATAL

if TYPE_CHECKING:
    from types import TracebackType

    from krita.aio.keeper import AsyncKeeper
    from krita.aio.runner import AsyncRunner
    from krita.checks import Key

POLL_MS_MAX = 10_000  # of one wait for a change
_MARGIN_MS = 20  # behind a deadline, so that it has passed by the shard's clock


class AsyncLock:
    """Made by ``AsyncClient.lock``. Its ``with`` block acquires it and releases it at the end.

    The asynchronous client renews it meanwhile, and cancels the block when it was lost
    nevertheless, which is raised as LockLost. A blocking client has nobody
    to do that: call ``renew`` within each ``ttl_ms``.

    Tasks and threads may share one: they take turns with the object, as with a lock of
    ``threading``, and who has the turn asks the cluster. A turn ends with the block; without a
    block by ``release``, or when ``renew`` finds the lock lost. Time does not end it. Entering
    the block of one that one has acquired already raises BadRequest.
    """

    def __init__(
        self,
        client: AsyncRunner,
        key: Key,
        *,
        ttl_ms: int,
        owner: str | bytes | None,
        wait_ms: float | None,
        timeout_ms: float | None,
        token_newest: int = 0,
    ) -> None:
        self._client = client
        self.key = checks.key_bytes(key)
        self.owner = checks.owner_bytes(own_name() if owner is None else owner)
        if checks.ttl(ttl_ms) is None or ttl_ms < 0:
            raise BadRequest("a lock has a ttl_ms: when it ends unless it is renewed")
        self.ttl_ms = ttl_ms
        self._wait_ms = checks.wait(wait_ms)
        self._timeout_ms = timeout_ms
        self._token = 0
        self._token_newest = token_newest  # that the owner is known to have had
        self._asked_at = 0.0
        self._keeper: AsyncKeeper | None = None  # of the block; None: there is none
        self._turns = AsyncTurns()
        self._turn = 0  # in which it was acquired

    def __repr__(self) -> str:
        state = f"held, token {self._token}" if self._token else "not held"
        return f"<{type(self).__name__} {self.key!r} {state}>"

    @property
    def held(self) -> bool:
        """Whether it was acquired and not released. Whether it still is, the cluster knows."""
        return self._token > 0

    @property
    def token(self) -> int:
        """The fencing token. Raises BadRequest when the lock is not held."""
        if not self._token:
            raise BadRequest("the lock is not held", hint="acquire it")
        return self._token

    async def acquire(self, *, wait_ms: float | None = None) -> int:
        """Take it, or wait until it is free; its token. ``wait_ms``: how long to wait, None:
        as long as it takes, 0: not at all. Whoever has acquired it asks the cluster again: to
        have it for longer, or anew. Raises Locked when it was held for all that time,
        with ``owner``, ``token`` and perhaps ``left_ms`` in its ``detail`` unless others who share
        this object wait for it as well, BadRequest for a bad ``wait_ms``, and as ``put`` does;
        ``timeout_ms`` counts for each attempt."""
        wait_ms = checks.wait(wait_ms)
        deadline = math.inf if wait_ms is None else time.monotonic() + wait_ms / 1000
        if self._turns.mine:
            return await self._take(deadline)
        turn = await self._turns.take(deadline - time.monotonic())
        if not turn:
            raise self._refusal()
        try:
            await self._take(deadline)
        except BaseException:
            self._turns.end(turn)
            raise
        self._turn = turn
        return self._token

    async def renew(self) -> None:
        """Hold it for ``ttl_ms`` from now on. Raises LockLost when it is held no more,
        BadRequest when it was never acquired, and as ``put`` does."""
        turn, request = self._turn, requests.touch(self.key, self.ttl_ms, if_revision=self.token)
        try:
            await self._client.run(request, self._timeout_ms)
        except ConditionFailed as error:
            if self._keeper is None:
                self._turns.end(turn)
            raise LockLost(
                f"the lock {self.key!r:.80} is not held any more", detail=error.detail
            ) from None

    async def release(self) -> bool:
        """Let it go. False: it was not held any more. Raises BadRequest when it was never
        acquired, and as ``put`` does: then it ends by time."""
        turn, token, self._token = self._turn, self.token, 0
        keeper = self._keeper
        if keeper is not None:
            keeper.rest()
        try:
            request = requests.delete(self.key, token)
            return (await self._client.run(request, self._timeout_ms)).existed
        except ConditionFailed:
            return False
        finally:
            if keeper is None:
                self._turns.end(turn)

    async def __aenter__(self) -> AsyncLock:
        if self._turns.mine:
            raise BadRequest(
                "whoever enters the lock's block has acquired it already",
                hint="release it before, or make another by `lock`",
            )
        await self.acquire(wait_ms=self._wait_ms)
        self._keeper = self._client.keeper(self.renew, self.ttl_ms, LockLost)
        self._keeper.start(self._asked_at)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        keeper, turn = self._keeper, self._turn
        assert keeper is not None
        try:
            keeper.stop(kind, error, traceback)
        finally:
            self._keeper = None
            if self._token:
                await self._client.last_word(self.release)
            self._turns.end(turn)

    def _refusal(self) -> Locked:
        """The turn did not come in time."""
        detail: dict[str, object] = {"owner": self.owner, "token": self._token}
        return Locked(
            f"the lock {self.key!r:.80} is used by others who share the object",
            detail=detail if self._token else None,
        )

    async def _take(self, deadline: float) -> int:
        """Of the cluster, until then; the token."""
        after = 0
        while True:
            try:
                self._token = self._token_newest = await self._try()
                return self._token
            except Locked as error:
                left_ms = (deadline - time.monotonic()) * 1000
                if left_ms <= 0:
                    raise
                after = await self._wait_for_change(error, after, left_ms)

    async def _try(self) -> int:
        """Take it if it is free; the token. Whatever ends that without an answer, the lock
        is not left behind for its whole time."""
        request = requests.lock(self.key, self.owner, self.ttl_ms)
        settled = False
        self._asked_at = time.monotonic()
        try:
            token = (await self._client.run(request, self._timeout_ms)).token
            settled = True
        except KritaError as error:
            settled = error.outcome is Outcome.NOT_APPLIED
            raise
        finally:
            if not settled:
                await self._client.last_word(self._disown)
        return token

    async def _disown(self) -> None:
        """Let it go if it is ours, and was not before. A write, and so behind the one in doubt."""
        ours = [
            steps.value(self.key, "==", self.owner),
            steps.revision(self.key, ">", self._token_newest),
        ]
        request = requests.txn(ours, [steps.delete(self.key)], [])
        await self._client.run(request, self._timeout_ms)

    async def _wait_for_change(self, refusal: Locked, after: int, left_ms: float) -> int:
        """Until the lock's key may have changed, or its time is over; behind which revision
        to look for a change the next time."""
        token, held_ms = refusal.detail.get("token"), refusal.detail.get("left_ms")
        if isinstance(token, int):
            after = max(after, token)
        if isinstance(held_ms, int):
            left_ms = min(left_ms, held_ms + _MARGIN_MS)
        wait_ms = max(1, int(min(left_ms, POLL_MS_MAX)))
        known = self._client.map_known
        assert known is not None, "the lock was asked for without a map"
        shard = known.shard_of(self.key).shard
        poll = wide_requests.changes(shard, after, self.key, self.key + b"\0", wait_ms)
        try:
            answer = await self._client.run(poll, self._timeout_ms)
        except Compacted as error:
            oldest = error.detail.get("oldest")
            return max(after, oldest) if isinstance(oldest, int) else after
        except FATAL:
            raise
        except KritaError:
            return after  # the lock itself says more
        match answer:
            case [_, int(revision), *_]:
                return max(after, revision)
        raise ProtocolError("the reply to changes is malformed")


def own_name() -> str:
    """An owner that is nobody else's, and tells people where to look for it."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
