# Made from krita/aio/runner.py by tests/client_sources.py: change it there.
"""What the parts of a client's surface stand on: the client that carries requests out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from krita.blocking.keeper import Keeper
    from krita.blocking.mailbox import Mailbox
    from krita.errors import KritaError
    from krita.pipeline import Pipeline
    from krita.request import Request
    from krita.ring import ShardMap

T = TypeVar("T")


class Runner:
    """What each part of the surface may use; the client has all of it."""

    timeout_ms: float  # of every call that brings none of its own

    def run(self, request: Request[T], timeout_ms: float | None = None) -> T:
        """Carry out a request made by ``krita.requests``. Raises KritaError."""
        raise NotImplementedError

    def pipeline(self, *, timeout_ms: float | None = None) -> Pipeline:
        """Many operations in flight at once; see ``krita.pipeline``."""
        raise NotImplementedError

    def mailbox(self) -> Mailbox:
        """Calls in flight whose outcomes are taken one by one."""
        raise NotImplementedError

    def keeper(self, renew: Callable[[], object], ttl_ms: int, lost: type[KritaError]) -> Keeper:
        """What keeps a lease or a lock alive beside the block that needs it; ``lost`` is what
        the block ends with when the time has passed without an answer."""
        raise NotImplementedError

    def last_word(self, action: Callable[[], object]) -> None:
        """Give something up behind a block, whatever has ended that. If it fails, time does
        it: nothing is raised."""
        raise NotImplementedError

    def pause(self, seconds: float) -> None:
        """Wait for a while."""
        raise NotImplementedError

    @property
    def map_known(self) -> ShardMap | None:
        """The newest shard map that calls have brought; None: none yet."""
        raise NotImplementedError
