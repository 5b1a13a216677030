"""What raft.db should hold, kept in plain Python: the oracle of the storage tests."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import attrs

from kritad.raft.configuration import encode_configuration
from kritad.raft.types import (
    Boot,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Save,
    SnapshotMeta,
)


@attrs.define
class ReplicaModel:
    """One replica's log and votes."""

    first: SnapshotMeta = attrs.field(factory=SnapshotMeta)
    entries: list[Entry] = attrs.field(factory=list)  # behind `first`
    hard_state: HardState = attrs.field(factory=HardState)
    sequence: int = 0

    @property
    def last_index(self) -> int:
        return self.first.index + len(self.entries)

    @property
    def last_term(self) -> int:
        return self.entries[-1].term if self.entries else self.first.term

    def copy(self) -> ReplicaModel:
        return attrs.evolve(self, entries=list(self.entries))

    def apply(self, save: Save) -> None:
        """Do what storage is told to do, in the order of types.Save."""
        if save.snapshot is not None:
            self.first, self.entries = save.snapshot, []
        if save.truncate_from:
            self.entries = [e for e in self.entries if e.index < save.truncate_from]
        self.entries.extend(save.entries)
        if save.hard_state is not None:
            self.hard_state = save.hard_state

    def compact(self, meta: SnapshotMeta) -> None:
        self.entries = [e for e in self.entries if e.index > meta.index]
        self.first = meta

    def boot(self, applied_index: int) -> Boot:
        """What RaftDatabase.load should return."""
        terms: list[tuple[int, int]] = []
        for entry in self.entries:
            if not terms or terms[-1][1] != entry.term:
                terms.append((entry.index, entry.term))
        return Boot(
            hard_state=self.hard_state,
            snapshot=self.first,
            last_index=self.last_index,
            terms=terms,
            configurations=[
                (e.index, configuration(e.index)) for e in self.entries if e.kind is EntryKind.CONF
            ],
            entries=[e for e in self.entries if e.index > applied_index],
            applied_index=applied_index,
        )


def configuration(version: int) -> Configuration:
    return Configuration(version, voters=frozenset({1, 2, 3}), nodes={1: 11, 2: 12, 3: 13})


def entry(index: int, term: int, data: bytes = b"", kind: EntryKind = EntryKind.COMMAND) -> Entry:
    if kind is EntryKind.CONF:
        data = encode_configuration(configuration(index))
    return Entry(index, term, kind, data)


def run(first: int, last: int, term: int = 1, data_bytes: int = 40) -> list[Entry]:
    return [entry(index, term, b"%d" % index * data_bytes) for index in range(first, last + 1)]


def random_save(chance: random.Random, model: ReplicaModel) -> Save:
    """A Save that a correct core might hand out for a replica in this state."""
    model.sequence += 1
    term = model.hard_state.term + chance.randrange(2) or 1
    save = Save(model.sequence, sync_hard_state=True)
    last = model.last_index
    action = chance.random()
    if action < 0.05:
        index = last + chance.randrange(1, 9)
        save.snapshot = SnapshotMeta(index, max(1, model.last_term), configuration(index), 7)
        last = index
    elif action < 0.25 and model.entries:
        save.truncate_from = chance.randrange(model.first.index + 1, last + 1)
        last = save.truncate_from - 1
    if action > 0.1:
        for index in range(last + 1, last + 1 + chance.randrange(8)):
            kind = EntryKind.CONF if chance.random() < 0.1 else EntryKind.COMMAND
            save.entries.append(entry(index, term, chance.randbytes(chance.randrange(300)), kind))
    save.hard_state = HardState(term, chance.randrange(4), chance.randrange(last + 1))
    return save


def copy_store(source: Path, target: Path) -> Path:
    """What a crash of the process leaves: the files as they are now, under another name."""
    target.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        file = source.with_name(source.name + suffix)
        if file.exists():
            shutil.copy(file, target / file.name)
    return target / source.name
