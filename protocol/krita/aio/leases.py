"""A lease, and the block that it lives with."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from krita import checks, wide_requests
from krita.aio.turns import AsyncTurns
from krita.errors import BadRequest, LeaseUnknown
from krita.limits import LEASE_LIMIT

if TYPE_CHECKING:
    from types import TracebackType

    from krita.aio.keeper import AsyncKeeper
    from krita.aio.runner import AsyncRunner
    from krita.items import LeaseInfo


class AsyncLease:
    """Made by ``AsyncClient.lease``. Its ``with`` block grants it and revokes it at the end.

    The asynchronous client keeps it alive meanwhile, and cancels the block when it has ended
    nevertheless, which is raised as LeaseUnknown. A blocking client has nobody to do that:
    call ``keepalive`` within each ``ttl_ms``. It is in one block at a time: entering another
    raises BadRequest.
    """

    def __init__(
        self, client: AsyncRunner, ttl_ms: int | None, *, id: int | None, timeout_ms: float | None
    ) -> None:
        self._client = client
        self._timeout_ms = timeout_ms
        # Drawn here, so that a grant that is sent twice is one lease.
        self.id: int = checks.lease_id(id) or 1 + secrets.randbelow(LEASE_LIMIT - 1)
        self.ttl_ms = ttl_ms  # None: of one that exists already
        self._keeper: AsyncKeeper | None = None
        self._blocks = AsyncTurns()
        self._block = 0  # that it is in

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}, {self.ttl_ms} ms>"

    async def grant(self) -> int:
        """Begin it, or begin its time anew; its id. All shards are told. Raises BadRequest
        without a ``ttl_ms``, Busy when there are too many leases, and OutcomeUnknown when not all
        shards have answered in time: some may have begun it by then. Granted again, it is the
        same lease."""
        if self.ttl_ms is None:
            raise BadRequest("a lease that is granted has a ttl_ms")
        request = wide_requests.lease_grant(self.ttl_ms, self.id)
        return await self._client.run(request, self._timeout_ms)

    async def keepalive(self) -> int:
        """Let it last for its whole time from now on; that time, milliseconds. Raises
        LeaseUnknown when it has ended, and as ``grant`` does."""
        request = wide_requests.lease_keepalive(self.id)
        self.ttl_ms = await self._client.run(request, self._timeout_ms)
        return self.ttl_ms

    async def show(self) -> LeaseInfo:
        """How long it will last, and the keys that end with it, at most a thousand of each
        shard. Raises LeaseUnknown when it has ended, and as ``get`` does."""
        return await self._client.run(wide_requests.lease_show(self.id), self._timeout_ms)

    async def revoke(self) -> int:
        """End it and all of its keys, now; how many these were. 0 if it had ended. Raises as
        ``grant`` does, but for BadRequest: what is left of it ends by time."""
        if self._keeper is not None:
            self._keeper.rest()
        try:
            return await self._client.run(wide_requests.lease_revoke(self.id), self._timeout_ms)
        except LeaseUnknown:
            return 0

    async def __aenter__(self) -> AsyncLease:
        block = await self._blocks.take(0.0)
        if not block:
            raise BadRequest(
                "the lease is in its block already",
                hint="use it inside that, or make another by `lease`",
            )
        asked_at = time.monotonic()
        try:
            await self.grant()
        except BaseException:
            self._blocks.end(block)
            raise
        assert self.ttl_ms is not None
        self._block = block
        self._keeper = self._client.keeper(self.keepalive, self.ttl_ms, LeaseUnknown)
        self._keeper.start(asked_at)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        keeper = self._keeper
        assert keeper is not None
        try:
            keeper.stop(kind, error, traceback)
        finally:
            self._keeper = None
            try:
                await self._client.last_word(self.revoke)
            finally:
                self._blocks.end(self._block)
