"""The Node.js client of docs/examples/node, told by a test what to do."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "node"
NODE = shutil.which("node")
NODE_MAJOR_MIN = 18  # what its package.json asks for
TIMEOUT_S = 60.0


def _is_usable() -> bool:
    if NODE is None:
        return False
    done = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False)
    major = done.stdout.strip().removeprefix("v").partition(".")[0]
    return major.isdigit() and int(major) >= NODE_MAJOR_MIN


needs_node = pytest.mark.skipif(
    not _is_usable(), reason=f"there is no node {NODE_MAJOR_MIN} or newer"
)


class Refused(Exception):
    """The client ended a call with a problem."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem['status']}, {problem.get('outcome')}: {problem['message']}")
        self.status: str = problem["status"]
        self.outcome: str | None = problem.get("outcome")
        self.detail: dict[str, Any] = problem.get("detail", {})


def run_node(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program of the example's folder, to its end."""
    assert NODE is not None
    return subprocess.run(
        [NODE, *map(str, arguments)],
        cwd=FOLDER,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


class Agent:
    """``with Agent(nodes) as db: db.call("put", "k", "v")``."""

    def __init__(self, nodes: str, token: str | None = None) -> None:
        assert NODE is not None
        self._process = subprocess.Popen(
            [NODE, "test/agent.js", nodes],
            cwd=FOLDER,
            env=os.environ | ({} if token is None else {"KRITA_TOKEN": token}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._answers: dict[int, dict[str, Any]] = {}
        self._unread = b""
        self._last = 0

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            code = self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
        assert code == 0 or kind is not None, f"the agent ended with {code}"

    def start(self, call: str, *arguments: Any) -> int:
        """Begin a call of the client's; ``finish`` waits for it."""
        self._last += 1
        document = {"id": self._last, "call": call, "arguments": arguments}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(document).encode() + b"\n")
        self._process.stdin.flush()
        return self._last

    def finish(self, number: int) -> Any:
        """What the call came to. Raises Refused."""
        while number not in self._answers:
            self._read()
        answer = self._answers.pop(number)
        if "problem" in answer:
            raise Refused(answer["problem"])
        return answer.get("result")

    def call(self, call: str, *arguments: Any) -> Any:
        """Both. Raises Refused."""
        return self.finish(self.start(call, *arguments))

    def _read(self) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], TIMEOUT_S)
        assert ready, "the agent does not answer"
        data = os.read(self._process.stdout.fileno(), 1 << 16)
        assert data, "the agent has ended"
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            self._answers[answer["id"]] = answer
