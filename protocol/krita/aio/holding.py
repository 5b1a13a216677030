"""What is held for some time: leases, locks, elections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.aio.elections import AsyncElection
from krita.aio.leases import AsyncLease
from krita.aio.locks import AsyncLock
from krita.aio.runner import AsyncRunner

if TYPE_CHECKING:
    from krita.checks import Key


class AsyncHolding(AsyncRunner):
    """See the module."""

    def lease(
        self,
        ttl_ms: int | None = None,
        *,
        id: int | None = None,
        timeout_ms: float | None = None,
    ) -> AsyncLease:
        """A lease: what many keys share, and end with, ``ttl_ms`` after it was last kept
        alive. It begins with its ``with`` block or by ``grant``.

            async with db.lease(10_000) as lease:
                await db.put("worker:1", "here", lease=lease)

        ``id``: one that exists already, to keep alive, show or revoke. Raises BadRequest for
        what cannot be one; its block raises what ``grant`` does.
        """
        return AsyncLease(self, ttl_ms, id=id, timeout_ms=timeout_ms)

    def lock(
        self,
        key: Key,
        *,
        ttl_ms: int,
        owner: str | bytes | None = None,
        wait_ms: float | None = None,
        timeout_ms: float | None = None,
    ) -> AsyncLock:
        """A lock, which is a key; held inside its ``with`` block, or from ``acquire`` on.

            async with db.lock("{report}lock", ttl_ms=10_000) as lock:
                await db.put("{report}text", "…", if_lock=lock)

        It ends ``ttl_ms`` after it was last renewed, whatever became of its holder. So what
        is written under it should say ``if_lock=``: only that is refused when the lock went
        to somebody else meanwhile. ``wait_ms``: how long to wait for it, None: as long as
        it takes. ``owner``: the key's value, this very object's own unless given. Raises
        BadRequest or TooLarge for bad arguments; its block raises what ``acquire`` does.
        """
        return AsyncLock(
            self, key, ttl_ms=ttl_ms, owner=owner, wait_ms=wait_ms, timeout_ms=timeout_ms
        )

    def election(self, key: Key, *, ttl_ms: int, timeout_ms: float | None = None) -> AsyncElection:
        """Who of several leads: a lock, whose value is the candidate's name.

            election = db.election("{jobs}leader", ttl_ms=10_000)
            async with election.lead("worker-7"):
                ...

        Raises BadRequest or TooLarge for what is no key.
        """
        return AsyncElection(self, key, ttl_ms=ttl_ms, timeout_ms=timeout_ms)
