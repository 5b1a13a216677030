"""``python -m tests.simulator``: lives of clusters from seeds. docs/simulation.md explains.

    [--seeds N] [--minutes M] [--first S] [--jobs J]
                            that many lives, or as many as fit, with totals
    --seed S [--trace]      one of them again, in words
    --story NAME [--mutant X] [--trace]
                            a directed life
    --shrink S [--mutant X] [--save NAME]
                            the shortest list of faults that still breaks it
    mutants [NAME …] [--seeds N]
                            how many seeds it takes to find each planted bug

Exit status: 0 nothing found (mutants: all found); 1 a violation; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.simulator.batch import Totals, run_batch
from tests.simulator.hunt import Kill, hunt, keep, plan_for
from tests.simulator.mutants.registry import MUTANTS, planted
from tests.simulator.plan import Plan, draw_plan, to_json
from tests.simulator.run import Outcome, live
from tests.simulator.shrink import shrink
from tests.simulator.stories.stories import STORIES, tell

_SEEDS = 100
_SEEDS_A_MUTANT = 60
_REGRESSIONS = Path(__file__).with_name("regressions")

_out = Console(highlight=False, soft_wrap=True, markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    options = _parser().parse_args(arguments)
    if options.what:
        return _hunt(options)
    if options.shrink is not None:
        return _shrink(options)
    if options.story is not None:
        return _tell(options)
    if options.seed is not None:
        return _repeat(options.seed, trace=options.trace)
    return _batch(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulator", description="Lives of clusters from seeds."
    )
    parser.add_argument(
        "what", nargs="*", metavar="mutants [NAME …]", help="look for planted bugs instead"
    )
    parser.add_argument("--seeds", type=int, help=f"how many lives (default {_SEEDS})")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--minutes", type=float, help="go on for so long instead")
    parser.add_argument("--seed", type=int, help="repeat this one")
    parser.add_argument(
        "--trace", action="store_true", help="with --seed or --story: every event in words"
    )
    parser.add_argument("--story", metavar="NAME", choices=STORIES, help="a directed life")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="make a failing life small")
    parser.add_argument("--mutant", help="with --shrink or --story: with this bug planted")
    parser.add_argument("--save", metavar="NAME", help="with --shrink: keep it as a regression")
    return parser


# --- many lives, and one --------------------------------------------------------------


def _batch(options: argparse.Namespace) -> int:
    seeds = options.seeds or (None if options.minutes else _SEEDS)

    def progress(totals: Totals, outcome: Outcome) -> None:
        if not outcome.ok:
            _progress("")
            _report(outcome)
        _progress(totals.line())

    totals = run_batch(
        first=options.first,
        seeds=seeds,
        minutes=options.minutes,
        jobs=options.jobs,
        progress=progress,
    )
    _progress("")
    _out.print(totals.line())
    _out.print(f"hash of all: {_hex(totals.hash)}")
    _count_table("fault", totals.faults)
    _count_table("wish granted", totals.wishes)
    _count_table("misbehaviour", totals.sites)
    return 1 if totals.failures else 0


def _repeat(seed: int, *, trace: bool) -> int:
    plan = draw_plan(seed)
    _describe(plan)
    outcome = live(plan, _out.print if trace else None)
    totals = Totals()
    totals.add(outcome)
    _out.print(totals.line())
    _out.print(f"hash: {_hex(outcome.hash)}")
    if not outcome.ok:
        _report(outcome)
    return 0 if outcome.ok else 1


def _tell(options: argparse.Namespace) -> int:
    planting = planted(options.mutant) if options.mutant else None
    outcome = tell(options.story, planting, _out.print if options.trace else None)
    _out.print(f"{options.story}: {outcome.text or 'breaks nothing'}; hash {_hex(outcome.hash)}")
    return 0 if outcome.ok else 1


def _describe(plan: Plan) -> None:
    _out.print(
        f"seed {plan.seed}: {plan.nodes} nodes, {plan.shards} shards, {plan.clients} clients,"
        f" {plan.chaos_ms / 1000:.0f} s of chaos with {len(plan.faults)} faults"
        f" ({', '.join(plan.families) or 'none'}) and {len(plan.reshapes)} wishes"
    )


def _report(outcome: Outcome) -> None:
    _out.print(f"seed {outcome.seed} broke {outcome.text}", style="red")
    _out.print(f"    again:   python -m tests.simulator --seed {outcome.seed} --trace")
    _out.print(f"    smaller: python -m tests.simulator --shrink {outcome.seed}")


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _count_table(what: str, counted: Mapping[str, int]) -> None:
    table = Table(what, "times", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, times in sorted(counted.items()):
        table.add_row(name, f"{times:,}")
    _out.print(table)


def _hex(number: int) -> str:
    return f"{number & (1 << 64) - 1:016x}"


# --- making one small -----------------------------------------------------------------


def _shrink(options: argparse.Namespace) -> int:
    plan = draw_plan(options.shrink)
    if options.mutant:
        plan = plan_for(options.mutant, options.shrink)
    with planted(options.mutant) if options.mutant else contextlib.nullcontext():
        outcome = live(plan)
        if outcome.ok:
            _out.print(f"seed {plan.seed} breaks nothing; there is nothing to make smaller")
            return 2
        _out.print(f"it breaks {outcome.text}")
        smaller = shrink(plan, _progress)
        _progress("")
        outcome = live(smaller)
    _describe(smaller)
    for fault in smaller.faults:
        _out.print(f"  {fault}")
    _out.print(f"{outcome.events:,} events, then {outcome.text}", style="red")
    if options.save:
        _REGRESSIONS.mkdir(exist_ok=True)
        path = _REGRESSIONS / f"{options.save}.json"
        path.write_text(to_json(smaller) + "\n", encoding="utf-8")
        _out.print(f"kept as {path.name}; tests/simulator/test_life.py repeats it from now on")
    return 1


# --- planted bugs ---------------------------------------------------------------------


def _hunt(options: argparse.Namespace) -> int:
    names = options.what[1:] or list(MUTANTS)
    unknown = [name for name in names if name not in MUTANTS]
    if options.what[0] != "mutants" or unknown:
        _out.print(f"there is no mutant {', '.join(unknown) or options.what[0]}; there are:")
        _out.print(", ".join(MUTANTS))
        return 2
    seeds = range(options.first, options.first + (options.seeds or _SEEDS_A_MUTANT))
    found: dict[str, Kill] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        for future in as_completed([pool.submit(hunt, name, seeds) for name in names]):
            kill = future.result()
            found[kill.mutant] = kill
            _progress(f"{len(found)} of {len(names)}: {kill.mutant}")
    _progress("")
    keep(found.values())
    _kill_table([found[name] for name in names])
    return 1 if any(kill.alive for kill in found.values()) else 0


def _kill_table(kills: list[Kill]) -> None:
    table = Table("mutant", "found by", "lives", "CPU s", "source", box=None, pad_edge=False)
    for kill in kills:
        by = "ALIVE" if kill.alive else kill.scenario or f"seed {kill.seed}: {kill.rule}"
        source = MUTANTS[kill.mutant].source
        table.add_row(kill.mutant, by, str(kill.seeds), f"{kill.seconds:.1f}", source)
    _out.print(table)


if __name__ == "__main__":
    sys.exit(main())
