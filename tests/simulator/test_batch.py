"""Many lives: what somebody gets who ends them early."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.node import wait_until

ROOT = Path(__file__).parents[2]


def _catches(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_totals_are_printed_when_it_is_told_to_stop(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.simulator", "--minutes", "60", "--jobs", "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        wait_until("it lives", lambda: _catches(process.pid, signal.SIGTERM))
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "simulated hours" in out
    assert "misbehaviour" in out
