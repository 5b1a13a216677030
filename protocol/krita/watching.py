"""Watching a range of keys: where one is, what to ask next, what an answer means. Pure.

There is no order of all changes, only one in each shard. So a watch is one row of polls
(``changes``) for each shard, and its place is a vector: how far it is in each of them.

Rules:

- A position counts what was *handed out*, not what was received. So a token is exact: a
  watch that goes on from it gets what comes next, nothing twice and nothing left out. A
  transaction makes several events at one revision; a position may be between two of them.
- A shard is asked again when all that its last answer brought has been handed out. So a
  slow reader is waited for, and what he is behind lies in the shard's feed.
- A split is an event of the shard that was cut: behind it, its other half is a shard to be
  asked from that very revision on. What is watched as a single key follows the key.
- A shard's replicas keep feeds of different lengths. Only when none of them reaches
  back to our position it is ``Compacted``, and the watch's position is where the leader's
  feed begins: the caller reads anew what he watches, and may then go on.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter, deque
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias

import attrs

from krita import wide_requests
from krita.codec import CodecError, decode, encode
from krita.errors import (
    BadRequest,
    Compacted,
    Forbidden,
    KritaError,
    ProtocolError,
    TooLarge,
    Unauthenticated,
    Unsupported,
)
from krita.operations import Change
from krita.request import Request
from krita.ring import token as place_of

WAIT_MS = 10_000  # of one poll
FAILURES_MAX = 2  # of one shard's polls in a row; each has tried for its whole time
_TOKEN_VERSION = 1

EventKind: TypeAlias = Literal["put", "delete", "expire", "progress"]
_KINDS: dict[int, EventKind] = {Change.PUT: "put", Change.DELETE: "delete", Change.EXPIRE: "expire"}
_KNOWN = frozenset(map(int, Change))


@attrs.frozen
class Event:
    """A change of one key; or, if asked for, that nothing more has happened."""

    kind: EventKind  # "expire": gone by its deadline, or with its lease
    key: bytes  # of "progress": b""
    # What it holds since. None: nothing; or, of a "put", one step made so many large
    # values that they did not fit into an answer: read the key.
    data: bytes | None
    # Of a put the key's, else the one at which it went. Of "progress": up to which nothing
    # more has happened in the shard.
    revision: int
    content_type: str | None
    shard: int  # events are in order within a shard, and in none between two

    def text(self) -> str | None:
        """The data as UTF-8 text, None if there is none. Raises UnicodeDecodeError."""
        return None if self.data is None else self.data.decode()


@attrs.frozen
class Position:
    """How far in a shard: behind the entry ``after`` and the next one's first ``skip`` events."""

    after: int
    skip: int = 0


Positions: TypeAlias = "dict[int, Position]"


@attrs.frozen
class Range:
    """What is watched: keys from ``start`` on and below ``stop``; None: no end there."""

    start: bytes | None
    stop: bytes | None

    @property
    def single(self) -> bytes | None:
        """The only key in it, if it is one."""
        return self.start if self.start and self.stop == self.start + b"\0" else None

    def holds(self, other: Range) -> bool:
        """Whether all keys of the other are in this one."""
        return (self.start or b"") <= (other.start or b"") and (
            self.stop is None or (other.stop is not None and other.stop <= self.stop)
        )


def encode_token(keys: Range, positions: Mapping[int, Position]) -> str:
    """A place as text without blanks, for files and headers. O(shards)."""
    places = [
        [shard, at.after, at.skip] if at.skip else [shard, at.after]
        for shard, at in sorted(positions.items())
    ]
    data = encode([_TOKEN_VERSION, keys.start, keys.stop, places])
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_token(token: str, keys: Range) -> Positions:
    """The inverse. Raises BadRequest for what is no token, or one of other keys."""
    try:
        item = decode(urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)))
    except (AttributeError, ValueError, CodecError):
        raise BadRequest("this is no token of a watch") from None
    match item:
        case [1, bytes() | None as start, bytes() | None as stop, [_, *_] as places]:
            positions = dict(map(_place, places))
            of = Range(start, stop)
            halfway = any(at.skip for at in positions.values())
            if not of.holds(keys) or (halfway and of != keys):
                raise BadRequest("this token is of a watch of other keys")
            return positions
    raise BadRequest("this is no token of a watch", hint="or one of a newer version of Krita")


def _place(item: object) -> tuple[int, Position]:
    match item:
        case [int(shard), int(after)] if after >= 0:
            return shard, Position(after)
        case [int(shard), int(after), int(skip)] if after >= 0 and skip >= 0:
            return shard, Position(after, skip)
    raise BadRequest("this is no token of a watch")


# What another attempt will not change.
FATAL = (BadRequest, Unauthenticated, Forbidden, TooLarge, Unsupported, ProtocolError)


@attrs.frozen
class _Step:
    """Something to be handed out, and where that leaves its shard."""

    shard: int
    position: Position
    event: Event | None = None
    split: tuple[int, int] | None = None  # the new shard, and the place of the cut


class Watching:
    """See the module. One watch, from its positions on."""

    def __init__(self, keys: Range, positions: Mapping[int, Position], *, progress: bool) -> None:
        self.keys = keys
        self.positions: Positions = dict(positions)
        self._progress = progress
        self._queue: deque[_Step] = deque()
        self._queued: Counter[int] = Counter()  # steps in the queue, by shard
        self._asking: set[int] = set()
        self._failures: Counter[int] = Counter()  # polls in a row
        # shard -> what its leader has said, and the other replicas that said no better
        self._refused: dict[int, tuple[Compacted, list[int]]] = {}
        self._nodes: dict[int, int] = {}  # shard -> the replica to ask, other than its leader

    def __repr__(self) -> str:
        places = ", ".join(f"{shard}: {at.after}" for shard, at in self.positions.items())
        return f"<Watching {self.keys!r} {places}, {len(self._queue)} to hand out>"

    @property
    def token(self) -> str:
        """The place behind what was handed out."""
        return encode_token(self.keys, self.positions)

    def node_asked(self, shard: int) -> bool:
        """Whether its poll is for a node that may not be there, and deserves little time."""
        return shard in self._nodes

    def polls(self) -> list[Request[list[Any]]]:
        """What to ask now: it is being asked from now on. Each is for its ``shard``."""
        asked = []
        for shard, at in self.positions.items():
            if shard not in self._asking and not self._queued[shard]:
                self._asking.add(shard)
                node = self._nodes.get(shard)
                asked.append(
                    wide_requests.changes(
                        shard, at.after, self.keys.start, self.keys.stop, WAIT_MS, node
                    )
                )
        return asked

    def answered(self, shard: int, body: object) -> None:
        """A poll's answer. Raises ProtocolError."""
        self._asking.discard(shard)
        del self._failures[shard]
        self._refused.pop(shard, None)
        self._nodes.pop(shard, None)
        at = self.positions.get(shard)
        match body:
            case [list(events), int(revision), *_] if at is not None:
                self._take(shard, at, events, revision)
            case _ if at is not None:
                raise ProtocolError("the reply to changes is malformed")

    def failed(self, shard: int, error: KritaError, others: Collection[int]) -> None:
        """A poll's failure; ``others``: the nodes that have the shard and do not lead it.
        Raises what the caller has to know; the watch can be gone on with nevertheless."""
        self._asking.discard(shard)
        if shard not in self.positions:
            return
        self._nodes.pop(shard, None)
        if isinstance(error, Compacted) or shard in self._refused:
            self._ask_elsewhere(shard, error, others)
            return
        self._failures[shard] += 1
        if isinstance(error, FATAL) or self._failures[shard] >= FAILURES_MAX:
            del self._failures[shard]
            raise error

    def _ask_elsewhere(self, shard: int, error: KritaError, others: Collection[int]) -> None:
        if shard not in self._refused:
            assert isinstance(error, Compacted)
            self._refused[shard] = error, []
        first, asked = self._refused[shard]
        fresh = [node for node in others if node not in asked]
        if not fresh:
            del self._refused[shard]
            raise self._compacted(shard, first)
        asked.append(fresh[0])
        self._nodes[shard] = fresh[0]

    def next(self) -> Event | None:
        """The next event; None: ask. O(1)."""
        while self._queue:
            step = self._queue.popleft()
            self._queued[step.shard] -= 1
            self.positions[step.shard] = step.position
            if step.split is not None:
                self._split(step.shard, step.position, *step.split)
            if step.event is not None:
                return step.event
        return None

    def _take(self, shard: int, at: Position, events: list[Any], revision: int) -> None:
        done = 0  # events of the entry that we are in
        before = at.after
        found = [_event(shard, item) for item in events]
        for number, (index, event, split) in enumerate(found, 1):
            done = done + 1 if index == before else 1
            before = index
            if index == at.after + 1 and done <= at.skip:
                continue
            last = number == len(found) or found[number][0] != index
            position = Position(index) if last else Position(index - 1, done)
            self._put(_Step(shard, position, event, split))
        told = None
        if self._progress:
            told = Event("progress", b"", None, revision, None, shard)
        self._put(_Step(shard, Position(max(revision, before)), told))

    def _put(self, step: _Step) -> None:
        self._queue.append(step)
        self._queued[step.shard] += 1

    def _split(self, shard: int, position: Position, shard_new: int, at: int) -> None:
        key = self.keys.single
        if key is not None and place_of(key) < at:
            return
        self.positions.setdefault(shard_new, Position(position.after))
        if key is not None:
            del self.positions[shard]
            # What its other half has to say is of other keys.
            self._queue = deque(step for step in self._queue if step.shard != shard)
            del self._queued[shard]

    def _compacted(self, shard: int, error: Compacted) -> Compacted:
        oldest = error.detail.get("oldest")
        if type(oldest) is int:
            self.positions[shard] = Position(max(oldest, self.positions[shard].after))
        return Compacted(
            error.message,
            hint="read what you watch anew, then go on with this watch or from detail['token']",
            detail={**error.detail, "shard": shard, "token": self.token},
        )


def _event(shard: int, item: Any) -> tuple[int, Event | None, tuple[int, int] | None]:
    match item:
        case [Change.SPLIT, None, int(shard_new), int(), int(at), int(index), *_]:
            return index, None, (shard_new, at)
        case [
            int(kind), bytes(key), bytes() | None as data, int(revision),
            str() | None as content_type, int(index), *_,
        ] if kind in _KINDS:  # fmt: skip
            return index, Event(_KINDS[kind], key, data, revision, content_type, shard), None
        case [int(kind), _, _, _, _, int(index), *_] if kind not in _KNOWN:
            return index, None, None  # of a newer server
    raise ProtocolError("an event of the reply to changes is malformed")
