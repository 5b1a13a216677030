"""kritash as its users start it, in a process of its own, or in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import attrs

from kritash.cli import run
from kritash.output import Output

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


def kritash_here(*arguments: str, stdin: bytes = b"", **variables: str) -> Result:
    """The same without the half second that a process takes, for what is not about that."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin), "utf-8")
    with patch.dict(os.environ, environment(**variables), clear=True), patch("sys.stdin", given):
        code = run(arguments, Output(out, err))
    for stream in (out, err):
        stream.flush()
    return Result(int(code), _bytes_of(out), _bytes_of(err).decode())


def _bytes_of(stream: io.TextIOWrapper) -> bytes:
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()
