"""Transactions over several groups: two phases over the shards' logs, and one decision.

Whichever node is asked coordinates. It is free to die at any moment:

1. *Prepare.* Every shard that has keys of the transaction holds them, and tells what they
   are. All are asked at once, and one of whose keys another transaction holds says so
   (Busy): then all is let go, and asked for once more, one shard after the other in the
   order of their numbers, each keeping us waiting for our turn (host/waiting.py). So nobody
   who waits holds what another one waits for, and who needs many keys gets them too.
2. All keys are held now, at one moment: that is where the transaction stands in the order of
   all others, and why reads and writes together are serializable. Comparisons are made and
   verbs decided here, by the code that does it for one shard (state/transactions.py).
3. *Decide.* One entry in the log of the first key's shard, with all that is to be done. From
   then on the transaction has happened; before that it has not. It is also where a
   repetition is found out (state/repeats.py). If the answer to this entry is lost, we ask
   again; if that is, too, the outcome is *unknown* to us, and known to that shard.
4. *Finish.* Every shard does its part and lets the keys go; readers and writers of them have
   been waiting since 1. The client is answered behind this, so that it meets nobody's
   intents, but need not have been: what is missing, the shards' leaders make up for
   (host/resolver.py).
5. *Forget.* The record goes. Nobody waits for it.

One that changes nothing decides nothing: it lets the keys go, and every shard says whether it
has held all of them until then. If one has not, what was read may be of different
moments, and is not told. But where the client may ask again, and another attempt might
find that there is something to do, even that it does nothing is decided in 3.

``steps`` is a generator: it yields what is to be asked at once, and is sent the answers. It
touches no socket and no clock; ``kritad/coordinator.py`` asks for it. No shard is asked twice to
prepare one attempt, and whatever is asked is asked at most once (host/router.py).

Cost: three rounds of commits one after the other, where a transaction of one group has one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Any

import attrs

from krita.codec import encode_body
from krita.errors import (
    BadRequest,
    Busy,
    KritaError,
    Outcome,
    OutcomeUnknown,
    Status,
    TooLarge,
    Unavailable,
    WrongShard,
    from_wire,
)
from krita.operations import Op
from kritad.state.decisions import Verdict
from kritad.state.repeats import Asker
from kritad.state.results import answer
from kritad.state.transactions import Transaction
from kritad.state.two_phase import KEEP, effect_to_wire
from kritad.state.verbs import Effect, Reply, bytes_max_of
from kritad.storage.rows import Row

HOLD_MS = 10_000  # then the shards' leaders ask what became of it
# For keys that others hold, in all shards together. Less than clients wait for a node.
WAIT_MS = 1_000
# What an entry may have besides values: keys, results' frames. Less than the log allows
# (host/opening.py).
ENTRY_ROOM_BYTES = 64 << 10
_ROUNDS_MAX = 3  # of finding keys whose shards were split meanwhile
_OK = int(Status.OK)


@attrs.frozen
class Ask:
    """One question, to a shard by its number or by a key that it has."""

    op: Op
    fields: tuple[Any, ...]

    @property
    def shard(self) -> int:
        """Whom a question by number is for."""
        return int(self.fields[0])


Told = tuple[int, object]  # status and body of the client's answer
Answer = tuple[int, Any]  # the same of a question's


@attrs.frozen
class Round:
    """What is asked at once. ``reply``: what the client is told if it cannot wait for it;
    ``at_once``: and need not."""

    asks: list[Ask]
    reply: Told | None = None
    at_once: bool = False


Steps = Generator[Round, list[Answer], Told]


@attrs.frozen
class Wish:
    """What a client wants."""

    home: bytes
    transaction: Transaction
    asker: Asker

    @property
    def keys(self) -> list[bytes]:
        """All of them, the home key first."""
        return list(dict.fromkeys([self.home, *self.transaction.keys]))


@attrs.frozen
class Attempt:
    """One attempt at it: its number, and which shards have which of its keys."""

    wish: Wish
    number: int
    parts: dict[int, list[bytes]]

    def prepare(self, shard: int, wait_ms: int) -> Ask:
        """Hold the shard's keys."""
        keys, wanted = self.parts[shard], self.wish.transaction.keys_to_read
        told = [place for place, key in enumerate(keys) if key in wanted]
        bytes_max = bytes_max_of(self.wish.transaction.value_bytes_max)
        return Ask(
            Op.TXN_PREPARE,
            (shard, self.number, self.wish.home, keys, told, HOLD_MS, bytes_max, wait_ms),
        )

    def let_go(self, shards: Iterable[int]) -> Round:
        """Nothing is to be done in these."""
        return Round([Ask(Op.TXN_FINISH, (shard, self.number, None)) for shard in shards])

    def decide(self, effects: Sequence[Effect], reply: Reply, begun_ms: int) -> Ask:
        """It shall have happened."""
        asker = self.wish.asker
        kept = list(reply) if asker.may_repeat else None
        plan = [effect_to_wire(effect) for effect in effects]
        return Ask(
            Op.TXN_DECIDE,
            (self.wish.home, self.number, True, plan, kept, begun_ms, *asker.to_wire()),
        )


def steps(wish: Wish, shard_of: Callable[[bytes], int], draw: Callable[[], int]) -> Steps:
    """The transaction, from beginning to end; returns status and body of the reply. Raises
    KritaError: then it has not happened, or the error says *unknown*. ``draw`` gives the
    numbers of attempts."""
    first = Attempt(wish, draw(), _by_shard(wish.keys, shard_of))
    try:
        return (yield from _attempt(first, shard_of, wait_ms=0))
    except (Busy, WrongShard):
        pass  # of a prepare: behind that there is neither
    second = Attempt(wish, draw(), _by_shard(wish.keys, shard_of))
    try:
        return (yield from _attempt(second, shard_of, wait_ms=WAIT_MS))
    except WrongShard as error:
        raise Unavailable(
            f"a shard was split just now: {error.message}", hint="try again"
        ) from error


def _attempt(attempt: Attempt, shard_of: Callable[[bytes], int], wait_ms: int) -> Steps:
    rows, begun_ms = yield from _prepare(attempt, wait_ms)
    wish = attempt.wish
    try:
        effects, (status, values) = wish.transaction.decide(HeldKeys(rows), 0)
    except KritaError:
        yield attempt.let_go(attempt.parts)
        raise
    reply: Reply = status, [0, values[1], _results(values[2])] if status == _OK else values
    if not effects and not (wish.asker.may_repeat and wish.transaction.writes):
        yield from _only_read(attempt)
        return _told(reply)
    other = yield from _decide(attempt, effects, reply, begun_ms)
    if other is not None:
        yield attempt.let_go(attempt.parts)
        return _told(other)
    yield from _finish(attempt, effects, _told(reply), shard_of)
    return _told(reply)


def _prepare(
    attempt: Attempt, wait_ms: int
) -> Generator[Round, list[Answer], tuple[dict[bytes, list[Any]], int]]:
    """The rows by key, and the clock of the home key's shard. Raises, and nothing is held."""
    answers: dict[int, Answer] = {}
    for shards in [[shard] for shard in attempt.parts] if wait_ms else [[*attempt.parts]]:
        told = yield Round([attempt.prepare(shard, wait_ms) for shard in shards])
        answers |= zip(shards, told, strict=True)
        problems = {
            shard: from_wire(status, body)
            for shard, (status, body) in answers.items()
            if status != _OK
        }
        if problems:
            holding = [s for s in answers if s not in problems or _may_hold(problems[s])]
            if holding:
                yield attempt.let_go(holding)
            raise _worst(list(problems.values()))
    rows = {
        key: row
        for shard, (_, (found, *_)) in answers.items()
        for key, row in zip(attempt.parts[shard], found, strict=True)
    }
    home = next(shard for shard, keys in attempt.parts.items() if attempt.wish.home in keys)
    return rows, answers[home][1][1]


def _only_read(attempt: Attempt) -> Generator[Round, list[Answer], None]:
    """Let go what was read. Raises Unavailable unless all was held until then."""
    answers = yield attempt.let_go(attempt.parts)
    held = [body[2] if status == _OK else 0 for status, body in answers]
    if held != [len(keys) for keys in attempt.parts.values()]:
        raise Unavailable(
            "the keys were not held for long enough to be read at one moment", hint="try again"
        )


def _decide(
    attempt: Attempt, effects: Sequence[Effect], reply: Reply, begun_ms: int
) -> Generator[Round, list[Answer], Reply | None]:
    """None: it has happened now. A reply: that is what another attempt was answered."""
    ask = attempt.decide(effects, reply, begun_ms)
    bytes_max = bytes_max_of(attempt.wish.transaction.value_bytes_max) + ENTRY_ROOM_BYTES
    if len(encode_body(ask.op, *ask.fields)) > bytes_max:
        yield attempt.let_go(attempt.parts)
        raise TooLarge(
            "what the transaction writes and reads is together larger than value_bytes_max",
            hint="make several of it",
        )
    ((status, body),) = yield Round([ask])
    lost = status != _OK and from_wire(status, body).outcome is not Outcome.NOT_APPLIED
    if lost:
        # The same again: if it is decided, this says how.
        ((status, body),) = yield Round([ask])
    if status != _OK:
        error = from_wire(status, body)
        if lost or error.outcome is not Outcome.NOT_APPLIED:
            raise _unknown(error.message)
        yield attempt.let_go(attempt.parts)
        raise error
    verdict, _, other, *_ = body
    if verdict == Verdict.COMMITTED:
        return None
    if verdict == Verdict.BY_ANOTHER:
        return other[0], other[1]
    if lost and not attempt.wish.asker.may_repeat:
        # It may have happened and be forgotten: who can be asked again would have said so.
        raise _unknown("it took too long")
    yield attempt.let_go(attempt.parts)
    raise Unavailable("the transaction took too long, and was called off", hint="try again")


def _finish(
    attempt: Attempt, effects: Sequence[Effect], reply: Told, shard_of: Callable[[bytes], int]
) -> Generator[Round, list[Answer], None]:
    """Let every shard do its part. What fails here is made up for by others."""
    home, keys = attempt.wish.home, attempt.wish.keys
    # Also those that had keys and lost them: what they still hold is let go.
    nothing: dict[int, list[bytes]] = {shard: [] for shard in attempt.parts}
    waiting = nothing | _by_shard(keys, shard_of)
    for _ in range(_ROUNDS_MAX):
        asks = [
            Ask(Op.TXN_FINISH, (shard, attempt.number, plan_of(effects, part)))
            for shard, part in waiting.items()
        ]
        answers = yield Round(asks, reply)
        if any(status != _OK for status, _ in answers):
            return
        misplaced = [key for _, body in answers for key in body[1]]
        if not misplaced:
            if effects:
                yield Round([Ask(Op.TXN_FORGET, (home, attempt.number))], reply, at_once=True)
            return
        waiting = _by_shard(misplaced, shard_of)


def plan_of(effects: Sequence[Effect], keys: Collection[bytes]) -> list[list[object]]:
    """The effects on these keys, as they are sent."""
    return [effect_to_wire(effect) for effect in effects if effect.key in keys]


def _by_shard(keys: Sequence[bytes], shard_of: Callable[[bytes], int]) -> dict[int, list[bytes]]:
    parts: dict[int, list[bytes]] = {}
    for key in keys:
        parts.setdefault(shard_of(key), []).append(key)
    return dict(sorted(parts.items()))


def _may_hold(problem: KritaError) -> bool:
    """Whether the shard that has said so may hold the keys all the same."""
    return problem.outcome is not Outcome.NOT_APPLIED


def _worst(problems: list[KritaError]) -> KritaError:
    """What the client is told of a prepare that failed. Whatever became of it, nothing was
    decided, and nothing will be: the attempt dies with its coordinator."""
    # What nobody can help first; Busy before what may be a passing consequence.
    order = (TooLarge, BadRequest, Busy, WrongShard)
    for kind in order:
        for problem in problems:
            if isinstance(problem, kind):
                return problem
    problem = problems[0]
    if not _may_hold(problem):
        return problem
    return Unavailable(f"a shard did not answer: {problem.message}", hint="try again")


def _unknown(why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the transaction was being decided: {why}",
        hint="send it again with its session and sequence, or its idempotency key",
    )


def _told(reply: Reply) -> Told:
    result = answer(Op.TXN, reply)
    return result.status, result.body


def _results(results: object) -> list[object]:
    """What the operations gave, without the revisions that nobody knows yet: writes' replies
    begin with one, and gets have that of what they read."""
    assert isinstance(results, list)
    return [_result(result) for result in results]


def _result(result: object) -> object:
    assert isinstance(result, (list, tuple))
    if len(result) == 3 and (result[0] is None or isinstance(result[0], bytes)):
        value, revision, content_type = result  # a get's; 0 of what it has written itself
        return [value, None if value is not None and not revision else revision, content_type]
    return [None, *result[1:]]


class HeldKeys:
    """The keys of all shards as they were told: what the verbs see."""

    clock_ms = 0  # deadlines are told as how long they last: each shard has its own clock

    def __init__(self, rows: dict[bytes, list[Any]]) -> None:
        # A value that nobody wants to know was not told: the empty one stands for it.
        self._rows = {
            key: Row(revision, value or b"", content_type, 0)
            for key, (value, revision, content_type) in rows.items()
            if revision
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
