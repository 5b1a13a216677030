"""What a figure depends on: the machine, the versions, the disk."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import kritad

FSYNCS = 50
FSYNC_BYTES = 4096


def describe(directory: Path, commands: Sequence[Sequence[str]] = ()) -> dict[str, str]:
    """Facts by name. ``commands`` print a version each; the first line of it counts.
    Writes a small file into the directory to time fdatasync; takes well under a second."""
    facts = {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{_system()}, Linux {platform.release()}",
        "file system": _file_system(directory),
        "fdatasync": f"{fdatasync_us(directory):.0f} µs (median of {FSYNCS}, 4 KiB each)",
        "load before": f"{os.getloadavg()[0]:.2f} (average of the last minute)",
        "krita": f"{kritad.__version__}, Python {platform.python_version()}",
    }
    for command in commands:
        if shutil.which(command[0]):
            facts[command[0]] = _first_line(command)
    return facts


def fdatasync_us(directory: Path) -> float:
    """The median time to make 4 KiB at the end of a file durable."""
    path = directory / "fdatasync"
    times = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(FSYNCS):
            os.write(descriptor, bytes(FSYNC_BYTES))
            start = time.perf_counter()
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    return 1e6 * statistics.median(times)


def show(facts: dict[str, str]) -> None:
    """On standard error: standard output is for the figures."""
    for name, text in facts.items():
        print(f"{name:<12} {text}", file=sys.stderr)
    print(file=sys.stderr)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _file_system(directory: Path) -> str:
    """The kind of the mount that holds the directory: the longest mount point above it."""
    real = directory.resolve()
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if real.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def _first_line(command: Sequence[str]) -> str:
    # wrk prints its version and usage, and exits with 1.
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return ((done.stdout or done.stderr).splitlines() or ["?"])[0].strip()
