"""The ring: a circle of letters, what each node has, a strip per node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, row
from kritash.ring import EMPTY, HOLDS, LEADS, NOBODY, Owner, Picture, picture
from kritash.units import share_text, size_text
from kritash.views.shards import token_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_COLOURS = (
    "dark_cyan", "orange3", "green4", "medium_purple3", "red3", "steel_blue1", "gold3",
    "deep_pink4", "chartreuse4", "grey54",
)  # fmt: skip
_STRIP_CHARS = {LEADS: "█", HOLDS: "░", EMPTY: "·"}


def plain(document: object) -> Rows:
    """Every line begins with what it is about: arcs along the ring, then nodes."""
    shown = picture(document)
    return [
        *(
            row(
                "arc", arc.shard, token_text(arc.hash_lo), token_text(arc.hash_hi),
                f"{arc.share:.6f}", arc.leader or "none", arc.nodes, arc.keys, arc.bytes,
            )
            for arc in shown.arcs
        ),
        *(
            row(
                "node", owner.node, owner.letter, owner.address, owner.zone, owner.leads,
                f"{owner.led_share:.6f}", owner.holds, owner.keys, owner.bytes,
            )
            for owner in shown.owners
        ),
    ]  # fmt: skip


def drawn(document: object) -> RenderableType:
    """For a terminal of 80 columns or more."""
    from rich.table import Table

    shown = picture(document)
    if not shown.arcs:
        return draw.text("no shard is known")
    styles = {owner.letter: _COLOURS[at % len(_COLOURS)] for at, owner in enumerate(shown.owners)}
    side = Table.grid(padding=(0, 0, 0, 2))
    side.add_row(_circle(shown, styles), _legend(shown, styles))
    return draw.group(side, draw.text(""), *_strips(shown, styles))


def _circle(shown: Picture, styles: dict[str, str]) -> Text:
    drawing = draw.text("")
    for line in shown.circle:
        for char in line:
            # The shards' numbers inside are no nodes, whatever their digits.
            style = f"bold white on {styles[char]}" if char in styles and char.isalpha() else ""
            drawing.append(char, "bold white on red" if char == NOBODY else style)
        drawing.append("\n")
    drawing.rstrip()
    return drawing


def _legend(shown: Picture, styles: dict[str, str]) -> RenderableType:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "right", "right", "right"):
        grid.add_column(justify=justify, no_wrap=True)
    grid.add_row(*(draw.text(name, "bold") for name in ("", "node", "leads", "of ring", "bytes")))
    for owner in shown.owners:
        grid.add_row(
            draw.text(owner.letter, f"bold {styles[owner.letter]}"),
            draw.text(_name(owner)),
            draw.text(str(owner.leads)),
            draw.text(share_text(owner.led_share)),
            draw.text(size_text(owner.bytes)),
        )
    if any(not arc.leader for arc in shown.arcs):
        grid.add_row(draw.text(NOBODY, "bold red"), draw.text("no leader", "bold red"))
    keys = sum(arc.keys or 0 for arc in shown.arcs)
    if any(arc.keys is not None for arc in shown.arcs):
        grid.add_row("", draw.text(f"{keys:,} keys"))
    return grid


def _name(owner: Owner) -> str:
    return f"{owner.node} {cell(owner.zone)}" if owner.zone else str(owner.node)


def _strips(shown: Picture, styles: dict[str, str]) -> list[Text]:
    width = max(len(str(owner.node)) for owner in shown.owners) if shown.owners else 1
    lines = [draw.text(f"  {'':<{width}}  0{'token':^62}2³²", "dim")]
    for owner, strip in zip(shown.owners, shown.strips, strict=True):
        line = draw.text(f"{owner.letter} {owner.node:>{width}}  ", "bold")
        chars = "".join(_STRIP_CHARS[char] for char in strip)
        line.append(chars, f"not bold {styles[owner.letter]}")
        line.append(f" {owner.holds}")
        lines.append(line)
    lines.append(draw.text(f"  {'':<{width}}  █ leads  ░ holds a copy  · has none", "dim"))
    return lines
