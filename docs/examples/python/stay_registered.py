#!/usr/bin/env python3
"""A service that is listed while it runs, and is not soon after it has died.

    python docs/examples/python/stay_registered.py --nodes 127.0.0.1:8080 --name web-1

Its entry is tied to a lease, which the client keeps alive. When the service ends, so does the
entry; when it is killed, or cut off from the cluster, the lease runs out after ``--ttl_ms``. The
list of all services is a scan. ``--seconds`` ends it by itself. KRITA_ADMIN_TOKEN in the
environment is used, if the cluster asks for a token.
"""

from __future__ import annotations

import argparse
import math
import os
from functools import partial

import anyio

import krita
from krita.aio import AsyncClient

PREFIX = "service:"


async def run(nodes: str, name: str, ttl_ms: int, seconds: float) -> None:
    """Be listed for so long."""
    async with AsyncClient(nodes, token=os.environ.get("KRITA_ADMIN_TOKEN")) as db:
        try:
            async with db.lease(ttl_ms) as lease:
                await db.put(f"{PREFIX}{name}", "ready", lease=lease)
                names = [item.key.decode() async for item in db.scan(PREFIX, keys_only=True)]
                print("listed:", ", ".join(names), flush=True)
                with anyio.move_on_after(seconds):
                    await anyio.sleep_forever()  # here it would serve
        except krita.LeaseUnknown:
            print("not listed any more: the cluster could not be reached in time")
            return
        gone = await db.get(f"{PREFIX}{name}")
        print("gone" if gone is None else "still listed")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="be listed as a service")
    parser.add_argument("--nodes", default="127.0.0.1:8080")
    parser.add_argument("--name", default="web-1")
    parser.add_argument("--ttl_ms", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=math.inf)
    options = parser.parse_args()
    anyio.run(partial(run, options.nodes, options.name, options.ttl_ms, options.seconds))


if __name__ == "__main__":
    main()
