"""The ring as a picture of letters: who leads what, who holds what. Pure.

Nodes are letters in the order of their numbers, so that the picture needs no
colour. The circle runs clockwise from token 0 at the top; a letter of it is the
node that leads the shard at that place. Beside it what each node leads and holds,
below a strip per node: the ring unrolled, with what the node has of it.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence

import attrs

from krita.ring import RING_SIZE
from kritash.documents import Node, Shard, get, rows, text, whole, wholes

LETTERS = string.ascii_uppercase + string.ascii_lowercase
NOBODY = "!"  # no leader
UNKNOWN = "?"  # more nodes than letters

RADIUS = 9  # rows; a row is twice as high as a column is wide
_THICKNESS = 2.2
_LABEL_DEPTH = 3.6  # below the rim, where the shards' numbers stand
LABELS_MAX = 20  # with more arcs there is room for neither numbers nor gaps
_GAP = 0.3  # rows
STRIP_COLUMNS = 64

LEADS, HOLDS, EMPTY = "#", "-", "."


@attrs.frozen
class Arc:
    """A shard's part of the ring."""

    shard: int
    hash_lo: int
    hash_hi: int
    leader: int
    nodes: tuple[int, ...]
    keys: int | None
    bytes: int | None

    @property
    def share(self) -> float:
        """Of the ring."""
        return (self.hash_hi - self.hash_lo) / RING_SIZE


@attrs.frozen
class Owner:
    """A node's part in all of it."""

    node: int
    letter: str
    address: str
    zone: str
    leads: int
    led_share: float  # of the ring
    holds: int
    keys: int | None  # in what it holds
    bytes: int | None


def ring_document(nodes: Sequence[Node], shards: Sequence[Shard]) -> dict[str, object]:
    """What ``kritash ring --json`` prints: every arc, and each node's part."""
    arcs = arcs_of(shards)
    return {
        "arcs": [
            {
                "shard": arc.shard, "hash_lo": arc.hash_lo, "hash_hi": arc.hash_hi,
                "share": round(arc.share, 6), "leader": arc.leader, "nodes": list(arc.nodes),
                "keys": arc.keys, "bytes": arc.bytes,
            }
            for arc in arcs
        ],
        "nodes": [attrs.asdict(owner) for owner in _owners(nodes, arcs)],
    }  # fmt: skip


def arcs_of(shards: Sequence[Shard]) -> list[Arc]:
    """The shards that own keys, along the ring."""
    arcs = [
        Arc(
            shard.shard, shard.hash_lo, shard.hash_hi, shard.leader,
            tuple(replica.node for replica in shard.replicas), shard.keys, shard.bytes,
        )
        for shard in shards
        if shard.hash_lo is not None and shard.hash_hi is not None
        and 0 <= shard.hash_lo < shard.hash_hi <= RING_SIZE
    ]  # fmt: skip
    return sorted(arcs, key=lambda arc: arc.hash_lo)


def _owners(nodes: Sequence[Node], arcs: Sequence[Arc]) -> list[Owner]:
    present = sorted((node for node in nodes if not node.left), key=lambda node: node.node)
    owners = []
    for at, node in enumerate(present):
        led = [arc for arc in arcs if arc.leader == node.node]
        held = [arc for arc in arcs if node.node in arc.nodes]
        owners.append(
            Owner(
                node.node, LETTERS[at] if at < len(LETTERS) else UNKNOWN, node.address, node.zone,
                len(led), round(sum(arc.share for arc in led), 6), len(held),
                _sum(arc.keys for arc in held), _sum(arc.bytes for arc in held),
            )
        )  # fmt: skip
    return owners


def _sum(counts: Iterable[int | None]) -> int | None:
    """None when one of them is not known."""
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


@attrs.frozen
class Picture:
    """``circle``: its rows, equally long. ``strips``: of each owner, STRIP_COLUMNS characters."""

    arcs: tuple[Arc, ...]
    owners: tuple[Owner, ...]
    circle: tuple[str, ...]
    strips: tuple[str, ...]


def picture(document: object) -> Picture:
    """The picture of a ring document."""
    arcs = tuple(
        Arc(
            whole(row, "shard") or 0, whole(row, "hash_lo") or 0, whole(row, "hash_hi") or 0,
            whole(row, "leader") or 0, wholes(row, "nodes"), whole(row, "keys"),
            whole(row, "bytes"),
        )
        for row in rows(get(document, "arcs"))
    )  # fmt: skip
    owners = tuple(map(_owner, rows(get(document, "nodes"))))
    letters = {owner.node: owner.letter for owner in owners}
    strips = tuple(_strip(owner.node, arcs) for owner in owners)
    return Picture(arcs, owners, tuple(_circle(arcs, letters)) if arcs else (), strips)


def _owner(row: dict[str, object]) -> Owner:
    share = row.get("led_share")
    return Owner(
        whole(row, "node") or 0, text(row, "letter") or UNKNOWN, text(row, "address"),
        text(row, "zone"), whole(row, "leads") or 0,
        float(share) if isinstance(share, (int, float)) else 0.0, whole(row, "holds") or 0,
        whole(row, "keys"), whole(row, "bytes"),
    )  # fmt: skip


def _at(arcs: Sequence[Arc], token: int) -> Arc | None:
    return next((arc for arc in arcs if arc.hash_lo <= token < arc.hash_hi), None)


def _circle(arcs: Sequence[Arc], letters: dict[int, str]) -> list[str]:
    canvas = [[" "] * (4 * RADIUS + 1) for _ in range(2 * RADIUS + 1)]
    for down, line in enumerate(canvas):
        for right in range(len(line)):
            x, y = right / 2 - RADIUS, RADIUS - down
            if RADIUS - _THICKNESS < math.hypot(x, y) <= RADIUS + 0.4:
                turn = math.atan2(x, y) / math.tau % 1.0
                arc = _at(arcs, int(turn * RING_SIZE))
                if arc is None or not _is_gap(arc, turn, len(arcs)):
                    line[right] = _letter(arc, letters)
    if len(arcs) <= LABELS_MAX:
        for arc in arcs:
            _label(canvas, arc)
    return ["".join(line) for line in canvas]


def _letter(arc: Arc | None, letters: dict[int, str]) -> str:
    if arc is None or not arc.leader:
        return NOBODY
    return letters.get(arc.leader, UNKNOWN)


def _is_gap(arc: Arc, turn: float, arcs: int) -> bool:
    """Whether a place is so close to the end of its arc that it is left blank: neighbours
    may have one leader. Without room for gaps there are none."""
    if not 1 < arcs <= LABELS_MAX:
        return False
    to_end = min(turn - arc.hash_lo / RING_SIZE, arc.hash_hi / RING_SIZE - turn)
    return to_end * math.tau * RADIUS < _GAP


def _label(canvas: list[list[str]], arc: Arc) -> None:
    """The shard's number, inside of the middle of its arc; left out if there is no room."""
    angle = math.tau * (arc.hash_lo + arc.hash_hi) / 2 / RING_SIZE
    depth = RADIUS - _LABEL_DEPTH
    down = RADIUS - round(depth * math.cos(angle))
    name = str(arc.shard)
    right = round(2 * (RADIUS + depth * math.sin(angle))) - len(name) // 2
    room = canvas[down][right - 1 : right + len(name) + 1]
    if all(char == " " for char in room):
        canvas[down][right : right + len(name)] = name


def _strip(node: int, arcs: Sequence[Arc]) -> str:
    """What the node has at each of STRIP_COLUMNS places, evenly spread."""
    places = []
    for column in range(STRIP_COLUMNS):
        arc = _at(arcs, (2 * column + 1) * RING_SIZE // (2 * STRIP_COLUMNS))
        if arc is not None and arc.leader == node:
            places.append(LEADS)
        else:
            places.append(HOLDS if arc is not None and node in arc.nodes else EMPTY)
    return "".join(places)
