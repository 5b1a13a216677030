"""What a transaction over several shards holds here, behind a crash and a split."""

from __future__ import annotations

import pytest

from krita.errors import Busy, WrongShard
from krita.operations import Op
from krita.ring import token
from kritad.state.decisions import Verdict
from kritad.state.machine import ShardState
from tests.state.shard import Shard
from tests.state.two_phase_entries import (
    ATTEMPT,
    HOME,
    KEY,
    NOBODY,
    OTHER,
    PLAN,
    PUT,
    apply_to,
    body,
    error,
    finish,
    prepare,
    value,
    verdict,
)


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


def test_what_went_to_the_other_half_is_not_held_here(shard: Shard) -> None:
    shard.split(5, MIDDLE)
    assert isinstance(error(prepare(shard, [LOW, HIGH])), WrongShard)
    assert not shard.state.keys.intents.by_key


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
