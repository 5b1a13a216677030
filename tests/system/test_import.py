"""kritash key import with real nodes: everything that it says it has put is there, also
when a leader is killed while it puts, and repeating it changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.cluster import Cluster
from tests.system.node import environment, wait_until
from tests.system.shell import kritash

pytestmark = pytest.mark.slow

RECORDS = 5000
TIMEOUT_S = 60


def write_records(path: Path) -> None:
    with path.open("w") as file:
        for number in range(RECORDS):
            record = {"key": f"import:{number}", "value": str(number), "content_type": "text/plain"}
            file.write(json.dumps(record) + "\n")


def check(cluster: Cluster) -> None:
    """Every record is there as it was written, content type and all."""
    with cluster.client() as client:
        for start in range(0, RECORDS, 500):
            with client.pipeline() as pipeline:
                for number in range(start, start + 500):
                    pipeline.get(f"import:{number}")
            for at, item in enumerate(pipeline.items, start):
                value = item.value()
                assert getattr(value, "data", None) == str(at).encode()
                assert getattr(value, "content_type", None) == "text/plain"


def test_an_import_survives_the_death_of_a_leader_and_may_be_repeated(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path)
    victim = cluster.busiest()
    command = [sys.executable, "-m", "kritash", "--json", "--nodes", cluster.addresses]
    importing = subprocess.Popen(
        [*command, "--timeout-ms", "20000", "key", "import", str(path)],
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        with cluster.client() as client:
            wait_until("the import is under way", lambda: client.get(f"import:{RECORDS // 10}"))
        victim.kill()
        out, _ = importing.communicate(timeout=TIMEOUT_S)
    finally:
        importing.kill()
        importing.wait()
    assert importing.returncode == 0
    summary = json.loads(out)
    assert (summary["records"], summary["new"], summary["replaced"]) == (RECORDS, RECORDS, 0)
    victim.restart()
    check(cluster)
    again = kritash(cluster, "key", "import", str(path), "--if-absent")
    assert (again["new"], again["kept"]) == (0, RECORDS)
