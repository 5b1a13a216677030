"""The judges of the newer operations are judged: each is handed answers that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from krita.errors import Compacted, ConditionFailed, KritaError, LeaseUnknown, Unavailable
from krita.operations import Consistency, LeaseChange, Op
from kritad.state.machine import ShardState
from tests.simulator.chronicle.chronicle import Chronicle
from tests.simulator.crafts.deed import Ask, Deed
from tests.simulator.crafts.scripts import GUARDED, READ_ALL
from tests.simulator.invariants import Violation
from tests.simulator.mutants.registry import planted
from tests.simulator.oracles.answers import check_answers
from tests.simulator.oracles.inquiries import check_inquiries
from tests.simulator.oracles.promises import check_promises
from tests.simulator.oracles.scans import check_scans
from tests.simulator.oracles.watches import check_watches
from tests.state.shard import Shard


class Told:
    """A shard whose log is written down, and people who are told what the test says."""

    def __init__(self, shard: Shard, chronicle: Chronicle) -> None:
        self.shard = shard
        self.chronicle = chronicle
        self.deeds: list[Deed] = []

    def begin(self, op: Op, *fields: Any, about: str = "") -> Deed:
        deed = Deed(Ask(op, fields, about=about), 1, self.chronicle.next_number())
        self.deeds.append(deed)
        return deed

    def end(self, deed: Deed, body: object, error: KritaError | None = None) -> None:
        deed.end(self.chronicle.next_number(), error, body)

    def told(self, op: Op, *fields: Any, says: object, about: str = "") -> None:
        """Asked and answered while nothing else happens."""
        self.end(self.begin(op, *fields, about=about), says)

    def wrote(self, op: Op, *fields: Any, says: object = None) -> list[Any]:
        """Done, and answered so, or as it was."""
        deed = self.begin(op, *fields)
        body = self.shard.call(op, 0, 0, 0, *fields).body
        self.end(deed, body if says is None else says)
        assert isinstance(body, list)
        return body


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    chronicle = Chronicle(session_ttl_ms=3_600_000)
    monkeypatch.setattr(ShardState, "apply", chronicle.observing(ShardState.apply))
    shard = Shard(tmp_path / "data.db")
    yield Told(shard, chronicle)
    shard.close()


def answers(told: Told) -> str:
    return "; ".join(check_answers(told.chronicle, told.deeds))


def test_what_was_done_and_told_so_is_right(told: Told) -> None:
    told.wrote(Op.ADD, b"c", 5)
    told.wrote(Op.APPEND, b"a", b"x;")
    told.told(Op.GET, b"c", says=[b"5", 1, "text/plain", 2, None])
    told.told(Op.CHANGES, 1, 0, says=[[
        [0, b"c", b"5", 1, "text/plain", 1], [0, b"a", b"x;", 2, None, 2],
    ], 2, 0])  # fmt: skip
    rows = [[b"a", b"x;", 2, None], [b"c", b"5", 1, "text/plain"]]
    told.told(Op.SCAN, None, None, 10, False, 0, says=[rows, None], about="scan 1")
    for check in (check_answers, check_watches, check_scans):
        assert check(told.chronicle, told.deeds) == []
    assert check_promises(told.deeds) == []


def test_an_answer_that_no_entry_gave(told: Told) -> None:
    told.wrote(Op.ADD, b"c", 5, says=[1, False, 6])
    assert "no entry says that" in answers(told)


def test_an_entry_that_two_have(told: Told) -> None:
    first, second = told.begin(Op.ADD, b"c", 5), told.begin(Op.ADD, b"c", 5)
    body = told.shard.do(Op.ADD, b"c", delta=5).body
    told.end(first, body)
    told.end(second, body)
    assert "another one has entry 1" in answers(told)


def test_a_failure_that_has_happened(told: Told) -> None:
    deed = told.begin(Op.PUT, b"k", b"v")
    told.shard.do(Op.PUT, b"k", value=b"v")
    told.end(deed, None, Unavailable("not sent"))
    assert "it failed, and yet" in answers(told)


def test_a_refusal_that_nobody_gave(told: Told) -> None:
    deed = told.begin(Op.PUT, b"k", b"v", None, 7)
    told.shard.do(Op.PUT, b"k", value=b"v", if_revision=7)
    told.end(deed, None, ConditionFailed("no", detail={"revision": 3}))
    assert "no entry says that" in answers(told)


def test_a_read_of_the_past(told: Told) -> None:
    told.wrote(Op.PUT, b"k", b"1")
    told.wrote(Op.PUT, b"k", b"2")
    told.told(Op.GET, b"k", says=[b"1", 1, None, 1, None])
    assert "behind 2" in answers(told)
    told.deeds.pop()
    told.told(Op.GET, b"k", int(Consistency.STALE), None, 1, says=[b"1", 1, None, 1, 9])
    assert answers(told) == ""
    told.told(Op.GET, b"k", int(Consistency.STALE), None, 2, says=[b"1", 1, None, 1, 9])
    assert "behind 2" in answers(told)


def test_a_key_that_is_read_behind_its_end(told: Told) -> None:
    told.wrote(Op.PUT, b"k", b"1", None, None, 100)
    told.shard.pass_time(100)
    told.told(Op.GET, b"k", says=[b"1", 1, None, 2, None])
    assert "behind entry 2 there was None" in answers(told)


def test_another_value_than_there_was_then(told: Told) -> None:
    told.wrote(Op.PUT, b"k", b"1")
    told.wrote(Op.PUT, b"k", b"2")
    told.told(Op.GET, b"k", 0, None, None, 1, says=[b"2", 2, None, 2, None])
    assert "behind entry 1" in answers(told)


def test_a_lease_that_a_shard_was_not_told_of(told: Told) -> None:
    told.told(Op.LEASE_KEEPALIVE, 7, says=[1_000])
    told.shard.pass_time(1)
    assert "were not told" in answers(told)
    told.deeds.clear()
    deed = told.begin(Op.LEASE_KEEPALIVE, 7)
    told.shard.lease(7, LeaseChange.KEEPALIVE)
    told.end(deed, None, LeaseUnknown("it has ended"))
    assert answers(told) == ""


def test_what_was_at_a_time(told: Told) -> None:
    told.shard.retain(b"k", 1_000)
    told.shard.pass_time(100)
    told.wrote(Op.PUT, b"k", b"1")
    then_ms = told.shard.clock_ms
    told.shard.pass_time(50)
    told.wrote(Op.PUT, b"k", b"2")
    index = told.shard.state.index
    for at_ms, value, right in (
        (then_ms, b"1", True),
        (then_ms - 1, b"1", False),  # it was not there yet
        (then_ms + 49, b"1", True),
        (then_ms + 50, b"1", False),  # that is when it ended
    ):
        told.deeds.clear()
        says = [value, index - 2, None, index, None]
        told.told(Op.GET, b"k", 0, None, None, None, at_ms, says=says)
        assert (answers(told) == "") is right, at_ms
    told.deeds.clear()
    told.end(told.begin(Op.GET, b"k", 0, None, None, None, then_ms), None, Compacted("forgotten"))
    assert "forgotten, and the shard has kept all" in answers(told)


def inquiries(told: Told) -> str:
    return "; ".join(check_inquiries(told.chronicle, told.deeds))


def test_a_lease_is_shown_as_it_was_meanwhile(told: Told) -> None:
    told.shard.lease(7, LeaseChange.GRANT, 100)
    told.wrote(Op.PUT, b"k", b"1", None, None, None, 7)
    told.wrote(Op.PUT, b"l", b"1")
    told.shard.pass_time(10)
    for says, complaint in (
        ([100, 90, [b"k"]], ""),
        ([100, 100, [b"k"]], "90 were left at most"),
        ([200, 90, [b"k"]], "its time is one of {100}"),
        ([100, 90, []], "had it all the time"),
        ([100, 90, [b"k", b"l"]], "did not have it"),
        ([100, 90, [b"k", b"k"]], "not in order"),
    ):
        told.deeds.clear()
        told.told(Op.LEASE_SHOW, 7, says=says)
        assert complaint in inquiries(told), says
        assert bool(complaint) is bool(inquiries(told)), says
    told.deeds.clear()
    deed = told.begin(Op.LEASE_SHOW, 7)
    told.end(deed, None, LeaseUnknown("it has ended"))
    assert "all shards had that lease" in inquiries(told)
    told.deeds.clear()
    told.told(Op.LEASE_SHOW, 8, says=[100, 90, []])
    assert "had no such lease" in inquiries(told)


def test_a_lease_that_ends_meanwhile_may_be_shown_or_not(told: Told) -> None:
    told.shard.lease(7, LeaseChange.GRANT, 100)
    shown, unknown = told.begin(Op.LEASE_SHOW, 7), told.begin(Op.LEASE_SHOW, 7)
    told.shard.pass_time(100)
    told.end(shown, [100, 100, []])
    told.end(unknown, None, LeaseUnknown("it has ended"))
    assert inquiries(told) == ""
    told.told(Op.LEASE_SHOW, 7, says=[100, 0, []])
    assert "had no such lease" in inquiries(told)


def test_retentions_are_listed_as_they_were_meanwhile(told: Told) -> None:
    told.shard.retain(b"a", 100)
    told.shard.retain(b"b", 100)
    told.shard.retain(b"b", 0)
    for says, complaint in (
        ([[b"a", 100, 0]], ""),
        ([], "was kept all the time"),
        ([[b"a", 200, 0]], "was kept for one of"),
        ([[b"a", 100, 0], [b"b", 100, 0]], "was kept for one of"),
        ([[b"a", 100, 0], [b"c", 100, 0]], "was kept for one of"),
    ):
        told.deeds.clear()
        told.told(Op.RETENTION_LIST, says=[says])
        assert complaint in inquiries(told), says
        assert bool(complaint) is bool(inquiries(told)), says


@pytest.mark.parametrize(
    ("events", "upto"),
    [
        ([[0, b"k", b"1", 1, None, 1]], 3),  # one is missing
        ([[0, b"k", b"1", 1, None, 1], [1, b"k", None, 3, None, 3]], 3),  # so is this
        ([[0, b"k", b"1", 1, None, 1], [0, b"k", b"2", 2, None, 2]], 1),  # one too many
        ([[0, b"k", b"2", 2, None, 2], [0, b"k", b"1", 1, None, 1]], 2),  # the wrong order
        ([], 9),  # there are no nine entries
    ],
)
def test_events_that_are_not_those_of_the_log(told: Told, events: object, upto: int) -> None:
    told.wrote(Op.PUT, b"k", b"1")
    told.wrote(Op.PUT, b"k", b"2")
    told.wrote(Op.DELETE, b"k")
    told.told(Op.CHANGES, 1, 0, says=[events, upto, 0])
    assert check_watches(told.chronicle, told.deeds)


@pytest.mark.parametrize("keys", [b"a", b"aab", b"ba", b"abc", b""])
def test_a_scan_that_misses_a_key_or_has_one_too_many(told: Told, keys: bytes) -> None:
    told.wrote(Op.PUT, b"a", b"1")
    told.wrote(Op.PUT, b"b", b"1")
    rows = [[b"%c" % key, b"1", 1 + key - ord("a"), None] for key in keys]
    told.told(Op.SCAN, None, None, 10, False, 0, says=[rows, None], about="scan 1")
    assert check_scans(told.chronicle, told.deeds)


def test_promises_that_are_not_kept(told: Told) -> None:
    told.told(Op.TXN, b"{g}a", says=[5, True, [[b"3", 1, None], [b"-2", 2, None]]], about=READ_ALL)
    told.told(Op.LOCK, b"{l}lock", b"me", 100, says=[7, True])
    told.told(Op.LOCK, b"{l}lock", b"you", 100, says=[9, True])
    guard = (None, None, None, None, [b"{l}lock", 7])
    told.told(Op.PUT, b"{l}data", b"1", *guard, says=[8, False], about=GUARDED)
    told.told(Op.PUT, b"{l}data", b"1", *guard, says=[10, True], about=GUARDED)
    told.told(Op.ADD, b"c0", 3, says=[11, False, 3])
    told.told(Op.GET, b"c0", says=[b"4", 11, None, 11, None])
    told.told(Op.APPEND, b"a0", b"1;", says=[12, False, 2])
    told.told(Op.APPEND, b"a0", b"2;", says=[13, False, 2])
    told.told(Op.GET, b"a0", says=[b"2;1;", 13, None, 13, None])
    sums, fences, counters, texts = check_promises(told.deeds)
    assert "the sum is 1" in sums
    assert "token 9" in fences
    assert "[10, True]" in fences
    assert "nobody has added" in counters
    assert "in order" in texts


@pytest.mark.parametrize(
    "mutant", ["touch-is-a-write", "kept-deadline-is-lost", "memo-is-not-kept"]
)
def test_a_shard_that_does_something_else_than_its_log_says(told: Told, mutant: str) -> None:
    with planted(mutant), pytest.raises(Violation, match="chronicle"):  # noqa: PT012
        told.wrote(Op.PUT, b"k", b"1", None, None, 150)
        told.wrote(Op.TOUCH, b"k", 1, 100)
        told.wrote(Op.TOUCH, b"k", 1, 100)
        told.wrote(Op.APPEND, b"k", b"2", None, -1)
        told.shard.pass_time(100)
        for _ in range(2):
            told.wrote(Op.ADD, b"n", 1, None, None, None, None, b"once")
