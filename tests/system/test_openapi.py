"""A client that is made from /openapi.json alone finds the server as it is described.

Schemathesis makes requests that the document allows, and some that it does not, and compares
the answers with it. It is not among the project's dependencies; where it is installed
(the command ``st``), this runs.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.cluster import Cluster
from tests.system.node import environment

pytestmark = pytest.mark.slow

TIMEOUT_S = 300
# A valid request may still meet a key that is not there, or is held by somebody; how parameters
# exclude each other the document cannot say, so 400 is no surprise for an address with many.
CONFIGURATION = """
[parameters]
"query.wait" = 0
"query.timeout" = 5

[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = ["4xx"]
"""


def test_the_server_is_as_its_document_says(shared: Cluster, tmp_path: Path) -> None:
    command = shutil.which("st")
    if command is None:
        pytest.skip("schemathesis is not installed")
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    done = subprocess.run(
        [
            command, "--config-file", str(configuration), "run",
            f"http://{shared.nodes[0].address}/openapi.json",
            "--phases=examples,coverage,fuzzing", "--max-examples=5", "--exclude-path=/v1/watch",
            "--request-timeout=20", "--seed=1", "--continue-on-failure", "--no-color",
        ],
        env=environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-10_000:]
