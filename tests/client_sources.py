"""The blocking client's surface, made from the asynchronous one.

``python -m tests.client_sources`` writes the files of ``krita.blocking`` anew from their twins
in ``krita.aio``: the same without ``async`` and ``await``. A test fails when they are not
current. What differs in more than that is written twice, and named here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

KRITA = Path(__file__).parents[1] / "protocol" / "krita"
NAMES = (
    "cluster", "elections", "groups", "holding", "keys", "leases", "locks", "past", "ranges",
    "runner", "scans", "watches",
)  # fmt: skip
# A task group, events: these have twins that are written by hand, or no need of one.
BY_HAND = frozenset({"__init__", "client", "keeper", "mailbox", "pipeline", "turns", "wire"})

_NOTE = "# Made from krita/aio/{name}.py by tests/client_sources.py: change it there.\n"
_RULES = (
    (r"Callable\[\[\], Awaitable\[object\]\]", "Callable[[], object]"),
    (r"import Awaitable, Callable", "import Callable"),
    (r"krita\.aio\.pipeline", "krita.pipeline"),
    (r"krita\.aio\.", "krita.blocking."),
    (r"StopAsyncIteration", "StopIteration"),
    (r"\bAsync([A-Z]\w*)\b", r"\1"),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
)


def blocking_source(name: str) -> str:
    """The text of ``krita/blocking/NAME.py``."""
    text = (KRITA / "aio" / f"{name}.py").read_text(encoding="utf-8")
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    return _tidied(_NOTE.format(name=name) + text)


def _tidied(text: str) -> str:
    """Without ``async`` lines are shorter, and imports in another order."""
    for command in (["check", "--fix-only", "--quiet", "--select=I"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", "protocol/krita/x.py"]
        text = subprocess.run(
            [*ruff, "-"], input=text, capture_output=True, text=True, check=True,
            cwd=KRITA.parents[1],
        ).stdout  # fmt: skip
    return text


def main() -> None:
    """Write them all."""
    for name in NAMES:
        (KRITA / "blocking" / f"{name}.py").write_text(blocking_source(name), encoding="utf-8")


if __name__ == "__main__":
    main()
