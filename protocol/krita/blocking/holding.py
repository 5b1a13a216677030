# Made from krita/aio/holding.py by tests/client_sources.py: change it there.
"""What is held for some time: leases, locks, elections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.blocking.elections import Election
from krita.blocking.leases import Lease
from krita.blocking.locks import Lock
from krita.blocking.runner import Runner

if TYPE_CHECKING:
    from krita.checks import Key


class Holding(Runner):
    """See the module."""

    def lease(
        self,
        ttl_ms: int | None = None,
        *,
        id: int | None = None,
        timeout_ms: float | None = None,
    ) -> Lease:
        """A lease: what many keys share, and end with, ``ttl_ms`` after it was last kept
        alive. It begins with its ``with`` block or by ``grant``.

            with db.lease(10_000) as lease:
                db.put("worker:1", "here", lease=lease)

        ``id``: one that exists already, to keep alive, show or revoke. Raises BadRequest for
        what cannot be one; its block raises what ``grant`` does.
        """
        return Lease(self, ttl_ms, id=id, timeout_ms=timeout_ms)

    def lock(
        self,
        key: Key,
        *,
        ttl_ms: int,
        owner: str | bytes | None = None,
        wait_ms: float | None = None,
        timeout_ms: float | None = None,
    ) -> Lock:
        """A lock, which is a key; held inside its ``with`` block, or from ``acquire`` on.

            with db.lock("{report}lock", ttl_ms=10_000) as lock:
                db.put("{report}text", "…", if_lock=lock)

        It ends ``ttl_ms`` after it was last renewed, whatever became of its holder. So what
        is written under it should say ``if_lock=``: only that is refused when the lock went
        to somebody else meanwhile. ``wait_ms``: how long to wait for it, None: as long as
        it takes. ``owner``: the key's value, this very object's own unless given. Raises
        BadRequest or TooLarge for bad arguments; its block raises what ``acquire`` does.
        """
        return Lock(self, key, ttl_ms=ttl_ms, owner=owner, wait_ms=wait_ms, timeout_ms=timeout_ms)

    def election(self, key: Key, *, ttl_ms: int, timeout_ms: float | None = None) -> Election:
        """Who of several leads: a lock, whose value is the candidate's name.

            election = db.election("{jobs}leader", ttl_ms=10_000)
            with election.lead("worker-7"):
                ...

        Raises BadRequest or TooLarge for what is no key.
        """
        return Election(self, key, ttl_ms=ttl_ms, timeout_ms=timeout_ms)
