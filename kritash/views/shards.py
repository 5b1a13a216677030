"""The ``shard_list`` document, and one shard in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, row, uniform, without_columns
from kritash.documents import Replica, Shard, get, rows, text, texts, whole
from kritash.units import size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = ["shard", "from", "to", "leader", "term", "replicas", "keys", "bytes", "doing"]
REPLICA_HEADERS = ["node", "replica", "role", "lag", "applied", "wanted"]


def plain(shards: object) -> Rows:
    """A header, and a row for each shard; replicas read ``1:leader:0,2:voter:0``."""
    return [HEADERS, *plain_rows(shards)]


def plain_rows(shards: object) -> Rows:
    """The rows alone, as HEADERS say."""
    return [
        _cells(shard, ",".join(map(_machine_replica, shard.replicas)), cell(shard.bytes))
        for shard in map(Shard.of, rows(shards))
    ]


def drawn(shards: object) -> RenderableType:
    """A table; replicas read ``1 leader, 2 +0, 3 +17``. A narrow terminal does without
    terms, then without the arcs' ends, which are the next ones' beginnings."""
    cells = [
        _cells(shard, ", ".join(map(replica_text, shard.replicas)), size_text(shard.bytes))
        for shard in map(Shard.of, rows(shards))
    ]
    dull = [name for name in ("keys", "bytes", "doing") if uniform(HEADERS, cells, name, "-")]
    narrower: tuple[list[str], ...] = ([], ["term"], ["term", "to"])
    return draw.FirstThatFits(
        *(draw.table(*without_columns(HEADERS, cells, [*dull, *less])) for less in narrower)
    )


def _cells(shard: Shard, replicas: str, size: str) -> list[str]:
    return [
        cell(shard.shard),
        token_text(shard.hash_lo),
        token_text(shard.hash_hi),
        cell(shard.leader) if shard.leader else "none",
        cell(shard.term),
        replicas,
        cell(shard.keys),
        size,
        cell(shard.doing),
    ]


def token_text(token: int | None) -> str:
    """A place on the ring, eight hexadecimal digits."""
    return "-" if token is None else f"{token:08x}"


def replica_text(replica: Replica) -> str:
    """``2 +0``: the node, and how many entries it is behind."""
    if replica.role == "leader":
        return f"{replica.node} leader"
    behind = f"+{replica.lag}" if replica.lag is not None else "?"
    known = f"{replica.node} {behind}"
    return known if replica.role == "voter" else f"{known} {cell(replica.role)}"


def _machine_replica(replica: Replica) -> str:
    lag = "-" if replica.lag is None else replica.lag
    return f"{replica.node}:{cell(replica.role)}:{lag}"


def one_plain(document: object) -> Rows:
    """Every line begins with what it is about."""
    return [
        *_facts(document, human=False),
        *(["replica", *cells] for cells in _replica_rows(document)),
        *(["under_way", line] for line in map(cell, texts(document, "under_way"))),
    ]


def one_drawn(document: object) -> RenderableType:
    """The shard's arc, sizes and replicas, and what is under way with it."""
    under_way = texts(document, "under_way") or ["nothing is under way with it"]
    return draw.group(
        draw.pairs(_facts(document, human=True)),
        draw.table(REPLICA_HEADERS, _replica_rows(document)),
        *(draw.text(f"  {cell(line)}") for line in under_way),
    )


def _facts(document: object, human: bool) -> Rows:
    shard = Shard.of(document)
    arc = f"{token_text(shard.hash_lo)} to {token_text(shard.hash_hi)}"
    facts = [
        ["shard", cell(shard.shard)],
        ["arc", "none: it holds the cluster's own records" if shard.meta else arc],
        ["leader", cell(shard.leader) if shard.leader else "none"],
        ["term", cell(shard.term)],
        ["keys", cell(shard.keys)],
        ["bytes", size_text(shard.bytes) if human else cell(shard.bytes)],
    ]
    return facts + ([["state", shard.doing]] if shard.doing else [])


def _replica_rows(document: object) -> Rows:
    """As REPLICA_HEADERS say; ``wanted``: yes, not yet (wanted and without a vote so far), or
    no longer."""
    return [
        row(
            whole(entry, "node"), whole(entry, "replica"), text(entry, "role"),
            whole(entry, "lag"), whole(entry, "applied"), text(entry, "wanted"),
        )
        for entry in rows(get(document, "replicas"))
    ]  # fmt: skip
