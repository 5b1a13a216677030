"""Transactions over the shards of one node, in any order of steps, with crashes and splits.

Attempts are driven by hand over real shard states: at each moment any of them may go a step on,
its coordinator may die, a resolver may ask, a shard may be flushed or split, the node may crash.
Replicas that flush and crash otherwise are in the same state at the same index.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from krita.codec import encode_body
from krita.operations import Op
from krita.ring import token
from kritad.raft.types import Entry, EntryKind
from kritad.state.command import pack_command
from kritad.state.decisions import Verdict
from kritad.state.machine import ShardState
from kritad.state.results import Result
from tests.state.shard import SHARD, Shard

KEYS = [b"k%d" % number for number in range(6)]
BALANCE = 100
NEW = 5


@attrs.define
class Attempt:
    """What its coordinator knows."""

    number: int
    source: bytes
    target: bytes
    prepared: dict[bytes, int] = attrs.field(factory=dict)
    plan: list[list[Any]] = attrs.field(factory=list)
    decided: Verdict | None = None


class Life:
    """See the module's docstring. One shard in two replicas of which the second never
    flushes; behind the split, two shards in one replica each, and the old one in two."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.dice = dice
        self.shard = Shard(folder / "a.db")
        self.twin = Shard(folder / "b.db")
        self.born: ShardState | None = None
        self.at = 1 << 32
        self.attempts: dict[int, Attempt] = {}
        self.happened: list[Attempt] = []
        self.count = 0
        for key in KEYS:
            self._call(key, Op.PUT, 0, 0, 0, key, b"%d" % BALANCE)

    def close(self) -> None:
        self.shard.close()
        self.twin.close()

    def live(self, steps: int) -> None:
        """Anything that can happen, one after the other."""
        always = [self.begin, self.resolve, self.write, self.flush, self.crash, self.split]
        of_attempts = [self.prepare, self.decide, self.finish, self.finish, self.die]
        for _ in range(steps):
            self.dice.choice(always + of_attempts if self.attempts else always)()
            self.replicas_are_equal()
            self.intents_are_where_their_keys_are()
            self.money_is_conserved_once_all_is_settled()

    # --- what is done ---------------------------------------------------------------------

    def _state(self, key: bytes) -> ShardState:
        if self.born is not None and token(key) >= self.at:
            return self.born
        return self.shard.state

    def _call(self, key: bytes, op: Op, *fields: object) -> Result:
        """An entry of the shard that has the key; of a shard's own, for its number."""
        if self.born is not None and token(key) >= self.at:
            fields = tuple(NEW if field is _THIS else field for field in fields)
            data = pack_command(0, op, encode_body(op, *fields))
            return self.born.apply(Entry(self.born.index + 1, 1, EntryKind.COMMAND, data))
        fields = tuple(SHARD if field is _THIS else field for field in fields)
        result = self.shard.call(op, *fields)
        assert self.twin.call(op, *fields) == result
        return result

    def begin(self) -> None:
        source, target = self.dice.sample(KEYS, 2)
        self.count += 1
        attempt = self.attempts[self.count] = Attempt(self.count, source, target)
        # Some of it at once, or hardly any would get far.
        for step in (self._prepare, self._prepare, self._decide, self._finish)[
            : self.dice.randint(0, 4)
        ]:
            if attempt.number in self.attempts:
                step(attempt)

    def prepare(self) -> None:
        self._prepare(self._draw())

    def _prepare(self, attempt: Attempt) -> None:
        missing = [k for k in (attempt.source, attempt.target) if k not in attempt.prepared]
        if attempt.decided is not None or not missing:
            return
        key = missing[0]
        together = [k for k in missing if self._state(k) is self._state(key)]
        result = self._call(
            key, Op.TXN_PREPARE, _THIS, attempt.number, attempt.source, together,
            list(range(len(together))), 10, 0, 0,
        )  # fmt: skip
        if not result.ok or (
            attempt.prepared and any(self._state(k) is self._state(key) for k in attempt.prepared)
        ):
            # Refused; or it was split and joined since, which no coordinator survives.
            del self.attempts[attempt.number]
            return
        assert isinstance(result.body, list)
        for one, row in zip(together, result.body[0], strict=True):
            attempt.prepared[one] = int(row[0])

    def decide(self) -> None:
        self._decide(self._draw())

    def _decide(self, attempt: Attempt) -> None:
        if len(attempt.prepared) < 2:
            return
        attempt.plan = [
            [attempt.source, 0, b"%d" % (attempt.prepared[attempt.source] - 1), None, 0],
            [attempt.target, 0, b"%d" % (attempt.prepared[attempt.target] + 1), None, 0],
        ]
        result = self._call(
            attempt.source, Op.TXN_DECIDE, attempt.source, attempt.number, True, attempt.plan,
            None, 0,
        )  # fmt: skip
        assert isinstance(result.body, list)
        before, attempt.decided = attempt.decided, Verdict(result.body[0])
        assert before in (None, attempt.decided)
        if before is None and attempt.decided is Verdict.COMMITTED:
            self.happened.append(attempt)

    def finish(self) -> None:
        """Of one key, by the coordinator: also twice, and also what is decided against."""
        attempt = self._draw()
        self._finish(attempt, self.dice.choice([attempt.source, attempt.target]))

    def _finish(self, attempt: Attempt, key: bytes | None = None) -> None:
        if attempt.decided is not None:
            plan = attempt.plan if attempt.decided is Verdict.COMMITTED else None
            for one in (attempt.source, attempt.target) if key is None else (key,):
                assert self._call(one, Op.TXN_FINISH, _THIS, attempt.number, plan).ok

    def die(self) -> None:
        del self.attempts[self._draw().number]

    def resolve(self) -> None:
        """A leader asks what became of an intent, and does its part."""
        intents = [(state, intent) for state in self._states() for intent in state.keys.intents]
        if not intents:
            return
        _, intent = self.dice.choice(intents)
        self._settle(intent.keys[0], intent.home, intent.attempt)

    def _settle(self, key: bytes, home: bytes, number: int) -> None:
        asked = self._call(home, Op.TXN_DECIDE, home, number, False)
        assert isinstance(asked.body, list)
        verdict, plan, _ = asked.body
        part = plan if verdict == Verdict.COMMITTED else None
        if number in self.attempts and verdict == Verdict.ABORTED:
            known = self.attempts[number]
            assert known.decided in (None, Verdict.ABORTED)
        assert self._call(key, Op.TXN_FINISH, _THIS, number, part).ok

    def write(self) -> None:
        """Somebody touches a key, if it is free."""
        key = self.dice.choice(KEYS)
        result = self._call(key, Op.ADD, 0, 0, 0, key, 0)
        assert result.ok is (key not in self._state(key).keys.intents.by_key)

    def flush(self) -> None:
        if self.born is None:
            self.shard.flush()

    def crash(self) -> None:
        if self.born is None:
            self.shard.crash()

    def split(self) -> None:
        if self.born is not None or not self.shard.state.keys.intents.by_key:
            return
        self.at = self.dice.randint(1, 3) << 30
        for shard in (self.shard, self.twin):
            assert shard.split(NEW, self.at).ok
            offspring = shard.state.take_offspring()
            assert offspring is not None
            if shard is self.shard:
                self.born = offspring.state

    def _draw(self) -> Attempt:
        return self.dice.choice(list(self.attempts.values()))

    def _states(self) -> list[ShardState]:
        return [self.shard.state] + ([] if self.born is None else [self.born])

    # --- what has to be so ----------------------------------------------------------------

    def replicas_are_equal(self) -> None:
        assert self.shard.state.index == self.twin.state.index
        assert self.shard.state.state_hash == self.twin.state.state_hash

    def intents_are_where_their_keys_are(self) -> None:
        for state in self._states():
            assert all(map(state.owns, state.keys.intents.by_key))
            found = {key for intent in state.keys.intents for key in intent.keys}
            assert found == set(state.keys.intents.by_key)

    def money_is_conserved_once_all_is_settled(self) -> None:
        """In thought: what is decided is done, and the rest is not."""
        balances = {}
        for key in KEYS:
            row = self._state(key).read(key)
            assert row is not None
            balances[key] = int(row.value)
        for attempt in self.happened:
            for key, amount in ((attempt.source, -1), (attempt.target, 1)):
                if self._state(key).keys.intents.by_key.get(key) == attempt.number:
                    balances[key] += amount
        moved = dict.fromkeys(KEYS, BALANCE)
        for attempt in self.happened:
            moved[attempt.source] -= 1
            moved[attempt.target] += 1
        assert balances == moved


class _This:
    """Stands for the number of the shard that is asked."""


_THIS = _This()


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=50, deadline=None)
def test_whatever_happens_money_is_conserved_and_replicas_are_equal(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), random.Random(seed))
        try:
            life.live(80)
        finally:
            life.close()
