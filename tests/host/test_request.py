"""Answered exactly once, and never with more certainty than there is."""

from __future__ import annotations

import pytest

from krita.errors import NotLeader, Outcome, Status
from krita.operations import Op
from kritad.host.request import Deadlines, Request
from tests.host.lone import Replies


def request(replies: Replies, deadline_ms: float = 1000.0, *, write: bool = True) -> Request:
    return Request(Op.PUT, b"body", b"k", 1, replies, deadline_ms, write=write)


def test_a_second_answer_is_swallowed() -> None:
    replies = Replies()
    one = request(replies)
    one.answer(Status.OK, [7, False])
    one.answer(Status.OK, [8, False])
    one.fail(NotLeader("late"))
    one.expire()
    assert replies.one == (Status.OK, [7, False])


def test_an_answered_request_does_not_keep_its_body_until_its_deadline() -> None:
    one = request(Replies())
    one.answer(Status.OK, [])
    assert one.body == b""


def test_a_write_that_never_reached_a_log_expires_as_not_applied() -> None:
    replies = Replies()
    request(replies).expire()
    assert replies.one[0] == Status.DEADLINE
    assert replies.outcome == Outcome.NOT_APPLIED


@pytest.mark.parametrize("where", ["proposed here", "sent to another node"])
def test_a_write_that_may_be_in_a_log_expires_as_unknown(where: str) -> None:
    replies = Replies()
    one = request(replies)
    if where == "proposed here":
        one.term = 3
    else:
        one.sent = True
    one.expire()
    assert replies.one[0] == Status.UNKNOWN
    assert replies.outcome == Outcome.UNKNOWN
    assert "idempotency key" in str(replies.one[1])  # what HTTP has in place of a session


def test_a_read_expires_as_not_applied_wherever_it_is() -> None:
    replies = Replies()
    one = request(replies, write=False)
    one.sent = True
    one.expire()
    assert replies.one[0] == Status.DEADLINE


def test_deadlines_expire_behind_their_time_and_not_before() -> None:
    deadlines = Deadlines()
    early, late = Replies(), Replies()
    deadlines.add(request(early, 1000.0))
    deadlines.add(request(late, 1300.0))
    deadlines.expire(999.9)
    assert early.all == []
    deadlines.expire(1050.0)
    assert len(early.all) == 1
    assert late.all == []
    deadlines.expire(99_999.0)
    assert len(late.all) == 1


def test_a_deadline_in_the_past_is_expired_at_the_next_look() -> None:
    deadlines, replies = Deadlines(), Replies()
    deadlines.add(request(replies, 10.0))
    deadlines.expire(5000.0)
    assert replies.one[0] == Status.DEADLINE


def test_deadlines_forget_what_they_have_expired() -> None:
    deadlines = Deadlines()
    for at in range(0, 5000, 10):
        deadlines.add(request(Replies(), float(at)))
    deadlines.expire(10_000.0)
    assert deadlines._buckets == {}
