"""Whatever fields an entry has, it has a result: an exception would end every replica of the
shard, and again each time that one replays its log.

Fields are right more often than not, so that what is odd gets past the first look; the numbers
are those at which some representation ends.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from krita.codec import encode
from krita.errors import Status
from krita.operations import OPERATIONS, Op, Route
from kritad.state.command import pack_command
from tests.state.shard import SHARD, Shard, open_shard

_OPS = [op for op, row in OPERATIONS.items() if row.write and row.route in (Route.KEY, Route.SHARD)]
_NUMBERS = [
    0, 1, 2, 3, -1, -2, 1 << 31, 1 << 32, 1 << 53, (1 << 60) - 1, 1 << 60, 1 << 62, (1 << 63) - 1,
    1 << 63, (1 << 64) - 1, -(1 << 63), -(1 << 64),
]  # fmt: skip
_KEYS = [b"k", b"{g}a", b"{g}b", b"", b"\xff", b"\xffh", b"\x00", b"1", b"k" * 5_000]
_CLOCK_MS_MAX = 1 << 50


class Dice:
    """Draws an entry's fields by their names."""

    def __init__(self, seed: int, sessions: list[int]) -> None:
        self.chance = random.Random(seed)
        self.sessions = sessions

    def fields(self, op: int) -> list[Any]:
        drawn = [self._field(name) for name in OPERATIONS[Op(op)].fields]
        return drawn if self.chance.random() < 0.9 else drawn[: self.chance.randrange(9)]

    def _field(self, name: str) -> object:
        choose = self.chance.choice
        if self.chance.random() < 0.1:
            return self._anything()
        some_number, large = choose(_NUMBERS), choose(_NUMBERS[-5:-2])
        likely: dict[str, object] = {
            "shard": SHARD,
            "session": choose([0, *self.sessions, some_number]),
            "sequence": choose([1, 2, 3, large]),
            "acked_to": choose([0, 0, 1, large - 1]),
            "key": choose(_KEYS[:3]),
            "home": choose(_KEYS[:3]),
            "value": choose(_KEYS),
            "data": choose(_KEYS),
            "owner": b"me",
            "prefix": choose(_KEYS),
            "content_type": choose([None, "text/plain", "\0"]),
            "ttl_ms": choose([None, 1, 1_000, some_number]),
            "lease": choose([None, None, 1, some_number]),
            "attempt": choose([1, 2, 3]),
            "if_revision": choose([None, None, None, some_number]),
            "if_lock": choose([None, None, None, [choose(_KEYS), some_number]]),
            "idempotency": choose([None, b"x", b"y"]),
            "previous": choose([None, True]),
            "keys": [choose(_KEYS) for _ in range(choose([1, 2]))],
            "plan": [self._effect() for _ in range(choose([0, 1, 2]))],
            "answer": choose([None, [0, [1, 1, []]], [0, [self._anything()]]]),
            "compare": [[choose(_KEYS[:3]), choose([0, 1]), choose([0, 1, 2, 3]), some_number]],
            "then": [self._step() for _ in range(choose([0, 1, 2]))],
            "otherwise": [self._step()],
            "replicas": [[7, choose([9, some_number]), 1]],
        }
        return likely.get(name, choose([0, 1, some_number]))

    def _effect(self) -> list[object]:
        choose = self.chance.choice
        return [choose(_KEYS), choose([0, 1, 2]), b"v", choose([None, "t"]), choose(_NUMBERS)]

    def _step(self) -> list[object]:
        ops = [int(op) for op in (Op.GET, Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH)]
        more = [self._anything() for _ in range(self.chance.randrange(4))]
        return [self.chance.choice(ops), self.chance.choice(_KEYS), *more]

    def _anything(self, depth: int = 0) -> object:
        plain = [None, True, "", "text", 1.5, float("nan"), *_NUMBERS, *_KEYS]
        if depth < 2 and self.chance.random() < 0.3:
            return [self._anything(depth + 1) for _ in range(self.chance.randrange(4))]
        return self.chance.choice(plain)


def apply_odd_entries(shard: Shard, seed: int, count: int) -> set[int]:
    """The statuses that they had."""
    dice = Dice(seed, [shard.open_session() for _ in range(2)])
    seen = set()
    for at in range(count):
        op = dice.chance.choice(_OPS)
        shard.clock_ms += dice.chance.choice([0, 0, 1, 500])
        if dice.chance.random() < 0.01:
            shard.clock_ms = dice.chance.choice([1, _CLOCK_MS_MAX])
        data = pack_command(shard.clock_ms, op, encode(dice.fields(op)))
        seen.add(int(shard.command(data).status))
        shard.state.take_offspring()
        if at % 200 == 199:
            shard.flush()
    return seen


@pytest.mark.parametrize("seed", range(6))
def test_an_entry_of_any_fields_has_a_result_and_can_be_flushed(tmp_path: Path, seed: int) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        seen = apply_odd_entries(shard, seed, 3_000)
        assert {Status.OK, Status.BAD_REQUEST, Status.SESSION_EXPIRED} <= seen


def test_a_client_may_acknowledge_more_than_any_number_that_there_is(tmp_path: Path) -> None:
    with open_shard(tmp_path / "data.db") as shard:
        session = shard.open_session()
        assert shard.call(Op.PUT, session, 1, 0, b"k", b"a").ok
        assert shard.call(Op.PUT, session, (1 << 64) - 1, (1 << 64) - 2, b"k", b"b").ok
        shard.flush()
        shard.crash()
        assert shard.value(b"k") == b"b"
