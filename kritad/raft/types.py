"""The values that the consensus core and the storage below it share.

Rules:
* ``Entry`` values are never changed after they were made; they are ``define``
  and not ``frozen`` because a frozen attrs class costs twice as much to make
  and a busy node makes tens of thousands a second.
* A *replica id* names one copy of one shard for ever: it is allocated by the
  meta shard and never used again, also not after its disk was wiped.
  ``0`` means "nobody".
* Log indexes and terms begin at 1; index 0 with term 0 is the empty log.

Sources: Ongaro's thesis, Figure 3.1 (state), 4.3 (joint consensus).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

NOBODY = 0


class EntryKind(enum.IntEnum):
    """What an entry's data means to the core. Stored and sent: never renumber."""

    NOOP = 0  # a new leader's first entry; data is empty
    COMMAND = 1  # opaque bytes for the state machine
    CONF = 2  # configuration.encode_configuration(); in force as soon as it is appended


class Role(enum.IntEnum):
    """What a replica is doing; whether it may vote is the configuration's word."""

    FOLLOWER = 0
    PRE_CANDIDATE = 1
    CANDIDATE = 2
    LEADER = 3


@attrs.define
class Entry:
    """One place of the log."""

    index: int
    term: int
    kind: EntryKind
    data: bytes
    # The entry as stored and sent (see raft/records.py), made once by whoever
    # needs it first: the leader sends it to each follower and saves it too.
    record: bytes | None = attrs.field(default=None, eq=False, repr=False)


@attrs.define
class HardState:
    """What must be durable before a message that relies on it may leave."""

    term: int = 0
    vote: int = NOBODY
    commit: int = 0  # may be lost without harm; saved only along with the rest


@attrs.frozen
class Configuration:
    """Who is in the group. Joint while ``voters_outgoing`` is not empty."""

    version: int = 0  # conf_ver: +1 with every conf entry; compare-and-set key
    voters: frozenset[int] = frozenset()
    voters_outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()  # voters_outgoing that stay as learners
    # replica id -> node id, for all of the above: where the host sends to.
    nodes: Mapping[int, int] = attrs.field(factory=dict)

    @property
    def joint(self) -> bool:
        """Whether both majorities are asked."""
        return bool(self.voters_outgoing)

    @property
    def voters_all(self) -> frozenset[int]:
        """Every replica that votes, in either majority."""
        return self.voters | self.voters_outgoing

    @property
    def members(self) -> frozenset[int]:
        """Every replica that gets the log, voter or not."""
        return self.voters_all | self.learners | self.learners_next


@attrs.frozen
class SnapshotMeta:
    """The state at one applied index. ``index`` 0: there is none."""

    index: int = 0
    term: int = 0
    configuration: Configuration = attrs.field(factory=Configuration)  # in force at `index`
    # Names the received rows to the storage (a data.db generation); 0 in a
    # leader's own description of its state.
    generation: int = 0


@attrs.define
class Save:
    """What one replica wants durable, in one piece.

    The storage does, in one transaction and in this order: install ``snapshot``
    (drop the whole log, start again behind ``snapshot.index``), delete entries
    from ``truncate_from`` on (0: none), append ``entries``, write ``hard_state``.
    Saves of one replica are done in the order of ``sequence``.
    """

    sequence: int
    hard_state: HardState | None = None
    snapshot: SnapshotMeta | None = None
    truncate_from: int = 0
    entries: list[Entry] = attrs.field(factory=list)

    @property
    def must_sync(self) -> bool:
        """Whether anything here has to reach the disk before it is relied on.

        False for a save that carries nothing, or nothing but a new commit
        index: such a save is a place in the order and costs no transaction.
        """
        return self.sync_hard_state or bool(self.entries or self.snapshot or self.truncate_from)

    # Whether term or vote differ from what the previous save carried.
    sync_hard_state: bool = False


@attrs.define
class Boot:
    """What a replica wakes up with, read from the disk by the storage."""

    hard_state: HardState = attrs.field(factory=HardState)
    # The log begins behind this; its configuration is the one in force there.
    snapshot: SnapshotMeta = attrs.field(factory=SnapshotMeta)
    last_index: int = 0
    # (first index, term) of each run of equal terms behind snapshot.index.
    terms: list[tuple[int, int]] = attrs.field(factory=list)
    # Every conf entry behind snapshot.index: (index, configuration), ascending.
    configurations: list[tuple[int, Configuration]] = attrs.field(factory=list)
    # At the least everything behind `applied_index`, contiguous up to last_index.
    entries: list[Entry] = attrs.field(factory=list)
    applied_index: int = 0
