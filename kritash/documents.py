"""The cluster's status documents as values. Pure.

protocol/README.md has the documents' shapes. They come from nodes that may be
older or newer than this kritash, so a missing or misshapen element is None, empty
or the harmless default, and what is no list of maps is empty: what can be shown is
shown, and nothing here raises.
"""

from __future__ import annotations

import attrs


def get(item: object, name: str) -> object:
    """The element of a map; None where there is no such element, or no map."""
    return item.get(name) if isinstance(item, dict) else None


def rows(item: object) -> list[dict[str, object]]:
    """The maps of a list, without whatever else is in it."""
    found = item if isinstance(item, (list, tuple)) else ()
    return [row for row in found if isinstance(row, dict)]


def whole(item: object, name: str) -> int | None:
    """An element that is a whole number, or None."""
    value = get(item, name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number(item: object, name: str) -> float | None:
    """An element that is a number, or None."""
    value = get(item, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def text(item: object, name: str) -> str:
    """An element that is text, or ""."""
    value = get(item, name)
    return value if isinstance(value, str) else ""


def texts(item: object, name: str) -> list[str]:
    """An element that is a list of texts; one text is a list of one."""
    value = get(item, name)
    if isinstance(value, str):
        return [value] if value else []
    found = value if isinstance(value, (list, tuple)) else ()
    return [entry for entry in found if isinstance(entry, str)]


def wholes(item: object, name: str) -> tuple[int, ...]:
    """An element that is a list of whole numbers; one number is a list of one."""
    value = get(item, name)
    found = value if isinstance(value, (list, tuple)) else (value,)
    return tuple(n for n in found if isinstance(n, int) and not isinstance(n, bool) and n)


@attrs.frozen
class Node:
    """A row of ``node_list``. None: not said."""

    node: int
    address: str
    zone: str
    weight: int
    state: str  # what is intended with it: up, draining, removing, left
    reachable: bool | None
    dead: bool
    drained: bool
    leaders: int | None
    replicas: int | None  # that it shall hold, the meta shard's counted
    bytes: int | None  # of its copies
    version: str
    dead_in_s: float | None  # of a silent node: when it will be declared dead

    @classmethod
    def of(cls, row: object) -> Node:
        """The row as a value."""
        reachable = get(row, "reachable")
        return cls(
            whole(row, "node") or 0,
            text(row, "address"),
            text(row, "zone"),
            whole(row, "weight") or 1,
            text(row, "state"),
            reachable if isinstance(reachable, bool) else None,
            get(row, "dead") is True,
            get(row, "drained") is True,
            whole(row, "leaders"),
            whole(row, "replicas"),
            whole(row, "bytes"),
            text(row, "version"),
            number(row, "dead_in_s"),
        )

    @property
    def left(self) -> bool:
        """Whether it is a member no more."""
        return self.state == "left"

    @property
    def silent(self) -> bool:
        """Whether nobody hears it, and it is not yet known to be dead."""
        return self.reachable is False and not self.dead and not self.left

    @property
    def usable(self) -> bool:
        """Whether it gets replicas."""
        return self.state == "up" and not self.dead

    @property
    def standing(self) -> str:
        """State, drained, dead and silent in a word or two."""
        if self.left:
            return "left"
        word = "drained" if self.state == "draining" and self.drained else self.state
        trouble = "dead" if self.dead else "silent" if self.silent else ""
        if not trouble or not word:
            return word or trouble
        return trouble if word == "up" else f"{word}, {trouble}"


@attrs.frozen
class Replica:
    """A copy of a shard, as a row of ``shard_list`` has it."""

    node: int
    replica: int | None
    role: str  # leader, voter, learner, unreachable, damaged
    lag: int | None  # entries behind the leader
    applied: int | None
    state_hash: str

    @classmethod
    def of(cls, row: object) -> Replica:
        """The row as a value."""
        return cls(
            whole(row, "node") or 0,
            whole(row, "replica"),
            text(row, "role"),
            whole(row, "lag"),
            whole(row, "applied"),
            text(row, "state_hash"),
        )

    @property
    def up(self) -> bool:
        """Whether it counts, now, towards the shard's majority."""
        return self.role in ("leader", "voter")

    @property
    def lost(self) -> bool:
        """Whether nothing can be had of it, for now or at all."""
        return self.role in ("unreachable", "damaged")


@attrs.frozen
class Shard:
    """A row of ``shard_list``; ``replicas`` are those that the cluster wants."""

    shard: int
    hash_lo: int | None
    hash_hi: int | None
    leader: int  # 0: none
    term: int | None
    replicas: tuple[Replica, ...]
    keys: int | None
    bytes: int | None
    in_motion: bool
    held: bool
    pinned: bool
    splitting: bool

    @classmethod
    def of(cls, row: object) -> Shard:
        """The row as a value."""
        return cls(
            whole(row, "shard") or 0,
            whole(row, "hash_lo"),
            whole(row, "hash_hi"),
            whole(row, "leader") or 0,
            whole(row, "term"),
            tuple(map(Replica.of, rows(get(row, "replicas")))),
            whole(row, "keys"),
            whole(row, "bytes"),
            bool(get(row, "in_motion")),
            bool(get(row, "held")),
            bool(get(row, "pinned")),
            bool(get(row, "splitting")),
        )

    @property
    def down(self) -> tuple[int, ...]:
        """The nodes whose replicas of it nobody hears."""
        return tuple(r.node for r in self.replicas if r.role == "unreachable")

    @property
    def majority_lost(self) -> bool:
        """Whether it cannot have a leader before some of these are back."""
        return not self.leader and 2 * len(self.down) >= len(self.replicas) > 0

    @property
    def meta(self) -> bool:
        """Whether it is the meta shard, which owns no key."""
        return self.shard == 0

    @property
    def doing(self) -> str:
        """What is under way with it, in a word; "" if nothing is."""
        words = [
            ("held", self.held),
            ("pinned", self.pinned),
            ("moving", self.in_motion),
            ("splitting", self.splitting),
        ]
        return ", ".join(word for word, is_so in words if is_so)


@attrs.frozen
class Move:
    """A row of ``move_list``."""

    shard: int
    sources: tuple[int, ...]  # nodes that give their copy up
    targets: tuple[int, ...]  # nodes that get one
    step: str
    held: bool
    sent_bytes: int | None
    total_bytes: int | None
    bytes_per_s: float | None
    eta_s: float | None
    reason: str  # why it waits, if it does

    @classmethod
    def of(cls, row: object) -> Move:
        """The row as a value."""
        return cls(
            whole(row, "shard") or 0,
            wholes(row, "from"),
            wholes(row, "to"),
            text(row, "step"),
            bool(get(row, "held")),
            whole(row, "sent_bytes"),
            whole(row, "total_bytes"),
            number(row, "bytes_per_s"),
            number(row, "eta_s"),
            text(row, "reason"),
        )

    @property
    def stands(self) -> bool:
        """Whether it does not go on for now."""
        return self.held or bool(self.reason)

    @property
    def in_place(self) -> bool:
        """Whether a damaged copy is made anew on its own node."""
        return bool(self.sources) and self.sources == self.targets

    @property
    def share(self) -> float | None:
        """How much of the copy has arrived, 0 to 1."""
        if not self.total_bytes or self.sent_bytes is None:
            return None
        return min(1.0, max(0.0, self.sent_bytes / self.total_bytes))


@attrs.frozen
class Cluster:
    """The ``cluster_status`` document."""

    cluster_id: str
    health: str
    problems: tuple[str, ...]
    replication_factor: int | None
    failures_tolerated: int | None
    paused: bool
    healing: str  # why dead-looking nodes are not declared dead, or ""
    nodes: tuple[Node, ...]
    shards: tuple[Shard, ...]
    moves: tuple[Move, ...]
    moves_to_come: int  # shards that the planner would move, and has not begun with
    shard_bytes_max: int | None
    # How many more nodes may be off, and every shard still answers; how many may be lost
    # for good, and every shard still has a copy. -1: not even now. None: not said.
    availability: int | None
    data: int | None

    @classmethod
    def of(cls, status: object) -> Cluster:
        """The document as a value."""
        tolerates = get(status, "tolerates")
        tolerated = whole(status, "failures_tolerated")
        availability = whole(tolerates, "availability")
        return cls(
            text(status, "cluster_id"),
            text(status, "health"),
            tuple(texts(status, "problems")),
            whole(status, "replication_factor"),
            tolerated,
            bool(get(status, "paused")),
            text(status, "healing"),
            tuple(map(Node.of, rows(get(status, "nodes")))),
            tuple(map(Shard.of, rows(get(status, "shards")))),
            tuple(map(Move.of, rows(get(status, "moves")))),
            whole(status, "moves_to_come") or 0,
            whole(status, "shard_bytes_max"),
            tolerated if availability is None else availability,
            whole(tolerates, "data"),
        )

    @property
    def members(self) -> list[Node]:
        """The nodes that have not left."""
        return [node for node in self.nodes if not node.left]

    @property
    def data_shards(self) -> list[Shard]:
        """The shards that own keys."""
        return [shard for shard in self.shards if not shard.meta]

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves, nor would if it might."""
        return not self.moves and not self.moves_to_come

    def copies_on(self, node: int) -> int:
        """How many data shards want a replica there."""
        return sum(
            any(replica.node == node for replica in shard.replicas) for shard in self.data_shards
        )
