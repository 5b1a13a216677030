"""How each kind of document looks: as plain rows in a pipe, drawn at a terminal.

``VIEWS`` is the table; a file holds the views of one noun. Rows for a pipe keep
their columns from one version to the next, new ones come behind: scripts cut them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from kritash.cells import Rows
from kritash.reply import View
from kritash.views import (
    cluster,
    findings,
    keys,
    moves,
    nodes,
    pairs,
    past,
    place,
    ring,
    shards,
    txn,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


@attrs.frozen
class Drawing:
    """Both take the document in whatever shape it came, and never raise."""

    plain: Callable[[object], Rows]
    drawn: Callable[[object], RenderableType]


VIEWS: dict[View, Drawing] = {
    View.PAIRS: Drawing(pairs.plain, pairs.drawn),
    View.CLUSTER: Drawing(cluster.status_plain, cluster.status_drawn),
    View.HEALTH: Drawing(cluster.health_plain, cluster.health_drawn),
    View.FINDINGS: Drawing(findings.plain, findings.drawn),
    View.NODES: Drawing(nodes.plain, nodes.drawn),
    View.SHARDS: Drawing(shards.plain, shards.drawn),
    View.SHARD: Drawing(shards.one_plain, shards.one_drawn),
    View.MOVES: Drawing(moves.plain, moves.drawn),
    View.PLAN: Drawing(moves.plan_plain, moves.plan_drawn),
    View.ITEMS: Drawing(keys.items_plain, keys.items_drawn),
    View.EVENTS: Drawing(keys.events_plain, keys.events_drawn),
    View.VERSIONS: Drawing(past.versions_plain, past.versions_drawn),
    View.DIFFERENCE: Drawing(past.difference_plain, past.difference_drawn),
    View.RULES: Drawing(past.rules_plain, past.rules_drawn),
    View.TXN: Drawing(txn.plain, txn.drawn),
    View.PLACE: Drawing(place.plain, place.drawn),
    View.RING: Drawing(ring.plain, ring.drawn),
}
