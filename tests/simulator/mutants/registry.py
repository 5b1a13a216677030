"""All planted bugs, and how one is switched on.

A simulator that finds nothing has either nothing to find or no eyes. Each mutant is a
mistake that others have made in code like ours (raft.md 3); whoever claims to check the
product is handed them one by one and has to find each within a stated number of seeds::

    with planted("vote-not-persisted"):
        run(seed)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.simulator.mutants import (
    answers,
    durability,
    election,
    endings,
    found,
    identity,
    leaving,
    membership,
    moves,
    reads,
    recovering,
    replication,
    room,
    scrubs,
    sessions,
    several,
    snapshots,
    splits,
    verbs,
    voting,
    watching,
)
from tests.simulator.mutants.mutant import Mutant

__all__ = ["MUTANTS", "Mutant", "planted"]

_MODULES = (
    voting, election, replication, membership, durability, snapshots, reads, sessions, answers,
    found, moves, leaving, splits, identity, endings, verbs, watching, several,
    recovering, room, scrubs,
)  # fmt: skip

# By name, in the order of the files.
MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for module in _MODULES for mutant in module.MUTANTS
}


@contextlib.contextmanager
def planted(mutant: Mutant | str) -> Iterator[Mutant]:
    """The bug is there inside the block and gone behind it, however it ends.

    What was made inside the block may hold on to parts of the bug; throw it away.
    Raises KeyError for a name that is not in ``MUTANTS``.
    """
    chosen = MUTANTS[mutant] if isinstance(mutant, str) else mutant
    taken: list[tuple[object, str, object]] = []
    try:
        for owner, name, replacement in chosen.patches:
            taken.append((owner, name, vars(owner)[name]))
            setattr(owner, name, replacement)
        yield chosen
    finally:
        for owner, name, original in reversed(taken):
            setattr(owner, name, original)
