"""A shard's part in transactions over several shards: the four entries that make one.

    TXN_PREPARE  in every shard: hold the keys, and tell what they are
    TXN_DECIDE   in the home key's shard: it has happened, or never will
    TXN_FINISH   in every shard: do its part, if it has happened, and let the keys go
    TXN_FORGET   in the home key's shard: everybody has done it

``kritad/coordinator.py`` says what follows from what; intents.py and decisions.py have the
rules. What a transaction does to its keys was worked out by the coordinator with the same
verbs as for one shard; here it is carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from krita.errors import BadRequest, Busy, WrongShard
from krita.limits import TXN_OPERATIONS_MAX
from krita.operations import Op
from kritad.state.decisions import COMMIT_WITHIN_MS, Decisions, Verdict
from kritad.state.intents import ATTEMPT_LIMIT, Intent, Intents
from kritad.state.keyspace import Keyspace
from kritad.state.results import Result, success
from kritad.state.verbs import Action, Effect
from kritad.storage.rows import Row

KEEP = -1  # an effect's expires_ms: the deadline and the lease that the key has
_HOLD_MS_MAX = 60_000
_ACTIONS = (Action.PUT, Action.DELETE, Action.TOUCH)


class Keys(Protocol):
    """The shard's keys: ``user_keys.UserKeys``."""

    def get(self, key: bytes) -> Row | None: ...
    def bond(self, key: bytes) -> tuple[int, int]: ...
    def owns(self, key: bytes) -> bool: ...
    def end_if_over(self, key: bytes, index: int) -> None: ...
    def do(self, effect: Effect, index: int) -> None: ...


class TwoPhase:
    """See the module's docstring."""

    def __init__(self, shard: int, keys: Keys, keyspace: Keyspace, intents: Intents) -> None:
        self.decisions = Decisions(keyspace)
        self._shard = shard
        self._keys = keys
        self._keyspace = keyspace
        self._intents = intents
        self.operations: dict[int, Callable[[list[Any], int], Result]] = {
            Op.TXN_PREPARE: self._prepare,
            Op.TXN_DECIDE: self._decide,
            Op.TXN_FINISH: self._finish,
            Op.TXN_FORGET: self._forget,
        }

    def __repr__(self) -> str:
        return f"<TwoPhase of shard {self._shard}: {self._intents!r} {self.decisions!r}>"

    def _prepare(self, fields: list[Any], index: int) -> Result:
        match fields:
            case [self._shard, bytes(txn), int(attempt), bytes(home), list(keys), int(hold_ms), *_]:
                pass
            case [int(other), *_] if other != self._shard:
                raise WrongShard(f"this is shard {self._shard}, and the request names another")
            case _:
                raise BadRequest("txn_prepare is [shard, txn, attempt, home, keys, hold_ms]")
        _check_attempt(attempt)
        if not all(type(key) is bytes and key for key in keys) or len(keys) > TXN_OPERATIONS_MAX:
            raise BadRequest("txn_prepare: keys are byte strings, and not too many")
        if not all(self._keys.owns(key) for key in keys):
            raise WrongShard(f"shard {self._shard} has not all of the keys: it was split")
        if self._intents.holders(keys, attempt):
            raise Busy("a key is held by another transaction", hint="try again in a moment")
        for key in keys:
            self._keys.end_if_over(key, index)
        clock_ms = self._keyspace.clock_ms
        deadline_ms = clock_ms + max(1, min(hold_ms, _HOLD_MS_MAX))
        held = tuple(dict.fromkeys(keys))
        self._intents.put(Intent(attempt, txn, home, deadline_ms, held))
        return success([[self._row(key) for key in keys], clock_ms])

    def _row(self, key: bytes) -> list[object]:
        row = self._keys.get(key)
        return [None, 0, None] if row is None else [row.value, row.revision, row.content_type]

    def _decide(self, fields: list[Any], index: int) -> Result:
        match fields:
            case [bytes(home), bytes(txn), int(attempt), bool(commit), plan, results, begun_ms, *_]:
                pass
            case _:
                raise BadRequest(
                    "txn_decide is [key, txn, attempt, commit, plan, results, begun_ms]"
                )
        _check_attempt(attempt)
        if not home or not self._keys.owns(home):
            raise WrongShard(f"shard {self._shard} has not the transaction's home key")
        wish = None
        if commit:
            if not isinstance(plan, list) or type(begun_ms) is not int:
                raise BadRequest("txn_decide: a plan is an array, begun_ms a time")
            # A tombstone of this attempt would be gone by then.
            if self._keyspace.clock_ms <= begun_ms + COMMIT_WITHIN_MS:
                wish = plan, results
        verdict, record = self.decisions.decide(home, txn, attempt, index, wish)
        if record is None:
            return success([int(verdict), None, None, 0])
        told = record.plan if verdict == Verdict.COMMITTED else None
        return success([int(verdict), told, record.results, record.index])

    def _finish(self, fields: list[Any], index: int) -> Result:
        match fields:
            case [self._shard, int(attempt), list() | None as plan, *_]:
                effects = [_effect(item) for item in plan or ()]
            case [int(other), *_] if other != self._shard:
                raise WrongShard(f"this is shard {self._shard}, and the request names another")
            case _:
                raise BadRequest("txn_finish is [shard, attempt, plan]")
        intent = self._intents.get(attempt)
        misplaced = [effect.key for effect in effects if not self._keys.owns(effect.key)]
        if intent is not None:
            self._intents.release(attempt)
            for effect in effects:
                # What is not held was done before, or is another's to do.
                if effect.key in intent.keys and self._keys.owns(effect.key):
                    self._keys.do(self._timed(effect), index)
        return success([index, misplaced])

    def _timed(self, effect: Effect) -> Effect:
        """With a deadline by this shard's clock, in place of how long it lasts."""
        if effect.expires_ms == KEEP:
            expires_ms, lease = self._keys.bond(effect.key)
        else:
            expires_ms = effect.expires_ms and self._keyspace.clock_ms + effect.expires_ms
            lease = 0
        return Effect(
            effect.action, effect.key, effect.value, effect.content_type, expires_ms, lease
        )

    def _forget(self, fields: list[Any], index: int) -> Result:
        match fields:
            case [bytes(home), bytes(txn), *_] if home:
                if not self._keys.owns(home):
                    raise WrongShard(f"shard {self._shard} has not the transaction's home key")
                self.decisions.forget(home, txn, index)
                return success([])
        raise BadRequest("txn_forget is [key, txn]")


def effect_to_wire(effect: Effect) -> list[object]:
    """As a plan has it."""
    return [
        effect.key,
        _ACTIONS.index(effect.action),
        effect.value,
        effect.content_type,
        effect.expires_ms,
    ]


def keys_of_plan(plan: Sequence[object]) -> list[bytes]:
    """Whose effects a plan has, in order."""
    return [_effect(item).key for item in plan]


def _effect(item: object) -> Effect:
    match item:
        case [
            bytes(key), int(action), bytes(value), str() | None as content_type, int(lasts_ms), *_,
        ] if key and 0 <= action < len(_ACTIONS) and lasts_ms >= KEEP:  # fmt: skip
            return Effect(_ACTIONS[action], key, value, content_type, lasts_ms)
    raise BadRequest("an effect is [key, action, value, content_type, lasts_ms]")


def _check_attempt(attempt: int) -> None:
    if not 0 < attempt < ATTEMPT_LIMIT:
        raise BadRequest("an attempt is a number from 1 to 2**60-1")
