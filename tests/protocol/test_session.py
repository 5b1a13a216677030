"""Sessions: sequences, what is acknowledged, and the window."""

from __future__ import annotations

import random

import pytest

from krita.session import WINDOW, Session, Sessions, Ticket


def test_sequences_start_at_one_and_are_never_given_twice() -> None:
    session = Session(1, 7)
    assert [session.take().sequence for _ in range(3)] == [1, 2, 3]


def test_acked_to_rises_with_answers_in_order() -> None:
    session = Session(1, 7)
    tickets = [session.take() for _ in range(3)]
    for ticket in tickets:
        ticket.settle()
        assert session.acked_to == ticket.sequence


def test_acked_to_waits_for_the_lowest_unanswered_sequence() -> None:
    session = Session(1, 7)
    first, second, third = (session.take() for _ in range(3))
    third.settle()
    second.settle()
    assert session.acked_to == 0
    first.settle()
    assert session.acked_to == 3


@pytest.mark.parametrize("seed", range(5))
def test_acked_to_is_the_highest_sequence_below_which_everything_is_settled(seed: int) -> None:
    chance = random.Random(seed)
    session = Session(1, 7)
    open_tickets: list[Ticket] = []
    settled: set[int] = set()
    for _ in range(500):
        if session.has_room and chance.random() < 0.6:
            open_tickets.append(session.take())
        elif open_tickets:
            ticket = open_tickets.pop(chance.randrange(len(open_tickets)))
            ticket.settle()
            settled.add(ticket.sequence)
        expected = 0
        while expected + 1 in settled:
            expected += 1
        assert session.acked_to == expected


def test_the_window_is_full_after_its_size_of_unsettled_sequences() -> None:
    session = Session(1, 7)
    tickets = [session.take() for _ in range(WINDOW)]
    assert not session.has_room
    # The shard has to keep every reply above acked_to: a later answer frees nothing.
    tickets[1].settle()
    assert not session.has_room
    tickets[0].settle()
    assert [session.take().sequence, session.take().sequence] == [WINDOW + 1, WINDOW + 2]
    assert not session.has_room


def test_settling_a_sequence_twice_is_our_bug() -> None:
    session = Session(1, 7)
    ticket = session.take()
    ticket.settle()
    with pytest.raises(AssertionError):
        ticket.settle()


def test_an_expired_session_is_replaced_and_its_late_expiries_do_not_end_the_new_one() -> None:
    sessions = Sessions()
    assert sessions.current(3) is None
    old = sessions.opened(3, 10)
    sessions.expire(old)
    assert sessions.current(3) is None
    new = sessions.opened(3, 20)
    sessions.expire(old)
    assert sessions.current(3) is new
    assert sessions.current(4) is None
