"""A sender that was started again: another transfer, of a later state, to who has a part of it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import attrs
import pytest

from kritad.storage.data_db import DataDatabase
from kritad.storage.rows import Applied, Row, ShardFlush
from kritad.storage.snapshots import SnapshotChunk, SnapshotRefused, SnapshotWriter
from tests.storage.model import copy_store
from tests.storage.snapshot_ends import check_state, chunks_of, receiver, sender
from tests.storage.state import StateModel, applied, fill, row

__all__ = ["receiver", "sender"]


def broken_off(
    sender: DataDatabase,
    receiver: DataDatabase,
    at: Applied,
    transfer: bytes = b"t1",
    left: int = 2,
) -> None:
    """Bring all but the last slices of a transfer."""
    writer = SnapshotWriter(receiver, at)
    writer.begin(transfer)
    for chunk in chunks_of(sender, at)[:-left]:
        assert writer.write(chunk) == chunk.number + 1


def goes_on(sender: DataDatabase, at: Applied, model: StateModel) -> tuple[Applied, set[bytes]]:
    """The shard overwrites, removes and adds some; the state then, and the keys that differ."""
    keys = sorted(model.rows)
    changes: dict[bytes, Row | None] = {
        keys[3]: row(keys[3], 900, b"later"),
        keys[40]: None,
        keys[41] + b"+": row(keys[41] + b"+", 901, b"between"),
        keys[-1] + b"+": row(keys[-1] + b"+", 902, b"at the end"),
    }
    for key, changed in changes.items():
        if changed is None:
            del model.rows[key]
        else:
            model.rows[key] = changed
    newer = applied(at.shard, at.generation, at.index + 4, model.state_hash, model.extent)
    sender.flush([ShardFlush(newer, changes)])
    return newer, set(changes)


def bring(writer: SnapshotWriter, chunks: list[SnapshotChunk]) -> list[SnapshotChunk]:
    """As the sender does, without what may be known; the slices in the form that was stored."""
    stored = []
    for chunk in chunks:
        form = chunk.shortened(writer.known_to)
        while writer.write(form) == chunk.number:
            assert form.digests, "a whole slice was not stored"
            form = chunk.shortened(writer.known_to, writer.missing)
        stored.append(form)
    return stored


def whole_keys(chunks: list[SnapshotChunk]) -> set[bytes]:
    """Of the rows that were sent whole, but for those that always are."""
    items = [item for chunk in chunks for item in chunk.rows[:-1] if isinstance(item, list)]
    return {item[0] for item in items if isinstance(item[0], bytes)}


def test_a_transfer_of_a_later_state_brings_what_has_changed_and_digests_of_the_rest(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    broken_off(sender, receiver, at)
    newer, changed = goes_on(sender, at, model)
    writer = SnapshotWriter(receiver, newer)
    assert writer.begin(b"t2") == 0
    chunks = chunks_of(sender, newer)
    stored = bring(writer, chunks)
    check_state(receiver, writer.finish(), model)
    sent = {key for key in whole_keys(stored) if key <= writer.known_to}
    assert sent == {key for key in changed if key in model.rows and key <= writer.known_to}
    assert len(sent) == 2 < len(model.rows)


def test_what_was_kept_is_swept_once_the_snapshot_is_installed(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    broken_off(sender, receiver, at)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t2")
    assert receiver.sweep(1000) == 0
    bring(writer, chunks_of(sender, at))
    writer.finish()
    receiver.install(writer.applied)
    assert receiver.sweep(1000) > 0
    check_state(receiver, writer.applied.generation, model)


def test_a_receiver_that_was_started_again_asks_for_everything_that_it_has_not(
    tmp_path: Path, sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    broken_off(sender, receiver, at)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t2")
    chunks = chunks_of(sender, at)
    bring(writer, chunks[:2])
    known_to = writer.known_to
    again = DataDatabase.open(copy_store(receiver.path, tmp_path / "again"))
    writer = SnapshotWriter(again, at)
    assert writer.begin(b"t2") == 2, "what this transfer has brought is there"
    assert writer.known_to == b""
    assert writer.write(chunks[2].shortened(known_to)) == 2
    assert len(writer.missing) == len(chunks[2].rows) - 1
    bring(writer, chunks[2:])
    check_state(again, writer.finish(), model)
    again.close()


def test_of_two_transfers_that_broke_off_the_one_that_came_further_is_kept(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, _ = fill(sender, 4)
    broken_off(sender, receiver, at, b"t1", left=2)
    broken_off(sender, receiver, at, b"t2", left=8)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t3")
    last = [chunk.rows[-1][0] for chunk in chunks_of(sender, at)]
    assert writer.known_to == last[-3]


def test_a_kept_row_that_is_damaged_is_sent_again(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    broken_off(sender, receiver, at)
    receiver.checkpoint()
    with contextlib.closing(sqlite3.connect(receiver.path)) as connection, connection:
        connection.execute("UPDATE kv SET value = x'00'")
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t2")
    bring(writer, chunks_of(sender, at))
    check_state(receiver, writer.finish(), model)


def test_after_a_sum_that_was_wrong_nothing_of_it_is_used_again(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, _ = fill(sender, 4)
    broken_off(sender, receiver, at)
    writer = SnapshotWriter(receiver, attrs.evolve(at, state_hash=at.state_hash + 1))
    writer.begin(b"t2")
    bring(writer, chunks_of(sender, at))
    with pytest.raises(SnapshotRefused, match="does not add up"):
        writer.finish()
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t3")
    assert writer.known_to == b""
