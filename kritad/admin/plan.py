"""NODE_PLAN: what a NODE_SET would do, with the sizes that the nodes tell now."""

from __future__ import annotations

from collections.abc import Mapping

from krita.codec import decode_body
from krita.errors import BadRequest
from krita.operations import Op
from kritad.admin.nodes import Document
from kritad.admin.shards import sizes_of
from kritad.cluster.forecast import forecast
from kritad.host.host import Host

Wish = tuple[int, int, int | None]  # node, state, successor


def parse_plan(body: bytes) -> Wish:
    """The fields of a NODE_PLAN. Raises KritaError."""
    match decode_body(Op.NODE_PLAN, body):
        case [int(node), int(state), (int() | None) as successor, *_]:
            return node, state, successor
    raise BadRequest("node_plan is [node, state, successor]")


def plan_document(host: Host, wish: Wish, known: Mapping[int, Document]) -> Document:
    """The forecast as people get it. Raises BadRequest for a node or state that does
    not exist. Costs one or two plans (cluster/planner.py)."""
    node, state, successor = wish
    sizes = sizes_of(host, known)
    return forecast(host.view, sizes, node, state, successor, up=set(known)).to_document()
