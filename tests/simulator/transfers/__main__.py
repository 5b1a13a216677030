"""Lives with transfers: ``python -m tests.simulator.transfers FIRST [COUNT] [--trace]``."""

from __future__ import annotations

import sys

from tests.simulator.run import live
from tests.simulator.transfers.world import TransferWorld, transfer_plan


def main(arguments: list[str]) -> int:
    numbers = [int(argument) for argument in arguments if argument.isdigit()]
    first, count = numbers[0], numbers[1] if len(numbers) > 1 else 1
    trace = (lambda line: print(line)) if "--trace" in arguments else None
    failures = 0
    for seed in range(first, first + count):
        outcome = live(transfer_plan(seed), trace, kind=TransferWorld)
        if not outcome.ok:
            failures += 1
            print(f"seed {seed}: {outcome.rule}: {outcome.text}", flush=True)
        elif count == 1:
            print(f"seed {seed}: {outcome.operations} operations, hash {outcome.hash:x}")
        if "--times" in arguments:
            print(f"{seed}: {outcome.cpu_s:.1f} s", flush=True)
    print(f"{count} lives, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
