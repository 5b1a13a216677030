# Made from krita/aio/keys.py by tests/client_sources.py: change it there.
"""Operations on one key.

All of them take ``timeout_ms``, the client's own if it is None: for how long the call may
take, all its attempts together. All raise KritaError, whose ``outcome`` says what became of
the request. A write that had to be sent twice happens once, by its session.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from krita import requests
from krita.blocking.runner import Runner
from krita.operations import KEEP_TTL, Consistency

if TYPE_CHECKING:
    from krita.checks import Data, HasId, HasToken, Key
    from krita.values import (
        AddResult,
        AppendResult,
        DeleteResult,
        PutResult,
        TouchResult,
        Value,
    )


class Keys(Runner):
    """See the module.

    What several of them take:

    - ``if_revision``: only if the key is at this revision; 0 asks that it be absent.
    - ``ttl_ms``: how long the key lasts from now on, None: for ever, ``krita.KEEP_TTL``: as
      long as it would have. ``lease``: it ends with that lease, a Lease or its id.
    - ``if_lock``: only while this lock is held, a Lock or (key, token). Its key and this one
      are of one group.
    - ``idempotency``: for those who repeat a request themselves, perhaps from another
      process. The same again within the hour gets the first answer again.
    """

    def get(
        self,
        key: Key,
        *,
        consistency: Consistency | str | None = None,
        staleness_ms_max: int | None = None,
        revision_min: int | None = None,
        at_revision: int | None = None,
        at: datetime | int | None = None,
        timeout_ms: float | None = None,
    ) -> Value | None:
        """The key's value, or None when it has none.

        A read is ``"linearizable"`` unless it says otherwise: it sees every write that was
        acknowledged before it began. ``consistency="stale"`` asks the nearest replica, one
        in the client's ``zone`` if the shard has one there, and may miss recent writes, by
        as much as the value's ``staleness_ms`` says. With ``staleness_ms_max`` it misses
        none that is older; with ``revision_min``, the revision of a write of this key, it
        sees that one. Where the nearest replica is too far behind, the leader answers.

        ``at_revision`` and ``at``, a datetime with a zone or milliseconds since 1970, ask
        for what the key was then. That is known while the prefix has a retention. Raises
        Compacted for what is not kept, BadRequest or TooLarge for bad arguments, Unavailable,
        NotLeader, Busy or DeadlineExceeded when nobody could answer in time.
        """
        request = requests.get(
            key,
            consistency,
            staleness_ms_max=staleness_ms_max,
            revision_min=revision_min,
            at_revision=at_revision,
            at=at,
        )
        return self.run(request, timeout_ms)

    def put(
        self,
        key: Key,
        value: Data,
        *,
        content_type: str | None = None,
        if_revision: int | None = None,
        if_absent: bool = False,
        ttl_ms: int | None = None,
        lease: int | HasId | None = None,
        if_lock: tuple[Key, int] | HasToken | None = None,
        idempotency: str | bytes | None = None,
        previous: bool = False,
        timeout_ms: float | None = None,
    ) -> PutResult:
        """Set the key. It is on the disks of a majority when this returns.

        ``if_absent``: as ``if_revision=0``. ``previous``: the result has the value of
        before. A put without ``ttl_ms`` takes a deadline away.
        Raises ConditionFailed, BadRequest, TooLarge, NoSpace, LeaseUnknown, SeveralGroups when
        the lock is of another group, Conflict for an ``idempotency`` of another request,
        OutcomeUnknown, or another KritaError whose ``outcome`` is NOT_APPLIED.
        """
        request = requests.put(
            key,
            value,
            content_type,
            if_revision,
            if_absent=if_absent,
            ttl_ms=ttl_ms,
            lease=lease,
            if_lock=if_lock,
            idempotency=idempotency,
            previous=previous,
        )
        return self.run(request, timeout_ms)

    def delete(
        self,
        key: Key,
        *,
        if_revision: int | None = None,
        if_lock: tuple[Key, int] | HasToken | None = None,
        idempotency: str | bytes | None = None,
        previous: bool = False,
        timeout_ms: float | None = None,
    ) -> DeleteResult:
        """Remove the key; ``existed`` says whether there was anything to remove.
        Raises as ``put`` does."""
        request = requests.delete(
            key, if_revision, if_lock=if_lock, idempotency=idempotency, previous=previous
        )
        return self.run(request, timeout_ms)

    def add(
        self,
        key: Key,
        delta: int,
        *,
        if_revision: int | None = None,
        ttl_ms: int | None = KEEP_TTL,
        lease: int | HasId | None = None,
        if_lock: tuple[Key, int] | HasToken | None = None,
        idempotency: str | bytes | None = None,
        timeout_ms: float | None = None,
    ) -> AddResult:
        """Add to a counter, a value that is a whole number in decimal; an absent one is 0.
        The result has the sum. Raises Conflict for another value or a sum of over 63 bits,
        and as ``put`` does."""
        request = requests.add(
            key,
            delta,
            if_revision=if_revision,
            ttl_ms=ttl_ms,
            lease=lease,
            if_lock=if_lock,
            idempotency=idempotency,
        )
        return self.run(request, timeout_ms)

    def append(
        self,
        key: Key,
        data: Data,
        *,
        if_revision: int | None = None,
        ttl_ms: int | None = KEEP_TTL,
        lease: int | HasId | None = None,
        if_lock: tuple[Key, int] | HasToken | None = None,
        idempotency: str | bytes | None = None,
        timeout_ms: float | None = None,
    ) -> AppendResult:
        """Put bytes behind a value; an absent one is empty. Raises Conflict when the value
        would be too large, and as ``put`` does."""
        request = requests.append(
            key,
            data,
            if_revision=if_revision,
            ttl_ms=ttl_ms,
            lease=lease,
            if_lock=if_lock,
            idempotency=idempotency,
        )
        return self.run(request, timeout_ms)

    def touch(
        self,
        key: Key,
        ttl_ms: int | None,
        *,
        if_revision: int | None = None,
        lease: int | HasId | None = None,
        if_lock: tuple[Key, int] | HasToken | None = None,
        idempotency: str | bytes | None = None,
        timeout_ms: float | None = None,
    ) -> TouchResult:
        """Change how long the key lasts, and nothing else: its revision stays, and no watch
        is told. Of an absent key the result says that it did not exist. Raises as ``put`` does."""
        request = requests.touch(
            key,
            ttl_ms,
            if_revision=if_revision,
            lease=lease,
            if_lock=if_lock,
            idempotency=idempotency,
        )
        return self.run(request, timeout_ms)

    def persist(
        self,
        key: Key,
        *,
        if_revision: int | None = None,
        timeout_ms: float | None = None,
    ) -> TouchResult:
        """Let the key last for ever: without a deadline, and tied to no lease. Of an absent key
        the result says that it did not exist. Raises as ``put`` does."""
        return self.touch(key, None, if_revision=if_revision, timeout_ms=timeout_ms)
