"""One real kritad process of a test, and what may be done to it.

Rules:
* Signals go to this very process, by its handle; nothing is ever found by name.
* Nobody sleeps and hopes: ``wait_until`` polls a condition until a deadline and
  then says which condition never came true.
* The log of all of a node's lives is one file, which the report of a failing test
  quotes from.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]

# The most that anything may take on a machine that is busy with other things.
TIMEOUT_S = 40.0
_POLL_S = 0.02

# A tenth of a second instead of a second: tests wait for many elections.
FAST = (
    "--raft_tick_ms=20",
    "--raft_heartbeat_ms=80",
    "--raft_election_ms=400",
    "--shards=4",
)

T = TypeVar("T")
_pause = threading.Event()  # never set: its wait is a pause that a signal may end
_ports = itertools.cycle(range(10_000 + os.getpid() % 10_000, 30_000))


def wait_until(what: str, condition: Callable[[], T | None], timeout_s: float = TIMEOUT_S) -> T:
    """Poll until ``condition()`` is true, and return what it returned. Raises
    AssertionError saying that ``what`` never happened."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        _pause.wait(_POLL_S)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without anybody's settings of Krita, so that the checkout is run and
    nothing but the test's own settings counts."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("KRITA_") and name != "LISTEN_IP"
    }
    kept["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "protocol")))
    return kept | dict(extra or {})


def free_ports(count: int) -> list[int]:
    """Ports that the kernel says are free, none of them given out before.

    They lie below those that the kernel gives to connections that name none: there,
    a node that is down for a moment could find its port taken by another node's
    attempt to reach it.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_ports)
        with socket.socket() as sock, suppress(OSError):
            sock.bind(("127.0.0.1", port))
            found.append(port)
    return found


def run_kritad(
    *arguments: str, extra: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run kritad until it ends by itself, with what it said."""
    return subprocess.run(
        [sys.executable, "-m", "kritad", *arguments],
        env=environment(extra),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Node:
    """A place in the cluster: port, directory and settings, with a process or without."""

    def __init__(
        self,
        number: int,
        port: int,
        folder: Path,
        flags: Sequence[str] = (),
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.number = number
        self.port = port
        self.data_dir = folder / f"node{number}"
        self.log_path = folder / f"node{number}.log"
        self.flags = list(flags)
        self.environment = dict(extra or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._log_bytes = 0  # of its earlier lives

    def __repr__(self) -> str:
        process = self.process
        state = "down" if process is None else f"pid {process.pid}, {process.poll()}"
        return f"<Node {self.number} at {self.address}, {state}>"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def up(self) -> bool:
        """Whether there is a process (it may be stopped by SIGSTOP)."""
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None, self
        return self.process.pid

    def start(self) -> None:
        """Start the process; returns at once."""
        assert not self.up, self
        command = [
            sys.executable,
            "-m",
            "kritad",
            "run",
            f"--port={self.port}",
            f"--data_dir={self.data_dir}",
            *self.flags,
        ]
        self._log_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(self.environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait_ready(self, timeout_s: float = TIMEOUT_S) -> None:
        """Until /readyz says 200; fails at once when the process ends instead."""

        def ready() -> bool:
            assert self.up, f"{self} ended instead of getting ready:\n{self.log_tail(15)}"
            return self.http("GET", "/readyz")[0] == 200

        wait_until(f"node {self.number} gets ready", ready, timeout_s)

    def wait_logged(self, text: str) -> None:
        """Until this life has logged ``text``."""

        def logged() -> bool:
            return text.encode() in self.log_path.read_bytes()[self._log_bytes :]

        wait_until(f"node {self.number} logs {text!r}", logged)

    def restart(self) -> None:
        """Start and wait until it is ready."""
        self.start()
        self.wait_ready()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None, self
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = TIMEOUT_S) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None, self
        self.process.terminate()
        return self.process.wait(timeout_s)

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

        def stopped() -> bool:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "T"

        wait_until(f"node {self.number} is stopped", stopped)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def wait_exit(self, timeout_s: float = TIMEOUT_S) -> int:
        """Until it ends by itself; returns the exit status."""
        assert self.process is not None, self
        return self.process.wait(timeout_s)

    def close(self) -> None:
        """End the process, whatever state it is in. Idempotent."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()  # also ends one that SIGSTOP has stopped
            self.process.wait()

    def http(
        self, method: str, path: str, body: bytes | None = None, timeout_s: float = 10.0
    ) -> tuple[int, bytes]:
        """One HTTP request: the status and the body; (0, why) without an answer."""
        request = urllib.request.Request(f"http://{self.address}{path}", data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code, answer.read()
        except OSError as error:
            return 0, str(error).encode()

    def log_text(self) -> str:
        """All that its lives have logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int) -> str:
        """The last lines of its log."""
        return "\n".join(self.log_text().splitlines()[-lines:])
