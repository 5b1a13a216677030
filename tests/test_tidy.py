"""The repository polices itself: what style asks for and no linter checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FUNCTION_LINES_MAX = 70  # without its docstring; most have under 35
FILE_LINES_MAX = 500  # aim at 350: past that, look for the second noun

# Who talks to a person on standard output.
MAY_PRINT = ("kritad/cli.py", "kritad/dev.py")

# Spelt so that this file does not hold them itself.
LEFTOVERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def python_files() -> list[Path]:
    folders = ("kritad", "kritash", "protocol", "tests", "benchmarks", "docs", "packaging")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def lines_without_docstring(function: Function) -> int:
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def problems(name: str, source: str) -> Iterator[str]:
    """What is untidy in a file of this name (relative to the root), one line each."""
    tree = ast.parse(source)
    count = len(source.splitlines())
    if count > FILE_LINES_MAX:
        yield f"has {count} lines, over {FILE_LINES_MAX}"
    if len((ast.get_docstring(tree) or "").strip(" .")) < 10:
        yield "has no docstring that says what it is"
    for number, line in enumerate(source.splitlines(), 1):
        if LEFTOVERS.search(line):
            yield f"line {number} puts something off until later"
    for node in ast.walk(tree):
        found = _problem(name, node)
        if found:
            yield f"line {getattr(node, 'lineno', 0)}: {found}"


def _problem(name: str, node: ast.AST) -> str:
    if isinstance(node, Function) and lines_without_docstring(node) > FUNCTION_LINES_MAX:
        return f"{node.name} has {lines_without_docstring(node)} lines, over {FUNCTION_LINES_MAX}"
    if isinstance(node, ast.ExceptHandler) and node.type is None:
        return "a bare except catches even the request to stop"
    if name.startswith("tests/") and _is_time_sleep(node):
        return "a test waits for what happens, it does not sleep"
    if name.startswith("kritad/") and name not in MAY_PRINT and _is_call_of_print(node):
        return "print; the daemon logs"
    return ""


def _is_time_sleep(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "time" and any(alias.name == "sleep" for alias in node.names)
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "sleep"
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    )


def _is_call_of_print(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    )


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=str(p.relative_to(ROOT))) for p in python_files()]
)
def test_a_file_is_tidy(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    found = list(problems(name, path.read_text(encoding="utf-8")))
    assert not found, f"{name}: " + "; ".join(found)


def test_nothing_but_the_known_lies_at_the_top() -> None:
    known = {
        "kritad", "kritash", "protocol", "tests", "packaging", "docs", "benchmarks",
        "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "Makefile",
        "data", "build", "dist",  # not committed
    }  # fmt: skip
    found = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and path.suffix != ".egg-info"
    }
    assert found <= known


# -- The checker itself --------------------------------------------------------

DOC = '"""A module of a test."""\n'


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("kritad/a.py", "x = 1\n", "has no docstring"),
        ("kritad/a.py", '"""."""\n', "has no docstring"),
        ("kritad/a.py", DOC + "x = 1\n" * 500, "has 501 lines, over 500"),
        ("kritad/a.py", DOC + "def f():\n" + " x = 1\n" * 70, "f has 71 lines, over 70"),
        ("kritad/a.py", DOC + "async def f():\n" + " x = 1\n" * 70, "f has 71 lines"),
        ("kritad/a.py", DOC + "print(1)", "line 2: print"),
        ("kritad/a.py", DOC + "try:\n f()\nexcept:\n pass", "line 4: a bare except"),
        ("kritad/a.py", DOC + "# TO" + "DO: later", "line 2 puts something off"),
        ("tests/a.py", DOC + "import time\ntime.sleep(1)", "line 3: a test waits"),
        ("tests/a.py", DOC + "from time import sleep", "line 2: a test waits"),
    ],
)
def test_the_checker_sees_what_is_untidy(name: str, source: str, expected: str) -> None:
    (found,) = problems(name, source)
    assert expected in found


def test_the_checker_lets_pass_what_is_tidy() -> None:
    function = 'def f():\n "' + '""Long.\n' + "\n" * 200 + ' """\n' + " x = 1\n" * 60
    assert list(problems("kritad/a.py", DOC + function)) == []
    assert list(problems("kritad/cli.py", DOC + "print(1)")) == []
    assert list(problems("tests/a.py", DOC + "import trio\nawait_ = trio.sleep")) == []
