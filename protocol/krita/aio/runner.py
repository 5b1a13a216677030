"""What the parts of a client's surface stand on: the client that carries requests out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from krita.aio.keeper import AsyncKeeper
    from krita.aio.mailbox import AsyncMailbox
    from krita.aio.pipeline import AsyncPipeline
    from krita.errors import KritaError
    from krita.request import Request
    from krita.ring import ShardMap

T = TypeVar("T")


class AsyncRunner:
    """What each part of the surface may use; the client has all of it."""

    timeout_ms: float  # of every call that brings none of its own

    async def run(self, request: Request[T], timeout_ms: float | None = None) -> T:
        """Carry out a request made by ``krita.requests``. Raises KritaError."""
        raise NotImplementedError

    def pipeline(self, *, timeout_ms: float | None = None) -> AsyncPipeline:
        """Many operations in flight at once; see ``krita.pipeline``."""
        raise NotImplementedError

    def mailbox(self) -> AsyncMailbox:
        """Calls in flight whose outcomes are taken one by one."""
        raise NotImplementedError

    def keeper(
        self, renew: Callable[[], Awaitable[object]], ttl_ms: int, lost: type[KritaError]
    ) -> AsyncKeeper:
        """What keeps a lease or a lock alive beside the block that needs it; ``lost`` is what
        the block ends with when the time has passed without an answer."""
        raise NotImplementedError

    async def last_word(self, action: Callable[[], Awaitable[object]]) -> None:
        """Give something up behind a block, whatever has ended that. If it fails, time does
        it: nothing is raised."""
        raise NotImplementedError

    async def pause(self, seconds: float) -> None:
        """Wait for a while."""
        raise NotImplementedError

    @property
    def map_known(self) -> ShardMap | None:
        """The newest shard map that calls have brought; None: none yet."""
        raise NotImplementedError
