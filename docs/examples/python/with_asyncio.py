#!/usr/bin/env python3
"""Many requests at once, with the asynchronous client under asyncio:

    python docs/examples/python/with_asyncio.py [127.0.0.1:8080,127.0.0.1:8081]

(with_trio.py has the first steps; they are the same here.) KRITA_ADMIN_TOKEN in the
environment is used, if the cluster asks for a token.
"""

from __future__ import annotations

import asyncio
import os
import sys

import krita
from krita.aio import AsyncClient

COUNT = 100


def key(number: int) -> str:
    return f"example:square:{number}"


async def write(db: AsyncClient) -> None:
    """A pipeline: all of it is under way at once, over a connection to each leader."""
    async with db.pipeline() as pipeline:
        for number in range(COUNT):
            pipeline.put(key(number), str(number**2))
    print(f"{len(pipeline.results)} written, {len(pipeline.errors)} errors")


async def read(db: AsyncClient) -> None:
    """Tasks share the client as well."""
    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(db.get(key(number))) for number in range(COUNT)]
    values = [value for task in reading if (value := task.result()) is not None]
    print(f"their sum is {sum(int(value.text()) for value in values)}")


async def read_nearby(db: AsyncClient) -> None:
    """A stale read asks whichever replica is near, and says how far it may be behind."""
    value = await db.get(key(12), consistency="stale")
    if value is not None and value.staleness_ms < 60_000:
        print(f"12 squared is {value.text()}")


async def create_once(db: AsyncClient) -> None:
    """Of many who want to create a key one does; the others learn that they were late."""

    async def try_to_create(name: str) -> bool:
        try:
            await db.put("example:leader", name, if_revision=0)
        except krita.ConditionFailed:
            return False
        return True

    await db.delete("example:leader")
    won = await asyncio.gather(*(try_to_create(f"task {number}") for number in range(10)))
    print(f"{sum(won)} of {len(won)} has created it")


async def run(nodes: str) -> None:
    """All of it."""
    async with AsyncClient(nodes, token=os.environ.get("KRITA_ADMIN_TOKEN")) as db:
        await write(db)
        await read(db)
        await read_nearby(db)
        await create_once(db)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080"))
