"""What the driver must do for one replica, the fields in the order of doing.

The order is the durability rule of the whole product and is performed in one
place, ``kritad/host/drive.py``:

1. ``messages`` may leave at once. No message of term T is among them before T
   and the own vote in T are durable (raft.md B48; asserted by the core).
2. ``save`` goes into the next transaction. Saves of a replica are never
   reordered; several may be waiting. ``Raft.saved(sequence)`` reports them.
3. ``messages_after_save`` leave once ``save`` is durable and not before.
4. ``committed`` may be applied: committed *and* locally durable, contiguous,
   each entry exactly once per start. ``Raft.applied(index)`` reports them.
5. ``reads`` may be answered once ``index`` has been applied.

Sources: etcd raft's Ready and its asynchronous storage writes; thesis 10.2.1
for a leader that sends before its own disk has answered.
"""

from __future__ import annotations

import attrs

from kritad.raft.messages import Message
from kritad.raft.types import Entry, Save


@attrs.define
class ReadReady:
    """A read that may be served as soon as ``index`` is applied."""

    token: int
    index: int


@attrs.define
class Fetch:
    """The leader wants to send entries that are no longer in memory.

    Answered by ``Raft.fetched(fetch, entries)`` with entries from ``first`` on,
    at most ``last``, about ``bytes_max``; or by an empty list when they are gone.
    """

    recipient: int
    term: int
    first: int
    last: int
    bytes_max: int


@attrs.define
class Ready:
    """See the module's docstring. An empty Ready is never handed out."""

    messages: list[Message] = attrs.field(factory=list)
    save: Save | None = None
    messages_after_save: list[Message] = attrs.field(factory=list)  # not empty only with a save
    committed: list[Entry] = attrs.field(factory=list)
    reads: list[ReadReady] = attrs.field(factory=list)
    reads_lost: list[int] = attrs.field(factory=list)  # tokens; leadership went away
    fetches: list[Fetch] = attrs.field(factory=list)
    # Replicas that need a snapshot: start streaming, then report the outcome
    # with Raft.snapshot_sent(replica, ok).
    snapshots: list[int] = attrs.field(factory=list)
