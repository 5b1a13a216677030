"""A call: one request of a caller's from its start to its result, all attempts.

Rule: a finished call leads to nobody who leads to it. It lets go of ``done``, and ``value`` of
itself when it raises: an error's traceback holds the frames that it has come through. What goes
in a circle, values and all, waits for the interpreter's collector.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from krita.errors import Outcome, OutcomeUnknown, Unavailable
from krita.retry import Trial

if TYPE_CHECKING:
    from krita.errors import KritaError
    from krita.link import Link
    from krita.request import Request
    from krita.session import Ticket

# What a parked call waits for: ("map", 0), ("session", shard), ("window", shard).
Need = tuple[str, int]


class CallState(enum.Enum):
    """Where a call is; ``Call.due`` says when it is overdue there."""

    PARKED = "parked"  # in the dispatcher, until something it needs has arrived
    PAUSED = "paused"  # until ``due``, after a failure
    QUEUED = "queued"  # at a link that cannot take it yet
    SENT = "sent"  # at a link, on its way or being executed
    FINISHED = "finished"


@attrs.define(eq=False)
class Call:
    """See the module. Made and changed by ``krita.dispatch`` alone."""

    request: Request[Any]
    started: float  # seconds on the client's clock, like all times here
    deadline: float
    due: float
    done: Callable[[Call], None] | None = None  # called once, when it has finished
    state: CallState = CallState.PARKED
    result: object = None
    error: KritaError | None = None
    shard: int | None = None
    ticket: Ticket | None = None
    body: bytes = b""
    # The current attempt: valid while QUEUED or SENT.
    link: Link | None = None
    id: int = 0
    sent_at: float = 0.0
    sent_bytes: int = 0  # of its request, with the frame
    direct: bool = False  # the node shall answer itself and not forward
    trial: Trial | None = None  # what failed so far; None: nothing
    needs: Need | None = None  # while PARKED
    wants_map: bool = False  # a shard does not own its key: wait for what a map says now
    fetches: Need | None = None  # an internal call: what it is made for

    @property
    def finished(self) -> bool:
        """Whether ``result`` or ``error`` holds what became of it."""
        return self.state is CallState.FINISHED

    def value(self) -> object:
        """The result. Raises the error that the call ended with. Callers that keep the call in
        a local variable should ``del`` it on the way out (see the module's rule)."""
        assert self.state is CallState.FINISHED
        error = self.error
        if error is None:
            return self.result
        try:
            raise error
        finally:
            del error, self

    def tell(self) -> None:
        """Call ``done``: it has finished. Once."""
        done, self.done = self.done, None
        if done is not None:
            done(self)

    def attempts(self, sessions: bool) -> Trial:
        """What has failed so far. ``sessions``: whether writes have one, which executes them
        once however often they are sent."""
        if self.trial is None:
            request = self.request
            repeatable = request.harmless or (request.in_session and sessions)
            # A session that we may have opened, or not, leaves nobody in doubt.
            write = request.write and self.fetches is None
            anywhere = request.node is None
            self.trial = Trial(write, repeatable, self.started, self.deadline, anywhere)
        return self.trial

    @property
    def in_doubt(self) -> bool:
        """Whether it may take effect, or have done so, without our knowing."""
        if not self.request.write:
            return False
        return self.state is CallState.SENT or (self.trial is not None and self.trial.in_doubt)

    def abandon(self, why: str) -> None:
        """End it, in whatever state its dispatcher is."""
        if not self.finished:
            self.error, self.state = self.interrupted(why), CallState.FINISHED
            if self.fetches is None:
                self.tell()

    def interrupted(self, why: str) -> KritaError:
        """What to tell a caller whose call is ended from outside."""
        if self.in_doubt:
            return OutcomeUnknown(f"{why}; the write may have been applied")
        return Unavailable(why)


def errand_failed(error: KritaError, need: Need) -> KritaError:
    """What a failed errand means for the call that needed it: that was not sent, so it
    was surely not applied, whatever became of the errand. Nor is the errand's hint
    one for the caller."""
    if error.outcome is Outcome.NOT_APPLIED:
        return error
    kind, shard = need
    lacking = f"a session in shard {shard}" if kind == "session" else "the shard map"
    return Unavailable(f"nothing was sent for want of {lacking}: {error.message}")
