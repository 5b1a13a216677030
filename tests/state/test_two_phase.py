"""A shard's part in a transaction over several: what the four entries do, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krita.codec import encode_body
from krita.errors import BadRequest, Busy, SessionExpired, TooLarge, WrongShard, from_wire
from krita.operations import LeaseChange, Op
from krita.ring import token
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.decisions import COMMIT_WITHIN_MS, TOMBSTONE_MS, Verdict
from kritad.state.machine import ShardState
from kritad.state.memos import MEMO_TTL_MS
from kritad.state.reading import holders
from kritad.state.results import Result
from kritad.state.two_phase import KEEP
from tests.state.shard import SHARD, Shard, open_shard

ATTEMPT, OTHER = 11, 12
HOME, KEY = b"home", b"key"
PUT, DELETE, TOUCH = 0, 1, 2
PLAN = [[HOME, PUT, b"1", None, 0], [KEY, PUT, b"2", None, 0]]
ANSWER = [0, [0, 1, []]]
NOBODY = (None, None, None, None, None)


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    with open_shard(tmp_path / "data.db") as opened:
        yield opened


def prepare(
    shard: Shard, keys: list[bytes], attempt: int = ATTEMPT, told: object = None, bytes_max: int = 0
) -> Result:
    places = list(range(len(keys))) if told is None else told
    return shard.call(Op.TXN_PREPARE, SHARD, attempt, HOME, keys, places, 10_000, bytes_max, 0)


def decide(
    shard: Shard,
    attempt: int = ATTEMPT,
    plan: object = PLAN,
    *,
    begun_ms: int = 0,
    asker: tuple[object, ...] = NOBODY,
    answer: object = ANSWER,
) -> Result:
    return shard.call(Op.TXN_DECIDE, HOME, attempt, True, plan, answer, begun_ms, *asker)


def ask(shard: Shard, attempt: int = ATTEMPT) -> Result:
    return shard.call(Op.TXN_DECIDE, HOME, attempt, False)


def finish(shard: Shard, plan: object = PLAN, attempt: int = ATTEMPT) -> Result:
    return shard.call(Op.TXN_FINISH, SHARD, attempt, plan)


def forget(shard: Shard, attempt: int = ATTEMPT) -> Result:
    return shard.call(Op.TXN_FORGET, HOME, attempt)


def body(result: Result) -> Any:
    assert result.ok, from_wire(result.status, result.body)
    return result.body


def verdict(result: Result) -> Verdict:
    return Verdict(body(result)[0])


def error(result: Result) -> BaseException:
    assert not result.ok, result
    return from_wire(result.status, result.body)


def value(state: ShardState, key: bytes) -> bytes | None:
    row = state.read(key)
    return None if row is None else row.value


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


def test_values_that_are_too_large_together_are_not_told_and_nothing_is_held(shard: Shard) -> None:
    shard.put(KEY, b"v" * 60)
    shard.put(HOME, b"w" * 60)
    assert isinstance(error(prepare(shard, [KEY, HOME], bytes_max=100)), TooLarge)
    assert not shard.state.keys.intents.by_key
    assert prepare(shard, [KEY, HOME], told=[0], bytes_max=100).ok


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
    assert isinstance(
        error(decide(shard, 13, asker=(session, 3, 1, None, None), answer=None)), BadRequest
    )
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
    keys = [KEY, b"kept", b"gone", b"touched"]
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
        ],
    )
    assert value(shard.state, KEY) == b"2"
    assert shard.state.keys.bond(KEY) == (6_000, 0)
    assert shard.state.keys.bond(b"kept") == (60_000, 0)
    assert value(shard.state, b"gone") is None
    assert shard.state.keys.bond(b"touched") == (8_000, 0)


def test_a_request_for_another_shard_is_refused(shard: Shard) -> None:
    for op, fields in (
        (Op.TXN_PREPARE, (9, ATTEMPT, HOME, [KEY], [], 1, 1, 0)),
        (Op.TXN_FINISH, (9, ATTEMPT, None)),
        (Op.TXN_FINISH, ()),
    ):
        assert isinstance(error(shard.call(op, *fields)), WrongShard)


# --- crashes and splits --------------------------------------------------------------------


@pytest.mark.parametrize("flushed", [False, True])
def test_what_is_held_is_held_behind_a_crash(shard: Shard, flushed: bool) -> None:
    prepare(shard, [KEY, HOME])
    if flushed:
        shard.flush()
    before = shard.state.state_hash
    shard.crash()
    assert shard.state.state_hash == before
    assert set(shard.state.keys.intents.by_key) == {KEY, HOME}
    assert isinstance(error(shard.put(KEY, b"w")), Busy)
    finish(shard)
    shard.flush()
    shard.crash()
    assert not shard.state.keys.intents.by_key
    assert shard.scanned_hash() == shard.state.state_hash


MIDDLE = 1 << 31
LOW = next(b"l%d" % n for n in range(99) if token(b"l%d" % n) < MIDDLE)
HIGH = next(b"h%d" % n for n in range(99) if token(b"h%d" % n) >= MIDDLE)


def apply_to(state: ShardState, op: Op, *fields: object) -> Result:
    data = pack_command(0, op, encode_body(op, *fields))
    return state.apply(Entry(state.index + 1, 1, EntryKind.COMMAND, data))


@pytest.mark.parametrize("flushed", [False, True])
def test_a_split_divides_what_is_held_and_each_half_does_its_part(
    shard: Shard, flushed: bool
) -> None:
    plan = [[LOW, PUT, b"1", None, 0], [HIGH, PUT, b"2", None, 0]]
    prepare(shard, [LOW, HIGH])
    if flushed:
        shard.flush()
    assert shard.split(5, MIDDLE).ok
    offspring = shard.state.take_offspring()
    assert offspring is not None
    other = offspring.state
    assert list(shard.state.keys.intents.by_key) == [LOW]
    assert list(other.keys.intents.by_key) == [HIGH]
    assert body(finish(shard, plan))[1:] == [[HIGH], 1]
    assert body(apply_to(other, Op.TXN_FINISH, 5, ATTEMPT, plan))[1:] == [[LOW], 1]
    assert (value(shard.state, LOW), value(other, HIGH)) == (b"1", b"2")
    for state in (shard.state, other):
        assert not state.keys.intents.by_key
        assert state.state_hash == hash_of(state)


def hash_of(state: ShardState) -> int:
    """Counted again."""
    total = state.extent.rows_hash + state._sessions.hash
    notes = type(state._notes)(iter(state._notes))
    return (total + notes.hash) % (1 << 64)


@pytest.mark.parametrize("home", [LOW, HIGH])
def test_records_and_tombstones_go_where_their_home_key_goes(shard: Shard, home: bytes) -> None:
    shard.call(Op.TXN_DECIDE, home, ATTEMPT, True, PLAN, None, 0, *NOBODY)
    shard.call(Op.TXN_DECIDE, home, OTHER, False)
    assert shard.split(5, MIDDLE).ok
    offspring = shard.state.take_offspring()
    assert offspring is not None
    halves = {LOW: shard.state, HIGH: offspring.state}
    owner = halves.pop(home)
    (stranger,) = halves.values()
    assert len(owner.keys.two_phase.decisions.open) == 1
    assert not stranger.keys.two_phase.decisions.open
    assert verdict(apply_to(owner, Op.TXN_DECIDE, home, ATTEMPT, False)) is Verdict.COMMITTED
    late = apply_to(owner, Op.TXN_DECIDE, home, OTHER, True, PLAN, None, 0, *NOBODY)
    assert verdict(late) is Verdict.ABORTED
    refused = apply_to(stranger, Op.TXN_DECIDE, home, ATTEMPT, False)
    assert isinstance(error(refused), WrongShard)
    assert isinstance(error(apply_to(stranger, Op.TXN_FORGET, home, ATTEMPT)), WrongShard)
    assert apply_to(owner, Op.TXN_FORGET, home, ATTEMPT).ok
    assert not owner.keys.two_phase.decisions.open
