"""Who waits for keys that are held, and in which order they go on."""

from __future__ import annotations

import pytest

from krita.link import ATTEMPT_TIMEOUT_S
from krita.operations import Op
from kritad.host.line import LINE_MAX, PATIENCE_MS, Line, keys_of
from kritad.host.request import Request
from kritad.txn_steps import WAIT_MS
from tests.host.lone import Replies

A, B, C = b"a", b"b", b"c"


def prepare(*keys: bytes, wait_until_ms: float = 5_000.0, deadline_ms: float = 9_000.0) -> Request:
    request = Request(Op.TXN_PREPARE, b"", b"", 1, Replies(), deadline_ms, write=True)
    request.fields, request.wait_until_ms = keys, wait_until_ms
    return request


def put(key: bytes) -> Request:
    return Request(Op.PUT, b"", key, 1, Replies(), 9_000.0, write=True)


def joined(line: Line, *requests: Request) -> Line:
    for request in requests:
        assert line.join(request, keys_of(request), 7)
    return line


def going_on(line: Line, *held: bytes, owned: bytes = A + B + C) -> list[Request]:
    """Who does, in order; prepares are in the log then."""
    gone = []
    while (waiting := line.next(held, lambda key: key in owned)) is not None:
        gone.append(waiting.request)
        if waiting.request.op == Op.TXN_PREPARE and waiting.request.respond is not None:
            line.proposed(100 + len(gone), waiting.keys)
    return gone


def test_what_waits_is_what_writes_users_keys() -> None:
    assert keys_of(put(A)) == (A,)
    assert keys_of(prepare(A, B)) == (A, B)
    several = Request(Op.TXN, b"", A, 1, None, 0.0, fields=(A, B))
    assert keys_of(several) == (A, B)
    for op in (Op.TXN_FINISH, Op.TXN_DECIDE, Op.TXN_FORGET, Op.SPLIT, Op.LEASE_CHANGE):
        assert not keys_of(Request(op, b"", A, 1, None, 0.0))


def test_nobody_overtakes_somebody_who_waits_for_the_same_key() -> None:
    first, second, third = prepare(A, B), prepare(B, C), prepare(C)
    line = joined(Line(), first, second, third)
    assert not line.is_free([C], ())
    assert line.is_free([b"other"], ())
    assert going_on(line, A) == [], "the second and the third are behind the first"
    assert going_on(line) == [first]
    line.applied(101)
    assert going_on(line, A, B) == []
    assert going_on(line) == [second]
    line.applied(101)
    assert going_on(line) == [third]


def test_who_waits_for_other_keys_goes_on() -> None:
    line = joined(Line(), prepare(A), other := prepare(B))
    assert going_on(line, A) == [other]


def test_a_write_of_one_shard_holds_nothing_and_goes_with_its_neighbours() -> None:
    line = joined(Line(), one := put(A), two := put(A), three := prepare(A), put(A))
    assert going_on(line) == [one, two, three]
    line.applied(103)
    assert len(going_on(line)) == 1


def test_what_is_in_the_log_is_held_until_it_is_applied() -> None:
    line = Line()
    line.proposed(5, [A])
    assert line.busy
    assert not line.is_free([A], ())
    line.applied(4)
    assert not line.is_free([A], ())
    line.applied(5)
    assert line.is_free([A], ())
    assert not line.busy


def test_who_has_lost_a_key_to_another_shard_does_not_wait_for_it() -> None:
    line = joined(Line(), lost := prepare(A, B))
    assert going_on(line, A, owned=A) == [lost]


def test_who_was_answered_leaves() -> None:
    line = joined(Line(), gone := prepare(A), stays := prepare(A))
    gone.answer(0, [])
    assert going_on(line, A) == [gone]
    assert going_on(line) == [stays]


@pytest.mark.parametrize(
    ("request_", "until_ms"),
    [
        (prepare(A), 5_000.0),
        (prepare(A, wait_until_ms=8_900.0), 8_500.0),
        (put(A), 4_000.0 + PATIENCE_MS),
    ],
)
def test_everybody_waits_for_a_bounded_time(request_: Request, until_ms: float) -> None:
    line = joined(Line(), request_)
    assert line.overdue(4_000.0) == []
    assert line.overdue(until_ms - 1) == []
    assert line.overdue(until_ms) == [request_]
    assert not line.busy
    assert line.is_free([A], ())


def test_nobody_waits_for_longer_than_a_client_does() -> None:
    assert PATIENCE_MS < 1_000 * ATTEMPT_TIMEOUT_S
    assert WAIT_MS < 1_000 * ATTEMPT_TIMEOUT_S


def test_the_line_is_bounded_and_everybody_leaves_at_once() -> None:
    line = Line()
    for _ in range(LINE_MAX):
        joined(line, put(A))
    assert not line.join(put(A), (A,), 7)
    line.proposed(3, [B])
    assert len(line.clear()) == LINE_MAX
    assert not line.busy
    assert line.is_free([A, B], ())
