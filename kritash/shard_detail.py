"""One shard in full: its row, its replicas as they themselves say, what is under way. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from kritash.documents import Move, Shard, get, rows, text, whole
from kritash.views.moves import move_text


def shard_document(
    row: Mapping[str, object], documents: Mapping[int, object], moves: object
) -> dict[str, object]:
    """What ``kritash shard show --json`` prints: the row of the shard, ``replicas`` with
    ``wanted`` and those that still are and are to go, and ``under_way`` in words.
    ``documents``: node -> its node_status document."""
    shard = Shard.of(row)
    under_way = [move_text(move) for move in map(Move.of, rows(moves)) if move.shard == shard.shard]
    if shard.splitting:
        under_way.append("it is being split")
    if shard.held:
        under_way.append(f"its moves are held: kritash move resume {shard.shard}")
    if shard.pinned:
        under_way.append(
            "it was moved by hand and is not moved for balance: "
            f"kritash move resume {shard.shard} lets it go"
        )
    return {**row, "replicas": _replicas(row, shard, documents), "under_way": under_way}


def _replicas(
    row: Mapping[str, object], shard: Shard, documents: Mapping[int, object]
) -> list[dict[str, object]]:
    """Those that are wanted, then those that are there although they are not."""
    reported = rows(get(row, "reported"))
    voting = {whole(entry, "node") for entry in reported if get(entry, "voter") is not False}
    found: list[dict[str, object]] = []
    for entry in rows(get(row, "replicas")):
        learner = text(entry, "role") == "learner"
        pending = learner or (bool(reported) and whole(entry, "node") not in voting)
        # The meta shard's learners are members without a vote for good: one, three or five vote.
        found.append({**entry, "wanted": "not yet" if pending and not shard.meta else "yes"})
    wanted = {whole(entry, "node") for entry in found}
    for node in sorted(documents):
        for entry in rows(get(documents[node], "replicas")):
            if whole(entry, "shard") == shard.shard and node not in wanted:
                found.append({
                    "node": node, "replica": whole(entry, "replica"), "role": text(entry, "role"),
                    "lag": None, "applied": whole(entry, "applied"), "wanted": "no longer",
                })  # fmt: skip
    return found
