#!/usr/bin/env python3
"""A program whose settings live in Krita, and change while it runs.

    python docs/examples/python/watch_config.py --nodes 127.0.0.1:8080 --prefix config:

It prints all settings, and from then on each change, until it is stopped or ``--changes``
have come. Its place is kept in the file ``--token``, if that is given: so the next run
goes on where this one has ended, and tells what has changed in between. KRITA_ADMIN_TOKEN
in the environment is used, if the cluster asks for a token (which is another thing).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import krita


def show(key: bytes, data: bytes | None) -> None:
    """One setting, as it is now."""
    value = "(not set)" if data is None else data.decode(errors="replace")
    print(f"{key.decode(errors='replace')} = {value}", flush=True)


def follow(db: krita.Client, prefix: str, place: Path | None, changes: int | None) -> None:
    """All settings, then every change."""
    token = place.read_text() if place is not None and place.exists() else None
    with db.watch(prefix=prefix, token=token) as watch:
        if token is None:
            watch.begin()  # in front of the reading, so that nothing is missed in between
            read(db, prefix)
        while changes != 0:
            try:
                event = next(watch)
            except krita.Compacted:
                read(db, prefix)  # we were away for too long
                continue
            show(event.key, event.data)
            if place is not None:
                place.write_text(watch.token)
            changes = None if changes is None else changes - 1


def read(db: krita.Client, prefix: str) -> None:
    """All settings as they are."""
    for item in db.scan(prefix):
        show(item.key, item.data)
    print("-- watching", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="print settings and their changes")
    parser.add_argument("--nodes", default="127.0.0.1:8080")
    parser.add_argument("--prefix", default="config:")
    parser.add_argument("--token", type=Path, help="the file to keep the place in")
    parser.add_argument("--changes", type=int, help="how many to wait for")
    options = parser.parse_args()
    with krita.connect(options.nodes, token=os.environ.get("KRITA_ADMIN_TOKEN")) as db:
        follow(db, options.prefix, options.token, options.changes)


if __name__ == "__main__":
    main()
