"""Sessions by themselves: what is remembered, for how long, and as which bytes."""

from __future__ import annotations

import pytest

from krita.codec import encode
from krita.errors import BadRequest, SessionExpired, Status
from kritad.state import sessions as module
from kritad.state.sessions import SEQUENCE_WINDOW, SESSION_TTL_MS, SESSIONS_MAX, Sessions
from kritad.state.verbs import Reply
from kritad.storage.digests import HASH_MODULUS, session_digest

OK = int(Status.OK)


def reply(revision: int) -> Reply:
    return OK, [revision, True]


def execute(
    sessions: Sessions, session: int, sequence: int, acked_to: int = 0, index: int = 100
) -> Reply:
    """The reply of a write that is executed unless it was before."""
    stored = sessions.begin(session, sequence, acked_to, index, 0)
    if stored is not None:
        return stored
    sessions.finish(session, sequence, reply(index))
    return reply(index)


def opened(*indexes: int) -> Sessions:
    sessions = Sessions()
    for index in indexes:
        sessions.open(index, index, 0)
    return sessions


def test_a_repeated_sequence_gets_the_first_reply() -> None:
    sessions = opened(1)
    assert execute(sessions, 1, 1, index=2) == reply(2)
    assert execute(sessions, 1, 1, index=3) == reply(2)


def test_sequences_may_arrive_in_any_order() -> None:
    sessions = opened(1)
    assert execute(sessions, 1, 3, index=2) == reply(2)
    assert execute(sessions, 1, 1, index=3) == reply(3)
    assert execute(sessions, 1, 3, index=4) == reply(2)


def test_a_session_that_was_never_opened_is_expired() -> None:
    with pytest.raises(SessionExpired):
        opened(1).begin(2, 1, 0, 3, 0)


def test_an_acknowledged_sequence_is_refused_and_not_executed_again() -> None:
    sessions = opened(1)
    execute(sessions, 1, 1)
    execute(sessions, 1, 2, acked_to=1)
    with pytest.raises(BadRequest, match="already acknowledged"):
        sessions.begin(1, 1, 0, 4, 0)


def test_a_late_write_with_an_older_acknowledgement_is_still_executed() -> None:
    sessions = opened(1)
    execute(sessions, 1, 5, acked_to=3, index=2)
    assert execute(sessions, 1, 4, acked_to=1, index=3) == reply(3)


@pytest.mark.parametrize("acked_to", [1, 2, 1 << 63])
def test_a_write_cannot_acknowledge_itself(acked_to: int) -> None:
    with pytest.raises(BadRequest, match="acked_to"):
        opened(1).begin(1, 1, acked_to, 2, 0)


def test_a_sequence_beyond_the_window_is_refused() -> None:
    sessions = opened(1)
    assert sessions.begin(1, SEQUENCE_WINDOW, 0, 2, 0) is None
    with pytest.raises(BadRequest, match="ahead"):
        sessions.begin(1, SEQUENCE_WINDOW + 1, 0, 3, 0)
    assert sessions.begin(1, SEQUENCE_WINDOW + 1, 1, 4, 0) is None


def test_a_large_acknowledgement_costs_no_more_than_what_is_stored() -> None:
    sessions = opened(1)
    execute(sessions, 1, 1)
    far = 1 << 62
    assert sessions.begin(1, far + 1, far, 3, 0) is None  # would not end if it counted up to it


@pytest.mark.parametrize("far", [0, 1_000])
def test_an_acknowledgement_forgets_what_it_covers_and_no_reply_behind_it(far: int) -> None:
    """Near, it counts its way; far, it looks at what is there. The next try of a write whose
    reply was forgotten would execute it twice."""
    sessions = opened(1)
    for sequence in (1, 2, 3 + far, 4 + far):
        execute(sessions, 1, sequence, index=sequence)
    assert execute(sessions, 1, 5 + far, acked_to=3 + far, index=90) == reply(90)
    with pytest.raises(BadRequest, match="already acknowledged"):
        sessions.begin(1, 3 + far, 0, 91, 0)
    assert execute(sessions, 1, 4 + far) == reply(4 + far)
    assert sessions._replies_count == 2


def test_a_refused_write_leaves_the_session_as_it_was() -> None:
    sessions = opened(1)
    execute(sessions, 1, 2, acked_to=1)
    before = sessions.hash
    for sequence in (1, 2 + SEQUENCE_WINDOW):
        with pytest.raises(BadRequest):
            sessions.begin(1, sequence, 0, 50, 50)
    assert sessions.hash == before


def test_a_session_ends_an_hour_after_its_last_use() -> None:
    sessions = opened(1, 2)
    sessions.touch(1, 3, 5)
    sessions.expire(SESSION_TTL_MS)
    assert 2 in sessions
    sessions.expire(SESSION_TTL_MS + 1)
    assert (1 in sessions, 2 in sessions) == (True, False)
    sessions.expire(SESSION_TTL_MS + 6)
    assert len(sessions) == 0


def test_keeping_an_ended_session_alive_is_refused() -> None:
    sessions = opened(1)
    sessions.expire(SESSION_TTL_MS + 1)
    with pytest.raises(SessionExpired):
        sessions.touch(1, 2, SESSION_TTL_MS + 1)


def test_the_least_recently_used_session_makes_room_for_a_new_one() -> None:
    sessions = opened(*range(1, SESSIONS_MAX + 1))
    sessions.touch(1, SESSIONS_MAX + 1, 0)
    sessions.open(SESSIONS_MAX + 2, SESSIONS_MAX + 2, 0)
    assert len(sessions) == SESSIONS_MAX
    assert (1 in sessions, 2 in sessions) == (True, False)


def test_the_replies_of_all_sessions_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLIES_MAX", 10)
    sessions = opened(1, 2)
    for sequence in range(1, 7):
        execute(sessions, 1, sequence)
    for sequence in range(1, 6):
        execute(sessions, 2, sequence)
    assert (1 in sessions, 2 in sessions) == (False, True)


def test_acknowledged_replies_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLIES_MAX", 10)
    sessions = opened(1, 2)
    for sequence in range(1, 100):
        execute(sessions, 1, sequence, acked_to=sequence - 1)
    for sequence in range(2, 200, 2):
        execute(sessions, 2, sequence, acked_to=sequence - 1)
    assert (1 in sessions, 2 in sessions) == (True, True)


def test_only_what_changed_is_frozen() -> None:
    sessions = opened(1, 2, 3)
    assert [session for session, _ in sessions.freeze()] == [1, 2, 3]
    execute(sessions, 2, 1)
    sessions.expire(0)
    assert [session for session, _ in sessions.freeze()] == [2]
    assert sessions.freeze() == []


def test_a_session_that_ended_is_frozen_as_nothing() -> None:
    sessions = opened(1)
    sessions.freeze()
    sessions.expire(SESSION_TTL_MS + 1)
    assert sessions.freeze() == [(1, None)]
    assert sessions.hash == 0


def test_a_session_that_ended_before_it_was_counted_is_in_no_hash() -> None:
    sessions = opened(1)
    sessions.expire(SESSION_TTL_MS + 1)
    assert sessions.hash == 0


def test_the_hash_is_the_sum_of_what_is_frozen_or_will_be() -> None:
    sessions = opened(1, 2)
    execute(sessions, 2, 1)
    before = sessions.hash
    blobs = sessions.freeze()
    digests = [session_digest(session, blob) for session, blob in blobs if blob is not None]
    assert sessions.hash == before == sum(digests) % HASH_MODULUS


def frozen(sessions: Sessions) -> list[tuple[int, bytes]]:
    return [(session, blob) for session, blob in sessions.freeze() if blob is not None]


def test_frozen_sessions_come_back_with_their_replies_and_hash() -> None:
    sessions = opened(1, 2, 3)
    execute(sessions, 3, 2, acked_to=1, index=10)
    restored = Sessions(frozen(sessions))
    assert restored.hash == sessions.hash
    assert restored.begin(3, 2, 1, 12, 0) == reply(10)
    with pytest.raises(BadRequest, match="already acknowledged"):
        restored.begin(3, 1, 0, 13, 0)


def test_frozen_sessions_come_back_in_the_order_of_their_use() -> None:
    sessions = opened(1, 2, 3)
    sessions.touch(1, 11, 0)
    restored = Sessions(frozen(sessions))  # by id, as storage gives them
    for number in range(SESSIONS_MAX - 2):  # one too many: the least recently used has to go
        restored.open(20 + number, 20 + number, 0)
    assert (1 in restored, 2 in restored, 3 in restored) == (True, False, True)


def test_equal_sessions_are_equal_bytes_whatever_order_the_writes_came_in() -> None:
    left, right = opened(1), opened(1)
    for sequence in (1, 2, 3):
        execute(left, 1, sequence)
    for sequence in (3, 1, 2):
        execute(right, 1, sequence)
    assert left.freeze() == right.freeze()


# --- what replies weigh ---------------------------------------------------------------------


def test_a_reply_of_numbers_alone_weighs_one() -> None:
    assert module._weight((OK, [1 << 40, 1])) == 1
    assert module._weight((OK, [1 << 40, 1, 5])) == 2


def test_a_reply_with_a_value_weighs_as_much_as_the_value() -> None:
    value = b"x" * (1 << 20)
    assert module._weight((OK, [7, 1, value, 3, None])) >= len(value) // module._PIECE_BYTES


def test_a_transaction_s_reply_of_many_small_results_is_not_weighed_as_nothing() -> None:
    """A thousand results of two numbers are 100 kB of memory."""
    results = [[1000, 1] for _ in range(1024)]
    assert module._weight((OK, [1000, 1, results])) > 500


def test_whatever_one_session_may_keep_can_be_stored_and_read_again() -> None:
    """CBOR_ITEMS_MAX is what a reader takes: more, and the replica would not open again."""
    sessions = opened(1)
    results = [[1000, 1, 5] for _ in range(1024)]
    reply: Reply = (OK, [1000, 1, results])
    most = module.REPLIES_MAX // module._weight(reply)
    assert most < SEQUENCE_WINDOW
    for sequence in range(1, most + 1):
        sessions.finish(1, sequence, reply)
    kept = sessions.copy()
    sessions.finish(1, most + 1, reply)
    assert 1 not in sessions, "the session that keeps too much is ended"
    ((number, blob),) = kept.freeze()
    assert blob is not None
    assert len(blob) < 36 << 20
    assert Sessions([(number, blob)]).hash == kept.hash


@pytest.mark.parametrize("size", [0, 100, 10_000])
def test_a_reply_weighs_no_less_than_what_is_stored_of_it(size: int) -> None:
    for value in ("x" * size, "é" * size, b"x" * size, ["x" * size, [b"x" * size]]):
        values: list[object] = [7, 1, 3, value]
        assert len(encode([1, OK, *values])) <= module._weight((OK, values)) * module._PIECE_BYTES


def test_weights_are_the_same_after_a_restart_and_in_the_other_half_of_a_split() -> None:
    sessions = opened(1)
    sessions.finish(1, 1, (OK, [3, 1, b"v" * 1000, 2, "text/plain"]))
    sessions.finish(1, 2, (OK, [3, 1, [[1, 0], [b"v" * 500, 3, None]]]))
    before = sessions._replies_count
    again = Sessions([(number, blob) for number, blob in sessions.freeze() if blob])
    assert again._replies_count == sessions.copy()._replies_count == before > 10
