"""Transactions over the shards of one node, in any order of steps, with crashes and splits.

Attempts are driven by hand over real shard states: at each moment any of them may go a step on,
its coordinator may die, a resolver may ask, a shard may be flushed or split, the node may crash.
Replicas that flush and crash otherwise are in the same state at the same index.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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


class TwoPhases(RuleBasedStateMachine):
    """See the module's docstring. One shard in two replicas of which the second never
    flushes; behind the split, two shards in one replica each, and the old one in two."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.shard = Shard(Path(self.folder.name) / "a.db")
        self.twin = Shard(Path(self.folder.name) / "b.db")
        self.born: ShardState | None = None
        self.at = 1 << 32
        self.attempts: dict[int, Attempt] = {}
        self.happened: list[Attempt] = []
        self.count = 0
        for key in KEYS:
            self._call(key, Op.PUT, 0, 0, 0, key, b"%d" % BALANCE)

    def teardown(self) -> None:
        self.shard.close()
        self.twin.close()
        self.folder.cleanup()

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

    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        source, target = data.draw(st.permutations(KEYS))[:2]
        self.count += 1
        self.attempts[self.count] = Attempt(self.count, source, target)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def prepare(self, data: st.DataObject) -> None:
        attempt = self._draw(data)
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

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def decide(self, data: st.DataObject) -> None:
        attempt = self._draw(data)
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

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Of one key, by the coordinator: also twice, and also what is decided against."""
        attempt = self._draw(data)
        if attempt.decided is not None:
            plan = attempt.plan if attempt.decided is Verdict.COMMITTED else None
            key = data.draw(st.sampled_from([attempt.source, attempt.target]))
            assert self._call(key, Op.TXN_FINISH, _THIS, attempt.number, plan).ok

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        del self.attempts[self._draw(data).number]

    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        """A leader asks what became of an intent, and does its part."""
        intents = [(state, intent) for state in self._states() for intent in state.keys.intents]
        if not intents:
            return
        _, intent = data.draw(st.sampled_from(intents))
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

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """Somebody touches a key, if it is free."""
        key = data.draw(st.sampled_from(KEYS))
        result = self._call(key, Op.ADD, 0, 0, 0, key, 0)
        assert result.ok is (key not in self._state(key).keys.intents.by_key)

    @rule()
    def flush(self) -> None:
        if self.born is None:
            self.shard.flush()

    @rule()
    def crash(self) -> None:
        if self.born is None:
            self.shard.crash()

    @precondition(lambda self: self.born is None)
    @rule(edge=st.integers(1, 3))
    def split(self, edge: int) -> None:
        self.at = edge << 30
        for shard in (self.shard, self.twin):
            assert shard.split(NEW, self.at).ok
            offspring = shard.state.take_offspring()
            assert offspring is not None
            if shard is self.shard:
                self.born = offspring.state

    def _draw(self, data: st.DataObject) -> Attempt:
        return data.draw(st.sampled_from(list(self.attempts.values())))

    def _states(self) -> list[ShardState]:
        return [self.shard.state] + ([] if self.born is None else [self.born])

    # --- what has to be so ----------------------------------------------------------------

    @invariant()
    def replicas_are_equal(self) -> None:
        assert self.shard.state.index == self.twin.state.index
        assert self.shard.state.state_hash == self.twin.state.state_hash

    @invariant()
    def intents_are_where_their_keys_are(self) -> None:
        for state in self._states():
            assert all(map(state.owns, state.keys.intents.by_key))
            found = {key for intent in state.keys.intents for key in intent.keys}
            assert found == set(state.keys.intents.by_key)

    @invariant()
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

TwoPhases.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestTwoPhases = TwoPhases.TestCase
