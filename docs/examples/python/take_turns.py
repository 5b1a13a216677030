#!/usr/bin/env python3
"""Several workers write one report, one at a time, and none of them over another.

    python docs/examples/python/take_turns.py --nodes 127.0.0.1:8080 --workers 4

Each takes the lock, reads the report, adds a line and writes it back. ``if_lock`` makes the
server refuse a line of a worker that has lost the lock without knowing it; the two
keys have the same text in braces, so they live in one shard. KRITA_ADMIN_TOKEN in the
environment is used, if the cluster asks for a token.
"""

from __future__ import annotations

import argparse
import os
from functools import partial

import anyio

import krita
from krita.aio import AsyncClient

LOCK, REPORT = "{report}lock", "{report}text"
TTL_MS = 10_000


async def work(db: AsyncClient, name: str) -> None:
    """Add a line to the report."""
    async with db.lock(LOCK, ttl_ms=TTL_MS) as lock:
        report = await db.get(REPORT)
        lines = "" if report is None else report.text()
        try:
            await db.put(REPORT, f"{lines}{name} has been here\n", if_lock=lock)
        except krita.ConditionFailed:
            print(f"{name} was too slow: somebody else has the lock by now")


async def run(nodes: str, workers: int) -> None:
    """Let them all work, and print what has come of it."""
    async with AsyncClient(nodes, token=os.environ.get("KRITA_ADMIN_TOKEN")) as db:
        await db.delete(REPORT)
        async with anyio.create_task_group() as tasks:
            for number in range(1, workers + 1):
                tasks.start_soon(work, db, f"worker {number}")
        report = await db.get(REPORT)
        assert report is not None
        print(report.text(), end="")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="workers that take turns with a lock")
    parser.add_argument("--nodes", default="127.0.0.1:8080")
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    anyio.run(partial(run, options.nodes, options.workers))


if __name__ == "__main__":
    main()
