"""A story of a row that nobody reads."""

from __future__ import annotations

from typing import ClassVar

from krita.operations import Op
from kritad.storage.places import stored_token
from tests.simulator.stories.story import Story


class DamagedWhereNobodyReads(Story):
    """Shard 1 is split, and both halves go on with the same rows on the disk. After some passes
    of the scrub one row is damaged, of the second half's replica on node 2, which follows. It is
    found, and the first half is well."""

    changes: ClassVar = {"reads": 0.0}
    settings: ClassVar = {"scrub_pass_ms": 2_000.0, "flush_interval_ms": 100.0}

    def happen(self) -> None:
        """See the class."""
        self.pass_ms(500)
        self.ask(1, Op.SHARD_SPLIT, 1)
        node = self.at(2)
        self.until("it is split there", lambda: node.replica(2) is not None)
        for shard in (1, 2):
            self.lead(shard, 1)
        self.resting = True  # what is written again is sound again
        self.until("it has been read twice", lambda: node.host.scrubber.passes > 2)
        applied = node.data_db.applied()
        assert applied[1].rows == applied[2].rows, "they share nothing"
        lo, hi = applied[2].arc
        keys = node.data_db.generation(applied[2].rows).rows
        key = next(key for key in sorted(keys) if lo <= stored_token(key) < hi)
        self.rotten[2] = node
        node.data_db.corrupt_keys.add((applied[2].rows, key))
        before = self.here(2, 2).id
        self.until("it is found and made anew", lambda: self._is_other(before))
        self.resting = False
        for person in self.people:
            person.begin()

    def _is_other(self, before: int) -> bool:
        replica = self.at(2).replica(2)
        return replica is not None and replica.id != before and not replica.raft.poisoned
