"""The ``cluster_status`` document, and what ``cluster health`` makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, row
from kritash.documents import Cluster, Move, get, rows, text, texts, whole
from kritash.health import NO_COPY, NO_MAJORITY, tolerance_text
from kritash.units import count_text
from kritash.views import nodes, shards
from kritash.views.moves import move_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text


def status_plain(status: object) -> Rows:
    """Every line begins with what it is about, so that grep finds it."""
    cluster = Cluster.of(status)
    return [
        row("cluster", cluster.cluster_id),
        row("health", cluster.health),
        row("failures_tolerated", cluster.failures_tolerated),
        *(row("problem", problem) for problem in cluster.problems),
        *(["node", *cells] for cells in nodes.plain_rows(get(status, "nodes"))),
        *(["shard", *cells] for cells in shards.plain_rows(get(status, "shards"))),
    ]


def status_drawn(status: object) -> RenderableType:
    """A headline, the problems, nodes and shards."""
    cluster = Cluster.of(status)
    headline = _headline(status)
    headline.append(
        f"  {count_text(len(cluster.members), 'node')}, {count_text(len(cluster.shards), 'shard')}"
    )
    if cluster.availability is not None and cluster.availability >= 0:
        headline.append(f", survives the loss of {count_text(cluster.availability, 'node')}")
    if not cluster.at_rest:
        headline.append(f", {len(cluster.moves)} moving, {cluster.moves_to_come} to come")
    return draw.group(
        headline,
        *_problems(status),
        nodes.drawn(get(status, "nodes")),
        shards.drawn(get(status, "shards")),
    )


def _headline(status: object) -> Text:
    health = cell(text(status, "health"))
    headline = draw.text("cluster ")
    headline.append(cell(text(status, "cluster_id"))[:8], "bold")
    headline.append("  ")
    headline.append(health, draw.style_of(health, "bold yellow"))
    return headline


def _problems(status: object) -> list[RenderableType]:
    found = [*texts(status, "problems")]
    if get(status, "paused") is True:
        found.append("all moves are paused")
    return [draw.text(f"  ! {cell(problem)}", "yellow") for problem in found]


def health_plain(document: object) -> Rows:
    """Every line begins with what it is about."""
    tolerates = get(document, "tolerates")
    short = get(document, "short_of_copies")
    return [
        row("health", text(document, "health")),
        _tolerated("tolerates_off", whole(tolerates, "availability"), NO_MAJORITY),
        _tolerated("tolerates_lost", whole(tolerates, "data"), NO_COPY),
        *(row("problem", problem) for problem in texts(document, "problems")),
        row("short_of_copies", short or None),
        row("paused", get(document, "paused")),
        *([row("healing_waits", text(document, "healing_waits"))]
          if text(document, "healing_waits") else []),
        *(row("under_way", move_text(Move.of(move)))
          for move in rows(get(document, "under_way"))),
        *(row("waiting", move_text(Move.of(move))) for move in rows(get(document, "waiting"))),
        row("moves_to_come", whole(document, "moves_to_come")),
    ]  # fmt: skip


def _tolerated(name: str, number: int | None, below: str) -> list[str]:
    """A number of nodes; -1 is none, so what it means stands behind it."""
    return row(name, number, below) if number is not None and number < 0 else row(name, number)


def health_drawn(document: object) -> RenderableType:
    """A headline, what may still fail, what is under way and what waits."""
    parts: list[RenderableType] = [
        _headline(document),
        draw.text(f"  tolerates: {tolerance_text(document)}"),
        *_problems(document),
    ]
    short = get(document, "short_of_copies")
    if isinstance(short, list) and short:
        parts.append(draw.text(f"  short of copies: shard {cell(short)}", "yellow"))
    if text(document, "healing_waits"):
        parts.append(
            draw.text(f"  healing waits: {cell(text(document, 'healing_waits'))}", "yellow")
        )
    for name, label in (("under_way", "under way"), ("waiting", "waits")):
        parts += [
            draw.text(f"  {label}: {move_text(Move.of(move))}")
            for move in rows(get(document, name))
        ]
    to_come = whole(document, "moves_to_come")
    if to_come:
        parts.append(draw.text(f"  {count_text(to_come, 'shard')} more will move"))
    if text(document, "health") != "healthy":
        parts.append(draw.text("  kritash doctor says what to do", "dim"))
    return draw.group(*parts)
