"""How many requests wait for changes at one node: watches, waiting reads, waiting locks.

Each keeps a connection and polls in the shards, so they are bounded (``watches_max``). A
place is given back only when the last of its polls has been answered: a client that
comes and goes does not leave more behind than one that stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from krita.errors import Busy
from kritad.metrics import Metrics


class Watches:
    """The places of one node."""

    def __init__(self, count_max: int, metrics: Metrics) -> None:
        self.count = 0
        self._count_max = count_max
        metrics.gauge(
            "krita_http_watches", "Watches and waiting requests over HTTP", lambda: self.count
        )

    def __repr__(self) -> str:
        return f"<Watches {self.count} of {self._count_max}>"

    def take(self) -> None:
        """Take a place, to be given back. Raises Busy."""
        if self.count >= self._count_max:
            raise Busy(
                f"{self.count} watches and waiting requests are at this node, as many as it"
                f" takes (watches_max)",
                hint="ask another node, or raise watches_max",
            )
        self.count += 1

    def give_back(self) -> None:
        """It was the last that was heard of this one."""
        self.count -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for the time of the block. Raises Busy."""
        self.take()
        try:
            yield
        finally:
            self.give_back()
