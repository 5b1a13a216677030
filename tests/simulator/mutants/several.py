"""Planted bugs: transactions over several shards.

All are found by lives with transfers (tests/simulator/transfers) or by a test of the part.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from krita.errors import Status
from krita.operations import Op
from kritad import txn_steps as product
from kritad.host import resolver
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.state import decisions, intents, repeats, two_phase
from kritad.state.results import Result, success
from kritad.state.verbs import Reply
from tests.simulator.mutants.mutant import Mutant

_prepare, _finish = product._prepare, product._finish


def _whoever_is_prepared(attempt: product.Attempt, wait_ms: int) -> Any:
    """It goes on when the shard of the home key is prepared, whatever the others say."""
    inner = _prepare(attempt, wait_ms)
    asked = next(inner)
    while True:
        answers = yield asked
        home = [attempt.wish.home in ask.fields[3] for ask in asked.asks if len(ask.fields) == 8]
        believed = [
            answer
            if answer[0] == Status.OK or place >= len(home) or home[place]
            else (0, [[[b"0", 1, None]] * len(asked.asks[place].fields[3]), 0])
            for place, answer in enumerate(answers)
        ]
        try:
            asked = inner.send(believed)
        except StopIteration as done:
            return done.value


def _let_go_unasked(self: resolver.Resolver, shard: int, intent: intents.Intent) -> None:
    """What was held for too long is let go, as if it had been decided against."""
    fields = (shard, intent.attempt, None)
    self._ask(("finish", shard, intent.attempt), Op.TXN_FINISH, shard, b"", fields)


def _say_no_and_forget_it(
    _decisions: decisions.Decisions, _home: bytes, _attempt: int, _index: int
) -> None:
    """Who asks is told that it will not happen, and nothing keeps it from happening."""


def _never_held(_replica: Replica, _request: Request) -> bool:
    """A read does not wait."""
    return False


def _do_it_again(self: two_phase.TwoPhase, fields: list[Any], index: int) -> Result:
    """A part is done whether or not it was done before."""
    shard, attempt, plan = fields[:3]
    assert shard == self._shard
    effects = [two_phase._effect(item) for item in plan or ()]
    held = self._intents.release(attempt)
    for effect in effects:
        if self._keys.owns(effect.key):
            self._keys.do(self._timed(effect), index)
    misplaced = [effect.key for effect in effects if not self._keys.owns(effect.key)]
    return success([index, misplaced, len(held)])


def _keep_what_is_whole(self: intents.Intents, ours: Callable[[bytes], bool]) -> None:
    """An intent that a split divides is in neither half."""
    for intent in list(self):
        if not all(map(ours, intent.keys)):
            self.release(intent.attempt)


def _never_asked_before(
    _repeats: repeats.Repeats, _asker: repeats.Asker, _home: bytes, _index: int
) -> Reply | None:
    """Whether it was answered before is not looked for."""
    return None


def _keep_no_answer(
    _repeats: repeats.Repeats, _asker: repeats.Asker, _home: bytes, _reply: Reply, _index: int
) -> None:
    """And no answer is kept."""


def _believe_what_was_read(
    attempt: product.Attempt,
) -> Generator[product.Round, list[product.Answer], None]:
    """Whether the keys were held until they were let go is not asked."""
    yield attempt.let_go(attempt.parts)


def _forget_at_once(
    attempt: product.Attempt, effects: Any, reply: product.Told, shard_of: Callable[[bytes], int]
) -> Generator[product.Round, list[product.Answer], None]:
    """The record goes before all have done their part."""
    yield product.Round([product.Ask(Op.TXN_FORGET, (attempt.wish.home, attempt.number))])
    yield from _finish(attempt, effects, reply, shard_of)


_SOURCE = "kritad/txn_steps.py"

MUTANTS = (
    Mutant(
        name="decided-before-all-are-prepared",
        rule="all keys are held before anything is decided",
        source=_SOURCE,
        hint="ledger: balances out of nothing; needs transfers that meet each other",
        patches=((product, "_prepare", _whoever_is_prepared),),
    ),
    Mutant(
        name="intent-let-go-without-asking",
        rule="only a decision releases an intent",
        source="kritad/state/intents.py",
        hint="ledger: the sum; needs a coordinator that dies between decision and finish",
        patches=((resolver.Resolver, "_resolve", _let_go_unasked),),
    ),
    Mutant(
        name="tombstone-not-written",
        rule="what was decided against never happens",
        source="kritad/state/decisions.py",
        hint="ledger: the sum; needs a coordinator that is slower than the shards' patience",
        patches=((decisions.Decisions, "abort", _say_no_and_forget_it),),
    ),
    Mutant(
        name="reads-of-held-keys-do-not-wait",
        rule="nobody sees one half of a transaction",
        source="kritad/host/replica.py",
        hint="two reads, one behind the other, of which the first sees the transaction",
        patches=((Replica, "_is_held", _never_held),),
    ),
    Mutant(
        name="part-is-done-twice",
        rule="an intent is let go once, and with it the part is done once",
        source="kritad/host/resolver.py",
        hint="ledger: a balance that comes back; needs a finish that is late, or lost",
        patches=((two_phase.TwoPhase, "_finish", _do_it_again),),
    ),
    Mutant(
        name="split-loses-intents",
        rule="a shard that is split divides its intents",
        source="kritad/state/intents.py",
        hint="ledger: the sum; needs a split between prepare and finish",
        patches=((intents.Intents, "keep_only", _keep_what_is_whole),),
    ),
    Mutant(
        name="transaction-is-done-again",
        rule="a transaction over several shards happens once a session and sequence",
        source="kritad/state/repeats.py",
        hint="ledger: was done twice; needs lost answers and sessions",
        patches=(
            (repeats.Repeats, "begin", _never_asked_before),
            (repeats.Repeats, "finish", _keep_no_answer),
        ),
    ),
    Mutant(
        name="read-is-not-of-one-moment",
        rule="what only reads has held all its keys at one moment",
        source=_SOURCE,
        hint="ledger: the sum; needs a prepare that is slower than the shards' patience",
        patches=((product, "_only_read", _believe_what_was_read),),
    ),
    Mutant(
        name="decision-forgotten-before-it-is-done",
        rule="a record stays until all shards have done their part",
        source="kritad/state/decisions.py",
        hint="ledger: the sum; needs a coordinator that dies before it has finished",
        patches=((product, "_finish", _forget_at_once),),
    ),
)
