"""How many requests wait for changes at one node: watches, waiting reads, waiting locks.

Each keeps a connection and polls in the shards, so they are bounded (``watches_max``). A
client that leaves gives its place back at once, but not its polls, which are out until they
are answered. So clients that come and go are bounded as well, a few times higher.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from krita.errors import Busy
from kritad.metrics import Metrics

# How many may have left and have polls out still, for each that may be there.
_LEFT_FOR_EACH = 4


class Watches:
    """The places of one node."""

    def __init__(self, count_max: int, metrics: Metrics) -> None:
        self.count = 0  # who are there
        self.left = 0  # who are not, and have polls out
        self._count_max = count_max
        metrics.gauge(
            "krita_http_watches", "Watches and waiting requests over HTTP", lambda: self.count
        )

    def __repr__(self) -> str:
        return f"<Watches {self.count} of {self._count_max}, {self.left} left>"

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place for the time of the block. Raises Busy."""
        if self.count >= self._count_max:
            raise Busy(
                f"{self.count} watches and waiting requests are at this node, as many as it"
                f" takes (watches_max)",
                hint="ask another node, or raise watches_max",
            )
        if self.left >= self._count_max * _LEFT_FOR_EACH:
            raise Busy(
                f"{self.left} watches and waiting requests have left this node within seconds,"
                f" {_LEFT_FOR_EACH} times as many as it takes (watches_max)",
                hint="let them wait for longer",
            )
        self.count += 1
        place = Place(self)
        try:
            yield place
        finally:
            place.leave()


class Place:
    """What one watch, or one waiting request, has taken."""

    def __init__(self, watches: Watches) -> None:
        self.left = False
        self._watches = watches
        self._polls = 0  # that are out

    def __repr__(self) -> str:
        return f"<Place with {self._polls} polls{', left' if self.left else ''}>"

    def asked(self) -> None:
        """A poll goes out."""
        self._polls += 1

    def answered(self) -> None:
        """A poll has been answered, or did not get out."""
        self._polls -= 1
        if self.left and not self._polls:
            self._watches.left -= 1

    def leave(self) -> None:
        """Nobody waits any more."""
        self.left = True
        self._watches.count -= 1
        if self._polls:
            self._watches.left += 1
