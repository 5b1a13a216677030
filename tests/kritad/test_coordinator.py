"""What a coordinator asks and tells, for every answer and failure at every step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from krita.errors import (
    BadRequest,
    Busy,
    Conflict,
    KritaError,
    Outcome,
    OutcomeUnknown,
    SessionExpired,
    TooLarge,
    Unavailable,
    WrongShard,
    to_wire,
)
from krita.operations import Op
from kritad.state.decisions import Verdict
from kritad.state.repeats import Asker
from kritad.state.transactions import Transaction
from kritad.state.verbs import Refusal
from kritad.txn_steps import WAIT_MS, Answer, Ask, Round, Told, Wish, steps

A, B, C = b"a", b"b", b"c"
SHARDS = {A: 1, B: 2, C: 3}
VALUES = {A: b"5", B: b"7", C: b"9"}
IN_SESSION = Asker(12, 3, 2)
MOVE = [[int(Op.ADD), A, -1], [int(Op.ADD), B, 1]]
READ = [[int(Op.GET), A], [int(Op.GET), B]]
NOT_APPLIED = Unavailable("no")
UNKNOWN = OutcomeUnknown("lost")


def wish(
    then: list[list[object]],
    otherwise: list[list[object]] | None = None,
    compare: list[list[object]] | None = None,
    *,
    home: bytes = A,
    asker: Asker = IN_SESSION,
    bytes_max: int = 1 << 20,
) -> Wish:
    parsed = Transaction.parse([compare or [], then, otherwise or [], None, bytes_max])
    return Wish(home, parsed, asker)


def refused(error: KritaError) -> Answer:
    return int(error.status), to_wire(error)


@attrs.define
class Shards:
    """Answers as shards do of which nobody holds anything; ``others`` says otherwise: by
    operation and how often it was asked before, in the order of asking."""

    others: dict[tuple[Op, int], Answer] = attrs.field(factory=dict)
    shard_of: dict[bytes, int] = attrs.field(factory=lambda: dict(SHARDS))
    asked: list[Ask] = attrs.field(factory=list)
    rounds: list[Round] = attrs.field(factory=list)
    held: dict[tuple[int, int], list[bytes]] = attrs.field(factory=dict)

    def answer(self, ask: Ask) -> Answer:
        count = sum(known.op == ask.op for known in self.asked)
        self.asked.append(ask)
        usual = self._usual(ask)
        return self.others.get((ask.op, count), usual)

    def _usual(self, ask: Ask) -> Answer:
        match ask.op, ask.fields:
            case Op.TXN_PREPARE, (shard, attempt, _, keys, told, *_):
                self.held[shard, attempt] = keys
                rows = [
                    [VALUES[key] if place in told else None, 4, None]
                    for place, key in enumerate(keys)
                ]
                return 0, [rows, 1_000 + shard]
            case Op.TXN_DECIDE, _:
                return 0, [int(Verdict.COMMITTED), None, None]
            case Op.TXN_FINISH, (shard, attempt, _):
                return 0, [9, [], len(self.held.pop((shard, attempt), []))]
        return 0, []

    def of(self, op: Op) -> list[tuple[Any, ...]]:
        return [ask.fields for ask in self.asked if ask.op == op]

    def let_go(self) -> set[tuple[int, int]]:
        """Who was told to do nothing: shard and attempt."""
        return {(shard, attempt) for shard, attempt, plan in self.of(Op.TXN_FINISH) if plan is None}

    def run(self, asked: Wish) -> Told:
        numbers: Iterator[int] = itertools.count(1)
        run = steps(asked, self.shard_of.__getitem__, lambda: next(numbers))
        try:
            ahead = next(run)
            while True:
                assert ahead.asks, "nobody would ever answer that"
                self.rounds.append(ahead)
                ahead = run.send([self.answer(ask) for ask in ahead.asks])
        except StopIteration as done:
            told: Told = done.value
            return told

    def error(self, asked: Wish) -> KritaError:
        with pytest.raises(KritaError) as caught:
            self.run(asked)
        return caught.value


def test_all_is_prepared_before_it_is_decided_and_decided_before_anything_is_done() -> None:
    shards = Shards()
    assert shards.run(wish(MOVE)) == (0, [0, True, [[None, 1, 4], [None, 1, 8]]])
    assert [[ask.op for ask in once.asks] for once in shards.rounds] == [
        [Op.TXN_PREPARE, Op.TXN_PREPARE],
        [Op.TXN_DECIDE],
        [Op.TXN_FINISH, Op.TXN_FINISH],
        [Op.TXN_FORGET],
    ]
    plan = [[A, 0, b"4", None, 0], [B, 0, b"8", None, 0]]
    answer = [0, [0, 1, [[None, 1, 4], [None, 1, 8]]]]
    assert shards.of(Op.TXN_DECIDE) == [(A, 1, True, plan, answer, 1_001, 12, 3, 2, None, None)]
    assert shards.of(Op.TXN_FINISH) == [(1, 1, plan[:1]), (2, 1, plan[1:])]
    assert shards.of(Op.TXN_FORGET) == [(A, 1)]


def test_the_client_is_told_when_it_is_decided_at_the_latest_before_it_is_forgotten() -> None:
    shards = Shards()
    told = shards.run(wish(MOVE))
    assert [(once.reply, once.at_once) for once in shards.rounds] == [
        (None, False), (None, False), (told, False), (told, True),
    ]  # fmt: skip


def test_only_values_that_are_looked_at_are_asked_for() -> None:
    shards = Shards()
    shards.run(
        wish(
            [[int(Op.PUT), A, b"x"], [int(Op.DELETE), B]],
            [[int(Op.GET), C]],
            [[B, 0, 0, 4]],
        )
    )
    assert [(fields[0], fields[4]) for fields in shards.of(Op.TXN_PREPARE)] == [
        (1, []), (2, []), (3, [0]),
    ]  # fmt: skip


def test_nobody_is_to_keep_an_answer_for_who_cannot_ask_again() -> None:
    shards = Shards()
    shards.run(wish(MOVE, asker=Asker()))
    assert shards.of(Op.TXN_DECIDE)[0][4] is None


# --- what only reads -----------------------------------------------------------------------


def test_what_only_reads_decides_nothing() -> None:
    shards = Shards()
    told = shards.run(wish(READ))
    assert told == (0, [0, True, [[b"5", 4, None], [b"7", 4, None]]])
    assert not shards.of(Op.TXN_DECIDE)
    assert shards.let_go() == {(1, 1), (2, 1)}


@pytest.mark.parametrize("answer", [(0, [9, [], 0]), refused(UNKNOWN), refused(NOT_APPLIED)])
@pytest.mark.parametrize("who", [0, 1])
def test_what_was_not_held_until_the_end_was_not_read_at_one_moment(
    answer: Answer, who: int
) -> None:
    shards = Shards({(Op.TXN_FINISH, who): answer})
    error = shards.error(wish(READ))
    assert isinstance(error, Unavailable)
    assert error.outcome is Outcome.NOT_APPLIED


FAILS = wish(MOVE, READ, [[A, 1, 0, b"other"]])


def test_that_nothing_is_done_is_decided_where_the_client_may_ask_again() -> None:
    """Another attempt of it might find that there is something to do, and do it later."""
    shards = Shards()
    assert shards.run(FAILS) == (0, [0, False, [[b"5", 4, None], [b"7", 4, None]]])
    (decided,) = shards.of(Op.TXN_DECIDE)
    assert decided[3:5] == ([], [0, [0, 0, [[b"5", 4, None], [b"7", 4, None]]]])
    assert {(shard, 1) for shard in (1, 2)} == {f[:2] for f in shards.of(Op.TXN_FINISH)}
    assert not shards.of(Op.TXN_FORGET)


def test_that_nothing_is_done_is_not_decided_for_who_cannot_ask_again() -> None:
    shards = Shards()
    assert shards.run(attrs.evolve(FAILS, asker=Asker()))[0] == 0
    assert not shards.of(Op.TXN_DECIDE)


def test_a_refusal_is_an_answer_that_is_kept_too() -> None:
    shards = Shards()
    status, _ = shards.run(wish([[int(Op.ADD), A, 1], [int(Op.ADD), B, (1 << 63) - 1]]))
    assert status == Conflict("").status
    (decided,) = shards.of(Op.TXN_DECIDE)
    assert decided[3:5] == ([], [int(Conflict("").status), [int(Refusal.NUMBER_TOO_LARGE)]])


def test_what_is_wrong_with_the_request_lets_all_go() -> None:
    shards = Shards()
    error = shards.error(wish([[int(Op.PUT), A, b"x", None, None, 77], [int(Op.PUT), B, b"y"]]))
    assert isinstance(error, BadRequest)
    assert shards.let_go() == {(1, 1), (2, 1)}


# --- failures ------------------------------------------------------------------------------


def busy_then(others: dict[tuple[Op, int], Answer]) -> Shards:
    return Shards({(Op.TXN_PREPARE, 1): refused(Busy("held")), **others})


def test_who_meets_held_keys_lets_go_and_waits_in_the_order_of_the_shards() -> None:
    shards = busy_then({})
    assert shards.run(wish([[int(Op.ADD), C, 1], *MOVE]))[0] == 0
    prepared = [(f[0], f[1], f[7]) for f in shards.of(Op.TXN_PREPARE)]
    assert prepared == [(1, 1, 0), (2, 1, 0), (3, 1, 0)] + [(s, 2, WAIT_MS) for s in (1, 2, 3)]
    assert [len(once.asks) for once in shards.rounds[:5]] == [3, 2, 1, 1, 1]
    assert shards.let_go() == {(1, 1), (3, 1)}, "the one that refused holds nothing"


@pytest.mark.parametrize("place", [2, 3])
def test_who_has_waited_in_vain_is_told_so(place: int) -> None:
    shards = busy_then({(Op.TXN_PREPARE, place): refused(Busy("held"))})
    assert isinstance(shards.error(wish(MOVE)), Busy)
    assert shards.let_go() == {(1, 1), *((1, 2) for _ in range(place - 2))}
    assert not shards.of(Op.TXN_DECIDE)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("problem", [NOT_APPLIED, UNKNOWN, SessionExpired("odd"), TooLarge("big")])
def test_a_shard_that_does_not_prepare_ends_it_and_nothing_has_happened(
    problem: KritaError, who: int
) -> None:
    shards = Shards({(Op.TXN_PREPARE, who): refused(problem)})
    error = shards.error(wish(MOVE))
    assert error.outcome is Outcome.NOT_APPLIED
    assert not shards.of(Op.TXN_DECIDE)
    other = (2 - who, 1)
    may_hold = {(1 + who, 1)} if problem is UNKNOWN else set()
    assert shards.let_go() == {other} | may_hold


def test_nothing_is_let_go_where_nobody_holds_anything() -> None:
    shards = Shards({(Op.TXN_PREPARE, n): refused(Busy("held")) for n in range(3)})
    assert isinstance(shards.error(wish(MOVE)), Busy)
    assert not shards.of(Op.TXN_FINISH)


def test_a_split_behind_the_map_is_tried_once_more_and_never_the_clients_concern() -> None:
    shards = Shards({(Op.TXN_PREPARE, 0): refused(WrongShard("split"))})
    assert shards.run(wish(MOVE))[0] == 0
    always = Shards({(Op.TXN_PREPARE, n): refused(WrongShard("split")) for n in range(4)})
    error = always.error(wish(MOVE))
    assert type(error) is Unavailable
    assert error.outcome is Outcome.NOT_APPLIED


def test_a_decision_that_was_surely_not_made_lets_all_go() -> None:
    shards = Shards({(Op.TXN_DECIDE, 0): refused(NOT_APPLIED)})
    assert shards.error(wish(MOVE)).outcome is Outcome.NOT_APPLIED
    assert shards.let_go() == {(1, 1), (2, 1)}
    assert len(shards.of(Op.TXN_DECIDE)) == 1


def test_a_decision_whose_answer_was_lost_is_asked_for_again() -> None:
    shards = Shards({(Op.TXN_DECIDE, 0): refused(UNKNOWN)})
    assert shards.run(wish(MOVE))[0] == 0
    first, second = shards.of(Op.TXN_DECIDE)
    assert first == second
    assert not shards.let_go()


@pytest.mark.parametrize("second", [UNKNOWN, NOT_APPLIED, SessionExpired("gone")])
def test_a_decision_of_which_nothing_is_known_is_unknown_and_nothing_is_let_go(
    second: KritaError,
) -> None:
    shards = Shards({(Op.TXN_DECIDE, 0): refused(UNKNOWN), (Op.TXN_DECIDE, 1): refused(second)})
    assert shards.error(wish(MOVE)).outcome is Outcome.UNKNOWN
    assert not shards.of(Op.TXN_FINISH), "its parts may have to be done"


@pytest.mark.parametrize("asker", [IN_SESSION, Asker()])
@pytest.mark.parametrize("lost", [False, True])
def test_an_attempt_that_was_called_off_lets_all_go(lost: bool, asker: Asker) -> None:
    aborted = (0, [int(Verdict.ABORTED), None, None])
    others = {(Op.TXN_DECIDE, int(lost)): aborted}
    if lost:
        others[Op.TXN_DECIDE, 0] = refused(UNKNOWN)
    shards = Shards(others)
    error = shards.error(wish(MOVE, asker=asker))
    if lost and not asker.may_repeat:  # it may have been done and forgotten meanwhile
        assert error.outcome is Outcome.UNKNOWN
        assert not shards.of(Op.TXN_FINISH)
    else:
        assert error.outcome is Outcome.NOT_APPLIED
        assert shards.let_go() == {(1, 1), (2, 1)}


@pytest.mark.parametrize("lost", [False, True])
def test_what_another_attempt_was_answered_is_the_answer(lost: bool) -> None:
    earlier = [0, [0, 1, [[None, 1, 40], [None, 1, 80]]]]
    others = {(Op.TXN_DECIDE, int(lost)): (0, [int(Verdict.BY_ANOTHER), None, earlier])}
    if lost:
        others[Op.TXN_DECIDE, 0] = refused(UNKNOWN)
    shards = Shards(others)
    assert shards.run(wish(MOVE)) == (0, [0, True, [[None, 1, 40], [None, 1, 80]]])
    assert shards.let_go() == {(1, 1), (2, 1)}
    assert not shards.of(Op.TXN_FORGET)


def test_too_much_for_one_entry_is_refused_and_nothing_is_decided() -> None:
    shards = Shards()
    values = [[int(Op.PUT), key, b"x" * 60_000] for key in (A, B, C)]
    error = shards.error(wish(values, bytes_max=100_000))
    assert isinstance(error, TooLarge)
    assert not shards.of(Op.TXN_DECIDE)
    assert shards.let_go() == {(1, 1), (2, 1), (3, 1)}


@pytest.mark.parametrize("problem", [UNKNOWN, NOT_APPLIED])
def test_what_is_not_finished_is_not_forgotten_and_has_happened(problem: KritaError) -> None:
    shards = Shards({(Op.TXN_FINISH, 1): refused(problem)})
    assert shards.run(wish(MOVE))[0] == 0
    assert not shards.of(Op.TXN_FORGET)


@pytest.mark.parametrize("problem", [UNKNOWN, NOT_APPLIED])
def test_whether_it_was_forgotten_is_nobodys_concern(problem: KritaError) -> None:
    assert Shards({(Op.TXN_FORGET, 0): refused(problem)}).run(wish(MOVE))[0] == 0


# --- splits --------------------------------------------------------------------------------


def splitting(at: Callable[[Shards, Ask], bool]) -> Shards:
    """Key B goes to shard 5 as soon as that is so."""

    class Splitting(Shards):
        def answer(self, ask: Ask) -> Answer:
            if self.shard_of[B] == 2 and at(self, ask):
                self.shard_of[B] = 5
                self.held = {
                    (5 if shard == 2 else shard, attempt): keys
                    for (shard, attempt), keys in self.held.items()
                }
            answer = Shards.answer(self, ask)
            if (
                ask.op == Op.TXN_FINISH
                and ask.shard == 2
                and ask.fields[2]
                and self.shard_of[B] == 5
            ):
                return 0, [9, [effect[0] for effect in ask.fields[2]], 0]
            return answer

    return Splitting()


def test_a_shard_that_is_split_before_it_is_finished_is_finished_in_both_halves() -> None:
    shards = splitting(lambda _shards, ask: ask.op == Op.TXN_DECIDE)
    assert shards.run(wish(MOVE))[0] == 0
    assert {fields[0] for fields in shards.of(Op.TXN_FINISH)} == {1, 2, 5}
    assert not shards.held
    assert shards.of(Op.TXN_FORGET)


def test_a_shard_that_is_split_while_it_is_finished_is_asked_in_its_other_half() -> None:
    shards = splitting(lambda _shards, ask: ask.op == Op.TXN_FINISH and ask.shard == 2)
    assert shards.run(wish(MOVE))[0] == 0
    assert [fields[0] for fields in shards.of(Op.TXN_FINISH)] == [1, 2, 5]
    assert not shards.held
    assert shards.of(Op.TXN_FORGET)


def test_what_nobody_is_found_for_is_not_forgotten() -> None:
    misplaced = (0, [9, [B], 0])
    shards = Shards({(Op.TXN_FINISH, place): misplaced for place in range(1, 9)})
    assert shards.run(wish(MOVE))[0] == 0
    assert not shards.of(Op.TXN_FORGET)


def test_a_read_of_keys_that_were_split_meanwhile_is_not_told() -> None:
    shards = splitting(lambda _shards, ask: ask.op == Op.TXN_FINISH)
    assert isinstance(shards.error(wish(READ)), Unavailable)
