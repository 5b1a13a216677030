"""The planted bugs themselves: each can be planted, is explained, and is gone afterwards."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from kritad.raft import election
from tests.simulator.mutants.mutant import Mutant
from tests.simulator.mutants.registry import MUTANTS, planted

COUNT_MIN = 40  # reliability.md 3: at least so many

every_mutant = pytest.mark.parametrize(
    "mutant", [pytest.param(m, id=m.name) for m in MUTANTS.values()]
)


def standing(mutant: Mutant) -> list[object]:
    """What is at present where the mutant's replacements go."""
    return [vars(owner)[name] for owner, name, _ in mutant.patches]


@every_mutant
def test_a_bug_is_there_while_it_is_planted_and_gone_behind_it(mutant: Mutant) -> None:
    before = standing(mutant)
    with planted(mutant) as chosen:
        assert chosen is mutant
        assert standing(mutant) == [replacement for _, _, replacement in mutant.patches]
        assert all(there is not was for there, was in zip(standing(mutant), before, strict=True))
    assert all(there is was for there, was in zip(standing(mutant), before, strict=True))


@every_mutant
def test_a_bug_is_gone_when_what_ran_with_it_failed(mutant: Mutant) -> None:
    before = standing(mutant)
    with pytest.raises(ZeroDivisionError), planted(mutant.name):
        raise ZeroDivisionError
    assert all(there is was for there, was in zip(standing(mutant), before, strict=True))


@every_mutant
def test_a_bug_says_what_it_is(mutant: Mutant) -> None:
    assert MUTANTS[mutant.name] is mutant
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", mutant.name)
    for text in (mutant.rule, mutant.source, mutant.hint):
        assert text
        assert text == text.strip()
    assert mutant.patches
    for _, name, replacement in mutant.patches:
        assert (replacement.__doc__ or "").strip(), f"the new {name} does not say what is wrong"


@every_mutant
def test_a_bug_replaces_no_attribute_twice(mutant: Mutant) -> None:
    places = Counter((id(owner), name) for owner, name, _ in mutant.patches)
    assert set(places.values()) == {1}


def test_no_name_is_given_twice_and_there_are_enough() -> None:
    assert len(MUTANTS) >= COUNT_MIN
    assert len(
        {frozenset((id(o), n, id(r)) for o, n, r in m.patches) for m in MUTANTS.values()}
    ) == len(MUTANTS)


def test_a_patch_that_names_nothing_is_refused_and_what_came_before_it_is_taken_back() -> None:
    before = election.campaign
    broken = Mutant(
        name="broken",
        rule="none",
        source="none",
        hint="none",
        patches=((election, "campaign", print), (election, "no_such_thing", print)),
    )
    with pytest.raises(KeyError, match="no_such_thing"), planted(broken):
        pytest.fail("it was planted")
    assert election.campaign is before


def test_bugs_in_each_other_come_out_in_order() -> None:
    before = election.become_leader, election.tick_leader
    with planted("leads-before-its-own-vote-is-durable"):
        once = election.become_leader
        with planted("transfer-never-given-up"):
            assert election.become_leader is once
            assert election.tick_leader is not before[1]
        assert election.tick_leader is before[1]
    assert (election.become_leader, election.tick_leader) == before
