"""The ``node_plan`` document as a value: what a change to a node would move. Pure."""

from __future__ import annotations

import attrs

from kritash.documents import get, rows, text, texts, whole

_INTENTS = {0: "up", 1: "draining", 4: "removing"}
_TITLES = {"up": "take node {} back", "draining": "drain node {}", "removing": "remove node {}"}


@attrs.frozen
class Leg:
    """The replicas that go from one node to another."""

    source: int | None  # None: nobody gives these up, they are new
    target: int | None
    replicas: int | None
    bytes: int | None

    @classmethod
    def of(cls, row: object) -> Leg:
        """A row of the document's ``moves``."""
        source, target = whole(row, "from"), whole(row, "to")
        return cls(source, target, whole(row, "replicas"), whole(row, "bytes"))


@attrs.frozen
class Tolerated:
    """How many more nodes may fail: be off, and every shard still answers; be lost for
    good, and every shard still has a copy. -1: not even now. None: not said."""

    availability: int | None
    data: int | None


@attrs.frozen
class Plan:
    """What ``node_set`` would do."""

    node: int
    state: str
    successor: int
    shards: int | None
    replicas: int | None
    bytes: int | None
    legs: tuple[Leg, ...]
    stays: int | None  # replicas for which there is no other place
    before: Tolerated
    after: Tolerated
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, document: object) -> Plan:
        """The document as a value."""
        return cls(
            whole(document, "node") or 0,
            _state(document),
            whole(document, "successor") or 0,
            _count(document, "shards"),
            _count(document, "replicas"),
            whole(document, "bytes"),
            tuple(map(Leg.of, rows(get(document, "moves")))),
            whole(document, "stays"),
            _tolerated(get(document, "before")),
            _tolerated(get(document, "after")),
            tuple(texts(document, "refusals")),
            tuple(texts(document, "warnings")),
        )

    @property
    def title(self) -> str:
        """What it is that would be done."""
        title = _TITLES.get(self.state, "change node {}").format(self.node)
        return f"{title}, with node {self.successor} in its place" if self.successor else title


def _state(document: object) -> str:
    code = whole(document, "state")
    return text(document, "state") if code is None else _INTENTS.get(code, "")


def _count(document: object, name: str) -> int | None:
    """A number, or how many there are in a list."""
    value = get(document, name)
    return len(value) if isinstance(value, (list, tuple)) else whole(document, name)


def _tolerated(document: object) -> Tolerated:
    return Tolerated(whole(document, "availability"), whole(document, "data"))
