"""Planted bugs: locks, transactions, requests that carry an idempotency key."""

from __future__ import annotations

from collections.abc import Sequence

from krita.codec import decode
from krita.errors import Status
from krita.operations import Op
from kritad.state import transactions, user_keys, verbs
from kritad.state.memos import Memo
from kritad.state.transactions import Draft, Transaction
from kritad.state.verbs import VERBS, Decision, Effect, Refusal, Reply, Sight
from kritad.storage.rows import Row, Stamp
from tests.simulator.mutants.mutant import Mutant

_guarded = verbs._guarded
_holds = transactions._holds
_life = verbs._life
_lock = verbs.lock
_reply = Memo.reply
_USED = (int(Status.CONFLICT), [int(Refusal.IDEMPOTENCY_KEY_USED)])


def _guard_by_the_revision_alone(
    sight: Sight, key: bytes, if_revision: object, _if_lock: object
) -> Row | Stamp | None:
    """Whoever names a lock writes, whoever holds it."""
    return _guarded(sight, key, if_revision, None)


def _lock_for_anybody(sight: Sight, fields: Sequence[object], index: int) -> Decision:
    """A lock that is held is renewed, also for others than its owner."""
    key, owner, *rest = fields
    assert type(key) is bytes
    row = sight.get(key)
    return _lock(sight, [key, owner if row is None else row.value, *rest], index)


def _decide_and_keep(
    transaction: Transaction, sight: Sight, index: int
) -> tuple[list[Effect], Reply]:
    """What was decided before a verb is refused is done."""
    draft = Draft(sight, index)
    succeeded = all(_holds(row, sight) for row in transaction.compare)
    results: list[object] = []
    for row in transaction.then if succeeded else transaction.otherwise:
        status, values = transaction._one(row, draft, index)
        if status:
            return draft.effects, (status, [*values])
        results.append(values)
    return draft.effects, (0, [index, int(succeeded), results])


def _never_keep(_memo: Memo, _reply_: Reply, _index: int) -> None:
    """An answer is remembered by sessions alone."""


def _reply_to_anything(memo: Memo) -> Reply | None:
    """The same key gets the same answer, whatever is asked."""
    found = _reply(memo)
    if found != _USED:
        return found
    request, memo._request = memo._request, _stored_request(memo)
    try:
        return _reply(memo)
    finally:
        memo._request = request


def _stored_request(memo: Memo) -> bytes:
    row = memo._keyspace.get(memo._key)
    assert row is not None
    fields = decode(row.value)
    assert isinstance(fields, list)
    return bytes(fields[0])


def _forget_what_is_kept(
    sight: Sight, key: bytes, ttl_ms: object, lease: object
) -> tuple[int, int]:
    """To keep the deadline means to have none."""
    return _life(sight, key, None if ttl_ms == -1 else ttl_ms, lease)


_FOR_ANYBODY = VERBS | {int(Op.LOCK): _lock_for_anybody}

MUTANTS = (
    Mutant(
        name="lock-guards-nothing",
        rule="a guarded write happens only while its token holds",
        source="state/verbs.py (Kleppmann, How to do distributed locking, 2016)",
        hint="chronicle, promises: tokens that are not so any more",
        patches=((verbs, "_guarded", _guard_by_the_revision_alone),),
    ),
    Mutant(
        name="lock-is-renewed-by-anybody",
        rule="one holder of a lock at a time",
        source="state/verbs.py",
        hint="chronicle: two people and one lock",
        patches=((user_keys, "VERBS", _FOR_ANYBODY), (transactions, "VERBS", _FOR_ANYBODY)),
    ),
    Mutant(
        name="transaction-is-done-in-part",
        rule="a transaction happens as a whole or not at all",
        source="state/transactions.py",
        hint="chronicle, promises: a transaction whose last verb is refused",
        patches=((Transaction, "decide", _decide_and_keep),),
    ),
    Mutant(
        name="memo-is-not-kept",
        rule="a request with an idempotency key happens once",
        source="state/memos.py",
        hint="chronicle: a request that somebody else repeats",
        patches=((Memo, "keep", _never_keep),),
    ),
    Mutant(
        name="memo-answers-anything",
        rule="an idempotency key stands for one request",
        source="state/memos.py",
        hint="chronicle: a key that is used twice",
        patches=((Memo, "reply", _reply_to_anything),),
    ),
    Mutant(
        name="kept-deadline-is-lost",
        rule="KEEP_TTL keeps the deadline and the lease",
        source="state/verbs.py",
        hint="chronicle: any write that keeps a deadline",
        patches=((verbs, "_life", _forget_what_is_kept),),
    ),
)
