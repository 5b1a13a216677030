"""A shard's part in a transaction over several: what the four entries do, in any order."""

from __future__ import annotations

from typing import Any

import pytest

from krita.errors import BadRequest, Busy, SessionExpired, TooLarge, WrongShard
from krita.limits import TTL_MS_MAX, TXN_OPERATIONS_MAX
from krita.operations import LeaseChange, Op
from kritad.state import user_keys
from kritad.state.decisions import COMMIT_WITHIN_MS, TOMBSTONE_MS, Verdict
from kritad.state.memos import MEMO_TTL_MS
from kritad.state.reading import holders
from kritad.state.two_phase import HOLD_MS_MAX, KEEP
from tests.state.shard import SHARD, Shard
from tests.state.two_phase_entries import (
    ANSWER,
    ATTEMPT,
    DELETE,
    HOME,
    KEY,
    OTHER,
    PLAN,
    PUT,
    TOUCH,
    ask,
    body,
    decide,
    error,
    finish,
    forget,
    prepare,
    value,
    verdict,
)

# --- prepare -------------------------------------------------------------------------------


def test_a_prepare_tells_what_the_keys_are_and_only_the_values_that_are_wanted(
    shard: Shard,
) -> None:
    shard.put(KEY, b"v")
    shard.put(HOME, b"w")
    shard.clock_ms = 5_000
    rows, clock_ms = body(prepare(shard, [KEY, HOME, b"none"], told=[0, 2]))
    assert rows == [(b"v", 1, None), (None, 2, None), (None, 0, None)]
    assert clock_ms == 5_000


def test_a_key_that_is_held_is_refused_to_everybody_and_kept_as_it_is(shard: Shard) -> None:
    shard.put(KEY, b"v")
    prepare(shard, [KEY])
    assert isinstance(error(prepare(shard, [b"free", KEY], OTHER)), Busy)
    assert isinstance(error(shard.put(KEY, b"w")), Busy)
    assert isinstance(error(shard.delete(KEY)), Busy)
    assert isinstance(error(shard.call(Op.LOCK, 0, 0, 0, KEY, b"me", 1_000)), Busy)
    compare = [[KEY, 1, 0, b"v"]]
    assert isinstance(error(shard.call(Op.TXN, 0, 0, 0, b"free", compare, [], [])), Busy)
    assert value(shard.state, KEY) == b"v"
    assert shard.put(b"free", b"x").ok


def test_a_write_that_depends_on_a_lock_that_is_held_is_refused(shard: Shard) -> None:
    """The transaction may have taken the lock away, and others may have seen so already."""
    taken = body(shard.call(Op.LOCK, 0, 0, 0, b"lock", b"me", 1_000))[0]
    prepare(shard, [b"lock"])
    put = (0, 0, 0, KEY, b"v", None, None, None, None, [b"lock", taken])
    assert isinstance(error(shard.call(Op.PUT, *put)), Busy)
    finish(shard, [[b"lock", DELETE, b"", None, 0]])
    assert not shard.call(Op.PUT, *put).ok


def test_what_is_held_does_not_end_by_the_clock_nor_with_its_lease(shard: Shard) -> None:
    shard.call(Op.LEASE_CHANGE, SHARD, 77, LeaseChange.GRANT, 1_000)
    shard.call(Op.PUT, 0, 0, 0, KEY, b"v", None, None, 1_000)
    shard.call(Op.PUT, 0, 0, 0, b"leased", b"w", None, None, None, 77)
    prepare(shard, [KEY, b"leased"])
    shard.clock_ms = 2_000
    shard.put(b"other", b"x")
    assert shard.state.table.get(KEY) is not None
    assert shard.state.table.get(b"leased") is not None
    finish(shard, None)
    shard.put(b"other", b"x")
    assert shard.state.table.get(KEY) is None
    assert shard.state.table.get(b"leased") is None


def test_a_key_whose_time_is_over_is_told_as_absent_and_ended(shard: Shard) -> None:
    shard.call(Op.PUT, 0, 0, 0, KEY, b"v", None, None, 1_000)
    shard.clock_ms = 1_000
    assert body(prepare(shard, [KEY]))[0] == [(None, 0, None)]
    assert shard.state.table.get(KEY) is None


def test_a_key_whose_time_is_over_is_ended_before_it_is_held_though_others_are_before_it(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_keys, "ENDED_MAX", 1)
    for key, ttl_ms in ((b"first", 500), (KEY, 1_000)):
        shard.call(Op.PUT, 0, 0, 0, key, b"v", None, None, ttl_ms)
    shard.clock_ms = 1_000
    assert body(prepare(shard, [KEY]))[0] == [(None, 0, None)]
    assert shard.state.table.get(KEY) is None


@pytest.mark.parametrize(("asked_ms", "held_ms"), [(-5, 0), (1, 1), (HOLD_MS_MAX + 1, HOLD_MS_MAX)])
def test_nobody_can_have_keys_held_for_longer_than_a_minute(
    shard: Shard, asked_ms: int, held_ms: int
) -> None:
    shard.call(Op.TXN_PREPARE, SHARD, ATTEMPT, HOME, [KEY], [], asked_ms, 1, 0)
    intent = shard.state.keys.intents.get(ATTEMPT)
    assert intent is not None
    assert intent.hold_ms == held_ms


def test_values_that_are_too_large_together_are_not_told_and_nothing_is_held(shard: Shard) -> None:
    shard.put(KEY, b"v" * 60)
    shard.put(HOME, b"w" * 60)
    assert isinstance(error(prepare(shard, [KEY, HOME], bytes_max=100)), TooLarge)
    assert not shard.state.keys.intents.by_key
    assert prepare(shard, [KEY, HOME], told=[0], bytes_max=60).ok


@pytest.mark.parametrize(
    "fields",
    [
        (ATTEMPT, HOME, [KEY, KEY], [], 1, 1, 0),
        (ATTEMPT, HOME, [b""], [], 1, 1, 0),
        (ATTEMPT, HOME, [b"\xffh"], [], 1, 1, 0),
        (ATTEMPT, HOME, [], [], 1, 1, 0),
        (ATTEMPT, HOME, [7], [], 1, 1, 0),
        (ATTEMPT, HOME, KEY, [], 1, 1, 0),
        (ATTEMPT, b"", [KEY], [], 1, 1, 0),
        (ATTEMPT, None, [KEY], [], 1, 1, 0),
        (ATTEMPT, HOME, [KEY], None, 1, 1, 0),
        (ATTEMPT, HOME, [KEY], [], None, 1, 0),
        (0, HOME, [KEY], [], 1, 1, 0),
        (1 << 60, HOME, [KEY], [], 1, 1, 0),
        (None, HOME, [KEY], [], 1, 1, 0),
        (ATTEMPT, HOME, [b"k%d" % n for n in range(1_100)], [], 1, 1, 0),
    ],
)
def test_what_is_no_prepare_is_refused(shard: Shard, fields: tuple[object, ...]) -> None:
    assert isinstance(error(shard.call(Op.TXN_PREPARE, SHARD, *fields)), BadRequest)
    assert not shard.state.keys.intents.by_key


def test_the_home_key_and_one_for_each_operation_can_be_held(shard: Shard) -> None:
    keys = [b"k%d" % number for number in range(TXN_OPERATIONS_MAX + 2)]
    assert isinstance(error(prepare(shard, keys, told=[])), BadRequest)
    assert prepare(shard, keys[:-1], told=[]).ok


def test_an_attempt_holds_keys_once(shard: Shard) -> None:
    prepare(shard, [KEY])
    assert isinstance(error(prepare(shard, [b"another"])), BadRequest)
    assert list(shard.state.keys.intents.by_key) == [KEY]


@pytest.mark.parametrize(
    ("op", "key", "fields", "waits"),
    [
        (Op.GET, KEY, (), True),
        (Op.GET, HOME, (), False),
        (Op.KEY_HISTORY, KEY, (10, None), True),
        (Op.SHARD_SCAN, b"", (None, None), True),
        (Op.SHARD_SCAN, b"", (b"kez", None), False),
        (Op.SHARD_SCAN, b"", (b"a", KEY), False),
        (Op.SHARD_SCAN, b"", (KEY, b"kez"), True),
        (Op.LEASE_STATE, b"", (7, None), False),
        (Op.RETENTION_STATE, b"", (), False),
    ],
)
def test_what_would_see_a_held_key_waits_for_who_holds_it(
    shard: Shard, op: Op, key: bytes, fields: tuple[object, ...], waits: bool
) -> None:
    prepare(shard, [KEY])
    assert holders(shard.state, op, key, fields) == ({ATTEMPT} if waits else set())
    finish(shard)
    assert holders(shard.state, op, key, fields) == set()


# --- decide --------------------------------------------------------------------------------


def test_what_was_decided_stays_decided(shard: Shard) -> None:
    assert verdict(decide(shard)) is Verdict.COMMITTED
    assert verdict(decide(shard)) is Verdict.COMMITTED
    assert body(ask(shard)) == [Verdict.COMMITTED, PLAN, None]
    assert verdict(ask(shard, OTHER)) is Verdict.ABORTED
    assert verdict(decide(shard, OTHER)) is Verdict.ABORTED
    assert verdict(ask(shard, OTHER)) is Verdict.ABORTED


def test_a_tombstone_outlives_every_coordinator(shard: Shard) -> None:
    ask(shard)
    shard.clock_ms = TOMBSTONE_MS - 1
    assert verdict(decide(shard, begun_ms=shard.clock_ms)) is Verdict.ABORTED
    shard.clock_ms = TOMBSTONE_MS + 1
    shard.put(b"other", b"x")  # it goes with this entry, if not before
    assert verdict(decide(shard, begun_ms=TOMBSTONE_MS - COMMIT_WITHIN_MS)) is Verdict.ABORTED


def test_a_coordinator_may_decide_to_the_last_moment(shard: Shard) -> None:
    shard.clock_ms = COMMIT_WITHIN_MS
    assert verdict(decide(shard, begun_ms=0)) is Verdict.COMMITTED


@pytest.mark.parametrize("begun_ms", [0, None])
def test_a_coordinator_that_comes_too_late_decides_nothing(shard: Shard, begun_ms: Any) -> None:
    shard.clock_ms = COMMIT_WITHIN_MS + 1
    assert verdict(decide(shard, begun_ms=begun_ms)) is Verdict.ABORTED
    assert not shard.state.keys.two_phase.decisions.open


def test_a_record_is_open_until_it_is_forgotten_also_behind_a_crash(shard: Shard) -> None:
    decide(shard)
    shard.flush()
    shard.crash()
    (record,) = shard.state.keys.two_phase.decisions.open.values()
    assert (record.attempt, record.home, record.plan) == (ATTEMPT, HOME, PLAN)
    forget(shard)
    assert not shard.state.keys.two_phase.decisions.open
    shard.flush()
    shard.crash()
    assert not shard.state.keys.two_phase.decisions.open
    assert forget(shard).ok


def test_nothing_to_do_needs_no_record(shard: Shard) -> None:
    session = shard.open_session()
    assert verdict(decide(shard, plan=[], asker=(session, 1, 0, None, None))) is Verdict.COMMITTED
    assert not shard.state.keys.two_phase.decisions.open


@pytest.mark.parametrize("kind", ["session", "idempotency"])
def test_another_attempt_of_what_was_answered_gets_the_answer_and_does_nothing(
    shard: Shard, kind: str
) -> None:
    session = shard.open_session()
    asker = (session, 1, 0, None, None) if kind == "session" else (0, 0, 0, b"name", b"digest")
    assert verdict(decide(shard, asker=asker)) is Verdict.COMMITTED
    for _ in range(2):
        told = body(decide(shard, OTHER, [], answer=[0, [0, 0, []]], asker=asker))
        assert told == [Verdict.BY_ANOTHER, None, ANSWER]
        forget(shard)
    assert verdict(ask(shard, OTHER)) is Verdict.ABORTED


def test_a_tombstone_of_this_attempt_does_not_make_an_answer_untrue(shard: Shard) -> None:
    asker = (shard.open_session(), 1, 0, None, None)
    decide(shard, asker=asker)
    forget(shard)
    ask(shard)  # somebody who was late
    assert body(decide(shard, asker=asker)) == [Verdict.BY_ANOTHER, None, ANSWER]


def test_an_answer_is_as_old_as_its_session_and_no_write_is_done_twice(shard: Shard) -> None:
    """Not so many milliseconds: a clock that jumps ends answers and sessions together."""
    asker = (shard.open_session(), 1, 0, None, None)
    decide(shard, asker=asker)
    shard.clock_ms = 100 * MEMO_TTL_MS
    again = decide(shard, OTHER, begun_ms=shard.clock_ms, asker=asker)
    assert isinstance(error(again), SessionExpired)


def test_a_session_that_has_the_answer_or_is_unknown_refuses_it(shard: Shard) -> None:
    session = shard.open_session()
    decide(shard, asker=(session, 1, 0, None, None))
    decide(shard, OTHER, asker=(session, 2, 1, None, None))
    for asker, kind in (
        ((session, 1, 0, None, None), BadRequest),
        ((999, 1, 0, None, None), SessionExpired),
        ((session, 3, None, None, None), BadRequest),
        ((session, "3", 1, None, None), BadRequest),
        ((0, 0, 0, b"name", None), BadRequest),
        ((0, 0, 0, "name", b"digest"), BadRequest),
    ):
        assert isinstance(error(decide(shard, 13, asker=asker)), kind)
    for answer in (None, 7, [0], [0, 0], ["0", []]):
        refused = decide(shard, 13, asker=(session, 3, 1, None, None), answer=answer)
        assert isinstance(error(refused), BadRequest)
    assert verdict(ask(shard, 13)) is Verdict.ABORTED


def test_the_same_idempotency_key_for_another_request_is_a_conflict(shard: Shard) -> None:
    decide(shard, asker=(0, 0, 0, b"name", b"digest"))
    told = body(decide(shard, OTHER, asker=(0, 0, 0, b"name", b"another")))
    assert told[0] == Verdict.BY_ANOTHER
    assert told[2][0] != 0


@pytest.mark.parametrize(
    "plan",
    [
        None,
        KEY,
        [KEY],
        [[KEY, 3, b"v", None, 0]],
        [[b"", 0, b"v", None, 0]],
        [[KEY, 0, None, None, 0]],
        [[KEY, 0, b"v", 7, 0]],
        [[KEY, 0, b"v", None, -2]],
        [[KEY, 0, b"v", None, 1 << 63]],
        [[b"\xffh", 0, b"v", None, 0]],
    ],
)
def test_what_is_no_plan_is_refused(shard: Shard, plan: object) -> None:
    assert isinstance(error(decide(shard, plan=plan)), BadRequest)
    prepare(shard, [KEY])
    if plan is not None:
        assert isinstance(error(finish(shard, plan)), BadRequest)
    assert shard.state.keys.intents.by_key
    assert not shard.state.keys.two_phase.decisions.open


@pytest.mark.parametrize("attempt", [None, 0, -1, 1 << 60, 1.0, True, b"1"])
def test_what_is_no_attempt_is_refused(shard: Shard, attempt: Any) -> None:
    for result in (
        decide(shard, attempt), ask(shard, attempt), finish(shard, None, attempt),
        forget(shard, attempt), prepare(shard, [KEY], attempt),
    ):  # fmt: skip
        assert isinstance(error(result), BadRequest)


@pytest.mark.parametrize("home", [None, b"", "home", 7])
def test_what_is_no_home_key_is_refused(shard: Shard, home: object) -> None:
    for op, fields in (
        (Op.TXN_DECIDE, (home, ATTEMPT, False)),
        (Op.TXN_FORGET, (home, ATTEMPT)),
        (Op.TXN_PREPARE, (SHARD, ATTEMPT, home, [KEY], [], 1, 1, 0)),
    ):
        assert isinstance(error(shard.call(op, *fields)), BadRequest)


def test_a_key_may_be_given_the_longest_time_to_live(shard: Shard) -> None:
    assert decide(shard, plan=[[KEY, PUT, b"v", None, TTL_MS_MAX]]).ok


# --- finish --------------------------------------------------------------------------------


def test_a_part_is_done_once_and_only_on_what_the_attempt_holds(shard: Shard) -> None:
    shard.put(b"other", b"x")
    prepare(shard, [KEY])
    plan = [[KEY, PUT, b"2", "text/plain", 0], [b"other", DELETE, b"", None, 0]]
    done = finish(shard, plan)
    assert body(done)[1:] == [[], 1]
    row = shard.state.read(KEY)
    assert row is not None
    assert (row.value, row.content_type, row.revision) == (b"2", "text/plain", shard.state.index)
    assert value(shard.state, b"other") == b"x"
    shard.put(KEY, b"3")
    assert body(finish(shard, plan))[2] == 0
    assert value(shard.state, KEY) == b"3"


def test_letting_go_changes_nothing_and_says_how_many_were_held(shard: Shard) -> None:
    shard.put(KEY, b"v")
    prepare(shard, [KEY, HOME])
    assert body(finish(shard, None))[1:] == [[], 2]
    assert value(shard.state, KEY) == b"v"
    assert shard.put(KEY, b"w").ok
    assert body(finish(shard, None))[2] == 0


def test_another_attempts_intent_stays(shard: Shard) -> None:
    prepare(shard, [KEY])
    finish(shard, PLAN, OTHER)
    assert value(shard.state, KEY) is None
    assert isinstance(error(shard.put(KEY, b"w")), Busy)


def test_effects_happen_in_their_order_and_time_counts_from_when_they_do(shard: Shard) -> None:
    shard.call(Op.PUT, 0, 0, 0, b"kept", b"v", None, None, 60_000)
    shard.put(b"gone", b"v")
    keys = [KEY, b"kept", b"gone", b"touched", b"for ever"]
    shard.put(b"touched", b"v")
    prepare(shard, keys)
    shard.clock_ms = 1_000
    finish(
        shard,
        [
            [KEY, PUT, b"1", None, 0],
            [KEY, PUT, b"2", None, 5_000],
            [b"kept", PUT, b"w", None, KEEP],
            [b"gone", DELETE, b"", None, 0],
            [b"gone", DELETE, b"", None, 0],
            [b"touched", TOUCH, b"", None, 7_000],
            [b"for ever", PUT, b"v", None, 0],
        ],
    )
    assert value(shard.state, KEY) == b"2"
    assert shard.state.keys.bond(KEY) == (6_000, 0)
    assert shard.state.keys.bond(b"kept") == (60_000, 0)
    assert value(shard.state, b"gone") is None
    assert shard.state.keys.bond(b"touched") == (8_000, 0)
    assert shard.state.keys.bond(b"for ever") == (0, 0)


def test_a_request_for_another_shard_is_refused(shard: Shard) -> None:
    for op, fields in (
        (Op.TXN_PREPARE, (9, ATTEMPT, HOME, [KEY], [], 1, 1, 0)),
        (Op.TXN_FINISH, (9, ATTEMPT, None)),
        (Op.TXN_FINISH, ()),
    ):
        assert isinstance(error(shard.call(op, *fields)), WrongShard)
