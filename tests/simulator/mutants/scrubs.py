"""Planted bugs: rows that nobody reads are read again, and what is damaged is found."""

from __future__ import annotations

from kritad.host.scrubber import _ROWS_MIN, Scrubber
from kritad.storage import scrubbing
from kritad.storage.errors import REBUILD_HINT, Corrupt
from tests.simulator.mutants.mutant import Mutant

_go_on = Scrubber._go_on


def _lay_to_nobody(_scrubber: Scrubber, _generation: int, _key: bytes) -> None:
    """What is damaged is counted and nothing else."""


def _lay_to_all(scrubber: Scrubber, generation: int, key: bytes) -> None:
    """Whoever has rows in the generation of a damaged one is damaged."""
    for replica in list(scrubber._replicas.values()):
        if replica.state.table.generation == generation and key:
            scrubber._on_damage(replica, Corrupt(replica.shard, "a row is damaged", REBUILD_HINT))


def _stay_at_the_end(scrubber: Scrubber, id_last: int, id_max: int) -> None:
    """When all has been read once, it goes on behind the end."""
    _go_on(scrubber, id_last, id_max)
    if scrubber.passes:
        scrubber._behind_id = id_max + _ROWS_MIN


def _find_by_any_way(_connection: object, _row_id: int, _generation: object, _key: object) -> bool:
    """A row that is in the table is taken for one that its key finds."""
    return True


MUTANTS = (
    Mutant(
        name="what-the-scrub-finds-is-nobodys",
        rule="a damaged row that nobody has read costs its replica its life",
        source="host/scrubber.py, reliability.md D6",
        hint="liveness: a damaged row of a follower, which is never read",
        patches=((Scrubber, "_lay_to_its_replica", _lay_to_nobody),),
    ),
    Mutant(
        name="scrub-ends-with-its-first-pass",
        rule="all rows are read again and again",
        source="host/scrubber.py, reliability.md D6",
        hint="liveness: a row that is damaged after some passes",
        patches=((Scrubber, "_go_on", _stay_at_the_end),),
    ),
    Mutant(
        name="scrub-blames-the-other-half",
        rule="a damaged row is its own shard's matter, whoever has rows beside it",
        source="host/scrubber.py",
        hint="undamaged: two halves of a shard that share their rows",
        patches=((Scrubber, "_lay_to_its_replica", _lay_to_all),),
    ),
    Mutant(
        name="scrub-does-not-look-at-the-index",
        rule="every row is found by its key",
        source="storage/scrubbing.py, reliability.md D6",
        hint="the disk: bits that flip in the index",
        patches=((scrubbing, "_is_indexed", _find_by_any_way),),
    ),
)
