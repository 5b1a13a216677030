"""Operations on ranges of keys: scans, counts, watches.

A range is told by ``prefix``, or by ``start`` and ``stop``, the first key and the first that is
not in it any more. Without any of them it is all keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita import checks, wide_requests
from krita.aio.runner import AsyncRunner
from krita.aio.scans import AsyncScan
from krita.aio.watches import AsyncWatch
from krita.errors import BadRequest
from krita.watching import Range

if TYPE_CHECKING:
    from krita.checks import Key


class AsyncRanges(AsyncRunner):
    """See the module."""

    def scan(
        self,
        prefix: Key | None = None,
        *,
        start: Key | None = None,
        stop: Key | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        timeout_ms: float | None = None,
    ) -> AsyncScan:
        """The keys of a range in order, as an iterator of ``krita.Item``.

        It fetches a page at a time, each as of a moment of its own: there is none that all
        shards share. Changes of leader and the loss of nodes are not noticed, unless a page
        takes longer than ``timeout_ms``; what is raised then ends nothing, iterating on goes
        on where it was. ``limit``: so many keys at most. ``reverse``: the last first. Raises
        BadRequest or TooLarge for bad arguments.
        """
        begin, end = checks.range_of(prefix, start, stop)
        return AsyncScan(
            self,
            begin,
            end,
            limit=limit,
            reverse=reverse,
            keys_only=keys_only,
            timeout_ms=timeout_ms,
        )

    async def count(
        self,
        prefix: Key | None = None,
        *,
        start: Key | None = None,
        stop: Key | None = None,
        timeout_ms: float | None = None,
    ) -> int:
        """How many keys a range has. The shards look at each of them: some 200,000 in a
        second. Raises BadRequest or TooLarge for a bad range, and as ``get`` does."""
        begin, end = checks.range_of(prefix, start, stop)
        return await self.run(wide_requests.count(begin, end), timeout_ms)

    def watch(
        self,
        key: Key | None = None,
        *,
        prefix: Key | None = None,
        start: Key | None = None,
        stop: Key | None = None,
        token: str | None = None,
        progress: bool = False,
        timeout_ms: float | None = None,
    ) -> AsyncWatch:
        """What changes from now on, or from ``token`` on, as an iterator of ``krita.Event``
        that does not end by itself: of one key, or of a range.

        Every change comes once, those of one shard in the order in which they happened.
        Changes of leader, the loss of nodes and splits of shards are not noticed. What is
        raised ends nothing: iterating on goes on where it was. Raises Compacted when the
        cluster has not kept what lies between the watch's place and now.
        ``progress``: also tell when all up to some revision has been told.
        ``timeout_ms``: what it takes until an error says that a shard is out of reach. Two
        polls of it in a row have to fail, and each tries for ``timeout_ms`` and the ten seconds
        that it may wait for a change: with 5,000 that is half a minute. What another attempt
        will not change, a refused token, is raised at once. Raises BadRequest or TooLarge for
        a bad range or token.
        """
        if key is None:
            keys = Range(*checks.range_of(prefix, start, stop))
        elif prefix is None and start is None and stop is None:
            name = checks.key_bytes(key)
            keys = Range(name, name + b"\0")
        else:
            raise BadRequest("a watch is of a key or of a range, not of both")
        return AsyncWatch(self, keys, token=token, progress=progress, timeout_ms=timeout_ms)
