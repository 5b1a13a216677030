"""A blocking client has no tasks, so nobody keeps a lease or a lock alive but its user.

The twin of ``krita.aio.keeper``, for what both clients share: ``keepalive`` and ``renew``
are to be called within the time to live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Keeper:
    """See the module. Made by ``Client.keeper``."""

    def start(self, asked_at: float) -> None:
        """Nothing begins."""
        del asked_at

    def rest(self) -> None:
        """Nothing ends."""

    def stop(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing ends."""
        del kind, error, traceback
