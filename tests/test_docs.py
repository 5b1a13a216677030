"""What the documents say is so: examples run, links lead somewhere, tables are current.

Conventions that the documents keep (docs/style.md tells their writers):

* A ```` ```console ```` block is run, in the order of the document, against three real
  nodes in place of 127.0.0.1:8080 to 8082. ``$ `` begins a command; what follows is its
  output, in which ``…`` stands for anything within a line, and alone for any lines.
  Dates, lengths and revisions are not compared, nor how many blanks there are.
* A ```` ```python ```` block is run too, and has to print what stands in comments behind
  its ``print``. Other blocks are for reading.
* A table between ``<!-- table: NAME -->`` and ``<!-- end -->`` is made from the code;
  ``python -m tests.docs_tables`` writes all of them anew.
* In docs/architecture.md a file in backticks exists, and where ``: `` and names in
  backticks follow it, it defines them.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from krita import Client
from krita.errors import ERRORS
from kritad.server.http_answers import error_code
from kritad.server.limits import ServerLimits
from tests.docs_tables import OPERATIONS, SHELL, TABLE, TABLES, with_current_tables
from tests.system.cluster import Cluster
from tests.system.node import Node, environment, wait_until

ROOT = Path(__file__).parents[1]
README, HTTP = ROOT / "README.md", ROOT / "docs" / "http.md"
CLIENT, EXAMPLES = ROOT / "docs" / "client.md", ROOT / "docs" / "examples" / "python"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
DOCUMENTS = [README, ROOT / "protocol" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

TIMEOUT_S = 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# -- Examples ------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes for the documents' examples. While leaders are still being spread, a node
    may for a moment know of none: the examples begin when every node has seen the end of it."""
    with Cluster(tmp_path_factory.mktemp("docs")) as cluster:
        cluster.start()
        wait_until("all nodes see the leaders spread", lambda: all(map(is_calm, cluster.nodes)))
        yield cluster


def is_calm(node: Node) -> bool:
    """Whether each of three nodes leads one of the four data shards, or two, as this one
    sees it: nothing is then moved any more."""
    with Client(node.address) as client:
        (shards,) = client.call("shard_list", node=node.address)
    leaders = {shard["leader"] for shard in shards if shard["shard"]}
    return leaders == {1, 2, 3} and node.http("GET", "/health")[0] == 200


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the commands that examples use: ours from this checkout, and a curl
    that shows no progress, as it shows none where it writes to a terminal."""
    curl = shutil.which("curl")
    assert curl, "the examples need curl"
    folder = tmp_path_factory.mktemp("bin")
    for name in ("kritad", "kritash"):
        write_command(folder / name, [sys.executable, "-m", name])
    write_command(folder / "curl", [curl, "-sS"])
    return folder


def write_command(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.M | re.S)


def examples(path: Path) -> list[tuple[str, str]]:
    """(command, expected output) of every console block."""
    found = []
    for block in blocks(path, "console"):
        assert block.startswith("$ "), f"{name_of(path)}: a console block begins with a command"
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


VARYING = (
    (r"^(Date|Content-Length): .*$", r"\1: …"),
    (r'^ETag: "[0-9]+"$', "ETag: …"),
    (r"^Krita-Revision: [0-9]+$", "Krita-Revision: …"),
    (r'("revision": ?)[0-9]+', r"\1…"),
    (r"\brevision [0-9]+", "revision …"),
    (r"[ \t]+", " "),
)


def normal(text: str) -> str:
    """Output without what differs from one run to the next."""
    text = text.replace("\r", "")
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text, flags=re.M)
    return text.strip()


def matches(output: str, expected: str) -> bool:
    """Whether this is what the document shows."""
    pattern = ""
    for line in normal(expected).split("\n"):
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += re.escape(line).replace("…", ".*?") + r"\n"
    return re.fullmatch(pattern, normal(output) + "\n") is not None


def run_example(cluster: Cluster, commands: Path, command: list[str]) -> str:
    """What the command writes to both its outputs."""
    own = {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "KRITA_NODES": cluster.nodes[0].address,
    }
    done = subprocess.run(
        command,
        env=environment(own),
        cwd=cluster.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout


def on_this_cluster(text: str, cluster: Cluster) -> str:
    """An example's text with the ports that these nodes have."""
    for node, port in zip(cluster.nodes, (8080, 8081, 8082), strict=True):
        text = text.replace(f"127.0.0.1:{port}", node.address)
    return text.replace(".venv/bin/", "")


@pytest.mark.slow
@pytest.mark.parametrize("path", [README, HTTP, OPERATIONS, SHELL], ids=name_of)
def test_the_examples_of_a_document_give_what_it_shows(
    cluster: Cluster, commands: Path, path: Path
) -> None:
    wrong = []
    for command, expected in examples(path):
        line = on_this_cluster(command, cluster)
        output = run_example(cluster, commands, ["sh", "-c", line])
        if not matches(output, on_this_cluster(expected, cluster)):
            wrong.append(f"$ {command}\n{output}\ninstead of\n{expected}")
    assert not wrong, f"{name_of(path)}:\n\n" + "\n\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("path", [README, CLIENT], ids=name_of)
def test_the_python_of_a_document_prints_what_its_comments_say(
    cluster: Cluster, commands: Path, path: Path
) -> None:
    for block in blocks(path, "python"):
        expected = re.findall(r"print\(.*\)  # (.*)$", block, re.M)
        assert expected
        code = on_this_cluster(block, cluster)
        output = run_example(cluster, commands, [sys.executable, "-W", "error", "-c", code])
        assert output.splitlines() == expected


def start_program(cluster: Cluster, name: str, *options: str) -> subprocess.Popen[str]:
    """One of docs/examples, on its way."""
    nodes = f"--nodes={cluster.addresses}"
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / name), nodes, *options],
        env=environment({}),
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(program: subprocess.Popen[str]) -> str:
    """What it has printed, when it has ended well."""
    with program:
        try:
            output, _ = program.communicate(timeout=TIMEOUT_S)
        finally:
            program.kill()
    assert program.returncode == 0, output
    return output


@pytest.mark.slow
def test_the_example_of_a_lock_lets_every_worker_in_once(cluster: Cluster) -> None:
    output = finish(start_program(cluster, "take_turns.py", "--workers=6"))
    assert sorted(output.splitlines()) == [f"worker {n} has been here" for n in range(1, 7)]


@pytest.mark.slow
def test_the_example_of_a_lease_is_listed_while_it_runs(cluster: Cluster) -> None:
    options = ("--name=a", "--ttl_ms=3000", "--seconds=0.1")
    output = finish(start_program(cluster, "stay_registered.py", *options))
    assert output.splitlines() == ["listed: service:a", "gone"]


@pytest.mark.slow
def test_the_example_of_a_watch_goes_on_where_it_has_ended(
    cluster: Cluster, tmp_path: Path
) -> None:
    with Client(cluster.addresses) as db:
        db.put("watched:a", "1")
        options = ("--prefix=watched:", f"--token={tmp_path / 'token'}", "--changes=1")
        first = start_program(cluster, "watch_config.py", *options)
        assert first.stdout is not None
        told = [first.stdout.readline(), first.stdout.readline()]
        db.put("watched:b", "2")
        assert [*told, finish(first)] == ["watched:a = 1\n", "-- watching\n", "watched:b = 2\n"]
        db.delete("watched:a")
        again = finish(start_program(cluster, "watch_config.py", *options))
        assert again == "watched:a = (not set)\n"


@pytest.mark.parametrize(
    ("output", "expected", "fits"),
    [
        ("HTTP/1.1 200 OK\r\nDate: now\r\n", "HTTP/1.1 200 OK\nDate: then\n", True),
        ("HTTP/1.1 404 Not Found\n", "HTTP/1.1 200 OK\n", False),
        ('{"revision":17}', '{"revision":3}', True),
        ("ok\trevision 7\tnew\n", "ok  revision 9  new", True),
        ("ok\trevision 7\treplaced\n", "ok  revision 9  new", False),
        ("a 1 z\n", "a … z", True),
        ("a 1\nz\n", "a … z", False),
        ("a\nb\nc\nz\n", "a\n…\nz", True),
        ("a\nz\n", "a\n…\nz", True),
        ("a\nb\n", "a\n…\nz", False),
        ("a\nb\nc\n", "a\n…", True),
        ("a.z", "a…\n", True),
        ("abz", "a.z\n", False),
        ("anything", "", False),
    ],
)
def test_the_comparison_of_examples_tells_right_from_wrong(
    output: str, expected: str, fits: bool
) -> None:
    assert matches(output, expected) is fits


# -- Links ---------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The names of a document's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_of_a_document_leads_somewhere(path: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


def test_the_readme_links_every_document() -> None:
    links = set(re.findall(r"\]\(([^)\s#]+)", README.read_text()))
    assert {name_of(path) for path in DOCUMENTS} - {"README.md"} <= links


# -- Tables --------------------------------------------------------------------


def test_the_tables_that_follow_from_the_code_are_current() -> None:
    found = []
    for path in (OPERATIONS, SHELL):
        text = path.read_text()
        found += [table[2] for table in TABLE.finditer(text)]
        assert text == with_current_tables(text), "python -m tests.docs_tables writes them anew"
    assert sorted(found) == sorted(TABLES)


def table_rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without the backticks."""
    _, found, text = path.read_text().partition(f"\n{heading}\n")
    assert found, f"{name_of(path)} has no {heading}"
    table = re.search(r"^\|.*?\n(?=\n)", text, re.M | re.S)
    assert table, f"{name_of(path)} has no table below {heading}"
    lines = table[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_the_metrics_of_a_node_are_those_that_are_documented(cluster: Cluster) -> None:
    status, body = cluster.nodes[0].http("GET", "/metrics")
    assert status == 200
    exposed = set(re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.M))
    documented = {(cells[0], cells[1]) for cells in table_rows(OPERATIONS, "## Metrics")}
    assert documented == exposed


def test_every_error_is_documented_with_the_http_status_that_it_has() -> None:
    rows = table_rows(HTTP, "## Errors")
    documented = {(int(code), cells[1]) for cells in rows for code in cells[0].split(",")}
    for status, error in ERRORS.items():
        pair = (error_code(error("")), status.name.lower())
        assert pair in documented


def test_every_address_of_the_server_is_documented() -> None:
    source = (ROOT / "kritad" / "server" / "http_routes.py").read_text()
    addresses = set(re.findall(r'b"(/\w+)"', source))
    assert len(addresses) > 4, "the table of routes is no longer recognised"
    assert {each for each in addresses if f"{each}`" not in HTTP.read_text()} <= {"/v1"}


def test_the_limits_of_http_are_those_of_the_code() -> None:
    limits = ServerLimits()
    text = HTTP.read_text()
    for said in (
        f"{limits.url_bytes_max:,} bytes",
        f"{limits.headers_max} of them, {limits.head_bytes_max >> 10} KiB",
        f"| the first head of a connection | {limits.first_head_s:.0f} s",
        f"| each later head, from its first byte | {limits.head_s:.0f} s",
        f"| a body | {limits.body_s:.0f} s",
        f"| taking an answer | {limits.write_s:.0f} s",
        f"| idle between two requests | {limits.idle_s:.0f} s",
        f"| connections | `connections_max`: {limits.connections_max}",
    ):
        assert said in text


# -- Architecture --------------------------------------------------------------


def definitions(path: Path) -> set[str]:
    """What a Python file defines: names, and ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{inner.name}")
                if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                    found.add(f"{node.name}.{inner.target.id}")
    return found


FILE = r"`((?:[\w.\-]+/)+[\w.\-]+)`"
NAMED = re.compile(FILE + r"(?::\s((?:`[\w.]+`(?:,\s|\sand\s)?)+))?")


def test_what_the_architecture_names_is_there() -> None:
    """A name that no file stands in front of has to be defined somewhere."""
    folders = ("kritad", "kritash", "protocol", "tests")
    known = set().union(*(definitions(p) for each in folders for p in (ROOT / each).rglob("*.py")))
    known |= {name.rpartition(".")[2] for name in known}
    text = re.sub(r"^```.*?^```$", "", ARCHITECTURE.read_text(), flags=re.M | re.S)
    names = set(re.findall(r"`([A-Z]\w+\.\w+|[A-Z][a-z]\w*[A-Z]\w*|[a-z]+_\w+)`", text))
    assert len(names) > 50, "the names are no longer recognised"
    unknown = names - known
    assert not unknown


def test_the_files_that_the_architecture_names_define_what_it_says() -> None:
    missing = []
    found = list(NAMED.finditer(ARCHITECTURE.read_text()))
    assert len(found) > 50, "the files are no longer recognised"
    for reference in found:
        path = ROOT / reference[1]
        if not path.exists():
            missing.append(reference[1])
        elif reference[2]:
            names = set(re.findall(r"`([\w.]+)`", reference[2]))
            missing += [f"{reference[1]}: {name}" for name in sorted(names - definitions(path))]
    assert not missing
