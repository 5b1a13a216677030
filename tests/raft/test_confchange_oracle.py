"""etcd raft's conf-change files: the algebra of configurations, and who is followed."""

from __future__ import annotations

import pytest

from kritad.raft.configuration import (
    Change,
    ChangeKind,
    IllegalChange,
    check_configuration,
    enter_joint,
    leave_joint,
    simple_change,
)
from kritad.raft.progress import Progress, track
from kritad.raft.types import Configuration
from tests.raft.oracle import Case, require

CASES_EXPECTED = 58

# Their words for a refusal, and ours.
REFUSALS = {
    "config is already joint": "configuration is already joint",
    "can't leave a non-joint config": "configuration is not joint",
    "can't make a zero-voter config joint": ("cannot make a configuration without voters joint"),
    "can't apply simple config change in joint config": (
        "cannot make a simple change to a joint configuration"
    ),
    "more than one voter changed without entering joint config": (
        "more than one voter changed without joint consensus"
    ),
    "removed all voters": "removed all voters",
}
KINDS = {"v": ChangeKind.ADD_VOTER, "l": ChangeKind.ADD_LEARNER, "r": ChangeKind.REMOVE}


def _changes(case: Case) -> list[Change]:
    words = " ".join(case.input).split()
    # `u` updates what hangs on a member outside of Raft: nothing here.
    return [Change(KINDS[word[0]], int(word[1:])) for word in words if word[0] != "u"]


def _ids(replicas: frozenset[int]) -> str:
    return "(" + " ".join(str(replica) for replica in sorted(replicas)) + ")"


def _text(configuration: Configuration, progress: dict[int, Progress], auto: bool) -> list[str]:
    """A configuration and its progress as the files write them."""
    head = f"voters={_ids(configuration.voters)}"
    if configuration.joint:
        head += f"&&{_ids(configuration.voters_outgoing)}"
    if configuration.learners:
        head += f" learners={_ids(configuration.learners)}"
    if configuration.learners_next:
        head += f" learners_next={_ids(configuration.learners_next)}"
    lines = [head + (" autoleave" if auto else "")]
    for replica, member in progress.items():
        learner = " learner" if replica in configuration.learners else ""
        state = member.state.name.capitalize()
        lines.append(f"{replica}: State{state} match={member.match} next={member.next}{learner}")
    return lines


def _run(case: Case, configuration: Configuration) -> Configuration:
    if case.command == "simple":
        return simple_change(configuration, _changes(case))
    if case.command == "enter-joint":
        return enter_joint(configuration, _changes(case))
    assert case.command == "leave-joint"
    return leave_joint(configuration)


def test_all_of_etcds_conf_change_cases_give_the_expected_configuration() -> None:
    count = 0
    for cases in require("confchange"):
        configuration = Configuration()
        progress: dict[int, Progress] = {}
        for last_index, case in enumerate(cases):
            count += 1
            if case.expected[0] in REFUSALS:
                with pytest.raises(IllegalChange, match=f"^{REFUSALS[case.expected[0]]}$"):
                    _run(case, configuration)
                continue
            configuration = _run(case, configuration)
            check_configuration(configuration)
            progress = track(progress, configuration, max(last_index, 1))
            auto = case.arguments.get("autoleave") == ["true"]
            assert _text(configuration, progress, auto) == case.expected, str(case)
    assert count == CASES_EXPECTED
