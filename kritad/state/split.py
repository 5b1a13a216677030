"""The cutting of a shard in two: what its log says, and what is left and begun by it.

An entry SPLIT cuts the arc of shard S at an edge of its cells. What is at and behind the
edge is a shard of its own from that entry on, the *offspring*: it begins with the
same index, term, clock and sessions, and with its part of the rows.

Rules:
* The offspring has all of the sessions: a write whose first try S has applied and whose
  answer got lost is sent again to whoever owns the key then.
* Numbers of shards are never given out twice and they grow. So an entry whose
  ``shard_new`` is not above S and all that S has split off is a repetition, and refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from krita.codec import decode, encode
from krita.errors import BadRequest, ConditionFailed
from kritad.raft.types import NOBODY, Configuration
from kritad.storage.extent import Extent

if TYPE_CHECKING:
    from kritad.state.machine import ShardState

_SHARD_SHIFT = 40  # no log is as long as 2**40 entries
SHARD_LIMIT = 1 << (63 - _SHARD_SHIFT)  # so that a session's id is what SQLite keeps


@attrs.frozen
class Cut:
    """The newest split that a shard has been through, as the cutting one sees it."""

    shard_new: int
    at: int  # the first token that is not its own any more
    version: int  # of its arc since then


@attrs.frozen
class Lineage:
    """Where a shard's arc comes from. Part of the state: equal on all replicas."""

    version: int = 1  # of the arc; +1 with every split
    born: int = 0  # the index of the split that has made the shard; 0: the bootstrap has
    last: Cut | None = None

    def encode(self) -> bytes:
        """The value's bytes."""
        last = None if self.last is None else [self.last.shard_new, self.last.at, self.last.version]
        return encode([self.version, self.born, last])

    @classmethod
    def decode(cls, data: bytes) -> Lineage:
        """The inverse of encode; no bytes are what a shard has that was never split.
        Raises krita.codec's CodecError or ValueError for anything else."""
        if not data:
            return cls()
        match decode(data):
            case [int(version), int(born), None]:
                return cls(version, born)
            case [int(version), int(born), [int(shard), int(at), int(since)]]:
                return cls(version, born, Cut(shard, at, since))
        raise ValueError("a shard's lineage is [version, born, last]")

    def cut(self, shard_new: int, at: int) -> Lineage:
        """What it is after another split."""
        version = self.version + 1
        return Lineage(version, self.born, Cut(shard_new, at, version))

    def session_id(self, shard: int, index: int) -> int:
        """The id of the session that the entry at ``index`` of ``shard`` opens, in a log of a
        release that did not draw them at random.

        A client may take a session from a shard to its offspring, or the other way round
        when it does not know of the split yet. There it must meet the copy of its own
        session or none at all, never somebody else's: so the id says whose it is.
        """
        return index if self.born == 0 else shard << _SHARD_SHIFT | index


@attrs.frozen
class SplitCommand:
    """What a SPLIT entry says."""

    shard: int
    shard_new: int
    at: int
    conf_version: int
    replicas: tuple[tuple[int, int, int], ...]  # replica of shard, of shard_new, their node

    @classmethod
    def parse(cls, fields: list[object]) -> SplitCommand:
        """Raises BadRequest."""
        match fields:
            case [
                int(shard), int(shard_new), int(at), int(conf_version), [_, *_] as replicas, *_
            ]:  # fmt: skip
                command = cls(shard, shard_new, at, conf_version, tuple(map(_replica, replicas)))
                for ids in zip(*command.replicas, strict=True):
                    if len(set(ids)) < len(ids):
                        raise BadRequest("split: replicas and nodes are named once each")
                if shard_new >= SHARD_LIMIT:
                    raise BadRequest(f"split: there is no shard of number {shard_new}")
                return command
        raise BadRequest("split is [shard, shard_new, at, conf_version, replicas]")

    def check(self, lineage: Lineage, extent: Extent, configuration: Configuration) -> None:
        """Whether the shard can be cut so now. Raises ConditionFailed.

        The leader that proposed it has looked at all of this, but at another moment: the
        entry may have been proposed twice, or behind a change of the configuration.
        """
        newest = self.shard if lineage.last is None else lineage.last.shard_new
        if self.shard_new <= newest:
            raise ConditionFailed(f"shard {self.shard_new} was made already, or is no new number")
        # A replica that lives through the log from its first entry has not been told what
        # the group began with: that is always version 1. Of the members nothing needs to be
        # compared, as one log has one configuration of each version.
        version = configuration.version or 1
        if version != self.conf_version:
            raise ConditionFailed(
                f"shard {self.shard} has configuration {version} by now, not {self.conf_version}"
            )
        if not extent.has_edge(self.at):
            raise ConditionFailed(f"shard {self.shard} has no cells that meet at {self.at:#x}")

    def replica_new(self, replica: int) -> int:
        """The new shard's replica beside the one of that id; NOBODY: there is none."""
        return {old: new for old, new, _ in self.replicas}.get(replica, NOBODY)

    @property
    def configuration(self) -> Configuration:
        """What the offspring's group begins with."""
        return Configuration(
            version=1,
            voters=frozenset(new for _, new, _ in self.replicas),
            nodes={new: node for _, new, node in sorted(self.replicas, key=lambda r: r[1])},
        )


def _replica(item: object) -> tuple[int, int, int]:
    match item:
        case [int(replica), int(replica_new), int(node)] if min(replica, replica_new, node) > 0:
            return replica, replica_new, node
    raise BadRequest("split: a replica is [replica, replica_new, node]")


@attrs.frozen
class Offspring:
    """The new shard, as this node's replica of the one that was split has made it."""

    shard: int
    replica: int  # the new shard's, on this node
    configuration: bytes  # encode_configuration(): version 1, all of them voters
    replicas: tuple[tuple[int, int], ...]  # (replica, node) of all of the new shard's
    state: ShardState
