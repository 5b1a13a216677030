"""Server processes that a benchmark starts, measures through /proc, and ends.

A process is ended by its own id, and only one that was started here. Figures
come from the kernel: /proc while it runs, its resource usage once it has ended.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field, frozen

ROOT = Path(__file__).parents[1]

POLL_S = 0.02
STOP_TIMEOUT_S = 45.0
LOG_LINES_SHOWN = 8
# The unit of ru_oublock, which is write_bytes of /proc/PID/io in other words.
BLOCK_BYTES = 512
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A benchmark cannot go on; the message says why and, if we know, what to do."""


@frozen
class Memory:
    """Of one process. ``pss_bytes`` divides what several processes share among them."""

    rss_bytes: int
    pss_bytes: int


@define(eq=False)
class Process:
    """A server, running or not; its output goes to ``log``, one start after another."""

    name: str
    command: tuple[str, ...]
    log: Path
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    # Bytes that the process, now ended, had sent to the disk.
    written_at_end: int = 0

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Reaps the process if it has ended."""
        if self._process is None:
            return False
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return True
        self._ended(status, usage)
        return False

    def start(self) -> None:
        """A session of its own: Ctrl-C is for the benchmark, which ends its servers itself."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.log.parent,
                env=plain_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Does nothing to a process that has ended. Not reaped yet, its id is still its own."""
        if self.running:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended in time."""
        deadline = time.monotonic() + timeout_s
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def kill(self) -> None:
        """kill -9; returns when it is gone."""
        self.signal(signal.SIGKILL)
        if not self.wait(STOP_TIMEOUT_S):
            raise BenchmarkError(f"{self.name} (process {self.pid}) survives SIGKILL")

    def cpu_s(self) -> float:
        """Processor time so far, user and system, seconds."""
        return parse_cpu_ticks(self._proc("stat")) / CLOCK_TICKS

    def memory(self) -> Memory:
        rollup = self._proc("smaps_rollup")
        return Memory(parse_kib_line(rollup, "Rss"), parse_kib_line(rollup, "Pss"))

    def written_bytes(self) -> int:
        """What it caused to be sent to the disk since it started: whole pages, so
        more than it wrote, and the file system's own journal not included."""
        return parse_count(self._proc("io"), "write_bytes")

    def last_words(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in lines[-LOG_LINES_SHOWN:])

    def _proc(self, name: str) -> str:
        return Path(f"/proc/{self.pid}/{name}").read_text()

    def _ended(self, status: int, usage: resource.struct_rusage) -> None:
        assert self._process is not None
        self.written_at_end = usage.ru_oublock * BLOCK_BYTES
        # Else Popen, which did not see it end, would warn of a process left behind.
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._process = None


def parse_cpu_ticks(stat: str) -> int:
    """utime and stime of /proc/PID/stat. The name before them may hold blanks and brackets."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def parse_count(text: str, name: str) -> int:
    """The number in the line ``name: number``. Raises BenchmarkError."""
    for line in text.splitlines():
        label, _, rest = line.partition(":")
        if label == name:
            return int(rest.split()[0])
    raise BenchmarkError(f"the kernel does not say {name}")


def parse_kib_line(text: str, name: str) -> int:
    """Bytes of a line ``name: number kB``. Raises BenchmarkError."""
    return parse_count(text, name) * 1024


def plain_environment() -> dict[str, str]:
    """The environment without anything that would change a server's defaults, and
    with this checkout's packages."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KRITA_", "ETCD_", "ETCDCTL_")) and name != "LISTEN_IP"
    }
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "protocol")))
    return environment


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    with_sockets = [socket.socket() for _ in range(count)]
    try:
        for one in with_sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in with_sockets]
    finally:
        for one in with_sockets:
            one.close()


def stop_all(processes: Sequence[Process]) -> None:
    """SIGTERM to all, then wait; SIGKILL for what takes too long, which is an error."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    slow = [p for p in processes if not p.wait(max(deadline - time.monotonic(), 0.0))]
    kill_all(slow)
    if slow:
        names = ", ".join(process.name for process in slow)
        raise BenchmarkError(f"not stopped {STOP_TIMEOUT_S:.0f} s after SIGTERM, killed: {names}")


def kill_all(processes: Sequence[Process]) -> None:
    for process in processes:
        process.signal(signal.SIGKILL)
    for process in processes:
        process.kill()


def wait_until(
    what: str,
    condition: Callable[[], bool],
    processes: Sequence[Process],
    timeout_s: float = 60.0,
    poll_s: float = 0.1,
) -> None:
    """Raises BenchmarkError, with the end of a log, when one of the processes has
    ended or it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        for process in processes:
            if not process.running:
                raise BenchmarkError(f"{process.name} has ended:\n{process.last_words()}")
        if time.monotonic() > deadline:
            raise BenchmarkError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(poll_s)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the benchmark as Ctrl-C does: through every ``finally``."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
