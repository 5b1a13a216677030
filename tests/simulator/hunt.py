"""Looking for planted bugs: how many lives it takes until one of them is noticed.

A mutant that random lives do not find within their budget is found by a directed
scenario or a story, or it is alive, and then the simulator is blind there. The quickest way to
kill each is kept in ``kills.json``, which the tests repeat.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from tests.simulator.directed import directed_kills
from tests.simulator.mutants.registry import MUTANTS, planted
from tests.simulator.plan import Plan, Reshape, plain_plan, steered_plan
from tests.simulator.run import live
from tests.simulator.stories.stories import STORIES, tell

ROOT = Path(__file__).parents[2]
KILLS = Path(__file__).with_name("kills.json")
_STORY = "story "  # and its name

# What some bugs need that chance brings together too seldom: the only kinds of faults, and
# parts of the plan that are decided.
_SPLITS: dict[str, Any] = {
    "nodes": 3,
    "shards": 1,
    "keys": 12,
    "chaos_ms": 20_000,
    "reshapes": tuple(Reshape(at_ms, "split", at_ms) for at_ms in range(500, 20_000, 500)),
    "settings": {"flush_interval_ms": 5_000.0, "checkpoint_interval_ms": 10_000.0},
}


def _crafts(*crafts: str, **changes: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    plan = {"crafts": crafts, "clients": 1, "chaos_ms": 5_000, "wall_spread_ms": 0, **changes}
    return ("kill", "transfer"), plan


_WITH_SPLITS: dict[str, Any] = {"shards": 1, "nodes": 3, "reshapes": _SPLITS["reshapes"]}
STEERING: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "deadlines-by-the-own-clock": _crafts("ttl"),
    "deadlines-are-forgotten-by-a-restart": _crafts("ttl"),
    "deadline-is-a-timer": (
        ("transfer", "campaign"),
        _crafts("ttl", nodes=3, shards=1, chaos_ms=20_000, think_ms=1_000, reshapes=())[1],
    ),
    "split-forgets-the-deadlines": _crafts("ttl", **_WITH_SPLITS),
    "split-forgets-the-leases": _crafts("leases", **_WITH_SPLITS),
    "touch-is-a-write": _crafts("ttl"),
    "keepalive-changes-nothing": _crafts("leases"),
    "ended-too-early": _crafts("ttl"),
    "an-end-is-no-event": _crafts("ttl", "watches"),
    "half-is-not-told-of-a-lease": _crafts("leases", **_WITH_SPLITS),
    "lock-guards-nothing": _crafts("locks"),
    "lock-is-renewed-by-anybody": _crafts("locks"),
    "transaction-is-done-in-part": _crafts("transactions"),
    "memo-is-not-kept": _crafts("repeated"),
    "memo-answers-anything": _crafts("repeated"),
    "kept-deadline-is-lost": _crafts("ttl"),
    "feed-cuts-an-entry": _crafts("watches", "transactions"),
    "watch-goes-on-one-later": _crafts("watches"),
    "watch-goes-on-one-earlier": _crafts("watches"),
    "poll-is-ahead-of-its-events": _crafts("watches"),
    "waiting-for-a-key-is-forgotten": _crafts("watches"),
    "scan-passes-a-shards-edge": _crafts(
        "scans", shards=4, keys=12, value_bytes=2_000, settings={"value_bytes_max": 8_000}
    ),
    "stale-read-is-older-than-asked-for": _crafts("stale-reads", nodes=3),
    "absence-is-no-version": _crafts("versions"),
    "what-was-is-what-is": _crafts("versions"),
    "ends-a-moment-too-late": _crafts("inquiries"),
    "longer-retention-is-whole-at-once": _crafts("inquiries"),
    "half-is-not-asked-for-a-lease": _crafts("inquiries", **_WITH_SPLITS),
    "newborn-is-opened-before-it-is-durable": (("power-cut", "kill-all"), _SPLITS),
    "newborn-is-flushed-alone": (("kill", "power-cut"), _SPLITS),
    "newborn-is-made-empty": (("kill-all", "partition"), _SPLITS),
    "new-half-is-found-by-the-map-alone": (("kill", "power-cut"), {**_SPLITS, "lasting": "pair"}),
    "reads-what-was-split-off": (
        ("transfer", "slow-disk", "partition"),
        {**_SPLITS, "reads": 0.8, "think_ms": 5, "clients": 6},
    ),
    "lost-forward-is-sent-again": (
        ("reset", "kill"),
        {
            "nodes": 3,
            "shards": 4,
            "sessions": False,
            "reads": 0.1,
            "think_ms": 5,
            "clients": 6,
            "reshapes": (),
        },
    ),
    "reads-served-before-they-are-applied": (
        ("slow-disk", "transfer"),
        {"nodes": 3, "keys": 2, "reads": 0.6, "think_ms": 5, "clients": 6, "buggify": False},
    ),
    "snapshot-installed-before-it-is-logged": (
        ("partition", "kill", "power-cut"),
        {
            "nodes": 3,
            "settings": {
                "log_tail_bytes": 1,
                "flush_interval_ms": 100.0,
                "checkpoint_interval_ms": 200.0,
            },
            "value_bytes": 2_000,
            "disk_us": 10_000,
            "buggify": True,
        },
    ),
    "deadline-denies": (
        ("slow-disk", "partition", "kill"),
        {"nodes": 3, "timeout_ms": 300, "reads": 0.3, "think_ms": 5, "clients": 6},
    ),
    "unknown-session-is-made-anew": (
        ("reset", "kill", "one-way"),
        {"nodes": 3, "session_ttl_ms": 300, "reads": 0.1, "timeout_ms": 5_000, "sessions": True},
    ),
    "newcomer-takes-its-view-for-the-cluster": (
        ("join", "transfer"),
        {"nodes": 4, "settings": {"raft_limits": {"append_bytes_max": 1}}},
    ),
    "old-wish-taken-for-damage": (("join", "power-cut"), {"nodes": 3, "shards": 4}),
    "stalled-disk-goes-on-leading": (("kill",), {"nodes": 3, "lasting": "stalled-disk"}),
    "no-pre-vote": (("kill",), {"nodes": 3, "lasting": "pair"}),
    "pre-vote-granted-beside-a-leader": (("kill",), {"nodes": 3, "lasting": "pair"}),
    "damaged-replica-finishes-its-turn": (
        ("bit-rot",),
        {
            "nodes": 3,
            "shards": 1,
            "keys": 12,
            "reads": 0.2,
            "think_ms": 5,
            "clients": 6,
            "pipeline": 3,
            "conditional": 0.3,
            "reshapes": (),
            "settings": {"cache_bytes": 1, "memtable_bytes": 500, "flush_interval_ms": 100.0},
        },
    ),
    "place-ahead-is-compacted-at-once": (
        ("slow-disk", "transfer", "kill"),
        {
            **_crafts("watches")[1],
            "nodes": 3,
            "shards": 1,
            "clients": 3,
            "think_ms": 10,
            "chaos_ms": 8_000,
            "reshapes": (),
            "buggify": False,
            "settings": {"memtable_bytes": 2_000},
        },
    ),
    "client-stays-with-a-node-that-is-late": (
        ("clog",),
        {"nodes": 3, "timeout_ms": 300, "clients": 1, "pipeline": 1, "lasting": "deaf"},
    ),
}


# Tests of the parts that see what whole lives hardly ever meet; each has to fail.
TESTS = {
    "scrub-does-not-look-at-the-index": "simulator/platter/test_bit_flips.py::"
    "test_a_flipped_bit_in_an_index_is_found_by_a_reader_or_by_the_scrub",
    "wal-is-taken-for-moved": "simulator/platter/test_power_cut.py::"
    "test_nothing_acknowledged_is_lost_and_nothing_torn_is_read[power-data.db]",
    "wiped-disk-is-admitted": "host/test_moves.py::test_a_node_on_another_disk_is_not_let_in",
    "poisoned-replica-speaks": "host/test_drive.py::"
    "test_a_poisoned_replicas_answers_do_not_leave_although_its_save_succeeds",
    "snapshot-installed-before-it-is-logged": "host/test_drive.py::"
    "test_a_snapshot_is_saved_in_the_log_then_installed_then_reported",
    "reads-served-before-they-are-applied": "host/test_replica.py::"
    "test_a_read_is_not_answered_before_its_index_is_applied",
    "old-map-is-asked-for-again": "protocol/test_routing.py::"
    "test_who_tells_the_map_that_misled_us_is_asked_for_it_last",
    "deadline-denies": "host/test_request.py",
    "newcomer-takes-its-view-for-the-cluster": "host/test_moves.py::"
    "test_a_member_that_an_older_view_lacks_is_remembered_when_it_connects",
    "old-wish-taken-for-damage": "host/test_moves.py::"
    "test_an_old_wish_for_a_replica_that_has_left_is_no_damage",
    "reply-forgotten-too-early": "simulator/test_mutants_bite.py::"
    "test_a_session_forgets_what_was_not_acknowledged",
    "session-acknowledges-one-more": "state/test_sessions.py::"
    "test_a_late_write_with_an_older_acknowledgement_is_still_executed",
    "lost-forward-is-sent-again": "host/test_router.py::"
    "test_a_write_whose_connection_was_lost_ends_unknown_and_is_not_sent_again",
    "decided-before-all-are-prepared": "simulator/transfers/test_transfers.py::"
    "test_a_life_with_transfers_breaks_no_promise",
    "intent-let-go-without-asking": "host/test_resolver.py::"
    "test_what_was_decided_is_done_everywhere_whoever_dies",
    "tombstone-not-written": "state/test_two_phase.py::test_what_was_decided_stays_decided",
    "reads-of-held-keys-do-not-wait": "host/test_resolver.py::"
    "test_a_reader_and_a_writer_wait_for_what_becomes_of_the_keys",
    "part-is-done-twice": "state/test_two_phase.py::"
    "test_a_part_is_done_once_and_only_on_what_the_attempt_holds",
    "split-loses-intents": "state/test_two_phase_splits.py::"
    "test_a_split_divides_what_is_held_and_each_half_does_its_part",
    "transaction-is-done-again": "state/test_two_phase.py::"
    "test_another_attempt_of_what_was_answered_gets_the_answer_and_does_nothing",
    "read-is-not-of-one-moment": "kritad/test_coordinator.py::"
    "test_what_was_not_held_until_the_end_was_not_read_at_one_moment",
    "decision-forgotten-before-it-is-done": "kritad/test_coordinator.py::"
    "test_what_is_not_finished_is_not_forgotten_and_has_happened",
    "index-without-its-term": "host/test_replica.py::"
    "test_an_entry_of_another_term_in_its_place_proves_a_write_not_applied",
    "split-forgets-what-is-being-flushed": "state/test_split.py::"
    "test_each_half_has_its_keys_wherever_they_were",
    "split-forgets-the-memtable": "state/test_split.py::"
    "test_each_half_has_its_keys_wherever_they_were",
    "split-forgets-the-sessions": "state/test_split.py::"
    "test_a_write_that_was_answered_before_the_split_is_answered_alike_behind_it",
    "halves-share-their-sessions": "state/test_split.py",
    "halves-give-out-the-same-sessions": "state/test_split.py::"
    "test_a_session_opened_after_the_split_is_nobody_else_s_in_the_other_half",
    "reads-what-was-split-off": "host/test_turned_away.py::"
    "test_a_read_that_was_waiting_while_its_shard_was_cut_sees_what_was_written_since",
    "writes-to-what-was-split-off": "state/test_split.py::"
    "test_a_key_of_the_other_half_is_refused_and_changes_nothing",
    "newborn-is-opened-before-it-is-durable": "storage/test_sharing.py::"
    "test_a_durable_flush_is_synced",
    "split-forgets-the-deadlines": "state/test_bonds.py::"
    "test_each_half_of_a_shard_gets_the_bonds_of_its_keys",
    "newborn-is-flushed-alone": "host/test_flush.py::"
    "test_an_unborn_state_is_flushed_at_once_durably_and_with_the_one_it_was_cut_from",
    "split-ignores-the-configuration": "state/test_split.py::"
    "test_a_split_behind_a_change_of_the_configuration_is_refused",
    "split-is-done-twice": "state/test_split.py::"
    "test_a_repeated_split_is_refused_also_at_another_edge",
    "newborn-is-made-empty": "host/test_residence.py::"
    "test_a_new_shard_is_not_made_empty_where_the_old_one_lags",
    "newborn-replaces-who-is-here": "host/test_births.py::"
    "test_a_replica_that_was_here_before_the_split_is_left_alone",
    "snapshot-has-the-other-half-too": "storage/test_sharing.py::"
    "test_each_half_s_snapshot_brings_its_rows_and_its_arc",
    "snapshot-lacks-the-last-cell": "storage/test_sharing.py::"
    "test_each_half_s_snapshot_brings_its_rows_and_its_arc",
    "sweep-takes-the-other-half": "storage/test_sharing.py::"
    "test_nothing_is_copied_and_nothing_swept_while_both_are_there",
    "placement-without-compare-and-set": "cluster/test_meta.py::"
    "test_a_placement_made_from_an_older_view_is_refused",
    "learner-votes-at-once": "cluster/test_reconcile.py::"
    "test_the_next_change_is_the_one_that_the_situation_asks_for",
    "node-leaves-while-it-votes": "cluster/test_meta_nodes.py::"
    "test_a_node_that_is_to_be_removed_has_left_when_no_shard_wants_or_has_it",
    "damaged-replica-is-an-heir": "host/test_steward.py::"
    "test_a_move_goes_on_though_its_only_heir_is_damaged",
    "healed-without-a-majority": "cluster/test_healing.py::"
    "test_without_a_sound_majority_nothing_is_touched",
    "wrong-rows-are-kept": "storage/test_snapshots_again.py::"
    "test_after_a_sum_that_was_wrong_nothing_of_it_is_used_again",
    "node-leaves-while-it-is-offered": "cluster/test_meta_nodes.py::"
    "test_a_node_that_was_only_wanted_has_left_when_the_leader_knows_that_it_is_not",
    "verdict-hits-the-next-life": "cluster/test_meta_nodes.py::"
    "test_a_late_verdict_does_not_hit_a_node_that_has_started_again",
    "outage-is-taken-for-deaths": "cluster/test_liveness.py::"
    "test_nobody_is_declared_dead_while_more_than_a_third_is_silent",
    "cancelled-move-goes-on": "cluster/test_meta_shards.py::"
    "test_a_cancelled_move_wants_those_who_vote_and_holds_the_shard",
    "held-moves-go-on": "host/test_steward.py::test_a_shard_that_is_held_makes_no_change",
    "moves-begin-while-paused": "host/test_steward.py::"
    "test_nothing_begins_while_people_have_paused_the_moves",
    "all-moves-at-once": "cluster/test_moves.py::test_two_shards_at_a_time_move_onto_a_node",
    "copies-are-given-up-whoever-is-missing": "host/test_steward.py::"
    "test_a_live_copy_is_given_up_only_for_others_that_live",
    "demotes-the-majority-that-answers": "cluster/test_reconcile.py::"
    "test_nobody_who_answers_is_demoted_when_that_would_cost_the_majority",
    "shard-is-split-on-the-move": "cluster/test_meta_shards.py::test_what_cannot_be_split",
    "replica-ids-are-given-out-twice": "cluster/test_meta.py::"
    "test_a_node_that_left_a_shard_and_comes_back_gets_another_replica_id",
    "no-tombstones": "host/test_birth_crashes.py::"
    "test_a_state_whose_replica_was_removed_gets_no_log_again",
    "state-without-a-log-gets-one": "host/test_birth_crashes.py::"
    "test_a_state_whose_votes_are_lost_gets_no_log_again",
    "nonces-are-not-compared": "host/test_admission.py::"
    "test_a_disk_that_was_rolled_back_is_turned_away",
    "copy-runs-beside-its-original": "host/test_admission.py::"
    "test_a_copy_is_refused_when_the_original_still_answers",
    "removed-node-comes-back": "host/test_drain.py::"
    "test_a_node_that_left_and_starts_again_is_told_so",
    "damaged-replica-finishes-its-turn": "host/test_damage.py::"
    "test_what_a_damaged_replica_was_about_to_say_in_that_turn_is_not_said",
    "new-half-is-found-by-the-map-alone": "host/test_turned_away.py::"
    "test_who_leads_the_new_half_serves_it_by_a_map_that_has_only_the_old_one",
    "given-up-node-comes-back": "host/test_turned_away.py::"
    "test_a_node_that_a_recovery_has_given_up_is_not_let_in",
}


def fails_a_test(mutant: str, test: str) -> bool:
    """Whether a test of the suite fails with the bug planted (tests/conftest.py)."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    environment = {**os.environ, "KRITA_MUTANT": mutant}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    failed = done.returncode == 1 and b" failed" in done.stdout
    if done.returncode and not failed:  # it was not run at all
        raise RuntimeError(f"{test}: {(done.stdout + done.stderr).decode()}")
    return failed


def plan_for(mutant: str, seed: int) -> Plan:
    """The life in which ``mutant`` is looked for."""
    if mutant not in STEERING:
        return plain_plan(seed)
    return steered_plan(seed, *STEERING[mutant])


@attrs.frozen
class Kill:
    """How a mutant died. ``seeds`` lives were spent on it, the last one the seed's."""

    mutant: str
    seed: int | None
    scenario: str | None
    rule: str  # what noticed it
    seeds: int
    seconds: float

    @property
    def alive(self) -> bool:
        """Nobody noticed it."""
        return self.seed is None and self.scenario is None


def hunt(mutant: str, seeds: Iterable[int]) -> Kill:
    """Live through ``seeds`` with the bug planted, then the scenarios, the stories, a test."""
    started = time.process_time()
    lived = 0
    for seed in seeds:
        lived += 1
        with planted(mutant):
            outcome = live(plan_for(mutant, seed))
        if not outcome.ok:
            seconds = time.process_time() - started
            return Kill(mutant, seed, None, outcome.rule, lived, seconds)
    scenario = directed_kills(planted(mutant)) or _story_that_breaks(mutant)
    if scenario is None and mutant in TESTS and fails_a_test(mutant, TESTS[mutant]):
        scenario = f"tests/{TESTS[mutant]}"
    seconds = time.process_time() - started
    return Kill(mutant, None, scenario, _kind(scenario), lived, seconds)


def _kind(directed: str | None) -> str:
    if directed is None:
        return ""
    kinds = {"tests/": "test", _STORY: "story"}
    return next((kinds[start] for start in kinds if directed.startswith(start)), "scenario")


def _story_that_breaks(mutant: str) -> str | None:
    for name in STORIES:
        if not tell(name, planted(mutant)).ok:
            return _STORY + name
    return None


def breaks_its_story(kill: Kill) -> bool:
    """Whether a mutant that was found by a story still is."""
    assert kill.scenario is not None, kill
    return not tell(kill.scenario.removeprefix(_STORY), planted(kill.mutant)).ok


def kills() -> dict[str, Kill]:
    """What is known, by mutant."""
    if not KILLS.exists():
        return {}
    return {name: Kill(**fields) for name, fields in json.loads(KILLS.read_text()).items()}


def keep(found: Iterable[Kill]) -> None:
    """Write down how these died, beside what is known of others."""
    known = kills() | {kill.mutant: kill for kill in found}
    ordered = {name: attrs.asdict(known[name]) for name in MUTANTS if name in known}
    KILLS.write_text(json.dumps(ordered, indent=1) + "\n")
