"""The ``move_list`` and ``node_plan`` documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, row
from kritash.documents import Move, rows
from kritash.plan import Plan
from kritash.units import count_text, duration_text, rate_text, share_text, size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = [
    "shard", "from", "to", "step", "held", "sent_bytes", "total_bytes", "bytes_per_s", "eta_s",
    "reason",
]  # fmt: skip
_BAR_COLUMNS = 14


def plain(moves: object) -> Rows:
    """A header, and a row for each move; sizes in bytes, times in seconds."""
    return [
        HEADERS,
        *(
            row(
                move.shard, move.sources, move.targets, move.step, move.held, move.sent_bytes,
                move.total_bytes, _rounded(move.bytes_per_s), _rounded(move.eta_s), move.reason,
            )
            for move in map(Move.of, rows(moves))
        ),
    ]  # fmt: skip


def _rounded(number: float | None) -> int | None:
    return None if number is None else round(number)


def drawn(moves: object) -> RenderableType:
    """A table with a bar for each copy that is on its way."""
    found = [Move.of(entry) for entry in rows(moves)]
    if not found:
        return draw.text("nothing moves")
    table = draw.table(["shard", "from", "to", "step"], [])
    for header in ("progress", "", "rate", "eta"):
        table.add_column(
            draw.text(header), justify="left" if header == "progress" else "right", no_wrap=True
        )
    for move in found:
        share = move.share
        table.add_row(
            draw.text(cell(move.shard)),
            draw.text(cell(move.sources) or "-"),
            draw.text(cell(move.targets) or "-"),
            draw.text(step_text(move)),
            draw.text("") if share is None else draw.bar(share, _BAR_COLUMNS),
            draw.text("" if share is None else share_text(share)),
            draw.text("" if move.bytes_per_s is None else rate_text(move.bytes_per_s)),
            draw.text("" if move.eta_s is None else duration_text(move.eta_s)),
        )
    return table


def step_text(move: Move) -> str:
    """The step, and why it is not getting further if that is known."""
    step = _step(move)
    return f"{step}: {cell(move.reason)}" if move.reason else step


def _step(move: Move) -> str:
    return f"held ({cell(move.step)})" if move.held else cell(move.step)


def move_text(move: Move) -> str:
    """``shard 3: copying from 1 to 4, 40.0 % of 1.0 GiB, 3 min left``, and behind it why it
    is not getting further."""
    parts = [_step(move)]
    if move.in_place:
        parts.append(f"anew on {cell(move.targets)}")
    elif move.sources:
        parts.append(f"from {cell(move.sources)}")
    if move.targets and not move.in_place:
        parts.append(f"to {cell(move.targets)}")
    line = f"shard {move.shard}: {' '.join(parts)}"
    if move.share is not None:
        line += f", {share_text(move.share)} of {size_text(move.total_bytes)}"
    if move.eta_s is not None:
        line += f", {duration_text(move.eta_s)} left"
    return f"{line}; {cell(move.reason)}" if move.reason else line


def plan_plain(document: object) -> Rows:
    """Every line begins with what it is about; sizes in bytes."""
    plan = Plan.of(document)
    return [
        row("intent", plan.title),
        row("shards", plan.shards),
        row("replicas", plan.replicas),
        row("bytes", plan.bytes),
        *(row("move", leg.source, leg.target, leg.replicas, leg.bytes) for leg in plan.legs),
        row("stays", plan.stays),
        row("tolerates_off", plan.before.availability, plan.after.availability),
        row("tolerates_lost", plan.before.data, plan.after.data),
        *(row("refused", reason) for reason in plan.refusals),
        *(row("warning", warning) for warning in plan.warnings),
    ]


def plan_drawn(document: object) -> RenderableType:
    """What moves from where to where, what may fail before and after, and the warnings."""
    plan = Plan.of(document)
    parts: list[RenderableType] = [draw.text(cell(plan.title), "bold")]
    parts += [draw.text(f"  cannot be done: {cell(why)}", "bold red") for why in plan.refusals]
    moved = (
        f"{count_text(plan.replicas or 0, 'replica')} of {count_text(plan.shards or 0, 'shard')}"
    )
    size = "" if plan.bytes is None else f", {size_text(plan.bytes)}"
    parts.append(draw.text(f"  moves {moved}{size}" if plan.replicas else "  moves nothing"))
    if plan.legs:
        legs = [
            [
                cell(leg.source) if leg.source else "new",
                cell(leg.target),
                cell(leg.replicas),
                size_text(leg.bytes),
            ]
            for leg in plan.legs
        ]  # fmt: skip
        parts.append(draw.table(["from", "to", "replicas", "bytes"], legs))
    tolerates = [
        ["nodes that may be off", *_number_pair(plan.before.availability, plan.after.availability)],
        ["nodes that may be lost for good", *_number_pair(plan.before.data, plan.after.data)],
    ]
    parts.append(draw.table(["tolerated failures", "before", "after"], tolerates))
    parts += [draw.text(f"  ! {cell(warning)}", "yellow") for warning in plan.warnings]
    return draw.group(*parts)


def _number_pair(*numbers: int | None) -> list[str]:
    return ["none: too few are left" if n is not None and n < 0 else cell(n) for n in numbers]
