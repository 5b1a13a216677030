#!/usr/bin/env python3
"""First steps with the asynchronous client under trio:

    python docs/examples/python/with_trio.py [127.0.0.1:8080,127.0.0.1:8081]

KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.
"""

from __future__ import annotations

import os
import sys

import trio

import krita
from krita.aio import AsyncClient

GREETING = "example:greeting"
VISITS = "example:visits"


async def first_steps(db: AsyncClient) -> None:
    """Put, get, delete, and what a condition is for."""
    put = await db.put(GREETING, "hello", content_type="text/plain")
    value = await db.get(GREETING)
    assert value is not None
    print(f"{GREETING} is {value.text()}")

    # Only what has been read is replaced: whoever was faster wins.
    await db.put(GREETING, "hello again", if_revision=put.revision)
    try:
        await db.put(GREETING, "too late", if_revision=put.revision)
    except krita.ConditionFailed as error:
        print(f"refused, {error.outcome.name.lower()}: {error.message}")

    await db.delete(GREETING)
    print(f"{GREETING} is {await db.get(GREETING)}")


async def add(db: AsyncClient, key: str, amount: int) -> None:
    """Add to a number that others add to as well."""
    while True:
        value = await db.get(key)
        number, revision = (int(value.text()), value.revision) if value else (0, 0)
        try:
            await db.put(key, str(number + amount), if_revision=revision)  # 0: only if absent
        except krita.ConditionFailed:
            continue  # somebody else was faster: look again
        return


async def run(nodes: str) -> None:
    """All of it. Ten tasks share the client, and its connections."""
    async with AsyncClient(nodes, token=os.environ.get("KRITA_ADMIN_TOKEN")) as db:
        await first_steps(db)
        await db.delete(VISITS)
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(add, db, VISITS, 1)
        value = await db.get(VISITS)
        assert value is not None
        print(f"{value.text()} visits")


if __name__ == "__main__":
    trio.run(run, sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080")
