"""The programs of docs/examples do what they say, with real nodes that ask for a token. (What
else those with options do is in tests/test_docs.py and tests/system/test_packages.py; the client
of docs/examples/node has tests of its own.)"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.protocol.node_agent import needs_node
from tests.system.cluster import Cluster
from tests.system.conftest import TOKEN
from tests.system.node import ROOT, environment

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "docs" / "examples"
TIMEOUT_S = 400  # the first time Go compiles its library

FIRST_STEPS = """\
example:greeting is hello
refused, not_applied: …
example:greeting is None
10 visits
"""
MANY_AT_ONCE = """\
100 written, 0 errors
their sum is 328350
12 squared is 144
1 of 10 has created it
"""


def run(command: list[str], expected: str, token: str | None = TOKEN, **variables: str) -> None:
    """Run it to its end, and compare what it printed; … stands for anything in a line."""
    own = variables if token is None else {**variables, "KRITA_ADMIN_TOKEN": token}
    done = subprocess.run(
        command,
        env=environment(own),
        cwd=EXAMPLES,
        input="Package: for-the-loader\n\n",  # an index, for the loader
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pattern = re.escape(expected).replace("…", ".+")
    assert re.fullmatch(pattern, done.stdout), done.stdout


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program}")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blocking.py", FIRST_STEPS),
        ("with_trio.py", FIRST_STEPS),
        ("with_asyncio.py", MANY_AT_ONCE),
    ],
)
def test_a_python_example_does_what_it_says(shared: Cluster, name: str, expected: str) -> None:
    run([sys.executable, "-W", "error", f"python/{name}", shared.addresses], expected)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("take_turns.py", ["--workers=2"], "worker … has been here\nworker … has been here\n"),
        ("stay_registered.py", ["--name=web-9", "--seconds=0"], "listed: …\ngone\n"),
        ("watch_config.py", ["--prefix=no:", "--changes=0"], "-- watching\n"),
    ],
)
def test_an_example_with_options_does_what_it_says(
    shared: Cluster, name: str, options: list[str], expected: str
) -> None:
    command = [sys.executable, "-W", "error", f"python/{name}", f"--nodes={shared.addresses}"]
    run([*command, *options], expected)


@needs("curl")
def test_the_shell_s_example_does_what_it_says(shared: Cluster) -> None:
    run(["sh", "http/first_steps.sh", f"http://{shared.nodes[1].address}"], FIRST_STEPS)


@needs_node
def test_the_javascript_example_does_what_it_says(shared: Cluster) -> None:
    run(["node", "http/first_steps.mjs", f"http://{shared.nodes[1].address}"], FIRST_STEPS)


@needs("go")
def test_the_go_example_does_what_it_says(shared: Cluster, tmp_path: Path) -> None:
    program = str(tmp_path / "first_steps")
    build = ["go", "build", "-o", program, "http/first_steps.go"]
    run(build, "", GOFLAGS="-mod=mod", GOTOOLCHAIN="local")
    run([program, f"http://{shared.nodes[2].address}"], FIRST_STEPS)


@pytest.mark.parametrize(
    "command",
    [
        ["python/blocking.py"],
        ["python/take_turns.py", "--nodes"],
        ["python/stay_registered.py", "--seconds=0", "--nodes"],
        ["python/watch_config.py", "--changes=0", "--nodes"],
        ["load_packages.py", "--file=-", "--nodes"],
    ],
)
def test_a_wrong_token_ends_an_example_with_what_to_do(shared: Cluster, command: list[str]) -> None:
    # On loopback no token would do as well: so a wrong one shows that it was taken.
    with pytest.raises(AssertionError, match="token"):
        run([sys.executable, *command, shared.addresses], "", token="a wrong token")


def test_every_example_is_in_the_table_of_the_readme() -> None:
    text = (EXAMPLES / "README.md").read_text()
    programs = [
        path.relative_to(EXAMPLES).as_posix()
        for pattern in ("*.py", "python/*", "http/*")
        for path in EXAMPLES.glob(pattern)
        if path.is_file()
    ]
    assert len(programs) > 6
    assert [name for name in programs if f"]({name})" not in text] == []
