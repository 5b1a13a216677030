"""What each write of a key does and answers, and when it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from krita.errors import BadRequest, ConditionFailed, Conflict, LeaseUnknown, Locked
from krita.limits import TTL_MS_MAX
from krita.operations import LeaseChange, Op
from tests.state.shard import Shard, error

GUARDED = (Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH)
NUMBER_MAX = (1 << 63) - 1
_REST: dict[Op, dict[str, Any]] = {
    Op.PUT: {"value": b"w"}, Op.ADD: {"delta": 1}, Op.APPEND: {"data": b"0"},
}  # fmt: skip


# --- put and delete ----------------------------------------------------------------------------


def test_a_put_answers_with_what_was_there_when_it_is_asked(shard: Shard) -> None:
    assert shard.do(Op.PUT, b"k", value=b"a", content_type="text/plain", previous=True).body == [
        1, False,
    ]  # fmt: skip
    assert shard.do(Op.PUT, b"k", value=b"b", previous=True).body == [
        2, True, [b"a", 1, "text/plain"],
    ]  # fmt: skip
    assert shard.do(Op.DELETE, b"k", previous=True).body == [3, True, [b"b", 2, None]]
    assert shard.do(Op.DELETE, b"k", previous=True).body == [4, False]


def test_the_previous_value_of_a_key_that_is_over_is_none(shard: Shard) -> None:
    shard.do(Op.PUT, b"k", value=b"a", ttl_ms=5)
    shard.clock_ms += 5
    assert shard.do(Op.PUT, b"k", value=b"b", if_revision=0, previous=True).body == [2, False]


# --- numbers and bytes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "delta", "number"),
    [
        (b"0", 5, 5), (b"-0", 5, 5), (b"007", 1, 8), (b"-12", 2, -10),
        (b"%d" % NUMBER_MAX, -NUMBER_MAX, 0), (b"%d" % -NUMBER_MAX, NUMBER_MAX, 0),
        (b"0", NUMBER_MAX, NUMBER_MAX), (b"0", -NUMBER_MAX, -NUMBER_MAX),
    ],
)  # fmt: skip
def test_a_number_is_added_to(shard: Shard, value: bytes, delta: int, number: int) -> None:
    shard.put(b"k", value)
    assert shard.do(Op.ADD, b"k", delta=delta).body == [2, True, number]
    assert shard.value(b"k") == b"%d" % number


@pytest.mark.parametrize(
    "value",
    [
        b"", b"-", b"+5", b" 5", b"5 ", b"1_0", b"1.0", "٣".encode(), b"--5", b"1" * 21,
        b"0" * 5_000,  # int() of so many digits is an error
    ],
)  # fmt: skip
def test_what_is_no_number_is_not_added_to(shard: Shard, value: bytes) -> None:
    shard.put(b"k", value)
    assert isinstance(error(shard.do(Op.ADD, b"k", delta=1)), Conflict)
    assert shard.value(b"k") == value


def test_a_sum_has_63_bits(shard: Shard) -> None:
    shard.do(Op.ADD, b"k", delta=NUMBER_MAX)
    assert isinstance(error(shard.do(Op.ADD, b"k", delta=1)), Conflict)
    assert shard.do(Op.ADD, b"k", delta=-NUMBER_MAX).body == [3, True, 0]


@pytest.mark.parametrize("delta", [None, "1", 1.0, True, NUMBER_MAX + 1, -NUMBER_MAX - 1])
def test_what_cannot_be_added_is_refused(shard: Shard, delta: Any) -> None:
    assert isinstance(error(shard.do(Op.ADD, b"k", delta=delta)), BadRequest)


def test_a_number_keeps_its_content_type_and_a_new_one_is_text(shard: Shard) -> None:
    shard.do(Op.ADD, b"new", delta=1)
    shard.do(Op.PUT, b"old", value=b"1", content_type="x/y")
    shard.do(Op.ADD, b"old", delta=1)
    rows = [shard.state.read(key) for key in (b"new", b"old")]
    assert [row and row.content_type for row in rows] == ["text/plain", "x/y"]


def test_bytes_are_put_behind_a_value_up_to_the_limit_in_the_command(shard: Shard) -> None:
    assert shard.do(Op.APPEND, b"k", data=b"abc", value_bytes_max=5).body == [1, False, 3]
    assert shard.do(Op.APPEND, b"k", data=b"de", value_bytes_max=5).body == [2, True, 5]
    assert isinstance(error(shard.do(Op.APPEND, b"k", data=b"f", value_bytes_max=5)), Conflict)
    assert shard.do(Op.APPEND, b"k", data=b"", value_bytes_max=5).ok
    assert shard.value(b"k") == b"abcde"


# --- how long a key lasts ----------------------------------------------------------------------


@pytest.mark.parametrize("op", [Op.PUT, Op.ADD, Op.APPEND, Op.TOUCH, Op.LOCK])
@pytest.mark.parametrize("ttl_ms", [0, -2, 1.5, "5", True, TTL_MS_MAX + 1])
def test_what_is_no_time_to_live_is_refused(shard: Shard, op: Op, ttl_ms: Any) -> None:
    fields = {"owner": b"me"} if op == Op.LOCK else _REST.get(op, {})
    shard.put(b"k", b"1")
    before = shard.state.state_hash
    assert isinstance(error(shard.do(op, b"k", ttl_ms=ttl_ms, **fields)), BadRequest)
    assert shard.state.state_hash == before


@pytest.mark.parametrize("ttl_ms", [1, TTL_MS_MAX])
def test_the_shortest_and_the_longest_time_to_live_are_kept(shard: Shard, ttl_ms: int) -> None:
    assert shard.do(Op.PUT, b"k", value=b"v", ttl_ms=ttl_ms).ok
    assert shard.state.keys.bond(b"k") == (ttl_ms, 0)


@pytest.mark.parametrize("op", [Op.ADD, Op.APPEND])
def test_a_write_that_names_no_time_lets_a_key_last_for_ever_and_can_keep_its_deadline(
    shard: Shard, op: Op
) -> None:
    for key, ttl_ms, left in ((b"kept", -1, (10, 0)), (b"freed", None, (0, 0))):
        shard.do(Op.PUT, key, value=b"1", ttl_ms=10)
        shard.do(op, key, ttl_ms=ttl_ms, **_REST[op])
        assert shard.state.keys.bond(key) == left


def test_the_deadline_can_be_kept_while_the_lease_is_changed(shard: Shard) -> None:
    shard.lease(1, LeaseChange.GRANT, 100)
    shard.lease(2, LeaseChange.GRANT, 100)
    shard.do(Op.PUT, b"k", value=b"v", ttl_ms=10, lease=1)
    shard.do(Op.TOUCH, b"k", ttl_ms=-1, lease=2)
    assert shard.state.keys.bond(b"k") == (10, 2)
    assert isinstance(error(shard.do(Op.TOUCH, b"k", ttl_ms=-1, lease=3)), LeaseUnknown)


# --- locks -------------------------------------------------------------------------------------


def test_a_lock_is_taken_once_and_kept_by_its_owner(shard: Shard) -> None:
    assert shard.do(Op.LOCK, b"l", owner=b"me", ttl_ms=100).body == [1, True]
    shard.clock_ms = 40
    refused = error(shard.do(Op.LOCK, b"l", owner=b"you", ttl_ms=100))
    assert isinstance(refused, Locked)
    assert refused.detail == {"token": 1, "owner": b"me", "left_ms": 60}
    assert shard.do(Op.LOCK, b"l", owner=b"me", ttl_ms=100).body == [1, False], "the same token"
    shard.clock_ms = 139
    assert isinstance(error(shard.do(Op.LOCK, b"l", owner=b"you")), Locked)
    shard.clock_ms = 140
    assert shard.do(Op.LOCK, b"l", owner=b"you").body == [5, True]
    refused = error(shard.do(Op.LOCK, b"l", owner=b"me"))
    assert refused.detail == {"token": 5, "owner": b"you"}, "it is held for ever"


@pytest.mark.parametrize("owner", [b"", None, "me", 5])
def test_a_lock_has_an_owner(shard: Shard, owner: Any) -> None:
    assert isinstance(error(shard.do(Op.LOCK, b"l", owner=owner)), BadRequest)


@pytest.mark.parametrize("op", GUARDED)
def test_a_write_under_a_lock_is_done_while_it_is_held_with_that_token(
    shard: Shard, op: Op
) -> None:
    fields = _REST.get(op, {})
    shard.put(b"k", b"1")
    token = shard.do(Op.LOCK, b"l", owner=b"me", ttl_ms=10).body[0]  # type: ignore[index]
    assert shard.do(op, b"k", if_lock=[b"l", token], **fields).ok
    shard.do(Op.DELETE, b"l")
    taken = shard.do(Op.LOCK, b"l", owner=b"you", ttl_ms=10).body[0]  # type: ignore[index]
    before = shard.state.state_hash
    refused = error(shard.do(op, b"k", if_lock=[b"l", token], **fields))
    assert isinstance(refused, ConditionFailed)
    assert refused.detail == {"revision": taken, "if_lock": True}
    assert shard.state.state_hash == before
    shard.clock_ms += 10
    refused = error(shard.do(op, b"k", if_lock=[b"l", taken], **fields))
    # The lock is over, though nobody has said so.
    assert refused.detail == {"revision": 0, "if_lock": True}


@pytest.mark.parametrize("if_lock", [5, [], [b"l"], [b"", 1], ["l", 1], [b"l", 0], [b"l", None]])
def test_what_is_no_lock_is_refused(shard: Shard, if_lock: Any) -> None:
    assert isinstance(error(shard.do(Op.PUT, b"k", value=b"v", if_lock=if_lock)), BadRequest)


@pytest.mark.parametrize("op", GUARDED)
@pytest.mark.parametrize("if_revision", [-1, "1", 1.0, True])
def test_what_is_no_revision_is_refused(shard: Shard, op: Op, if_revision: Any) -> None:
    refused = error(shard.do(op, b"k", if_revision=if_revision, **_REST.get(op, {})))
    assert isinstance(refused, BadRequest)


@pytest.mark.parametrize("op", [op for op in GUARDED if op != Op.DELETE])
def test_a_key_that_is_over_is_at_revision_0(shard: Shard, op: Op) -> None:
    shard.do(Op.PUT, b"k", value=b"1", ttl_ms=5)
    shard.clock_ms += 5
    assert isinstance(
        error(shard.do(op, b"k", if_revision=1, **_REST.get(op, {}))), ConditionFailed
    )
    assert shard.do(op, b"k", if_revision=0, **_REST.get(op, {})).ok
