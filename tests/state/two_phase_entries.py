"""The four entries that make a transaction over several shards, as a test applies them."""

from __future__ import annotations

from typing import Any

from krita.codec import encode_body
from krita.errors import from_wire
from krita.operations import Op
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.decisions import Verdict
from kritad.state.machine import ShardState
from kritad.state.results import Result
from tests.state.shard import SHARD, Shard

ATTEMPT, OTHER = 11, 12
HOME, KEY = b"home", b"key"
PUT, DELETE, TOUCH = 0, 1, 2
PLAN = [[HOME, PUT, b"1", None, 0], [KEY, PUT, b"2", None, 0]]
ANSWER = [0, [0, 1, []]]
NOBODY = (None, None, None, None, None)


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


def apply_to(state: ShardState, op: Op, *fields: object) -> Result:
    data = pack_command(0, op, encode_body(op, *fields))
    return state.apply(Entry(state.index + 1, 1, EntryKind.COMMAND, data))
