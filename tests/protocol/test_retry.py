"""The outcome rules: what a failed attempt means for a request."""

from __future__ import annotations

import random

import pytest

from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    Foreign,
    InternalError,
    KritaError,
    LeaseUnknown,
    Locked,
    NoSpace,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    ProtocolError,
    SessionExpired,
    SeveralGroups,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
    WrongShard,
)
from krita.retry import BACKOFF_MAX_S, GiveUp, Retry, Trial, Where

DEADLINE = 5.0
RETRIED = [NotLeader, WrongShard, Busy, Unavailable, ConnectionFailed, DeadlineExceeded]
FINAL = [
    BadRequest, Unauthenticated, Forbidden, ConditionFailed, TooLarge, NoSpace, Unsupported,
    ProtocolError,
]  # fmt: skip


def trial(*, write: bool = True, repeatable: bool = True, in_doubt: bool = False) -> Trial:
    return Trial(write, repeatable, started=0.0, deadline=DEADLINE, in_doubt=in_doubt)


@pytest.mark.parametrize("cls", RETRIED)
@pytest.mark.parametrize("write", [True, False])
def test_an_error_that_says_not_applied_and_may_pass_is_retried(
    cls: type[KritaError], write: bool
) -> None:
    attempt = trial(write=write, repeatable=False)
    assert isinstance(attempt.judge(cls("no"), 1.0), Retry)
    assert not attempt.in_doubt


@pytest.mark.parametrize("cls", FINAL)
def test_an_error_that_will_not_pass_is_told_as_it_is(cls: type[KritaError]) -> None:
    error = cls("no")
    verdict = trial().judge(error, 1.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.error is error


@pytest.mark.parametrize("cls", [Unauthenticated, Forbidden, TooLarge, NoSpace, ProtocolError])
def test_a_write_in_doubt_does_not_become_not_applied_by_a_later_refusal(
    cls: type[KritaError],
) -> None:
    error = cls("no")
    verdict = trial(in_doubt=True).judge(error, 1.0)
    assert isinstance(verdict, GiveUp)
    assert type(verdict.error) is OutcomeUnknown
    assert verdict.error.__cause__ is error


@pytest.mark.parametrize("cls", [ConditionFailed, Locked, Conflict, LeaseUnknown, SeveralGroups])
def test_what_the_log_itself_has_answered_settles_a_write_in_doubt(cls: type[KritaError]) -> None:
    error = cls("no")
    verdict = trial(in_doubt=True).judge(error, 1.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.error is error


def test_a_lost_answer_puts_a_write_in_doubt_and_a_session_lets_it_be_repeated() -> None:
    attempt = trial(repeatable=True)
    verdict = attempt.judge(OutcomeUnknown("lost"), 1.0)
    assert isinstance(verdict, Retry)
    assert verdict.rule.where is Where.ELSEWHERE
    assert attempt.in_doubt


def test_a_lost_answer_ends_a_write_without_a_session_as_unknown() -> None:
    verdict = trial(repeatable=False).judge(OutcomeUnknown("lost"), 1.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.error.outcome is Outcome.UNKNOWN


def test_any_answer_without_a_certain_outcome_ends_such_a_write_as_unknown() -> None:
    lost = OutcomeUnknown("lost")
    verdict = trial(repeatable=False).judge(lost, 1.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.error is lost
    late = DeadlineExceeded("late", outcome=Outcome.UNKNOWN)
    verdict = trial(repeatable=False).judge(late, 1.0)
    assert isinstance(verdict, GiveUp)
    assert type(verdict.error) is OutcomeUnknown
    assert verdict.error.detail == {"status": int(late.status)}


def test_a_lost_answer_never_puts_a_read_in_doubt() -> None:
    attempt = trial(write=False)
    assert isinstance(attempt.judge(OutcomeUnknown("lost"), 1.0), Retry)
    assert not attempt.in_doubt
    assert attempt.expire(6.0, waiting=True).outcome is Outcome.NOT_APPLIED


def test_an_expired_session_on_a_first_try_is_replaced() -> None:
    verdict = trial().judge(SessionExpired("gone"), 1.0)
    assert isinstance(verdict, Retry)
    assert verdict.rebind


def test_an_expired_session_after_refusals_only_is_still_a_first_try() -> None:
    attempt = trial()
    attempt.judge(NotLeader("elsewhere"), 1.0)
    assert isinstance(attempt.judge(SessionExpired("gone"), 1.1), Retry)


def test_an_expired_session_on_a_write_in_doubt_is_unknown() -> None:
    verdict = trial(in_doubt=True).judge(SessionExpired("gone"), 1.0)
    assert isinstance(verdict, GiveUp)
    assert type(verdict.error) is OutcomeUnknown


def test_an_error_after_the_effect_is_told_and_not_retried() -> None:
    error = Unavailable("stopping", outcome=Outcome.APPLIED)
    verdict = trial().judge(error, 1.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.error is error


def test_an_internal_error_of_unknown_outcome_is_told_as_it_is() -> None:
    error = InternalError("a bug")
    verdict = trial().judge(error, 1.0)
    assert isinstance(verdict, GiveUp)
    assert verdict.error is error


@pytest.mark.parametrize(
    ("last", "in_doubt", "waiting", "cls"),
    [
        (None, False, False, DeadlineExceeded),
        (None, False, True, OutcomeUnknown),
        (Unavailable("no quorum"), False, False, Unavailable),
        (Busy("full"), False, False, Busy),
        (ConnectionFailed("refused"), False, False, ConnectionFailed),
        (Unavailable("no quorum"), True, False, OutcomeUnknown),
    ],
)
def test_a_write_whose_deadline_passed_says_whether_it_may_have_been_applied(
    last: KritaError | None, in_doubt: bool, waiting: bool, cls: type[KritaError]
) -> None:
    attempt = trial(in_doubt=in_doubt)
    attempt.error = last
    assert type(attempt.expire(6.0, waiting=waiting)) is cls


def test_the_error_at_the_deadline_names_the_cause_and_the_effort() -> None:
    attempt = trial()
    attempt.judge(ConnectionFailed("10.0.0.1:8080: Connection refused"), 1.0)
    verdict = attempt.judge(ConnectionFailed("10.0.0.1:8080: Connection refused"), 5.0)
    assert isinstance(verdict, GiveUp)
    assert str(verdict.error) == (
        "10.0.0.1:8080: Connection refused; gave up after 5000 ms and 2 attempts"
    )


def test_the_error_at_the_deadline_has_the_hint_and_the_details_of_its_cause() -> None:
    attempt = trial()
    attempt.judge(Busy("full", hint="later", detail={"left": 3}), 1.0)
    error = attempt.expire(5.0)
    assert (error.hint, error.detail) == ("later", {"left": 3})


REFUSED = ConnectionFailed("Connection refused")


def test_that_an_address_is_somebody_else_s_outweighs_silence_and_no_answer() -> None:
    attempt = trial()
    attempt.judge(Foreign("of another cluster"), 1.0, "a:1")
    attempt.judge(REFUSED, 1.1, "b:1")
    assert type(attempt.expire(5.0)) is Foreign
    attempt.judge(NotLeader("nobody leads"), 1.2, "c:1")
    assert type(attempt.expire(5.0)) is NotLeader


def test_where_some_node_answers_and_others_do_not_a_leader_is_missing() -> None:
    attempt = trial()
    attempt.judge(REFUSED, 1.0, "b:1")
    attempt.judge(NotLeader("nobody leads"), 1.1, "a:1")
    attempt.judge(REFUSED, 1.2, "c:1")
    error = attempt.expire(5.0)
    assert type(error) is Unavailable
    assert error.outcome is Outcome.NOT_APPLIED
    assert error.message == (
        "no leader was found; no connection to b:1, c:1; gave up after 5000 ms and 3 attempts"
    )


def test_a_node_that_answers_after_all_is_not_named_as_absent() -> None:
    attempt = trial()
    attempt.judge(REFUSED, 1.0, "a:1")
    attempt.judge(Unavailable("no quorum"), 1.1, "a:1")
    attempt.judge(REFUSED, 1.2, "b:1")
    assert "no connection to b:1;" in attempt.expire(5.0).message


def test_a_read_that_waits_at_a_node_has_reached_it() -> None:
    attempt = trial(write=False)
    attempt.judge(REFUSED, 1.0, "b:1")
    assert type(attempt.expire(5.0, waiting=True)) is Unavailable
    assert type(attempt.expire(5.0)) is ConnectionFailed


def test_a_node_that_was_named_is_not_missed_as_a_leader() -> None:
    attempt = Trial(write=False, repeatable=True, started=0.0, deadline=DEADLINE, anywhere=False)
    attempt.judge(OutcomeUnknown("lost"), 1.0, "a:1")
    attempt.judge(REFUSED, 1.1, "a:1")
    assert type(attempt.expire(5.0)) is ConnectionFailed


def test_a_write_in_doubt_stays_so_when_no_leader_is_found() -> None:
    attempt = trial()
    attempt.judge(OutcomeUnknown("lost"), 1.0, "a:1")
    attempt.judge(REFUSED, 1.1, "b:1")
    assert type(attempt.expire(5.0)) is OutcomeUnknown


def test_what_a_request_needed_first_tells_whom_it_has_reached() -> None:
    errand, attempt = trial(), trial()
    errand.judge(REFUSED, 1.0, "b:1")
    attempt.adopt(errand, REFUSED, waiting=False)
    assert type(attempt.expire(5.0)) is ConnectionFailed
    attempt.adopt(errand, REFUSED, waiting=True)
    assert type(attempt.expire(5.0)) is Unavailable


def test_what_an_errand_has_reached_the_request_has() -> None:
    errand, attempt = trial(), trial()
    errand.judge(NotLeader("nobody leads"), 1.0, "a:1")
    errand.judge(REFUSED, 1.1, "b:1")
    attempt.adopt(errand, REFUSED, waiting=False)
    assert type(attempt.expire(5.0)) is Unavailable


def test_pauses_grow_up_to_their_limit_and_are_jittered() -> None:
    attempt = trial()
    attempt.tried.add("a:1")
    pauses = [attempt.pause_s(random.Random(7)) for _ in range(12)]
    assert pauses[0] < 0.02 < pauses[3] < pauses[-1] <= BACKOFF_MAX_S
    assert pauses[-1] >= BACKOFF_MAX_S / 2
    assert not attempt.tried  # after a pause every node is worth a try again
    assert trial().pause_s(random.Random(1)) != trial().pause_s(random.Random(2))
