"""A shard's part in transactions over several shards: the four entries that make one.

    TXN_PREPARE  in every shard: hold the keys, and tell what they are
    TXN_DECIDE   in the home key's shard: it has happened, or never will
    TXN_FINISH   in every shard: do its part, if it has happened, and let the keys go
    TXN_FORGET   in the home key's shard: everybody has done it

``kritad/txn_steps.py`` says what follows from what; intents.py and decisions.py have the
rules. What a transaction does to its keys was worked out by the coordinator with the same
verbs as for one shard; here it is carried out.

The order in which TXN_DECIDE looks is a rule. What was decided about this attempt comes first:
its record says that its part is still to be done. Then whether the request was answered,
perhaps by another attempt: a tombstone of this one does not make that untrue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from krita.errors import BadRequest, Busy, TooLarge, WrongShard
from krita.limits import TTL_MS_MAX, TXN_OPERATIONS_MAX
from krita.operations import OPERATIONS, Op
from kritad.state.decisions import COMMIT_WITHIN_MS, Decisions, Record, Verdict
from kritad.state.intents import ATTEMPT_LIMIT, Intent, Intents
from kritad.state.keyspace import Keyspace
from kritad.state.repeats import Asker, Repeats
from kritad.state.results import Result, success
from kritad.state.verbs import Action, Effect, Reply, bytes_max_of
from kritad.storage.places import is_users_key
from kritad.storage.rows import Row

KEEP = -1  # an effect's expires_ms: the deadline and the lease that the key has
HOLD_MS_MAX = 60_000
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

    def __init__(
        self, shard: int, keys: Keys, keyspace: Keyspace, intents: Intents, repeats: Repeats
    ) -> None:
        self.decisions = Decisions(keyspace)
        self._shard = shard
        self._keys = keys
        self._keyspace = keyspace
        self._intents = intents
        self._repeats = repeats
        self.operations: dict[int, Callable[[list[Any], int], Result]] = {
            Op.TXN_PREPARE: self._prepare,
            Op.TXN_DECIDE: self._decide,
            Op.TXN_FINISH: self._finish,
            Op.TXN_FORGET: self._forget,
        }

    def __repr__(self) -> str:
        return f"<TwoPhase of shard {self._shard}: {self._intents!r} {self.decisions!r}>"

    def _prepare(self, fields: list[Any], index: int) -> Result:
        attempt, home, keys, told, hold_ms, bytes_max = self._of_shard(Op.TXN_PREPARE, fields)[:6]
        _check_attempt(attempt)
        if type(home) is not bytes or not home or type(hold_ms) is not int:
            raise BadRequest("txn_prepare: home is a key, hold_ms a time")
        if not _are_keys(keys) or not isinstance(told, list):
            raise BadRequest("txn_prepare: keys are byte strings, each once, and not too many")
        if not all(self._keys.owns(key) for key in keys):
            raise WrongShard(f"shard {self._shard} has not all of the keys: it was split")
        if self._intents.get(attempt) is not None:
            raise BadRequest("txn_prepare: this attempt holds keys here already")
        if self._intents.holders(keys):
            raise Busy("a key is held by another transaction", hint="try again in a moment")
        rows = [self._row(key, place in told) for place, key in enumerate(keys)]
        if sum(len(value) for value, *_ in rows if value) > bytes_max_of(bytes_max):
            raise TooLarge(
                "the values that the transaction has to know are larger than value_bytes_max",
                hint="use fewer keys at once",
            )
        for key in keys:
            self._keys.end_if_over(key, index)
        self._intents.put(Intent(attempt, home, max(0, min(hold_ms, HOLD_MS_MAX)), tuple(keys)))
        return success([rows, self._keyspace.clock_ms])

    def _row(self, key: bytes, with_value: bool) -> tuple[bytes | None, int, str | None]:
        row = self._keys.get(key)
        if row is None:
            return None, 0, None
        return row.value if with_value else None, row.revision, row.content_type

    def _decide(self, fields: list[Any], index: int) -> Result:
        fields = _resized(Op.TXN_DECIDE, fields)
        home, attempt, commit, plan, reply, begun_ms, *asker = fields
        self._check_home(home)
        _check_attempt(attempt)
        record = self.decisions.get(home, attempt)
        if record is not None:
            told = None if commit else record.plan  # who wants it done has it
            return success([int(Verdict.COMMITTED), told, None])
        if not commit:
            self.decisions.abort(home, attempt, index)
            return success([int(Verdict.ABORTED), None, None])
        _check_plan(plan)
        known = self._commit(
            Record(attempt, home, plan), _reply(reply), begun_ms, Asker.parse(asker), index
        )
        if isinstance(known, Verdict):
            return success([int(known), None, None])
        return success([int(Verdict.BY_ANOTHER), None, list(known)])

    def _commit(
        self, record: Record, reply: Reply | None, begun_ms: object, asker: Asker, index: int
    ) -> Verdict | Reply:
        """The verdict, or what another attempt was answered."""
        home, attempt = record.home, record.attempt
        known = self._repeats.begin(asker, home, index)
        if known is not None:
            return known
        # A tombstone of this attempt would be gone later.
        late = type(begun_ms) is not int or (self._keyspace.clock_ms > begun_ms + COMMIT_WITHIN_MS)
        if late or self.decisions.is_aborted(home, attempt):
            return Verdict.ABORTED
        if asker.may_repeat:
            if reply is None:
                raise BadRequest("txn_decide: who may ask again has to be told something")
            self._repeats.finish(asker, home, reply, index)
        if record.plan:
            self.decisions.commit(record, index)
        return Verdict.COMMITTED

    def _finish(self, fields: list[Any], index: int) -> Result:
        attempt, plan = self._of_shard(Op.TXN_FINISH, fields)[:2]
        _check_attempt(attempt)
        effects = [] if plan is None else _check_plan(plan)
        misplaced = [effect.key for effect in effects if not self._keys.owns(effect.key)]
        held = self._intents.release(attempt)
        for effect in effects:
            # What is not held was done before, or is another's to do; what is, is in our arc.
            if effect.key in held:
                self._keys.do(self._timed(effect), index)
        return success([index, misplaced, len(held)])

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
        home, attempt = _resized(Op.TXN_FORGET, fields)
        self._check_home(home)
        _check_attempt(attempt)
        self.decisions.forget(home, attempt, index)
        return success([])

    def _of_shard(self, op: Op, fields: list[Any]) -> list[Any]:
        """The fields behind the shard's number."""
        shard, *rest = _resized(op, fields)
        if shard != self._shard:
            raise WrongShard(f"this is shard {self._shard}, and the request names another")
        return rest

    def _check_home(self, home: object) -> None:
        if type(home) is not bytes or not home:
            raise BadRequest("the home key is a byte string, and not empty")
        if not self._keys.owns(home):
            raise WrongShard(f"shard {self._shard} has not the transaction's home key")


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


def _check_plan(plan: object) -> list[Effect]:
    if not isinstance(plan, list):
        raise BadRequest("a plan is an array of effects")
    return [_effect(item) for item in plan]


def _effect(item: object) -> Effect:
    match item:
        case [
            bytes(key), int(action), bytes(value), str() | None as content_type, int(lasts_ms), *_,
        ] if (
            is_users_key(key)
            and 0 <= action < len(_ACTIONS)
            and KEEP <= lasts_ms <= TTL_MS_MAX
        ):  # fmt: skip
            return Effect(_ACTIONS[action], key, value, content_type, lasts_ms)
    raise BadRequest("an effect is [key, action, value, content_type, lasts_ms]")


def _reply(reply: object) -> Reply | None:
    match reply:
        case None:
            return None
        case [int(status), list(values)]:
            return status, values
    raise BadRequest("a reply is [status, values]")


def _are_keys(keys: object) -> bool:
    return (
        isinstance(keys, list)
        and 0 < len(keys) <= TXN_OPERATIONS_MAX + 1
        and all(type(key) is bytes and is_users_key(key) for key in keys)
        and len(set(keys)) == len(keys)
    )


def _check_attempt(attempt: object) -> None:
    if type(attempt) is not int or not 0 < attempt < ATTEMPT_LIMIT:
        raise BadRequest("an attempt is a number from 1 to 2**60-1")


def _resized(op: Op, fields: list[Any]) -> list[Any]:
    """Missing elements at the end are null, those behind the known ones unread."""
    count = len(OPERATIONS[op].fields)
    return [*fields[:count], *[None] * (count - len(fields))]
