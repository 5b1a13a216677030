"""Real input: Debian's package index goes in while the busiest leader is killed.

The suite takes the first 3,000 records. The whole index, over 60,000 of them:

    KRITA_TEST_RECORDS=0 pytest tests/system/test_packages.py -s

(0 means all, and kritad's own timings and number of shards; ``-s`` shows the loader's
progress bar and figures.)
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster import META_SHARD, Cluster
from tests.system.conftest import MakeCluster
from tests.system.node import ROOT, TIMEOUT_S, environment, wait_until

pytestmark = pytest.mark.slow

LOADER = ROOT / "docs" / "examples" / "load_packages.py"
RECORDS = int(os.environ.get("KRITA_TEST_RECORDS", "3000"))
DUMP_RECORDS_MIN = 10_000  # fewer is no package index, but a machine without lists
# Few at a time make a small load last until the third blow.
IN_FLIGHT = 256 if RECORDS == 0 else 2
TIMEOUT_ALL_S = 600.0


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A file with RECORDS records of Debian's, or some that look alike."""
    path = tmp_path / "index"
    dump = b""
    if shutil.which("apt-cache"):
        done = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=False)
        dump = done.stdout
    paragraphs = dump.strip(b"\n").split(b"\n\n")
    if len(paragraphs) < DUMP_RECORDS_MIN:
        paragraphs = invented(RECORDS or 60_000)
    path.write_bytes(b"\n\n".join(paragraphs[: RECORDS or None]) + b"\n\n")
    return path


def invented(count: int) -> list[bytes]:
    """Records of a size and shape like Debian's, with some that are not UTF-8."""
    chance = random.Random("packages")
    return [
        b"Package: invented-%d\nVersion: %d\nDescription: " % (number, chance.randrange(100))
        + chance.randbytes(chance.randrange(200, 3000)).replace(b"\n", b" ").replace(b"\r", b" ")
        for number in range(count)
    ]


def loader(cluster: Cluster, index: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """The example, started as a user does."""
    command = [sys.executable, str(LOADER), "--json", f"--nodes={cluster.addresses}"]
    return subprocess.Popen(
        [*command, f"--file={index}", *arguments], env=environment(), stdout=subprocess.PIPE
    )


def finish(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Wait for the loader; its figures."""
    try:
        output, _ = process.communicate(timeout=TIMEOUT_ALL_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output.decode()
    steps = json.loads(output)
    assert isinstance(steps, list)
    print(json.dumps(steps, indent=2), file=sys.stderr)  # shown with -s, or on failure
    return steps


def applied(cluster: Cluster) -> int:
    """How many entries all data shards have applied together: grows with the load."""
    status = cluster.status()
    if status is None:
        return 0
    replicas = [s["replicas"] for s in status["shards"] if s["shard"] != META_SHARD]
    return sum(max(r["applied"] or 0 for r in found) for found in replicas)


Hold = Callable[[], AbstractContextManager[None]]
Blow = Callable[[Cluster, Hold], None]


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The process does nothing meanwhile; what it has asked for is on its way."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def kill_the_busiest(cluster: Cluster, hold: Hold) -> None:
    """kill -9 of the node that leads most shards; it is restarted when others lead."""
    victim = cluster.busiest()
    victim.kill()
    with hold():
        cluster.wait_leaders(without=[victim])
        victim.restart()


def kill_all(cluster: Cluster, hold: Hold) -> None:
    """kill -9 of every node, and a restart of all."""
    for node in cluster.nodes:
        node.kill()
    with hold():
        cluster.start_all()


def load(cluster: Cluster, index: Path, count: int, prefix: str, blows: list[Blow]) -> None:
    """Load the index, with each of ``blows`` dealt at its share of the way; everything
    has to be acknowledged in the end."""
    before = applied(cluster)
    process = loader(cluster, index, f"--in_flight={IN_FLIGHT}", f"--prefix={prefix}")
    # A small load would be done before the third restart, where the machine is quick.
    hold: Hold = (lambda: stopped(process)) if RECORDS else nullcontext
    try:
        for number, blow in enumerate(blows, 1):
            # The last blow is early enough for some to be loaded after it.
            goal = before + count * number // (len(blows) + 2)
            wait_until(
                f"blow {number} is due",
                lambda goal=goal: process.poll() is not None or applied(cluster) >= goal,  # type: ignore[misc]
                TIMEOUT_ALL_S,
            )
            assert process.poll() is None, f"the loader ended before blow {number}"
            blow(cluster, hold)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    (step,) = finish(process)
    assert (step["done"], step["records"]) == (count, count)


def check(cluster: Cluster, index: Path, count: int, prefix: str) -> None:
    """Every record, through every node and in every node's own copy."""
    cluster.settle(timeout_s=2 * TIMEOUT_S)
    steps = finish(loader(cluster, index, "--verify", "--own_copy", f"--prefix={prefix}"))
    assert len(steps) == 2 * len(cluster.nodes)
    for step in steps:
        assert (step["done"], step["wrong"]) == (count, [])


def test_the_package_index_is_loaded_whole_while_nodes_are_killed(
    make_cluster: MakeCluster, index: Path
) -> None:
    cluster = make_cluster(fast=bool(RECORDS))
    cluster.start()
    lines = index.read_bytes().split(b"\n")
    count = len({line for line in lines if line.startswith(b"Package: ")})
    load(cluster, index, count, "first:", [kill_the_busiest] * 3)
    check(cluster, index, count, "first:")
    load(cluster, index, count, "second:", [kill_all])
    check(cluster, index, count, "second:")
    check(cluster, index, count, "first:")
