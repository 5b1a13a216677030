"""Why the core says no to its host, and how it says that it is broken.

ProposalRefused is the world's: the caller asked the wrong replica or asked too
much, and *nothing was appended*, so the answer to the client is a definite no.
InvariantBroken is ours: what must always hold does not. It never leaves the
core; it poisons the replica (see core.py).
"""

from __future__ import annotations

import enum


class Refusal(enum.Enum):
    """The reason of a ProposalRefused."""

    NOT_LEADER = "not the leader"
    BUSY = "too much is appended and not yet committed"
    TRANSFERRING = "leadership is being handed over"
    TOO_LARGE = "the entry is larger than allowed"
    POISONED = "this replica found an invariant broken and does nothing any more"
    CONF_PENDING = "an earlier configuration, or this term's first entry, is not committed"
    VERSION = "the configuration has another version than expected"
    ILLEGAL = "the change cannot be made to this configuration"
    LAGGING = "a replica that would vote is too far behind"
    UNHEALTHY = "the new configuration would have no live majority"


class ProposalRefused(Exception):
    """Nothing was appended; ``reason`` says why. Asking again may help."""

    def __init__(self, reason: Refusal, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


class InvariantBroken(Exception):
    """Something that must never be is. Caught by the core, which poisons itself."""


class LogLost(InvariantBroken):
    """This replica's log lacks what it has acknowledged. The others have it."""
