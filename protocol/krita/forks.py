"""Forks: a child process must not use what its parent goes on using.

After ``os.fork`` both have the same sockets, request ids and session numbers. What the child
sent would be answered to the parent, and a write of the child's would have the number of one
of the parent's: acknowledged, and not done. Therefore whoever owns such things is told in the
child, before anything else runs there.

Not by comparing ``os.getpid()`` at each call: a lock that a thread of the parent held stays
locked in the child, and its threads would all begin anew at once.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Heir(Protocol):
    """Who has to know that this is a child process now."""

    def forked(self) -> None:
        """Called once in the child, while no other thread is there. It must not wait, or touch
        what it shares with the parent but to close its own descriptors."""


_heirs: weakref.WeakSet[Heir] = weakref.WeakSet()


def tell(heir: Heir) -> None:
    """From now on, for as long as it lives."""
    _heirs.add(heir)


def _in_child() -> None:
    for heir in list(_heirs):
        heir.forked()


if hasattr(os, "register_at_fork"):  # else there are no forks
    os.register_at_fork(after_in_child=_in_child)
