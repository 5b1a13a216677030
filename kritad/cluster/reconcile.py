"""From the configuration that is to the one that is wanted, one change at a time.

Asked by a shard's leader again and again: each answer depends only on what is
wanted, on the configuration in force and on how far each replica's log has come,
so a new leader goes on where the old one stopped, and a plan that changes on the
way simply changes the next answer (raft.md 4.5).

The order: missing replicas are added as learners; a learner that has caught up
is made a voter, and in the same joint change as many surplus voters are made
learners as keeps the number of voters; learners that nobody wants are removed
last. So a group never has fewer voters than are wanted because of a move, and a
replica that voted is first demoted, then removed. But a node holds one replica of a shard:
where a damaged one is replaced on its own node (healing.py), the new one is not there
before the old one is let go, and is not waited for.

No change makes a healthy group unhealthy (raft.md 4.5, step 5): nobody is promoted
who does not answer, and nobody who answers is demoted when the voters that answer
would be fewer than a majority without him.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from kritad.raft.configuration import Change, ChangeKind
from kritad.raft.types import NOBODY, Configuration

# A learner this close to the end of the log is promoted: the rest arrives in a
# fraction of an election timeout (thesis 4.2.1 asks for one round below that).
PROMOTE_LAG_ENTRIES_MAX = 1024


def next_change(
    voters: Mapping[int, int],
    learners: Mapping[int, int],
    configuration: Configuration,
    matches: Mapping[int, int],
    last_index: int,
    leader: int = NOBODY,
    *,
    reachable: Collection[int] | None = None,
    held: bool = False,
) -> list[Change] | None:
    """The changes to propose now, as one conf entry; None when there is nothing to
    do, or nothing yet.

    ``voters`` and ``learners`` are what is wanted, replica id -> node id;
    ``matches`` is how far each replica's log is known to agree with the leader's.
    A ``leader`` that is not wanted as a voter is never demoted by itself: see
    ``successor``. The result never holds more than is legal in one step.

    ``reachable`` are the replica ids that answer now, the leader's own among
    them; None: all. ``held`` stops the move: only learners that nobody wants are
    let go, which is how a move that was cancelled ends.
    """
    assert voters, "a shard without voters is wanted"
    assert voters.keys().isdisjoint(learners), "a replica is wanted as voter and as learner"
    if configuration.joint:
        return None  # the core leaves it by itself once it has committed
    wanted = voters.keys() | learners.keys()
    unwanted = sorted(configuration.learners - wanted)
    removals = [Change(ChangeKind.REMOVE, replica) for replica in unwanted] or None
    if held:
        return removals
    missing = sorted(wanted - configuration.members)
    if missing:
        return [Change(ChangeKind.ADD_LEARNER, replica) for replica in missing]
    alive = configuration.members if reachable is None else configuration.members & set(reachable)
    replaced = _replaced(voters, configuration)
    ready = [
        replica
        for replica in sorted(configuration.learners & voters.keys() & alive)
        if matches.get(replica, 0) >= last_index - PROMOTE_LAG_ENTRIES_MAX
        and replica not in replaced.values()
    ]
    surplus = sorted(
        configuration.voters - voters.keys() - {leader},
        # Missed the least: who does not answer, then who is furthest behind.
        key=lambda replica: (replica in alive, matches.get(replica, 0), replica),
    )
    spare = max(0, len(configuration.voters) + len(ready) - len(voters))
    leaving = [r for r in surplus if r in replaced]
    leaving += [r for r in surplus[:spare] if r not in replaced]
    demoted = _may_be_demoted(leaving, configuration.voters.union(ready), alive)
    changes = [Change(ChangeKind.ADD_VOTER, replica) for replica in ready]
    changes += [Change(ChangeKind.ADD_LEARNER, replica) for replica in demoted]
    return changes or removals


def successor(
    voters: Mapping[int, int],
    configuration: Configuration,
    matches: Mapping[int, int],
    leader: int,
) -> int:
    """To whom a leader that shall not stay a voter has to hand over before it can
    be demoted: the wanted voter whose log has come furthest. NOBODY when the
    leader is wanted or none of the others votes yet."""
    if configuration.joint or leader in voters:
        return NOBODY
    heirs = configuration.voters & voters.keys()
    return max(heirs, key=lambda replica: (matches.get(replica, 0), -replica), default=NOBODY)


def _replaced(voters: Mapping[int, int], configuration: Configuration) -> dict[int, int]:
    """Member that is not wanted -> the one that is, and does not vote yet, on the same node."""
    awaited = {voters[replica]: replica for replica in voters.keys() - configuration.voters}
    nodes = configuration.nodes
    found = {r: awaited.get(nodes.get(r, 0), NOBODY) for r in sorted(configuration.members)}
    return {r: heir for r, heir in found.items() if heir and r not in voters}


def _may_be_demoted(
    surplus: Sequence[int], voters: Collection[int], alive: Collection[int]
) -> list[int]:
    """Those of ``surplus``, in this order, without whom the voters that answer are still
    a majority. Who does not answer is no loss."""
    left = set(voters)
    demoted = []
    for replica in surplus:
        after = left - {replica}
        if replica in alive and 2 * len(after.intersection(alive)) <= len(after):
            continue
        left = after
        demoted.append(replica)
    return demoted
