"""Planted bugs: what ends by itself, at a deadline or with a lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from krita.operations import Change
from kritad import gather
from kritad.host.expiry import Reaper
from kritad.host.host import Host
from kritad.host.replica import Replica
from kritad.state.bonds import Bonds
from kritad.state.feed import Feed
from kritad.state.leases import Leases
from kritad.state.notes import Notes
from kritad.state.user_keys import UserKeys
from kritad.state.verbs import Action, Effect
from kritad.storage.rows import Row, Stamp
from kritad.storage.table import Table
from tests.simulator.mutants.mutant import Mutant

_cut = Bonds.cut
_do = UserKeys.do
_due = Bonds.due
_gone = Feed.gone
_is_over = UserKeys.is_over
_propose = Reaper._propose
_put_lease = Leases.put
_tick = Host.tick


def _move_the_clock_alone(host: Host) -> None:
    """The shard's clock is the node's own, between entries too."""
    _tick(host)
    for replica in host.replicas.values():
        keyspace = replica.state._keyspace
        keyspace.clock_ms = max(keyspace.clock_ms, host.clock.wall_ms())


def _nothing_ends(_table: Table, _after_ms: int, upto_ms: int) -> tuple[list[Any], int]:
    """Deadlines are in memory alone: a shard that is opened again has none."""
    return [], upto_ms


def _propose_in_one_term(reaper: Reaper, replica: Replica, wall_ms: int) -> None:
    """What is due is the first leader's to end: a timer, not a time."""
    term, _ = reaper._proposed.get(replica.shard, (1, 0))
    if replica.raft.term == term:
        _propose(reaper, replica, wall_ms)


def _lose_bonds(bonds: Bonds, at: int, table: Table | None) -> Bonds:
    """The new half has its keys, and for ever."""
    _cut(bonds, at, table)
    return Bonds()


def _forget_notes(_notes: Notes) -> Notes:
    """The new half knows of no lease and of no retention."""
    return Notes()


def _put_for_a_touch(keys: UserKeys, effect: Effect, index: int) -> None:
    """A key that is kept alive is written anew."""
    if effect.action is not Action.TOUCH:
        _do(keys, effect, index)
        return
    keyspace, key = keys._keyspace, effect.key
    row = keyspace.get(key)
    assert row is not None, effect
    keyspace.put(
        key, row.value, row.content_type, index, row, keyspace.extent.cell_of(key),
        effect.expires_ms, effect.lease,
    )  # fmt: skip


def _keep_the_first_deadline(leases: Leases, lease: int, ttl_ms: int, deadline_ms: int) -> None:
    """A lease that is kept alive ends when it would have ended."""
    known = leases.get(lease)
    before_ms = deadline_ms if known is None else known.deadline_ms
    _put_lease(leases, lease, ttl_ms, min(before_ms, deadline_ms))


def _due_a_little_early(bonds: Bonds, clock_ms: int, limit: int) -> list[bytes]:
    """What is due within the next tenth of a second goes along."""
    return _due(bonds, clock_ms + 100, limit)


def _over_a_little_early(keys: UserKeys, row: Row | Stamp) -> bool:
    """As above."""
    return _is_over(keys, row) or 0 < row.expires_ms <= keys.clock_ms + 100


def _tell_nobody(feed: Feed, at: int, key: bytes, kind: Change) -> None:
    """A key that ends by itself is no event: nobody has written."""
    if kind is not Change.EXPIRE:
        _gone(feed, at, key, kind)


def _believe_all_were_told(_arcs: Sequence[Sequence[int]]) -> bool:
    """The shards of this node's map are all there are."""
    return True


MUTANTS = (
    Mutant(
        name="deadlines-by-the-own-clock",
        rule="the shard's clock moves with its entries and by nothing else",
        source="raft.md 6, state/bonds.py",
        hint="chronicle, state hash: any life with deadlines",
        patches=((Host, "tick", _move_the_clock_alone),),
    ),
    Mutant(
        name="deadlines-are-forgotten-by-a-restart",
        rule="a deadline is part of its row",
        source="state/bonds.py",
        hint="chronicle: a node starts again before a deadline",
        patches=((Table, "ending", _nothing_ends),),
    ),
    Mutant(
        name="deadline-is-a-timer",
        rule="whoever leads ends what is due",
        source="host/expiry.py",
        hint="liveness: a leader of a later term, and nobody who writes",
        patches=((Reaper, "_propose", _propose_in_one_term),),
    ),
    Mutant(
        name="split-forgets-the-deadlines",
        rule="a key ends in whatever shard it is",
        source="state/split.py, state/bonds.py",
        hint="chronicle: keys that end, and a split",
        patches=((Bonds, "cut", _lose_bonds),),
    ),
    Mutant(
        name="split-forgets-the-leases",
        rule="both halves know every lease",
        source="state/notes.py",
        hint="chronicle: a lease that is kept alive, and a split",
        patches=((Notes, "copy", _forget_notes),),
    ),
    Mutant(
        name="touch-is-a-write",
        rule="how long a key lasts is no new revision, and no event",
        source="state/keyspace.py",
        hint="chronicle, watch: any touch",
        patches=((UserKeys, "do", _put_for_a_touch),),
    ),
    Mutant(
        name="keepalive-changes-nothing",
        rule="a lease lasts for its whole time from the keepalive on",
        source="state/leases.py",
        hint="chronicle: a lease that is kept alive",
        patches=((Leases, "put", _keep_the_first_deadline),),
    ),
    Mutant(
        name="ended-too-early",
        rule="nothing ends before its deadline",
        source="state/bonds.py",
        hint="chronicle: two deadlines that are near each other",
        patches=((Bonds, "due", _due_a_little_early), (UserKeys, "is_over", _over_a_little_early)),
    ),
    Mutant(
        name="an-end-is-no-event",
        rule="a watch is told of keys that end by themselves",
        source="state/feed.py, raft.md B46",
        hint="watch: keys that end",
        patches=((Feed, "gone", _tell_nobody),),
    ),
    Mutant(
        name="half-is-not-told-of-a-lease",
        rule="what is told to all shards is told to all",
        source="found here: docs/simulation.md",
        hint="answers: leases that are kept alive while a shard is split",
        patches=((gather, "cover_the_ring", _believe_all_were_told),),
    ),
)
