"""An election: a lock whose value says who leads, and those who look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita import checks
from krita.aio.locks import AsyncLock
from krita.aio.watches import AsyncWatch
from krita.errors import BadRequest
from krita.operations import Op
from krita.request import Request
from krita.values import Leader, read_leader
from krita.watching import Range

if TYPE_CHECKING:
    from krita.aio.runner import AsyncRunner
    from krita.checks import Key


class AsyncElection:
    """Made by ``AsyncClient.election``. ``renew`` and ``resign`` are those of the candidate that
    has won a ``campaign`` of this object last: one that campaigns has an object of its own."""

    def __init__(
        self, client: AsyncRunner, key: Key, *, ttl_ms: int, timeout_ms: float | None
    ) -> None:
        self._client = client
        self.key = checks.key_bytes(key)
        self.ttl_ms = ttl_ms
        self._timeout_ms = timeout_ms
        self._lock: AsyncLock | None = None

    def lead(self, candidate: str | bytes, *, wait_ms: float | None = None) -> AsyncLock:
        """What to be leader in: a lock whose ``with`` block begins when ``candidate`` has
        been elected and resigns at its end. Candidates have different names: two of one
        name would both lead. Raises BadRequest for a bad name or ``wait_ms``; entering it raises
        Locked after ``wait_ms``, and what ``lock`` does."""
        name = checks.owner_bytes(candidate)
        before = self._lock
        return AsyncLock(
            self._client,
            self.key,
            ttl_ms=self.ttl_ms,
            owner=name,
            wait_ms=wait_ms,
            timeout_ms=self._timeout_ms,
            # Or a candidate that leads would resign when it campaigns again and is cancelled.
            token_newest=before.token if before is not None and before.owner == name else 0,
        )

    async def campaign(self, candidate: str | bytes, *, wait_ms: float | None = None) -> int:
        """Wait until ``candidate`` leads, without a block; the fencing token of its
        leadership. It leads for ``ttl_ms``, and for as long again with each ``renew``. Raises
        Locked after ``wait_ms``, and what ``acquire`` of a lock does."""
        lock = self.lead(candidate)
        token = await lock.acquire(wait_ms=wait_ms)
        self._lock = lock
        return token

    async def renew(self) -> None:
        """Lead for ``ttl_ms`` from now on. Raises LockLost when somebody else leads by now, or
        nobody, BadRequest without a ``campaign``, and as ``put`` does."""
        await self._held().renew()

    async def resign(self) -> bool:
        """Lead no more. False: somebody else did, or nobody, already. Raises BadRequest without
        a ``campaign``, and as ``put`` does; then it leads until ``ttl_ms`` are over."""
        lock, self._lock = self._held(), None
        return await lock.release()

    async def leader(self) -> Leader | None:
        """Who leads now; None: nobody. Raises as ``get`` does."""
        return (await self.look())[0]

    def observe(self) -> AsyncObservation:
        """Who leads, and who does whenever that changes, as an iterator of Leader or None, which
        raises as that of a ``watch`` does."""
        return AsyncObservation(self)

    def watch(self) -> AsyncWatch:
        """The events of the election's key; see ``AsyncClient.watch``."""
        keys = Range(self.key, self.key + b"\0")
        return AsyncWatch(
            self._client, keys, token=None, progress=False, timeout_ms=self._timeout_ms
        )

    async def look(self) -> tuple[Leader | None, int]:
        """Who leads, and as of which revision of the shard. Raises as ``get`` does."""
        request = Request(Op.GET, (self.key, 0), read_leader, self.key)
        return await self._client.run(request, self._timeout_ms)

    def _held(self) -> AsyncLock:
        if self._lock is None:
            raise BadRequest("there was no campaign", hint="`campaign` begins one")
        return self._lock


class AsyncObservation:
    """An iterator of who leads; made by ``AsyncElection.observe``."""

    def __init__(self, election: AsyncElection) -> None:
        self._election = election
        self._watch = election.watch()
        self._seen = -1  # the revision of the shard that was looked at in the beginning

    def __aiter__(self) -> AsyncObservation:
        return self

    async def __anext__(self) -> Leader | None:
        if self._seen < 0:
            await self._watch.begin()
            leader, self._seen = await self._election.look()
            return leader
        while True:
            event = await self._watch.__anext__()
            if event.revision > self._seen:  # else the look has shown it already
                return None if event.data is None else Leader(event.data, event.revision)

    def close(self) -> None:
        """Look no more. Idempotent."""
        self._watch.close()
