"""Requests with an idempotency key: each is done once, and answered as the first time."""

from __future__ import annotations

from typing import Any

import pytest

from krita.errors import BadRequest, ConditionFailed, Conflict
from krita.operations import OPERATIONS, Op
from kritad.state.memos import MEMO_TTL_MS
from kritad.state.results import Result
from tests.state.shard import Shard, error

_WRITES: dict[Op, dict[str, Any]] = {
    Op.PUT: {"value": b"1", "previous": True},
    Op.DELETE: {"previous": True},
    Op.ADD: {"delta": 1},
    Op.APPEND: {"data": b"1"},
    Op.TOUCH: {"ttl_ms": 10},
    Op.LOCK: {"owner": b"me"},
    Op.TXN: {"then": [[int(Op.ADD), b"k", 1], [int(Op.GET), b"k"]]},
}
IDS = [op.name.lower() for op in _WRITES]


def write(shard: Shard, op: Op, name: object, **more: Any) -> Result:
    return shard.do(op, b"k", idempotency=name, **(_WRITES[op] | more))


@pytest.mark.parametrize("op", _WRITES, ids=IDS)
def test_a_request_that_comes_again_is_not_done_again(shard: Shard, op: Op) -> None:
    shard.put(b"k", b"1")
    first = write(shard, op, b"once")
    assert first == write(shard, op, b"once")
    revision = shard.state.read(b"k")
    shard.flush()
    shard.crash()
    assert write(shard, op, b"once") == first
    assert shard.state.read(b"k") == revision


@pytest.mark.parametrize("op", _WRITES, ids=IDS)
def test_another_request_under_the_same_key_is_refused_and_does_nothing(
    shard: Shard, op: Op
) -> None:
    shard.put(b"k", b"1")
    shard.do(Op.PUT, b"k", value=b"2", idempotency=b"used")
    before = shard.state.state_hash
    assert isinstance(error(write(shard, op, b"used")), Conflict)
    assert shard.state.state_hash == before


def test_a_refusal_is_repeated_although_it_would_be_done_now(shard: Shard) -> None:
    refused = shard.do(Op.PUT, b"k", value=b"v", if_revision=9, idempotency=b"n")
    assert isinstance(error(refused), ConditionFailed)
    shard.put(b"k", b"v")
    assert shard.do(Op.PUT, b"k", value=b"v", if_revision=9, idempotency=b"n") == refused


def test_a_memo_lasts_for_an_hour_and_no_longer(shard: Shard) -> None:
    write(shard, Op.ADD, b"n")
    shard.clock_ms += MEMO_TTL_MS - 1
    assert write(shard, Op.ADD, b"n").body == [1, False, 1]
    shard.clock_ms += 1
    assert write(shard, Op.ADD, b"n").body == [3, True, 2]
    shard.pass_time(MEMO_TTL_MS)
    assert shard.state.extent.bytes == len(b"k") + len(b"2"), "nothing is left of it"


def test_a_memo_is_nobody_s_key(shard: Shard) -> None:
    write(shard, Op.ADD, b"n")
    assert shard.state.extent.keys == 1
    assert [event[2] for event in shard.state.feed._events] == [b"k"]


def test_a_memo_goes_with_its_key_when_the_shard_is_split(shard: Shard) -> None:
    keys = [b"k%d" % number for number in range(20)]
    first = {key: shard.do(Op.ADD, key, delta=1, idempotency=b"n") for key in keys}
    total = shard.state.state_hash
    shard.split(5, 1 << 31)
    offspring = shard.state.take_offspring()
    assert offspring is not None
    assert (shard.state.state_hash + offspring.state.state_hash) % (1 << 64) == total
    halves = shard.state, offspring.state
    for key in keys:
        shard.state = next(half for half in halves if half.owns(key))
        assert shard.do(Op.ADD, key, delta=1, idempotency=b"n") == first[key]


def test_a_setting_that_nodes_disagree_about_makes_no_other_request_of_it(shard: Shard) -> None:
    first = write(shard, Op.APPEND, b"n", value_bytes_max=1000)
    assert first.ok
    assert write(shard, Op.APPEND, b"n", value_bytes_max=2000) == first


def test_a_session_and_an_idempotency_key_together_give_one_answer(shard: Shard) -> None:
    session = shard.open_session()
    first = write(shard, Op.ADD, b"n", session=session, sequence=1)
    assert write(shard, Op.ADD, b"n", session=session, sequence=1) == first
    assert write(shard, Op.ADD, b"n", session=session, sequence=2) == first
    assert shard.value(b"k") == b"1"


@pytest.mark.parametrize("name", [b"", "text", 5, b"x" * 256, []])
def test_what_is_no_idempotency_key_is_refused(shard: Shard, name: object) -> None:
    assert isinstance(error(write(shard, Op.ADD, name)), BadRequest)
    assert shard.value(b"k") is None


def test_every_write_of_a_key_can_have_one() -> None:
    named = {row.code for row in OPERATIONS.values() if "idempotency" in row.fields}
    # What decides a transaction over several groups carries that of its request.
    assert named == {*_WRITES, Op.TXN_DECIDE}
