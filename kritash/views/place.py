"""Where a key is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, data_row, row, uniform, without_columns
from kritash.documents import get, rows, whole
from kritash.views.shards import token_text

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = ["node", "address", "role", "lag", "zone"]


def plain(document: object) -> Rows:
    """Every line begins with what it is about; a copy's goes on as HEADERS say."""
    facts = [
        data_row(name, get(document, name))
        for name in ("key", "tag", "place", "shard", "leader", "address", "term")
    ]
    return facts + [["copy", *cells] for cells in _copies(document)]


def _copies(document: object) -> Rows:
    return [row(*(copy.get(name) for name in HEADERS)) for copy in rows(get(document, "replicas"))]


def drawn(document: object) -> RenderableType:
    """From the key to the node that answers for it, and the copies below."""
    key, tag = get(document, "key"), get(document, "tag")
    place = whole(document, "place")
    leader = whole(document, "leader")
    because = "the whole key" if tag == key else "what stands in braces"
    facts = [
        ["key", cell(key)],
        ["tag", f"{cell(tag)}, {because}: it alone says where"],
        ["place", f"{token_text(place)} on the ring"],
        ["shard", f"{cell(get(document, 'shard'))}, whose arc has it"],
        [
            "leader",
            f"node {leader} at {cell(get(document, 'address'))}, term {cell(get(document, 'term'))}"
            if leader
            else "none: nobody answers for it now",
        ],
    ]
    cells = _copies(document)
    if not cells:
        return draw.pairs(facts)
    dull = [name for name in ("role", "lag", "zone") if uniform(HEADERS, cells, name, "-")]
    return draw.group(draw.pairs(facts), draw.table(*without_columns(HEADERS, cells, dull)))
