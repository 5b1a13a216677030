"""Every way a request can fail, and what its caller may conclude.

Rule: an error says what happened to the request. *Not applied*: it had no
effect and never will; send it again if you like. *Applied*: it took effect and
something afterwards failed. *Unknown*: it may have taken effect, now or later;
only a retry with the same session and sequence number is safe.

Before a command is appended to a log, its failure is not applied; after that,
only a committed entry of another term in its place proves not applied, and
everything else is unknown (design: an error is never sent after a success).

``Status`` is what goes over the wire; ``KritaError`` and its subclasses are
what a Python caller catches. The two are one-to-one, in ``ERRORS``.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Outcome(enum.IntEnum):
    """What became of the request. Sent with every error: never renumber."""

    NOT_APPLIED = 0
    APPLIED = 1
    UNKNOWN = 2


class Status(enum.IntEnum):
    """The second element of every reply. Never renumber."""

    OK = 0
    BAD_REQUEST = 1
    UNAUTHENTICATED = 2
    FORBIDDEN = 3
    CONDITION_FAILED = 4
    TOO_LARGE = 5
    NOT_LEADER = 6
    WRONG_SHARD = 7
    BUSY = 8
    UNAVAILABLE = 9
    UNKNOWN = 10
    NO_SPACE = 11
    SESSION_EXPIRED = 12
    UNSUPPORTED = 13
    INTERNAL = 14
    FOREIGN = 15
    DEADLINE = 16
    CONFLICT = 17
    LOCKED = 18
    LEASE_UNKNOWN = 19
    COMPACTED = 20
    SEVERAL_GROUPS = 21


class KritaError(Exception):
    """The root: catch this to catch whatever Krita has to say.

    ``message`` says what and why, ``hint`` what to do about it; ``detail`` is
    for programs: a dict whose keys depend on the class.
    """

    status: ClassVar[Status] = Status.INTERNAL
    # What the class implies when nothing more is known.
    outcome_default: ClassVar[Outcome] = Outcome.UNKNOWN
    # Whether the very same request may succeed a little later or elsewhere.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        outcome: Outcome | None = None,
        detail: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.outcome = self.outcome_default if outcome is None else outcome
        self.detail = {} if detail is None else detail

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class BadRequest(KritaError):
    """You sent something that no state of the cluster could answer: a malformed
    body, an empty key. Sending it again will not help."""

    status = Status.BAD_REQUEST
    outcome_default = Outcome.NOT_APPLIED


class Unauthenticated(KritaError):
    """No token, or one the cluster does not know. Contrast Forbidden."""

    status = Status.UNAUTHENTICATED
    outcome_default = Outcome.NOT_APPLIED


class Forbidden(KritaError):
    """The cluster knows you, and you may not do this."""

    status = Status.FORBIDDEN
    outcome_default = Outcome.NOT_APPLIED


class ConditionFailed(KritaError):
    """A condition such as ``if_revision`` did not hold when the command was
    applied. ``detail["revision"]`` is the key's revision at that moment."""

    status = Status.CONDITION_FAILED
    outcome_default = Outcome.NOT_APPLIED


class TooLarge(KritaError):
    """A key, value, frame or batch is over its limit, which the message names."""

    status = Status.TOO_LARGE
    outcome_default = Outcome.NOT_APPLIED


class NotLeader(KritaError):
    """This replica does not lead the key's shard. ``detail`` may carry ``node``,
    ``address`` and ``term`` of the one that does. Clients follow it by
    themselves; seeing it means that the deadline passed while they did."""

    status = Status.NOT_LEADER
    outcome_default = Outcome.NOT_APPLIED
    retryable = True


class WrongShard(KritaError):
    """Your shard map is older than the cluster's: fetch it again."""

    status = Status.WRONG_SHARD
    outcome_default = Outcome.NOT_APPLIED
    retryable = True


class Busy(KritaError):
    """Too much is in flight here; slow down and try again."""

    status = Status.BUSY
    outcome_default = Outcome.NOT_APPLIED
    retryable = True


class Unavailable(KritaError):
    """No leader could be reached: no quorum, an election, a node that is down
    or stopping. Contrast Unknown: here the request was surely not applied."""

    status = Status.UNAVAILABLE
    outcome_default = Outcome.NOT_APPLIED
    retryable = True


class OutcomeUnknown(KritaError):
    """The request was on its way into the log when its answer got lost: it may
    have been applied, or may yet be. Read before you write again."""

    status = Status.UNKNOWN
    outcome_default = Outcome.UNKNOWN


class NoSpace(KritaError):
    """The node is below its disk reserve and takes no writes. Reads and deletes
    go on; it clears by itself when there is room again."""

    status = Status.NO_SPACE
    outcome_default = Outcome.NOT_APPLIED


class SessionExpired(KritaError):
    """The cluster no longer remembers this session. Not applied on a first
    try; on a retry, what the earlier try did is unknown."""

    status = Status.SESSION_EXPIRED
    outcome_default = Outcome.NOT_APPLIED


class Unsupported(KritaError):
    """This server does not know the operation or protocol version."""

    status = Status.UNSUPPORTED
    outcome_default = Outcome.NOT_APPLIED


class InternalError(KritaError):
    """Krita has a bug, or a disk failed under it; the server's log says more."""

    status = Status.INTERNAL
    outcome_default = Outcome.UNKNOWN


class Foreign(KritaError):
    """The other side belongs to another cluster, or is not who it says it is."""

    status = Status.FOREIGN
    outcome_default = Outcome.NOT_APPLIED


class DeadlineExceeded(KritaError):
    """The deadline passed before the request reached a log: not applied."""

    status = Status.DEADLINE
    outcome_default = Outcome.NOT_APPLIED


class Conflict(KritaError):
    """What the key holds does not allow it: no number to add to, a sum or a value that
    would be too large, an idempotency key that was used for another request."""

    status = Status.CONFLICT
    outcome_default = Outcome.NOT_APPLIED


class Locked(KritaError):
    """Somebody else holds the lock. ``detail`` has ``owner`` and ``token``, and ``left_ms``
    unless it is held without a deadline."""

    status = Status.LOCKED
    outcome_default = Outcome.NOT_APPLIED


class LeaseUnknown(KritaError):
    """The lease has ended, or never was. Its keys have ended with it."""

    status = Status.LEASE_UNKNOWN
    outcome_default = Outcome.NOT_APPLIED


class Compacted(KritaError):
    """What you ask for is older than what is kept. Of changes ``detail["oldest"]`` is the
    oldest revision that can be gone on from: read anew, and go on from there. Of the past it
    is where what is kept begins, if anything is."""

    status = Status.COMPACTED
    outcome_default = Outcome.NOT_APPLIED


class SeveralGroups(KritaError):
    """The keys are not of one group, and within a group alone this can be looked at together:
    a lock and the key that is written under it.
    ``detail["groups"]`` names them. Keys with the same text in braces are of one group."""

    status = Status.SEVERAL_GROUPS
    outcome_default = Outcome.NOT_APPLIED


class ConnectionFailed(Unavailable):
    """No node could be reached; nothing was sent. A client's own finding, never
    sent by a server (on the wire it would be Unavailable)."""


class LockLost(ConditionFailed):
    """The lock is not held any more: its time was over, or somebody has deleted it. A
    client's own finding: on the wire it is ConditionFailed."""


class ProtocolError(KritaError):
    """The other side broke the protocol; the connection is of no more use."""

    status = Status.BAD_REQUEST
    outcome_default = Outcome.NOT_APPLIED


ERRORS: dict[Status, type[KritaError]] = {
    cls.status: cls
    for cls in (
        BadRequest, Unauthenticated, Forbidden, ConditionFailed, TooLarge, NotLeader,
        WrongShard, Busy, Unavailable, OutcomeUnknown, NoSpace, SessionExpired,
        Unsupported, InternalError, Foreign, DeadlineExceeded, Conflict, Locked, LeaseUnknown,
        Compacted, SeveralGroups,
    )
}  # fmt: skip


def to_wire(error: KritaError) -> list[object]:
    """An error reply's body: ``[message, hint, outcome, detail]``."""
    return [error.message, error.hint, int(error.outcome), error.detail]


def from_wire(status: int, body: object) -> KritaError:
    """The error that a reply means. A status from a newer server becomes a plain
    KritaError, a malformed body a ProtocolError; never raises."""
    if not isinstance(body, list) or len(body) < 4:
        return ProtocolError(f"the error reply {status} has a malformed body")
    message, hint, outcome, detail = body[:4]
    known = status in Status._value2member_map_
    cls = ERRORS.get(Status(status), KritaError) if known else KritaError
    try:
        return cls(
            str(message),
            hint=str(hint),
            outcome=Outcome(outcome),
            detail=dict(detail),
        )
    except (TypeError, ValueError):
        return ProtocolError(f"the error reply {status} has a malformed body")
