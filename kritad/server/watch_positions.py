"""How far a watch has come: a place in each shard's log, and what an answer does to it.

A watch asks each shard that may have keys of its own for what has changed behind the
watch's place there (operation ``changes``), and goes on from where the answer ends. All that
such a watch knows is these places; a *token* is them as text, so that another process can
go on, at any node, without a gap.

Rules:
* What one entry of a log has changed belongs together: only with its last event is the
  entry's place reached, and only that event has a token. Whoever stops in the middle
  gets the entry's events again, and never half of a transaction.
* A shard that is split says so in its feed, between the events before and those after. The
  new shard is followed from that very entry on: no key is missed and none is told twice.
* Order is kept within a shard; between shards there is none.
* A token is of one cluster and of one watch's shards: what would skip something silently
  is refused.

Sans-IO. The client has its own places (krita/watching.py), which stand between two events of an
entry too: it hands them out one by one, where HTTP sends them as they come.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import attrs

from krita.codec import CodecError, decode, encode
from krita.errors import BadRequest, ProtocolError
from krita.operations import Change

WHOLE_RING = -1  # the scope of a watch that needs all shards
_VERSION = 1
_CLUSTER_BYTES = 4
TOKEN_CHARACTERS_MAX = 24 << 10  # some three thousand shards


@attrs.frozen
class WatchEvent:
    """One change of one key."""

    kind: Change
    key: bytes
    value: bytes | None  # None for a put: too much for one answer, get it
    revision: int
    content_type: str | None
    token: str | None  # to go on behind it; None: more of the same entry follows


@attrs.define
class Positions:
    """``after``: by shard, the index of the last entry that was told. ``scope``: the place on
    the ring of the one group that is watched, or WHOLE_RING."""

    cluster_id: bytes
    scope: int
    after: dict[int, int] = attrs.field(factory=dict)

    @property
    def token(self) -> str:
        """The places as text for URLs. 3 µs and 0.1 for each shard."""
        item: list[object] = [_VERSION, self.cluster_id[:_CLUSTER_BYTES], self.scope]
        for shard, index in sorted(self.after.items()):
            item += [shard, index]
        return base64.urlsafe_b64encode(encode(item)).rstrip(b"=").decode()

    @classmethod
    def from_token(cls, token: str, cluster_id: bytes, scope: int) -> Positions:
        """The places that a token names. Raises BadRequest for one that is damaged, of
        another cluster, or of a watch of other shards."""
        match _unpacked(token):
            case [int(version), bytes(cluster), int(found), *pairs] if version == _VERSION:
                pass
            case _:
                raise BadRequest("this is no resume token of a watch", hint=_TOKEN_HINT)
        if cluster != cluster_id[:_CLUSTER_BYTES]:
            raise BadRequest("the resume token is of another cluster", hint=_TOKEN_HINT)
        if found != scope:
            raise BadRequest("the resume token is of a watch of other keys", hint=_TOKEN_HINT)
        after = dict(zip(pairs[::2], pairs[1::2], strict=False))
        if not after or len(pairs) % 2 or not all(map(_is_place, after.items())):
            raise BadRequest("this is no resume token of a watch", hint=_TOKEN_HINT)
        return cls(cluster_id, scope, after)  # type: ignore[arg-type]

    def take(self, shard: int, answer: object) -> tuple[list[WatchEvent], list[int]]:
        """What an answer to ``changes`` tells, and the shards that are to be followed from
        now on besides. Moves the places. Raises ProtocolError."""
        match answer:
            case [list(events), int(upto), *_]:
                pass
            case _:
                raise ProtocolError("the reply to changes is malformed")
        told: list[WatchEvent] = []
        new: list[int] = []
        for place, event in enumerate(events):
            match event:
                case [Change.SPLIT, _, int(shard_new), _, _, int(index), *_]:
                    if shard_new not in self.after:
                        self.after[shard_new] = index
                        new.append(shard_new)
                case [
                    Change.PUT | Change.DELETE | Change.EXPIRE as kind, bytes(key),
                    bytes() | None as value, int(revision), str() | None as content_type,
                    int(index), *_,
                ]:  # fmt: skip
                    last = place + 1 == len(events) or events[place + 1][5] != index
                    if last:
                        self.after[shard] = index
                    token = self.token if last else None
                    told.append(WatchEvent(Change(kind), key, value, revision, content_type, token))
                case _:
                    raise ProtocolError("an event of changes is malformed")
        self.after[shard] = max(upto, self.after.get(shard, 0))
        return told, new

    def no_older_than(self, oldest: Mapping[int, int]) -> Positions:
        """These places, or the oldest that the shards can still go on from."""
        after = {shard: max(index, oldest.get(shard, 0)) for shard, index in self.after.items()}
        return attrs.evolve(self, after=after)


_TOKEN_HINT = "send back a token of this watch unchanged, or none to begin now"


def _unpacked(token: str) -> object:
    if len(token) > TOKEN_CHARACTERS_MAX:
        return None
    try:
        return decode(base64.urlsafe_b64decode(token.encode("ascii") + b"=="))
    except (binascii.Error, UnicodeEncodeError, CodecError):
        return None


def _is_place(pair: tuple[object, object]) -> bool:
    return all(type(part) is int and 0 <= part < 1 << 63 for part in pair)
