"""Where the time of a request goes at this node: what ``Server-Timing`` tells.

A Trail stands where a request's ``respond`` stands, so whoever wants none pays one look at a
type, and who wants one 0.2 µs a stage. Each place that ends a stage says so, and the time since
the last one counts for it: a request that had to look for its leader twice has waited in
``queue`` twice, and one whose quorum was there before this node's own disk has spent nothing
on ``fsync``.

Rules:
* The clock is that of whoever wants the trail: nothing here reads one of its own.
* A stage is told only where the request has passed it. What is asked of several groups is
  several requests, and has no stages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from krita.errors import Status

QUEUE = b"queue"  # until a log took it, or another node
FORWARD = b"forward"  # at the node that leads, and on the way there and back
FSYNC = b"fsync"  # until this node's log had it on disk
QUORUM = b"quorum"  # until a majority had it; of a read: until a majority knew the leader
APPLY = b"apply"  # until it was applied, or read, and answered


class Trail:
    """A ``respond`` that knows how long each stage took, in what the clock counts. ``stages``
    is in the order in which they were first passed; it is handed in by whoever wants to know,
    and may have those of operations of the same request that came before: they add up.

    (Whoever wants to know keeps ``stages`` and not the Trail, which leads back through
    ``respond``: a circle for each request is garbage that only the collector finds.)"""

    __slots__ = ("_clock", "_last", "respond", "stages")

    def __init__(
        self,
        respond: Callable[[int, object], None],
        began: float,
        clock: Callable[[], float],
        stages: dict[bytes, float],
    ) -> None:
        self.respond = respond
        self.stages = stages
        self._clock = clock
        # Between operations of one request no time is counted twice, and none is lost.
        self._last = began + sum(stages.values())

    def __repr__(self) -> str:
        return f"<Trail {self.stages}>"

    def passed(self, stage: bytes) -> None:
        """The time since the last stage was spent on this one."""
        now = self._clock()
        self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now

    def __call__(self, status: int, body: object) -> None:
        """The answer is there."""
        if QUORUM in self.stages:  # also where a condition did not hold
            self.passed(APPLY)
        elif status != Status.OK and not self.stages:
            self.passed(QUEUE)  # it never got further
        self.respond(status, body)


class Trails:
    """Those of the writes that stand in one replica's log, by their index."""

    def __init__(self) -> None:
        self._of: dict[int, Trail] = {}
        self._unsaved: deque[int] = deque()  # in their order

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, index: int, trail: Trail) -> None:
        """Its command was appended to the log, at this index."""
        trail.passed(QUEUE)
        self._of[index] = trail
        self._unsaved.append(index)

    def saved(self, index: int) -> None:
        """This node's disk has the log up to ``index``."""
        while self._unsaved and self._unsaved[0] <= index:
            trail = self._of.get(self._unsaved.popleft())
            if trail is not None:
                trail.passed(FSYNC)

    def committed(self, index: int) -> None:
        """A majority has the entry, and it is about to be applied."""
        trail = self._of.pop(index, None)
        if trail is not None:
            trail.passed(QUORUM)

    def clear(self) -> None:
        """The log may lose these entries, and others may take their places."""
        self._of.clear()
        self._unsaved.clear()
