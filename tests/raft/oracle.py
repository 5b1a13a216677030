"""Reads the data-driven test files of other projects, where they are to be had.

The files stand beside the checkout (``../shared/oracles``) and are no part of it.
A case is a command line, input lines, ``----``, and the expected output up to a
blank line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ETCD_RAFT = Path(__file__).resolve().parents[3] / "shared" / "oracles" / "etcd-raft"


@attrs.frozen
class Case:
    """One case and where it stands."""

    file: str
    line: int
    command: str
    arguments: dict[str, list[str]]
    input: list[str]
    expected: list[str]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def require(folder: str) -> list[list[Case]]:
    """The cases of each file of ``folder``; skips the test where it is absent."""
    files = sorted((ETCD_RAFT / folder).glob("*.txt"))
    if not files:
        pytest.skip(f"etcd raft's {folder} files are not beside this checkout")
    return [list(_cases(file)) for file in files]


def _cases(file: Path) -> Iterator[Case]:
    head: list[str] = []
    start = 0
    lines = iter(enumerate([*file.read_text().splitlines(), ""], start=1))
    for number, line in lines:
        if line.strip() == "----":
            expected = []
            for _, output in lines:
                if not output.strip():
                    break
                if not output.startswith("#"):
                    expected.append(output.rstrip())
            yield _case(file.name, start, head, expected)
            head = []
        elif line.strip() and not line.startswith("#"):
            start = start if head else number
            head.append(line.strip())


def _case(file: str, line: int, head: list[str], expected: list[str]) -> Case:
    command, *words = re.findall(r"[^\s=]+=\([^)]*\)|\S+", head[0])
    arguments = {}
    for word in words:
        name, _, value = word.partition("=")
        arguments[name] = [part.strip() for part in value.strip("()").split(",") if part.strip()]
    return Case(file, line, command, arguments, head[1:], expected)
