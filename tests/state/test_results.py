"""Replies in full, from what sessions and memos keep of them."""

from __future__ import annotations

from typing import Any

import pytest

from krita.errors import BadRequest, Status
from krita.operations import OPERATIONS, Op
from kritad.state.results import answer
from kritad.state.user_keys import KEYED
from tests.state.shard import Shard, error

_WRITES: dict[Op, dict[str, Any]] = {
    Op.PUT: {"value": b"1"},
    Op.DELETE: {},
    Op.ADD: {"delta": 1},
    Op.APPEND: {"data": b"1"},
    Op.TOUCH: {},
    Op.LOCK: {"owner": b"1"},
    Op.TXN: {"then": [[int(Op.ADD), b"k", 1], [int(Op.GET), b"k"]]},
}


def test_every_write_of_a_key_is_tried_here() -> None:
    assert set(map(int, _WRITES)) == KEYED


@pytest.mark.parametrize("first", _WRITES, ids=lambda op: op.name.lower())
@pytest.mark.parametrize("second", _WRITES, ids=lambda op: op.name.lower())
def test_a_sequence_used_for_two_operations_is_answered_and_does_not_stop_the_shard(
    shard: Shard, first: Op, second: Op
) -> None:
    session = shard.open_session()
    shard.put(b"k", b"1")
    shard.do(first, b"k", session=session, sequence=1, **_WRITES[first])
    before = shard.value(b"k")
    again = shard.do(second, b"k", session=session, sequence=1, **_WRITES[second])
    assert again.ok or isinstance(error(again), BadRequest)
    assert shard.value(b"k") == before, "it was executed though its sequence was used"


@pytest.mark.parametrize("op", _WRITES, ids=lambda op: op.name.lower())
def test_a_repetition_is_answered_in_the_very_form_of_the_first_time(shard: Shard, op: Op) -> None:
    session = shard.open_session()
    shard.put(b"k", b"1")
    fields: dict[str, Any] = {"session": session, "sequence": 1, **_WRITES[op]}
    if "previous" in OPERATIONS[op].fields:
        fields["previous"] = True
    first = shard.do(op, b"k", **fields)
    assert first.ok
    assert shard.do(op, b"k", **fields) == first
    shard.flush()
    shard.crash()
    assert shard.do(op, b"k", **fields) == first


def test_the_previous_value_is_a_reply_s_third_element() -> None:
    assert answer(Op.PUT, (int(Status.OK), [9, 1, b"v", 3, None])).body == [
        9, True, [b"v", 3, None],
    ]  # fmt: skip
    assert answer(Op.PUT, (int(Status.OK), [9, 0])).body == [9, False]
