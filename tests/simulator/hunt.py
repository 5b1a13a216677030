"""Looking for planted bugs: how many lives it takes until one of them is noticed.

A mutant that random lives do not find within their budget is found by a directed
scenario, or it is alive, and then the simulator is blind there. The quickest way to
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
from tests.simulator.plan import Plan, draw_plan, steered_plan
from tests.simulator.run import live

ROOT = Path(__file__).parents[2]
KILLS = Path(__file__).with_name("kills.json")

# What some bugs need that chance brings together too seldom: the only kinds of faults, and
# parts of the plan that are decided.
STEERING: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "lost-forward-is-sent-again": (
        ("reset", "kill"),
        {"nodes": 3, "shards": 4, "sessions": False, "reads": 0.1, "think_ms": 5, "clients": 6},
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
    "client-stays-with-a-node-that-is-late": (
        ("clog",),
        {"nodes": 3, "timeout_ms": 300, "clients": 1, "pipeline": 1, "lasting": "deaf"},
    ),
}


# Tests of the parts that see what whole lives hardly ever meet; each has to fail.
TESTS = {
    "wiped-disk-is-admitted": "host/test_moves.py::test_a_node_on_another_disk_is_not_let_in",
    "poisoned-replica-speaks": "host/test_drive.py::"
    "test_a_poisoned_replicas_answers_do_not_leave_although_its_save_succeeds",
    "snapshot-installed-before-it-is-logged": "host/test_drive.py::"
    "test_a_snapshot_is_saved_in_the_log_then_installed_then_reported",
    "reads-served-before-they-are-applied": "host/test_replica.py::"
    "test_a_read_is_not_answered_before_its_index_is_applied",
    "deadline-denies": "host/test_request.py",
    "newcomer-takes-its-view-for-the-cluster": "host/test_moves.py::"
    "test_a_member_that_an_older_view_lacks_is_remembered_when_it_connects",
    "old-wish-taken-for-damage": "host/test_moves.py::"
    "test_an_old_wish_for_a_replica_that_has_left_is_no_damage",
}


def fails_a_test(mutant: str, test: str) -> bool:
    """Whether a test of the suite fails with the bug planted (tests/conftest.py)."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/{test}"]
    environment = {**os.environ, "KRITA_MUTANT": mutant}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stdout.decode()  # others: the test was not run at all
    return done.returncode == 1


def plan_for(mutant: str, seed: int) -> Plan:
    """The life in which ``mutant`` is looked for."""
    if mutant not in STEERING:
        return draw_plan(seed)
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
    """Live through ``seeds`` with the bug planted, then the scenarios, then a test."""
    started = time.process_time()
    lived = 0
    for seed in seeds:
        lived += 1
        with planted(mutant):
            outcome = live(plan_for(mutant, seed))
        if not outcome.ok:
            seconds = time.process_time() - started
            return Kill(mutant, seed, None, outcome.rule, lived, seconds)
    scenario = directed_kills(planted(mutant))
    if scenario is None and mutant in TESTS and fails_a_test(mutant, TESTS[mutant]):
        scenario = f"tests/{TESTS[mutant]}"
    seconds = time.process_time() - started
    return Kill(mutant, None, scenario, _kind(scenario), lived, seconds)


def _kind(directed: str | None) -> str:
    if directed is None:
        return ""
    return "test" if directed.startswith("tests/") else "scenario"


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
