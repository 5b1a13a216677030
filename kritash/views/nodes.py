"""The ``node_list`` document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, row, uniform, without_columns
from kritash.documents import Node, rows
from kritash.units import duration_text, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

HEADERS = [
    "node", "address", "zone", "state", "reachable", "leaders", "replicas", "weight", "dead",
    "drained", "bytes", "version",
]  # fmt: skip
_DRAWN = ["node", "address", "zone", "weight", "state", "leaders", "replicas", "bytes", "version"]


def plain(nodes: object) -> Rows:
    """A header, and a row for each node; sizes in bytes."""
    return [HEADERS, *plain_rows(nodes)]


def plain_rows(nodes: object) -> Rows:
    """The rows alone, as HEADERS say."""
    return [
        row(
            node.node, node.address, node.zone, node.state, node.reachable, node.leaders,
            node.replicas, node.weight, node.dead, node.drained, node.bytes, node.version,
        )
        for node in map(Node.of, rows(nodes))
    ]  # fmt: skip


def drawn(nodes: object) -> RenderableType:
    """A table that leaves out what is the same everywhere: no zones, weight 1, one version."""
    found = [Node.of(entry) for entry in rows(nodes)]
    cells = [_cells(node) for node in found]
    dull = [
        name
        for name, ordinary in (("zone", "-"), ("weight", "1"), ("version", None), ("bytes", "-"))
        if uniform(_DRAWN, cells, name, ordinary)
    ]
    table = draw.table(*without_columns(_DRAWN, cells, dull))
    narrow = draw.table(*without_columns(_DRAWN, cells, [*dull, "version"]))
    remarks = [draw.text(f"  {line}", "yellow") for line in silence_lines(found)]
    return draw.group(draw.FirstThatFits(table, narrow), *remarks)


def _cells(node: Node) -> list[str]:
    return row(
        node.node, node.address, node.zone, node.weight, node.standing, node.leaders,
        node.replicas, size_text(node.bytes), node.version,
    )  # fmt: skip


def silence_lines(nodes: Iterable[Node]) -> list[str]:
    """A line for each silent node whose time is known to run out."""
    return [
        f"node {node.node} is silent, and declared dead in {duration_text(node.dead_in_s)}"
        for node in nodes
        if node.silent and node.dead_in_s is not None
    ]
