"""A scan that is under way."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from krita import checks, wide_requests

if TYPE_CHECKING:
    from krita.aio.runner import AsyncRunner
    from krita.items import Item, Page

PAGE_ROWS_MAX = 1_000  # what a node answers at most


class AsyncScan:
    """An iterator of items; made by ``AsyncClient.scan``. It asks for nothing before it is
    iterated, and holds a page at most. Iterating raises as ``get`` does, and goes on."""

    def __init__(
        self,
        client: AsyncRunner,
        start: bytes | None,
        stop: bytes | None,
        *,
        limit: int | None,
        reverse: bool,
        keys_only: bool,
        timeout_ms: float | None,
    ) -> None:
        self._client = client
        self._start, self._stop = start, stop
        self._left = checks.count(limit, "limit", 1)
        self._reverse, self._keys_only = reverse, keys_only
        self._timeout_ms = timeout_ms
        self._items: deque[Item] = deque()
        self._ended = False

    def __aiter__(self) -> AsyncScan:
        return self

    async def __anext__(self) -> Item:
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            self._items.extend((await self._fetch()).items)
        return self._items.popleft()

    async def items(self) -> list[Item]:
        """All that are left, as a list. Raises as ``get`` does; what had been fetched by then is
        lost to this scan."""
        found = []
        async for item in self:
            found.append(item)
        return found

    async def _fetch(self) -> Page:
        rows = PAGE_ROWS_MAX if self._left is None else min(self._left, PAGE_ROWS_MAX)
        request = wide_requests.scan(self._start, self._stop, rows, self._reverse, self._keys_only)
        page = await self._client.run(request, self._timeout_ms)
        if self._left is not None:
            self._left -= len(page.items)
        if page.next is None or self._left == 0:
            self._ended = True
        elif self._reverse:
            self._stop = page.next
        else:
            self._start = page.next
        return page

    def __repr__(self) -> str:
        state = "ended" if self._ended else f"{self._start!r} to {self._stop!r}"
        return f"<{type(self).__name__} {state}, {len(self._items)} to hand out>"
