"""The floors of the house (``kritad/__init__.py``): a module imports only what is below it.

The checker reads the source with ``ast``, so an import inside a function counts as
well as one at the top. Under ``if TYPE_CHECKING`` a floor may name any type of the
standard library and of other projects, but of our own only what it may import.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parents[1]
OURS = ("krita", "kritad", "kritash")

# What would make a pure floor depend on time, chance or the world.
IMPURE = frozenset({
    "asyncio", "datetime", "io", "logging", "multiprocessing", "os", "pathlib", "random",
    "secrets", "select", "selectors", "signal", "shutil", "socket", "sqlite3", "ssl",
    "subprocess", "tempfile", "threading", "time", "uuid",
})  # fmt: skip


@frozen
class Floor:
    """``modules``: a dotted prefix holds for all below it; the longest prefix counts.
    ``may`` and ``foreign``: the prefixes of our own and the top packages of others."""

    name: str
    modules: tuple[str, ...]
    may: tuple[str, ...]
    foreign: tuple[str, ...] = ("attrs",)
    banned: frozenset[str] = frozenset({"asyncio"})


RAFT_VALUES = tuple(
    f"kritad.raft.{module}" for module in ("types", "records", "ready", "configuration")
)
BELOW_HOST = ("krita", "kritad.raft", "kritad.storage", "kritad.state", "kritad.cluster")
DOOR = (
    "kritad.service", "kritad.data_service", "kritad.gather", "kritad.scan_page",
    "kritad.coordinator", "kritad.txn_steps",
    "kritad.access", "kritad.admin", "kritad.metrics",
)  # fmt: skip

FLOORS = (
    Floor("krita", ("krita",), ("krita",), ("attrs", "cbor2")),
    Floor("krita.aio", ("krita.aio",), ("krita",), ("attrs", "cbor2", "anyio")),
    Floor("raft", ("kritad.raft",), ("kritad.raft",), banned=IMPURE),
    Floor(
        "storage",
        ("kritad.storage",),
        ("krita", *RAFT_VALUES, "kritad.storage"),
        ("attrs", "sqlite_utils"),
    ),
    Floor("state", ("kritad.state",), ("krita", *RAFT_VALUES, "kritad.storage", "kritad.state")),
    Floor(
        "cluster",
        ("kritad.cluster",),
        ("krita", *RAFT_VALUES, "kritad.cluster"),
        banned=IMPURE,
    ),
    # Misbehaviour on request, counters, connections and where time goes: what the floors from
    # the host up share.
    Floor("buggify", ("kritad.buggify",), (), ()),
    Floor("metrics", ("kritad.metrics",), ("kritad.metrics",)),
    Floor("stream", ("kritad.stream",), ("kritad.stream",), ("attrs", "trio")),
    Floor("trail", ("kritad.trail",), ("krita",), ()),
    Floor("host", ("kritad.host",),
          (*BELOW_HOST, "kritad.host", "kritad.buggify", "kritad.metrics", "kritad.stream",
           "kritad.trail"),
          ("attrs", "trio")),
    Floor("service", DOOR, (*BELOW_HOST, "kritad.host", "kritad.trail", *DOOR), ("attrs", "trio")),
    Floor("server", ("kritad.server",),
          ("krita", *DOOR, "kritad.server", "kritad.stream", "kritad.trail"),
          ("attrs", "trio", "httptools")),
    Floor("top", ("kritad",), ("krita", "kritad"), ("attrs", "trio", "yaml")),
    Floor("kritash", ("kritash",), ("krita", "kritash"),
          ("attrs", "prompt_toolkit", "rich", "pygments")),
)  # fmt: skip


def is_under(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(f"{prefix}.") for prefix in prefixes)


def floor_of(module: str) -> Floor:
    """The floor with the longest prefix of the module."""
    found = [
        (len(prefix), floor)
        for floor in FLOORS
        for prefix in floor.modules
        if is_under(module, (prefix,))
    ]
    return max(found, key=lambda pair: pair[0])[1]


def sources() -> Iterator[tuple[str, Path]]:
    """Every module of ours, by its dotted name."""
    for top, base in (("krita", ROOT / "protocol"), ("kritad", ROOT), ("kritash", ROOT)):
        for path in sorted((base / top).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            yield ".".join(parts).removesuffix(".__init__"), path


@frozen
class Import:
    module: str
    line: int
    typing_only: bool = False


class _Imports(ast.NodeVisitor):
    def __init__(self, package: str) -> None:
        self.package = package
        self.typing_only = False
        self.found: list[Import] = []

    def add(self, module: str, node: ast.stmt) -> None:
        self.found.append(Import(module, node.lineno, self.typing_only))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            up = self.package.split(".")[: len(self.package.split(".")) - node.level + 1]
            base = ".".join([*up, base] if base else up)
        # ``from kritad import host`` names a module as much as ``import kritad.host``.
        for alias in node.names:
            self.add(f"{base}.{alias.name}" if is_under(base, OURS) else base, node)

    def visit_If(self, node: ast.If) -> None:
        test = node.test
        name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
        if name != "TYPE_CHECKING":
            self.generic_visit(node)
            return
        self.typing_only = True
        for child in node.body:
            self.visit(child)
        self.typing_only = False
        for child in node.orelse:
            self.visit(child)


def imports_of(source: str, module: str, is_package: bool) -> list[Import]:
    visitor = _Imports(module if is_package else module.rpartition(".")[0])
    visitor.visit(ast.parse(source))
    return visitor.found


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """What this module imports and may not, each as ``line N: floor imports module``."""
    floor = floor_of(module)
    return [
        f"line {found.line}: {floor.name} imports {found.module}"
        for found in imports_of(source, module, is_package)
        if not _is_allowed(floor, found)
    ]


def _is_allowed(floor: Floor, found: Import) -> bool:
    top = found.module.partition(".")[0]
    if top in OURS:
        # The version is anybody's to tell.
        return is_under(found.module, floor.may) or found.module == "kritad.__version__"
    if found.typing_only:
        return True
    if top in sys.stdlib_module_names:
        return top not in floor.banned
    return top in floor.foreign


@pytest.mark.parametrize(("module", "path"), [pytest.param(m, p, id=m) for m, p in sources()])
def test_a_module_imports_only_what_is_below_it(module: str, path: Path) -> None:
    found = violations(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")
    assert not found, f"{path.relative_to(ROOT)}: " + "; ".join(found)


# -- The checker itself --------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("krita.codec", "import trio"),
        ("krita.client", "import anyio"),
        ("krita.client", "from kritad.raft.types import Entry"),
        ("kritad.raft.core", "import trio"),
        ("kritad.raft.core", "import random"),
        ("kritad.raft.core", "from time import monotonic"),
        ("kritad.raft.core", "import krita.errors"),
        ("kritad.raft.core", "def f():\n    import logging"),
        ("kritad.raft.core", "from ..storage import database"),
        ("kritad.raft.core", "if TYPE_CHECKING:\n    from kritad.host import Host"),
        ("kritad.raft.core", "if TYPE_CHECKING:\n    pass\nelse:\n    import random"),
        ("kritad.storage.raft_db", "import trio.to_thread"),
        ("kritad.storage.raft_db", "from kritad.raft import core"),
        ("kritad.storage.raft_db", "from kritad.raft import *"),
        ("kritad.storage.raft_db", "from kritad import host"),
        ("kritad.state.machine", "import sqlite_utils"),
        ("kritad.state.machine", "from kritad.cluster.meta import MetaView"),
        ("kritad.cluster.planner", "import time"),
        ("kritad.host.drive", "from kritad.service import Service"),
        ("kritad.host.drive", "from kritad.config import Config"),
        ("kritad.server.listener", "from kritad.host.host import Host"),
        ("kritad.server.listener", "import asyncio"),
        ("kritash.cli", "import kritad"),
        ("kritash.cli", "from kritad.settings import SETTINGS"),
        ("kritash.cli", "import trio"),
    ],
)
def test_the_checker_sees_a_planted_violation(module: str, source: str) -> None:
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("krita.aio", "import anyio"),
        ("krita.codec", "import cbor2, struct, attrs"),
        ("kritad.raft.core", "from kritad.raft.types import Entry"),
        ("kritad.raft.core", "from .types import Entry"),
        ("kritad.raft.core", "if TYPE_CHECKING:\n    import random"),
        ("kritad.storage.raft_db", "import sqlite3\nfrom kritad.raft.types import Save"),
        ("kritad.host.drive", "import trio\nfrom kritad.raft.core import Raft"),
        ("kritad.server.listener", "import trio\nfrom kritad.service import Service"),
        ("kritad.server.listener", "from kritad import __version__"),
        ("kritad.daemon", "from kritad.server.listener import Listener\nimport yaml"),
        ("kritash.cli", "from krita.client import Client\nimport rich.table"),
    ],
)
def test_the_checker_lets_pass_what_is_below(module: str, source: str) -> None:
    assert violations(module, source) == []


def test_a_package_resolves_its_relative_imports_from_itself() -> None:
    source = "from .types import Entry\nfrom ..host import drive"
    assert violations("kritad.raft", source, is_package=True) == [
        "line 2: raft imports kritad.host.drive"
    ]


def test_the_checker_reads_all_three_packages() -> None:
    modules = [module for module, _ in sources()]
    assert {"krita.operations", "kritad.raft.types", "kritash"} <= set(modules)
