#!/usr/bin/env python3
"""First steps with the blocking client, for scripts:

    python docs/examples/python/blocking.py [127.0.0.1:8080,127.0.0.1:8081]

KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.
"""

from __future__ import annotations

import os
import sys

import krita

GREETING = "example:greeting"
VISITS = "example:visits"


def first_steps(db: krita.Client) -> None:
    """Put, get, delete, and what a condition is for."""
    put = db.put(GREETING, "hello", content_type="text/plain")
    value = db.get(GREETING)
    assert value is not None
    print(f"{GREETING} is {value.text()}")

    # Only what has been read is replaced: whoever was faster wins.
    db.put(GREETING, "hello again", if_revision=put.revision)
    try:
        db.put(GREETING, "too late", if_revision=put.revision)
    except krita.ConditionFailed as error:
        print(f"refused, {error.outcome.name.lower()}: {error.message}")

    db.delete(GREETING)
    print(f"{GREETING} is {db.get(GREETING)}")


def add(db: krita.Client, key: str, amount: int) -> int:
    """Add to a number that others add to as well; returns what it is then."""
    while True:
        value = db.get(key)
        number, revision = (int(value.text()), value.revision) if value else (0, 0)
        try:
            db.put(key, str(number + amount), if_revision=revision)  # 0: only if it is absent
        except krita.ConditionFailed:
            continue  # somebody else was faster: look again
        return number + amount


def main() -> int:
    """The program; returns the exit status."""
    nodes = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8080"
    try:
        with krita.connect(nodes, token=os.environ.get("KRITA_ADMIN_TOKEN")) as db:
            first_steps(db)
            db.delete(VISITS)
            visits = [add(db, VISITS, 1) for _ in range(10)]
            print(f"{visits[-1]} visits")
    except krita.KritaError as error:
        print(f"{error.message} ({error.outcome.name.lower()}) {error.hint}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
