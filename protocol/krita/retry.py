"""What to do after a failed attempt: the outcome rules, as a table and a judge.

Rules:

- An error that says *not applied* leaves everything open: try again.
- A write whose attempt may have reached a log is *in doubt* from then on. With a
  session it is sent again under its own (session, sequence), which executes it
  once. Without a session nobody can repeat it safely: ``OutcomeUnknown``.
- While a write is in doubt, only an answer that the log itself gave settles it:
  success, a failed condition, a bad body. That this attempt was, say, forbidden
  says nothing about the earlier one.
- ``SessionExpired`` is harmless on a write that is not in doubt, and the end of
  all hope on one that is.
- Reads change nothing and are never in doubt.
- Who speaks for another cluster, or not our protocol, is nobody of ours: others are tried. When
  all are such, the call ends.
- Nobody could be connected to: only a call that reached no node at all ends so. Where some
  node answers and others do not, what is missing is a leader.

Pure: the clock's reading and the random generator are arguments.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Foreign,
    KritaError,
    LeaseUnknown,
    Locked,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    SessionExpired,
    SeveralGroups,
    Unavailable,
    WrongShard,
)

if TYPE_CHECKING:
    import random

BACKOFF_FIRST_S = 0.02
BACKOFF_MAX_S = 0.5


class Where(enum.Enum):
    """Which node the next attempt should try."""

    SAME = "same"  # nothing wrong with the node
    LEADER = "leader"  # whoever leads by what we know now, else someone else
    ELSEWHERE = "elsewhere"  # not the one that just failed


@attrs.frozen
class Rule:
    """How one kind of error is answered."""

    where: Where
    pause: bool  # always wait before the next attempt, even at another node
    refresh: bool  # the shard map is doubtful: fetch it again


_RULES: dict[type[KritaError], Rule] = {
    NotLeader: Rule(Where.LEADER, pause=False, refresh=True),
    WrongShard: Rule(Where.LEADER, pause=False, refresh=True),
    Busy: Rule(Where.SAME, pause=True, refresh=False),
    Unavailable: Rule(Where.ELSEWHERE, pause=False, refresh=True),
    ConnectionFailed: Rule(Where.ELSEWHERE, pause=False, refresh=True),
    Foreign: Rule(Where.ELSEWHERE, pause=False, refresh=True),
    OutcomeUnknown: Rule(Where.ELSEWHERE, pause=False, refresh=True),
    # Or our map is: a session that was opened behind a split is unknown to the other half.
    SessionExpired: Rule(Where.SAME, pause=False, refresh=True),
    # A node gave up a little before we would: our clock decides.
    DeadlineExceeded: Rule(Where.SAME, pause=True, refresh=False),
}

# Answers that come out of the log, or would have been the same for every attempt.
_SETTLES = (ConditionFailed, Conflict, Locked, LeaseUnknown, BadRequest, SeveralGroups)


@attrs.frozen
class Retry:
    """Try again, by ``rule``; with a new ticket when the old session is gone."""

    rule: Rule
    rebind: bool = False


@attrs.frozen
class GiveUp:
    """Tell the caller this."""

    error: KritaError


@attrs.define(eq=False)
class Trial:
    """What has happened to one request so far. Made when its first attempt fails."""

    write: bool
    repeatable: bool  # sending it twice does no harm, or a session prevents it
    started: float  # seconds on the client's clock
    deadline: float
    anywhere: bool = True  # any node may be asked, not one that the caller has named
    tries: int = 0
    rounds: int = 0  # pauses made so far
    in_doubt: bool = False
    error: KritaError | None = None  # of the last attempt
    tried: set[str] = attrs.field(factory=set)  # addresses, since the last pause
    reached: bool = False  # some node answered, or had the request
    absent: set[str] = attrs.field(factory=set)  # addresses that could not be connected to

    def judge(
        self, error: KritaError, now: float, address: str | None = None, *, hopeless: bool = False
    ) -> Retry | GiveUp:
        """What an attempt's failure, at this address if at any, means for the request.
        ``hopeless``: none of the addresses is a node of ours. O(1)."""
        self.tries += 1
        self._note(error, address)
        expired = isinstance(error, SessionExpired)
        if expired and self.in_doubt:
            return GiveUp(self._unknown(error))
        if self.write and error.outcome is Outcome.UNKNOWN:
            self.in_doubt = True
        rule = _RULES.get(type(error))
        if rule is None or hopeless or error.outcome is Outcome.APPLIED:
            denied = error.outcome is Outcome.NOT_APPLIED and not isinstance(error, _SETTLES)
            return GiveUp(self._unknown(error) if self.in_doubt and denied else error)
        if self.in_doubt and not self.repeatable:
            return GiveUp(error if isinstance(error, OutcomeUnknown) else self._unknown(error))
        if now >= self.deadline:
            return GiveUp(self.expire(now))
        return Retry(rule, rebind=expired)

    def adopt(self, errand: Trial, error: KritaError, *, waiting: bool) -> None:
        """Nothing has failed but what the request needed first: ``error`` says so.
        ``waiting``: an attempt at that is unanswered."""
        self.tries, self.error = errand.tries, error
        self.reached, self.absent = errand.reached or waiting, errand.absent

    def pause_s(self, chance: random.Random) -> float:
        """How long to wait before the next attempt; longer each time. Jittered by
        half, so that clients that failed together do not come back together."""
        exponent = min(self.rounds, 10)
        self.rounds += 1
        self.tried.clear()
        pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << exponent))
        return pause_s * chance.uniform(0.5, 1.0)

    def expire(self, now: float, *, waiting: bool = False) -> KritaError:
        """The deadline has passed: what to tell the caller.

        ``waiting``: an attempt is under way and unanswered.
        """
        spent_ms = round((now - self.started) * 1000)
        last = self.error
        said = "" if last is None else f"; the last attempt: {last.message}"
        if self.write and (self.in_doubt or waiting):
            return OutcomeUnknown(
                f"no answer within {spent_ms} ms; the write may have been applied{said}",
                hint="read the key before you write it again",
            )
        if last is None or last.outcome is not Outcome.NOT_APPLIED:
            return DeadlineExceeded(f"no answer within {spent_ms} ms{said}")
        effort = f"gave up after {spent_ms} ms and {self.tries} attempts"
        if isinstance(last, ConnectionFailed) and self.anywhere and (self.reached or waiting):
            places = ", ".join(sorted(self.absent))
            return Unavailable(
                f"no leader was found; no connection to {places}; {effort}",
                hint="a shard has a leader while most of its nodes are up",
            )
        return type(last)(
            f"{last.message}; {effort}",
            hint=last.hint,
            outcome=last.outcome,
            detail=last.detail,
        )

    def _note(self, error: KritaError, address: str | None) -> None:
        # That an address is somebody else's now says more than that others do not answer.
        if not (isinstance(error, ConnectionFailed) and isinstance(self.error, Foreign)):
            self.error = error
        if not isinstance(error, (ConnectionFailed, Foreign)):
            self.reached = True
            self.absent.discard(address or "")
        elif address is not None:
            self.absent.add(address)

    def _unknown(self, error: KritaError) -> OutcomeUnknown:
        unknown = OutcomeUnknown(
            f"an earlier attempt may have been applied, and now: {error.message}",
            hint="read the key before you write it again",
            detail={"status": int(error.status)},
        )
        unknown.__cause__ = error
        return unknown
