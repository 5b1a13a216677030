"""The scenarios tested: each planted bug of the consensus core must be seen by the
scenario that was written for it, not merely by one that happens to pass there.

Bugs of the host and the state machine are beyond the scenarios, which run bare
cores: those are for the simulation.
"""

from __future__ import annotations

import pytest

from tests.simulator.directed import DIRECTORY, difference, directed_kills
from tests.simulator.mutants.registry import MUTANTS, planted
from tests.simulator.scenario import read_scenario

# Scenario -> the planted bugs that it must see.
SEES = {
    "a_late_save_attests_nothing_new": ["late-save-attests-replaced-entries"],
    "acknowledged_entries_are_durable": [
        "answers-before-the-save",
        "leader-counts-its-undurable-log",
    ],
    "acknowledgements_of_an_earlier_term_are_not_counted": ["counts-old-acknowledgements"],
    "changes_that_would_stop_the_group_are_refused": ["promotes-a-learner-that-lags"],
    "checkquorum_makes_a_lonely_leader_step_down": ["leader-without-quorum-stays"],
    "commit_index_stops_at_what_the_leader_has_shown": [
        "commits-an-unverified-tail",
        "heartbeat-commits-beyond-the-match",
    ],
    "deposed_leaders_reads_are_lost": ["reads-confirmed-by-one-too-few", "reads-without-a-quorum"],
    "entry_and_its_term_are_saved_together": ["entries-saved-before-their-term"],
    "failed_snapshot_is_offered_again": ["peer-stuck-after-a-failed-snapshot"],
    "figure_7_logs_are_repaired": ["conflicts-are-kept", "refusal-taken-for-a-match"],
    "figure_8_an_old_entry_on_a_majority_is_not_committed": ["old-terms-committed-by-counting"],
    "figure_8_an_own_entry_commits_the_old_ones": ["leader-without-first-entry"],
    "half_of_an_even_group_is_no_majority": ["half-is-a-majority"],
    "joint_configuration_needs_both_majorities": [
        "joint-committed-by-one-half",
        "joint-elected-by-one-half",
        "joint-reads-confirmed-by-one-half",
        "voters-changed-without-joint",
    ],
    "joint_is_not_left_when_an_earlier_entry_commits": ["joint-left-before-it-is-committed"],
    "late_heartbeat_reply_confirms_no_newer_read": ["reads-confirmed-by-an-older-round"],
    "late_vote_request_disturbs_nobody": ["votes-beside-a-leader"],
    "leader_removes_itself_and_crashes_while_leaving": ["removed-leader-never-campaigns"],
    "learner_that_does_not_know_of_its_promotion_votes": ["votes-only-as-a-voter"],
    "learners_count_for_nothing": ["learners-are-counted"],
    "new_leaders_reads_wait_for_an_own_entry": [
        "reads-at-the-applied-index",
        "reads-before-its-own-commit",
    ],
    "new_term_waits_for_its_durable_vote": [
        "leads-before-its-own-vote-is-durable",
        "sent-before-the-term-is-durable",
    ],
    "no_configuration_before_an_own_entry_is_committed": [
        "configuration-before-a-commit",
        "voters-changed-in-one-step-too-early",
    ],
    "partial_partition_keeps_its_leader": ["pre-vote-granted-beside-a-leader"],
    "pre_votes_are_no_votes": ["pre-vote-taken-for-a-vote"],
    "prevote_keeps_a_partitioned_replica_quiet": ["no-pre-vote"],
    "repeated_and_reordered_appends_truncate_nothing": [
        "acknowledges-the-whole-log",
        "truncates-what-matches",
    ],
    "replica_with_the_highest_term_gets_back": ["obeys-old-leaders"],
    "restart_in_joint_uses_the_newest_configuration": ["restart-with-the-committed-configuration"],
    "snapshot_has_the_configuration_of_its_index": ["snapshot-with-the-newest-configuration"],
    "snapshot_replaces_a_conflicting_log": ["snapshot-beside-a-conflicting-log"],
    "stepping_down_within_a_term_keeps_the_vote": ["votes-again-after-stepping-down"],
    "transfer_that_does_not_succeed_is_given_up": ["transfer-never-given-up"],
    "vote_goes_to_a_log_that_is_not_behind": [
        "log-compared-by-length",
        "log-compared-by-parts",
        "votes-for-a-log-behind",
    ],
    "vote_survives_a_restart": ["term-and-vote-saved-apart", "vote-not-persisted"],
    "votes_of_an_earlier_term_are_not_counted": ["counts-old-votes"],
}
PAIRS = [(name, mutant) for name, mutants in SEES.items() for mutant in mutants]


@pytest.mark.parametrize(("name", "mutant"), PAIRS, ids=[mutant for _, mutant in PAIRS])
def test_the_scenario_sees_the_bug_it_was_written_for(name: str, mutant: str) -> None:
    scenario = read_scenario(DIRECTORY / f"{name}.txt")
    with planted(mutant):
        assert difference(scenario) is not None
    assert difference(scenario) is None, "the bug was taken back"


def test_the_first_scenario_that_sees_a_bug_is_named() -> None:
    found = directed_kills(planted("counts-old-votes"))
    assert found is not None
    assert found.startswith("votes_of_an_earlier_term_are_not_counted:")


def test_every_planted_bug_of_the_table_exists_and_stands_in_it_once() -> None:
    mutants = [mutant for _, mutant in PAIRS]
    assert len(mutants) == len(set(mutants))
    assert set(mutants) <= set(MUTANTS)
