"""A blocking client has no tasks, so nobody keeps a lease or a lock alive but its user.

The twin of ``krita.aio.keeper``, for what both clients share: ``keepalive`` and ``renew``
are to be called within the time to live.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from krita.errors import KritaError

if TYPE_CHECKING:
    from types import TracebackType


class Keeper:
    """See the module. Made by ``Client.keeper``."""

    def start(self) -> None:
        """Nothing begins."""

    def stop(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Nothing ends."""
        del kind, error, traceback
        return False

    def last_word(self, action: Callable[[], object]) -> None:
        """Give it up. If that fails, time does it."""
        with suppress(KritaError):
            action()
