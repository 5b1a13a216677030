"""Transactions: all or nothing, whichever verb is refused; each verb sees what those before did."""

from __future__ import annotations

from typing import Any

import pytest

from krita.errors import BadRequest, Conflict, LeaseUnknown, WrongShard
from krita.limits import TXN_OPERATIONS_MAX
from krita.operations import Compare, LeaseChange, Op, Relation
from krita.ring import token
from kritad.state.results import Result
from tests.state.shard import Shard, error

GET, PUT, DELETE, ADD, APPEND, TOUCH = (
    int(op) for op in (Op.GET, Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH)
)
REVISION, VALUE = int(Compare.REVISION), int(Compare.VALUE)
EQUAL, UNEQUAL, LESS, GREATER = (int(relation) for relation in Relation)


def txn(shard: Shard, then: Any = None, compare: Any = None, otherwise: Any = None) -> Result:
    return shard.do(Op.TXN, b"k", compare=compare, then=then, otherwise=otherwise)


def results(shard: Shard, *then: list[Any]) -> Any:
    result = txn(shard, list(then))
    assert result.ok, result
    assert isinstance(result.body, list)
    return result.body[2]


def test_each_operation_sees_what_those_before_it_did(shard: Shard) -> None:
    found = results(
        shard,
        [ADD, b"n", 5], [ADD, b"n", -7], [GET, b"n"], [APPEND, b"n", b"!"], [GET, b"n"],
        [DELETE, b"n"], [GET, b"n"], [PUT, b"n", b"v", "text/plain"], [GET, b"n"],
    )  # fmt: skip
    assert found == [
        [1, 0, 5], [1, 1, -2], [b"-2", 1, "text/plain"], [1, 1, 3], [b"-2!", 1, "text/plain"],
        [1, 1], [None, 0, None], [1, 0], [b"v", 1, "text/plain"],
    ]  # fmt: skip
    assert shard.value(b"n") == b"v"
    shard.flush()
    assert shard.scanned_hash() == shard.state.state_hash


def test_a_key_that_is_made_and_deleted_in_one_step_leaves_nothing(shard: Shard) -> None:
    results(shard, [PUT, b"k", b"v", None, 10], [TOUCH, b"k", 20], [DELETE, b"k"], [DELETE, b"k"])
    assert shard.state.state_hash == 0
    assert shard.state.extent.keys == shard.state.extent.bytes == 0
    assert shard.pass_time(30).body == [False]


@pytest.mark.parametrize(
    "refused",
    [
        [ADD, b"text", 1],
        [ADD, b"large", 1],
        [APPEND, b"text", b"x" * 2_000],
        [PUT, b"k", b"v", None, None, 99],
        [TOUCH, b"text", None, 99],
        [PUT, b"k", "no bytes"],
        [PUT, b"k", b"v", 5],
        [PUT, b"k", b"v", None, 0],
        [ADD, b"text", "1"],
        [APPEND, b"text", None],
    ],
    ids=str,
)
@pytest.mark.parametrize("place", range(4))
def test_one_operation_that_is_refused_undoes_all_wherever_it_stands(
    shard: Shard, refused: list[Any], place: int
) -> None:
    shard.put(b"text", b"no number")
    shard.put(b"large", b"%d" % ((1 << 63) - 1))
    shard.do(Op.PUT, b"ends", value=b"v", ttl_ms=1_000)
    before, events = shard.state.state_hash, len(shard.state.feed._events)
    then: list[Any] = [[PUT, b"new", b"v"], [DELETE, b"text"], [TOUCH, b"ends", 5]]
    if place > 1 and refused[1] == b"text":
        then[1] = [DELETE, b"large"]  # else there would be no text to be refused for
    then.insert(place, refused)
    result = shard.do(Op.TXN, b"k", then=then, value_bytes_max=1_000)
    assert isinstance(error(result), BadRequest | Conflict | LeaseUnknown)
    assert shard.state.state_hash == before
    assert len(shard.state.feed._events) == events
    assert shard.state.keys.bond(b"ends") == (1_000, 0)


def test_the_side_that_is_taken_is_done_and_the_other_is_not(shard: Shard) -> None:
    shard.put(b"k", b"v")
    is_there = [[b"k", REVISION, EQUAL, 1]]
    body = txn(shard, [[PUT, b"a", b"1"]], is_there, [[PUT, b"b", b"1"]]).body
    assert body == [2, True, [[2, 0]]]
    body = txn(shard, [[PUT, b"c", b"1"]], [[b"k", REVISION, EQUAL, 9]], [[GET, b"k"]]).body
    assert body == [3, False, [[b"v", 1, None]]]
    assert [shard.value(key) for key in (b"a", b"b", b"c")] == [b"1", None, None]


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        ([b"k", REVISION, EQUAL, 1], True),
        ([b"k", REVISION, LESS, 1], False),
        ([b"k", REVISION, GREATER, 0], True),
        ([b"k", REVISION, UNEQUAL, 2], True),
        ([b"none", REVISION, EQUAL, 0], True),
        ([b"k", VALUE, EQUAL, b"v"], True),
        ([b"k", VALUE, LESS, b"w"], True),
        ([b"k", VALUE, LESS, b"v"], False),
        ([b"k", VALUE, GREATER, b""], True),
        ([b"k", VALUE, GREATER, None], True),
        ([b"k", VALUE, LESS, None], False),
        ([b"none", VALUE, EQUAL, None], True),
        ([b"none", VALUE, LESS, b""], True),
        ([b"none", VALUE, GREATER, None], False),
        ([b"over", REVISION, EQUAL, 0], True),
        ([b"over", VALUE, EQUAL, None], True),
        ([b"k", REVISION, EQUAL, 1, "from the future"], True),
    ],
    ids=str,
)
def test_comparisons_are_with_the_key_as_it_is(
    shard: Shard, comparison: list[Any], holds: bool
) -> None:
    shard.put(b"k", b"v")
    shard.do(Op.PUT, b"over", value=b"v", ttl_ms=5)
    shard.clock_ms += 5
    assert txn(shard, compare=[comparison]).body == [3, holds, []]


def test_all_comparisons_have_to_hold_and_are_made_before_anything_is_done(shard: Shard) -> None:
    absent, present = [b"k", REVISION, EQUAL, 0], [b"k", REVISION, GREATER, 0]
    assert txn(shard, [[PUT, b"k", b"v"]], [absent, absent]).body == [1, True, [[1, 0]]]
    assert txn(shard, [[PUT, b"k", b"w"]], [present, absent]).body == [2, False, []]


def test_keys_that_are_over_are_absent_for_every_operation(shard: Shard) -> None:
    for key in (b"a", b"b", b"c"):
        shard.do(Op.PUT, key, value=b"7", ttl_ms=5)
    shard.clock_ms += 5
    found = results(shard, [ADD, b"a", 1], [TOUCH, b"b", 9], [GET, b"c"], [DELETE, b"c"])
    assert found == [[4, 0, 1], [0, 0], [None, 0, None], [4, 0]]
    assert shard.state.keys.bond(b"a") == (0, 0)


def test_keeping_the_time_to_live_sees_what_the_transaction_gave(shard: Shard) -> None:
    shard.lease(1, LeaseChange.GRANT, 100)
    results(shard, [PUT, b"k", b"v", None, 10, 1], [PUT, b"k", b"w", None, -1])
    assert shard.state.keys.bond(b"k") == (10, 1)
    results(shard, [PUT, b"k", b"w", None, -1], [PUT, b"k", b"x", None, -1])
    assert shard.state.keys.bond(b"k") == (10, 1)
    results(shard, [TOUCH, b"k", 20], [PUT, b"k", b"w", None, -1])
    assert shard.state.keys.bond(b"k") == (20, 0)
    results(shard, [TOUCH, b"k", -1, 1], [PUT, b"k", b"w", None, -1])
    assert shard.state.keys.bond(b"k") == (20, 1)
    results(shard, [DELETE, b"k"], [PUT, b"k", b"w", None, -1])
    assert shard.state.keys.bond(b"k") == (0, 0)


def test_what_is_read_together_is_no_more_than_one_value(shard: Shard) -> None:
    shard.put(b"k", b"x" * 600)
    twice = [[GET, b"k"], [GET, b"k"]]
    assert shard.do(Op.TXN, b"k", then=twice, value_bytes_max=1_200).ok
    refused = shard.do(Op.TXN, b"k", then=twice, value_bytes_max=1_199)
    assert isinstance(error(refused), Conflict)


def test_comparisons_and_the_operations_of_both_sides_count_together(shard: Shard) -> None:
    compare, otherwise = [[b"k", REVISION, EQUAL, 0]], [[GET, b"k"]]
    for count, allowed in ((TXN_OPERATIONS_MAX - 2, True), (TXN_OPERATIONS_MAX - 1, False)):
        assert txn(shard, [[GET, b"k"]] * count, compare, otherwise).ok is allowed
        assert txn(shard, otherwise, compare, [[GET, b"k"]] * count).ok is allowed


@pytest.mark.parametrize(
    "fields",
    [
        {"then": 5},
        {"then": [5]},
        {"then": [[]]},
        {"then": [[PUT]]},
        {"then": [[PUT, b""]]},
        {"then": [[PUT, "k"]]},
        {"then": [[PUT, b"\xffk", b"v"]]},
        {"then": [[int(Op.LOCK), b"k", b"me"]]},
        {"then": [[True, b"k"]]},
        {"then": [[DELETE, b"k", 1]]},
        {"then": [[GET, b"k"]] * (TXN_OPERATIONS_MAX + 1)},
        {"compare": [[b"k"]]},
        {"compare": [[b"k", 2, 0, 0]]},
        {"compare": [[b"k", 0, 4, 0]]},
        {"compare": [[b"k", 0, 0, -1]]},
        {"compare": [[b"k", 0, 0, b"v"]]},
        {"compare": [[b"k", 0, 0, True]]},
        {"compare": [[b"k", 1, 0, 5]]},
        {"compare": [[b"k", 1, 4, b"v"]]},
        {"compare": [[b"k", 1, -1, b"v"]]},
        {"compare": [[b"", 0, 0, 0]]},
        {"otherwise": {"a": 1}},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_what_is_no_transaction_is_refused_and_changes_nothing(
    shard: Shard, fields: dict[str, Any]
) -> None:
    assert isinstance(error(shard.do(Op.TXN, b"k", **fields)), BadRequest)
    assert shard.state.state_hash == 0


def test_a_transaction_with_a_key_of_another_shard_is_done_nowhere(shard: Shard) -> None:
    shard.split(5, 1 << 31)
    ours, theirs = (
        next(k for k in (b"k%d" % n for n in range(99)) if (token(k) < 1 << 31) is low)
        for low in (True, False)
    )
    for then, compare in (
        ([[PUT, ours, b"v"], [PUT, theirs, b"v"]], None),
        ([[PUT, ours, b"v"]], [[theirs, REVISION, EQUAL, 0]]),
    ):
        result = shard.do(Op.TXN, ours, then=then, compare=compare)
        assert isinstance(error(result), WrongShard)
    assert shard.value(ours) is None
