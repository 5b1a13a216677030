# Made from krita/aio/past.py by tests/client_sources.py: change it there.
"""What keys were: their versions, two of them side by side, and the way back.

Versions are kept of the prefixes that have a retention, from the moment it was set.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from krita import checks, requests, wide_requests
from krita.blocking.runner import Runner
from krita.errors import Compacted
from krita.items import Difference
from krita.operations import KEEP_TTL
from krita.values import History

if TYPE_CHECKING:
    from krita.checks import Key
    from krita.items import RetentionRule
    from krita.values import DeleteResult, PutResult, Value, Version

VERSIONS_MAX = 1_000  # what a node answers at most


class Past(Runner):
    """See the module."""

    def history(
        self, key: Key, *, limit: int | None = None, timeout_ms: float | None = None
    ) -> History:
        """The versions of a key, the newest first, with what it is now as the first. Where
        there is no retention that is all. ``timeout_ms`` is for each thousand of them. Raises
        as ``get`` does; BadRequest for a ``limit`` below 1."""
        left = checks.count(limit, "limit", 1)
        found: list[Version] = []
        before: int | None = None
        while True:
            wanted = VERSIONS_MAX if left is None else min(left - len(found), VERSIONS_MAX)
            page = self.run(requests.history(key, wanted, before), timeout_ms)
            found += page.versions
            # A page has fewer than were asked for where they are large.
            if not page.versions or len(found) == left:
                return History(tuple(found), page.complete_from_ms)
            before = found[-1].revision

    def diff(
        self,
        key: Key,
        before: int | datetime,
        after: int | datetime | None = None,
        *,
        timeout_ms: float | None = None,
    ) -> Difference:
        """What a key was at two moments, each a revision or a datetime; ``after`` None: what
        it is now. Raises Compacted for what is not kept, and as ``get`` does."""
        first = self._then(key, before, timeout_ms)
        second = self._then(key, after, timeout_ms)
        return Difference(checks.key_bytes(key), first, second)

    def _then(
        self, key: Key, moment: int | datetime | None, timeout_ms: float | None
    ) -> Value | None:
        if isinstance(moment, datetime):
            request = requests.get(key, at=moment)
        else:
            request = requests.get(key, at_revision=moment)
        return self.run(request, timeout_ms)

    def undo(self, key: Key, *, timeout_ms: float | None = None) -> PutResult | DeleteResult:
        """Put back what the key was before its newest change, if that is still the newest; if
        it was absent, delete it. That is a change like any other: undone, it is there again.
        How long the key lasts stays as it is. Raises Compacted when no version before is
        kept, ConditionFailed when somebody else changes the key meanwhile, and as ``put``
        does."""
        found = (self.history(key, limit=2, timeout_ms=timeout_ms)).versions
        # An absent key's newest version is the one that was deleted.
        revision = found[0].revision if found and found[0].until_revision is None else 0
        before = found[1:2] if revision else found[:1]
        if not before:
            raise Compacted(
                f"no version before the newest is kept of {key!r:.80}",
                hint="set a retention for its prefix; from then on they are",
            )
        data = before[0].data
        if data is None:
            delete = requests.delete(key, revision)
            return self.run(delete, timeout_ms)
        content_type = before[0].content_type
        put = requests.put(key, data, content_type, revision, ttl_ms=KEEP_TTL)
        return self.run(put, timeout_ms)

    def retention_set(
        self, prefix: str | bytes, retention_ms: int, *, timeout_ms: float | None = None
    ) -> None:
        """Keep the old versions of a prefix's keys for so long, from now on; 0: no more. Of
        several prefixes that fit, the longest counts. All shards are told. Raises BadRequest
        or TooLarge for bad arguments, Busy when there are too many, and OutcomeUnknown when not
        all shards have answered in time: some may keep to it by then. Set it again."""
        self.run(wide_requests.retention_set(prefix, retention_ms), timeout_ms)

    def retention_list(self, *, timeout_ms: float | None = None) -> list[RetentionRule]:
        """The prefixes of whose keys old versions are kept. Raises as ``get`` does."""
        return self.run(wide_requests.retention_list(), timeout_ms)
