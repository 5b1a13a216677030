"""kritash as people run it: one command, against the nodes of a test's cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.system.cluster import Cluster
from tests.system.node import environment

_TIMEOUT_S = 150.0


def kritash(cluster: Cluster, *words: str, expected: int = 0) -> Any:
    """The document that ``kritash --json`` prints for the command, None if there is none;
    fails when its exit code is another than ``expected``."""
    nodes = ",".join(node.address for node in cluster.nodes if node.up)
    done = subprocess.run(
        [sys.executable, "-m", "kritash", "--json", "--nodes", nodes, *words],
        env=environment(cluster.environment),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    said = f"kritash {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode == expected, said
    return json.loads(done.stdout) if done.stdout.strip() else None
