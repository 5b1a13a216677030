"""What the benchmarks' commands have in common: where the data is meanwhile, which machine
this is, and how the result is told."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import krita
from benchmarks import machine
from benchmarks.processes import BenchmarkError, stoppable


class Result(Protocol):
    """What a benchmark has found."""

    def to_document(self) -> dict[str, Any]: ...

    def to_text(self) -> str: ...


def make_parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The options of all benchmarks; ``doc`` is the module's, whose first line is shown."""
    parser = argparse.ArgumentParser(prog=name, description=(doc or "").split("\n")[0])
    parser.add_argument("--dir", type=Path, help="where the data is kept meanwhile (default: /tmp)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def carry_out(
    name: str, options: argparse.Namespace, run: Callable[[Path, Mapping[str, str]], Result]
) -> int:
    """Run it in a directory of its own, with the machine's facts, and print what it found;
    the exit status: 1 when it could not go on."""
    try:
        with stoppable(), tempfile.TemporaryDirectory(prefix="krita-bench-", dir=options.dir) as at:
            facts = machine.describe(Path(at))
            machine.show(facts)
            result = run(Path(at), facts)
    except (BenchmarkError, krita.KritaError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"machine": facts, **result.to_document()}, indent=2))
    else:
        print(result.to_text())
    return 0
