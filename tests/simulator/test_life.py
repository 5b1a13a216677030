"""Lives of whole clusters from seeds: a fixed budget of them, and what makes them worth it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.batch import Totals, run_batch
from tests.simulator.crafts.scripts import SCRIPTS
from tests.simulator.plan import CRAFTS, FAMILIES, RESHAPES, draw_plan, from_json, to_json
from tests.simulator.run import Outcome, live

ROOT = Path(__file__).parents[2]
REGRESSIONS = sorted(Path(__file__).with_name("regressions").glob("*.json"))

# Two to four minutes on two cores; `make soak` goes on where this ends.
SEEDS = int(os.environ.get("KRITA_TEST_SEEDS", "120"))
TWINS = 12  # seeds that are lived twice, in two processes


@pytest.mark.slow
@pytest.mark.timeout(10 * SEEDS)  # s: it takes one or two a seed, on a machine left alone
def test_no_seed_of_the_budget_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    def progress(totals: Totals, _outcome: Outcome) -> None:
        if totals.seeds % 50 == 0:
            with capsys.disabled():
                sys.stdout.write(f"\n{totals.line()}\n")

    totals = run_batch(
        first=1, seeds=SEEDS, minutes=None, jobs=os.cpu_count() or 1, progress=progress
    )
    assert not totals.failures, "\n".join(
        f"{outcome.text}\n    python -m tests.simulator --seed {outcome.seed} --trace"
        for outcome in totals.failures
    )
    if SEEDS >= 100:
        assert set(totals.faults) == set(FAMILIES), "a kind of fault never happened"
        assert set(totals.wishes) == set(RESHAPES), "a kind of wish was never granted"
        assert len(totals.sites) >= 10, f"hardly any site misbehaved: {totals.sites}"


@pytest.mark.slow
def test_a_seed_is_the_same_life_in_every_process() -> None:
    hashes = {_hash_of_all(hash_seed) for hash_seed in ("0", "4711")}
    assert len(hashes) == 1, f"the hash of all events depends on the process: {hashes}"


def _hash_of_all(hash_seed: str) -> str:
    command = [sys.executable, "-m", "tests.simulator", "--seeds", str(TWINS), "--jobs", "1"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "protocol")])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return next(line for line in done.stdout.splitlines() if line.startswith("hash of all"))


def test_two_seeds_are_two_lives() -> None:
    assert live(draw_plan(3)).hash != live(draw_plan(8)).hash


def test_all_crafts_are_drawn_and_many_lives_have_none() -> None:
    plans = [draw_plan(seed) for seed in range(100)]
    assert {craft for plan in plans for craft in plan.crafts} == set(CRAFTS) == set(SCRIPTS)
    assert sum(not plan.crafts for plan in plans) > 30


def test_a_plan_survives_being_written_down() -> None:
    for seed in range(50):
        plan = draw_plan(seed)
        assert from_json(to_json(plan)) == plan


@pytest.mark.parametrize("path", REGRESSIONS, ids=[path.stem for path in REGRESSIONS])
def test_what_was_found_once_stays_mended(path: Path) -> None:
    outcome = live(from_json(path.read_text(encoding="utf-8")))
    assert outcome.ok, outcome.text
