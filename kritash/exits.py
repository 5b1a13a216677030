"""Exit codes: what a script may conclude from kritash's end.

Every code answers "what happened to my request?" first. 7 is the one to watch
for: the write may have happened, so read before writing again. ``--help``
prints this table from ``MEANINGS``.
"""

from __future__ import annotations

import enum

from krita.errors import (
    BadRequest,
    Compacted,
    ConditionFailed,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Foreign,
    KritaError,
    LeaseUnknown,
    Locked,
    Outcome,
    ProtocolError,
    SessionExpired,
    SeveralGroups,
    TooLarge,
    Unauthenticated,
    Unsupported,
)


class Exit(enum.IntEnum):
    """Part of the interface: never renumber."""

    DONE = 0
    NO = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    UNAVAILABLE = 5
    CONFLICT = 6
    UNKNOWN = 7
    LOST = 8
    OUTPUT = 9
    BUG = 70
    INTERRUPTED = 130
    CUT = 141


MEANINGS: dict[Exit, str] = {
    Exit.DONE: "done",
    Exit.NO: 'the answer is "no": the key is absent, a condition did not hold, the lock is held by '
    "another, the lease has ended, the cluster is not healthy, what was waited for is not done",
    Exit.USAGE: "wrong usage, or a confirmation was needed and nobody could be asked",
    Exit.UNREACHABLE: "could not connect, or what answered is no node; not applied",
    Exit.DENIED: "who you are was not accepted, or you may not do this",
    Exit.UNAVAILABLE: "no leader, no quorum, no room or no time; surely not applied",
    Exit.CONFLICT: "what is there does not allow it (no number to add to, a past that is not "
    "kept), or something else changed in between; not applied",
    Exit.UNKNOWN: "the outcome is unknown: sent, and the answer was lost; read before you retry",
    Exit.LOST: "`lock run`: the lock was lost while the program ran, which was told to end",
    Exit.OUTPUT: "the answer could not be written, to standard output or to a file: no room, say",
    Exit.BUG: "kritash has a bug; what became of the request is unknown",
    Exit.INTERRUPTED: "Ctrl-C",
    Exit.CUT: "of several lines: whoever read the output ended (`| head`) before all had been run",
}

# First match wins; an unknown outcome is looked at before any of these.
_BY_CLASS: tuple[tuple[type[KritaError], Exit], ...] = (
    (ConnectionFailed, Exit.UNREACHABLE),
    (ProtocolError, Exit.UNREACHABLE),
    (ConditionFailed, Exit.NO),
    (Locked, Exit.NO),
    (LeaseUnknown, Exit.NO),
    (Unauthenticated, Exit.DENIED),
    (Forbidden, Exit.DENIED),
    (Foreign, Exit.DENIED),
    (SessionExpired, Exit.CONFLICT),
    (Conflict, Exit.CONFLICT),
    (Compacted, Exit.CONFLICT),
    (SeveralGroups, Exit.USAGE),
    (BadRequest, Exit.USAGE),
    (TooLarge, Exit.USAGE),
    (Unsupported, Exit.USAGE),
)


def exit_of(error: KritaError) -> Exit:
    """The exit code that an error deserves; its outcome outranks its class."""
    if error.outcome is Outcome.UNKNOWN:
        return Exit.UNKNOWN
    if isinstance(error, ProtocolError) and error.outcome is Outcome.APPLIED:
        return Exit.UNKNOWN  # it has happened, and what came of it could not be read
    for cls, code in _BY_CLASS:
        if isinstance(error, cls):
            return code
    return Exit.UNAVAILABLE
