"""What the tests of the shell's commands on data share: nodes that hold real states of shards,
and kritash run against them in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from krita.client import Client
from tests.kritash.shell import Result, kritash_here
from tests.protocol import server
from tests.protocol.server import Cluster


@attrs.frozen
class Shell:
    """kritash, where a test's cluster is. ``db``: a client of the test's own."""

    cluster: Cluster
    db: Client

    def __call__(self, *words: str, stdin: bytes = b"", code: int = 0) -> Result:
        """Runs a command, which has to end with this code."""
        done = kritash_here("--nodes", self.cluster.seeds, *words, stdin=stdin)
        assert done.code == code, done
        return done

    def said(self, *words: str, stdin: bytes = b"", code: int = 0) -> list[str]:
        """The lines of its result, their cells apart by blanks."""
        out = self(*words, stdin=stdin, code=code).out.decode()
        return [line.replace("\t", " ") for line in out.splitlines()]

    def json(self, *words: str, stdin: bytes = b"", code: int = 0) -> Any:
        """The document of its result."""
        return json.loads(self("--json", *words, stdin=stdin, code=code).out)

    def error(self, *words: str, code: int) -> str:
        """What it complains of; it prints no result."""
        done = self(*words, code=code)
        assert done.out == b""
        return done.err


@pytest.fixture
def states() -> Iterator[Cluster]:
    """Nodes with real states of shards; their clock stands still."""
    with server.running() as cluster:
        yield cluster


@pytest.fixture
def shell(states: Cluster) -> Iterator[Shell]:
    with Client(states.seeds) as db:
        yield Shell(states, db)
