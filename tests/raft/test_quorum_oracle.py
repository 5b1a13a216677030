"""etcd raft's quorum files: committed indexes and votes of majorities and joint ones."""

from __future__ import annotations

from kritad.raft.quorum import UNBOUNDED, quorum_index, vote_result
from kritad.raft.types import Configuration
from tests.raft.oracle import Case, require

CASES_EXPECTED = 127


def _halves(case: Case) -> tuple[list[int], list[int]]:
    def ids(name: str) -> list[int]:
        return [int(word) for word in case.arguments.get(name, []) if word != "zero"]

    return ids("cfg"), ids("cfgj")


def _answers(case: Case, name: str) -> dict[int, str]:
    """The values of the case, given in the order in which its voters first appear."""
    incoming, outgoing = _halves(case)
    voters = list(dict.fromkeys(incoming + outgoing))
    return dict(zip(voters, case.arguments.get(name, []), strict=True))


def _committed(case: Case) -> str:
    incoming, outgoing = _halves(case)
    acked = {voter: int(text) for voter, text in _answers(case, "idx").items() if text != "_"}
    halves = Configuration(voters=frozenset(incoming), voters_outgoing=frozenset(outgoing))
    index = quorum_index(halves, lambda voter: acked.get(voter, 0))
    swapped = Configuration(voters=halves.voters_outgoing, voters_outgoing=halves.voters)
    assert quorum_index(swapped, lambda voter: acked.get(voter, 0)) == index
    return "∞" if index == UNBOUNDED else str(index)


def _vote(case: Case) -> str:
    incoming, outgoing = _halves(case)
    votes = {voter: text == "y" for voter, text in _answers(case, "votes").items() if text != "_"}
    halves = Configuration(voters=frozenset(incoming), voters_outgoing=frozenset(outgoing))
    return f"Vote{vote_result(halves, votes).name.capitalize()}"


def test_all_of_etcds_quorum_cases_give_the_expected_answer() -> None:
    count = 0
    for cases in require("quorum"):
        for case in cases:
            answer = _committed(case) if case.command == "committed" else _vote(case)
            assert case.expected[-1].split(">")[-1].strip() == answer, f"{case}: {case}"
            count += 1
    assert count == CASES_EXPECTED
