"""Transactions over several groups: two phases over the shards' logs, and one decision.

Whichever node is asked coordinates. It is free to die at any moment:

1. *Prepare.* Every shard that has keys of the transaction holds them, and tells what they
   are. One that cannot, because another transaction holds one of them, ends the attempt: all
   is let go, and the client is told to try again (Busy). Nobody waits, so nobody waits
   for ever.
2. All keys are held now, at one moment: that is where the transaction stands in the order of
   all others, and why reads and writes together are serializable. Comparisons are made and
   verbs decided here, by the code that does it for one shard (state/transactions.py).
3. *Decide.* One entry in the log of the first key's shard, with all that is to be done. From
   then on the transaction has happened; before that it has not. If the answer to this
   entry is lost, the outcome is *unknown* to us, and known to that shard.
4. *Finish.* Every shard does its part and lets the keys go; readers and writers of them have
   been waiting since 1. The client is answered behind this, so that it meets nobody's
   intents, but need not have been: what is missing, the shards' leaders make up for
   (host/resolver.py).
5. *Forget.* The record shrinks to its answer, kept for an hour for a repetition.

``steps`` is a generator: it yields what is to be asked at once, and is sent the answers. It
touches no socket and no clock; ``Coordinator`` asks for it.

Cost: three rounds of commits one after the other, where a transaction of one group has one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Generator, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import attrs

from krita.codec import encode, encode_body
from krita.errors import (
    BadRequest,
    Busy,
    Conflict,
    KritaError,
    Outcome,
    OutcomeUnknown,
    Status,
    Unavailable,
    from_wire,
    to_wire,
)
from krita.operations import OPERATIONS, Op, Route
from kritad.host.host import Host
from kritad.host.request import Request, Respond
from kritad.state.decisions import Verdict
from kritad.state.intents import ATTEMPT_LIMIT
from kritad.state.results import answer
from kritad.state.transactions import Transaction
from kritad.state.two_phase import KEEP, effect_to_wire
from kritad.state.verbs import Effect
from kritad.storage.rows import Row

HOLD_MS = 10_000  # then the shards' leaders ask what became of it
_TXN_BYTES = 16
_ROUNDS_MAX = 5  # of finding keys whose shards were split meanwhile
_OK = int(Status.OK)


@attrs.frozen
class Ask:
    """One question, to a shard by its number or by a key that it has."""

    op: Op
    fields: tuple[Any, ...]


Answer = tuple[int, Any]  # status and body
Steps = Generator[list[Ask], list[Answer], tuple[int, object]]


@attrs.frozen
class Attempt:
    """One attempt of one transaction."""

    txn: bytes
    number: int
    home: bytes
    transaction: Transaction
    digest: bytes  # of the request: a repetition has the same


def steps(attempt: Attempt, shard_of: Callable[[bytes], int]) -> Steps:
    """The transaction, from beginning to end; returns status and body of the reply. Raises
    KritaError: then it has not happened, or the error says *unknown*."""
    keys = list(dict.fromkeys([attempt.home, *attempt.transaction.keys]))
    parts = _by_shard(keys, shard_of)
    answers = yield [
        Ask(
            Op.TXN_PREPARE,
            (shard, attempt.txn, attempt.number, attempt.home, part, HOLD_MS),
        )
        for shard, part in parts.items()
    ]
    problem = _first_problem(answers)
    if problem is not None:
        yield _let_go(attempt, parts)
        raise _nothing_happened(problem)
    rows = {
        key: row
        for part, (_, (found, *_)) in zip(parts.values(), answers, strict=True)
        for key, row in zip(part, found, strict=True)
    }
    home = next(place for place, part in enumerate(parts.values()) if attempt.home in part)
    clock_ms = answers[home][1][1]
    try:
        effects, reply = attempt.transaction.decide(HeldKeys(rows), 0)
    except KritaError:
        yield _let_go(attempt, parts)
        raise
    status, values = reply
    if status != _OK or not effects:
        yield _let_go(attempt, parts)
        result = answer(Op.TXN, (status, values))
        return result.status, _without_revisions(result.body) if status == _OK else result.body
    succeeded = bool(values[1])
    results = [attempt.digest, succeeded, _results(values[2])]
    verdict = yield from _decide(attempt, effects, results, clock_ms, parts)
    if verdict is not None:
        return verdict
    yield from _finish(attempt, effects, parts, shard_of)
    return _OK, [0, succeeded, results[2]]


def _decide(
    attempt: Attempt,
    effects: Sequence[Effect],
    results: list[object],
    clock_ms: int,
    parts: dict[int, list[bytes]],
) -> Generator[list[Ask], list[Answer], tuple[int, object] | None]:
    """None: it has happened now. A reply: it had before, by an earlier attempt."""
    plan = [effect_to_wire(effect) for effect in effects]
    wish = (attempt.home, attempt.txn, attempt.number, True, plan, results, clock_ms)
    ((status, body),) = yield [Ask(Op.TXN_DECIDE, wish)]
    if status != _OK:
        error = from_wire(status, body)
        if error.outcome is not Outcome.NOT_APPLIED:
            raise OutcomeUnknown(
                f"the transaction was being decided: {error.message}",
                hint="send it again with its session and sequence, or its idempotency key",
            )
        yield _let_go(attempt, parts)
        raise error
    verdict, _, told, revision, *_ = body
    if verdict == Verdict.COMMITTED:
        return None
    yield _let_go(attempt, parts)
    if verdict == Verdict.ABORTED:
        raise Unavailable("the transaction took too long, and was called off", hint="try again")
    digest, succeeded, earlier = told
    if digest != attempt.digest:
        raise Conflict(
            "this idempotency key, or this place in the session, was used for another request"
        )
    return _OK, [revision, succeeded, earlier]


def _finish(
    attempt: Attempt,
    effects: Sequence[Effect],
    parts: dict[int, list[bytes]],
    shard_of: Callable[[bytes], int],
) -> Generator[list[Ask], list[Answer], None]:
    """Let every shard do its part. What fails here is made up for by others."""
    waiting = {shard: set(part) for shard, part in parts.items()}
    for _ in range(_ROUNDS_MAX):
        asks = [
            Ask(Op.TXN_FINISH, (shard, attempt.number, plan_of(effects, keys)))
            for shard, keys in waiting.items()
        ]
        answers = yield asks
        if any(status != _OK for status, _ in answers):
            return
        misplaced = [key for _, body in answers for key in body[1]]
        if not misplaced:
            yield [Ask(Op.TXN_FORGET, (attempt.home, attempt.txn))]
            return
        waiting = {shard: set(keys) for shard, keys in _by_shard(misplaced, shard_of).items()}


def plan_of(effects: Sequence[Effect], keys: Collection[bytes]) -> list[list[object]]:
    """The effects on these keys, as they are sent."""
    return [effect_to_wire(effect) for effect in effects if effect.key in keys]


def _let_go(attempt: Attempt, parts: dict[int, list[bytes]]) -> list[Ask]:
    return [Ask(Op.TXN_FINISH, (shard, attempt.number, None)) for shard in parts]


def _by_shard(keys: Sequence[bytes], shard_of: Callable[[bytes], int]) -> dict[int, list[bytes]]:
    parts: dict[int, list[bytes]] = {}
    for key in keys:
        parts.setdefault(shard_of(key), []).append(key)
    return dict(sorted(parts.items()))


def _first_problem(answers: list[Answer]) -> KritaError | None:
    problems = [from_wire(status, body) for status, body in answers if status != _OK]
    # Busy is what a client waits for; others may be passing consequences.
    return next((p for p in problems if isinstance(p, Busy)), problems[0] if problems else None)


def _nothing_happened(problem: KritaError) -> KritaError:
    """Whatever became of a prepare, nothing was decided, and nothing will be: the attempt
    dies with its coordinator."""
    if problem.outcome is Outcome.NOT_APPLIED:
        return problem
    return Unavailable(f"a shard did not answer: {problem.message}", hint="try again")


def _results(results: object) -> list[object]:
    """What the operations gave, without the revisions that nobody knows yet: writes' replies
    begin with one, and gets have that of what they read."""
    assert isinstance(results, list)
    return [_result(result) for result in results]


def _result(result: object) -> object:
    assert isinstance(result, list)
    if len(result) == 3 and (result[0] is None or isinstance(result[0], bytes)):
        return result  # a get's
    return [None, *result[1:]]


def _without_revisions(body: object) -> object:
    assert isinstance(body, list)
    return [0, body[1], _results(body[2])]


class HeldKeys:
    """The keys of all shards as they were told: what the verbs see."""

    clock_ms = 0  # deadlines are told as how long they last: each shard has its own clock

    def __init__(self, rows: dict[bytes, list[Any]]) -> None:
        self._rows = {
            key: Row(revision, value, content_type, 0)
            for key, (value, revision, content_type) in rows.items()
            if value is not None
        }

    def get(self, key: bytes) -> Row | None:
        """See verbs.Sight."""
        return self._rows.get(key)

    def stamp(self, key: bytes) -> Row | None:
        """See verbs.Sight."""
        return self._rows.get(key)

    def bond(self, _key: bytes) -> tuple[int, int]:
        """See verbs.Sight: what the key has stays with it."""
        return KEEP, 0

    def lease_is_alive(self, _lease: int) -> bool:
        """See verbs.Sight."""
        raise BadRequest(
            "a transaction over several groups ties no key to a lease",
            hint="tie it afterwards, with touch",
        )

    def owns(self, _key: bytes) -> bool:
        """See verbs.Sight."""
        return True


class Coordinator:
    """Runs transactions over several groups on this node."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __repr__(self) -> str:
        return f"<Coordinator on {self._host!r}>"

    def begin(self, fields: list[Any], deadline_ms: float, respond: Respond) -> None:
        """Do the transaction. Raises KritaError for what is wrong with it at once."""
        session, sequence, _, key, *rest = fields
        transaction = Transaction.parse(rest)
        digest = blake2b(encode([key, *rest[:3]]), digest_size=_TXN_BYTES).digest()
        name = rest[3]
        if name is not None:
            txn = blake2b(encode(["idempotency", name]), digest_size=_TXN_BYTES).digest()
        elif session:
            txn = blake2b(encode([session, sequence]), digest_size=_TXN_BYTES).digest()
        else:
            txn = secrets.token_bytes(_TXN_BYTES)
        number = secrets.randbelow(ATTEMPT_LIMIT - 1) + 1
        run = steps(Attempt(txn, number, key, transaction, digest), self._shard_of)
        _Run(self._host, run, deadline_ms, respond).go_on(None)

    def _shard_of(self, key: bytes) -> int:
        shard = self._host.shard_of(key)
        if shard is None:
            raise Unavailable("this node does not know the cluster's shards yet", hint="try again")
        return shard


@attrs.define(eq=False)
class _Run:
    """One transaction under way: asks what its steps want to know."""

    host: Host
    run: Steps
    deadline_ms: float
    respond: Respond
    answers: list[Answer | None] = attrs.field(factory=list)

    def go_on(self, answers: list[Answer] | None) -> None:
        """The next step."""
        try:
            asks = next(self.run) if answers is None else self.run.send(answers)
        except StopIteration as done:
            self.respond(*done.value)
        except KritaError as error:
            self.respond(error.status, to_wire(error))
        else:
            self.answers = [None] * len(asks)
            for place, ask in enumerate(asks):
                self._ask(ask, partial(self._answered, place))

    def _ask(self, ask: Ask, respond: Respond) -> None:
        by_key = OPERATIONS[ask.op].route is Route.KEY
        key = ask.fields[0] if by_key else b""
        shard = self.host.shard_of(key) if by_key else ask.fields[0]
        body = encode_body(ask.op, *ask.fields)
        # Behind the decision there is nothing that the client's patience could change.
        late = ask.op in (Op.TXN_FINISH, Op.TXN_FORGET)
        deadline_ms = self.deadline_ms + (HOLD_MS if late else 0)
        request = Request(ask.op, body, key, shard or 0, respond, deadline_ms, write=True)
        self.host.submit(request)

    def _answered(self, place: int, status: int, body: object) -> None:
        self.answers[place] = status, body
        if None not in self.answers:
            self.go_on([answer for answer in self.answers if answer is not None])
