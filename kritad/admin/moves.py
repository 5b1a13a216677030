"""The moves in documents: what goes where, how far it is, and why it waits.

Merged from the meta shard's state (what is wanted, what was reported) and the transfers
that the nodes say they send. Shapes are in protocol/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from kritad.admin.nodes import Document, items, text, whole
from kritad.cluster.moves import Move, Step, moves
from kritad.cluster.view import MetaView


def move_rows(view: MetaView, known: Mapping[int, Document]) -> list[Document]:
    """Every move that has begun, by shard; ``known`` are the documents of the nodes that
    answered. ~10 µs a move."""
    joint = {
        replica["shard"]
        for document in known.values()
        for replica in document["replicas"]
        if replica["role"] == "leader" and replica.get("joint") is True
    }
    transfers = [item for document in known.values() for item in items(document, "transfers")]
    return [_row(view, move, transfers, known) for move in moves(view, joint)]


def _row(
    view: MetaView, move: Move, transfers: list[Document], known: Mapping[int, Document]
) -> Document:
    own = [
        transfer
        for transfer in transfers
        if whole(transfer, "shard") == move.shard and whole(transfer, "replica") in move.adding
    ]
    sent, total = _sum(own, "sent_bytes"), _sum(own, "total_bytes")
    rate = _sum(own, "bytes_per_s")
    left = None if sent is None or total is None else max(0, total - sent)
    return {
        "shard": move.shard,
        "from": sorted(move.removing.values()),
        "to": sorted(move.adding.values()),
        "step": move.step.value,
        "held": move.held,
        "sent_bytes": sent,
        "total_bytes": total,
        "bytes_per_s": rate,
        "eta_s": round(left / rate, 1) if left is not None and rate else None,
        "reason": _reason(view, move, own, known),
    }


def _sum(transfers: list[Document], name: str) -> int | None:
    """None when nothing is being sent, or when it has not begun."""
    found = [whole(transfer, name) or 0 for transfer in transfers]
    begun = any(whole(transfer, "total_bytes") for transfer in transfers)
    return sum(found) if begun else None


def _reason(
    view: MetaView, move: Move, transfers: list[Document], known: Mapping[int, Document]
) -> str:
    """Why it does not go on; empty when it does."""
    if view.paused:
        return "all moves are paused"
    if move.held:
        return "the moves of this shard are paused"
    away = [node for node in sorted(move.adding.values()) if node not in known]
    if away:
        numbers = " and ".join(map(str, away))
        return (
            f"node {numbers} does not answer"
            if len(away) == 1
            else f"nodes {numbers} do not answer"
        )
    states = {text(transfer, "state") for transfer in transfers}
    if move.step is Step.COPYING and states == {"waiting"}:
        return "other snapshots go first: a node sends two at a time, and receives two"
    if "held" in states:
        return "the disk of the node that sends it is below its reserve"
    return ""
