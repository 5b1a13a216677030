"""``krita.pipeline`` for an AsyncClient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import anyio

from krita.pipeline import Batch

if TYPE_CHECKING:
    from types import TracebackType


class _Runner(Protocol):
    async def run_batch(self, batch: AsyncPipeline, timeout_ms: float | None) -> None: ...


class AsyncPipeline(Batch):
    """Made by ``AsyncClient.pipeline``."""

    def __init__(self, client: _Runner, timeout_ms: float | None) -> None:
        super().__init__()
        self._client = client
        self._timeout_ms = timeout_ms
        self.all_done: anyio.Event | None = None

    async def execute(self) -> list[object]:
        """Carry everything out; the results in order, errors as values. Raises BadRequest
        when that was done before, or for a bad ``timeout_ms``."""
        await self._client.run_batch(self, self._timeout_ms)
        return self.results

    def on_finished(self) -> None:
        """The last item has its result."""
        assert self.all_done is not None
        self.all_done.set()

    async def __aenter__(self) -> AsyncPipeline:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and not self.begun:
            await self.execute()
