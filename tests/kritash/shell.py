"""kritash as its users start it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Result:
    code: int
    out: bytes
    err: str


def environment(**variables: str) -> dict[str, str]:
    """The user's environment without any KRITA_ variable but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KRITA_")}
    kept["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'protocol'}"
    return kept | variables


def kritash(*arguments: str, stdin: bytes = b"", **variables: str) -> Result:
    """Runs kritash in a pipe to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "kritash", *arguments],
        input=stdin,
        capture_output=True,
        env=environment(**variables),
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())
