"""Snapshots: one moment of a shard in chunks, resumed after a break, refused when damaged."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import attrs
import pytest

from kritad.storage.data_db import DataDatabase
from kritad.storage.digests import row_digest
from kritad.storage.errors import Corrupt
from kritad.storage.rows import ShardFlush
from kritad.storage.snapshots import (
    SnapshotChunk,
    SnapshotReader,
    SnapshotRefused,
    SnapshotWriter,
)
from tests.storage.model import copy_store
from tests.storage.snapshot_ends import check_state, chunks_of, receiver, sender
from tests.storage.state import applied, fill, row

__all__ = ["receiver", "sender"]


def test_a_snapshot_arrives_whole_and_is_unseen_until_installed(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    writer = SnapshotWriter(receiver, attrs.evolve(at, replica=9))
    assert writer.begin(b"t1") == 0
    for chunk in chunks_of(sender, at):
        assert writer.write(chunk) == chunk.number + 1
    generation = writer.finish()
    assert receiver.applied() == {}
    receiver.install(writer.applied)
    assert receiver.applied() == {4: attrs.evolve(at, replica=9, generation=generation)}
    check_state(receiver, generation, model)
    assert receiver.sweep(1000) == 0


def test_an_empty_state_is_one_last_chunk(sender: DataDatabase, receiver: DataDatabase) -> None:
    at, _ = fill(sender, 4, count=0)
    (chunk,) = chunks_of(sender, at)
    assert (chunk.rows, chunk.last) == ([], True)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    writer.write(chunk)
    writer.finish()


def test_chunks_keep_to_their_size_except_for_a_single_larger_row(sender: DataDatabase) -> None:
    at, model = fill(sender, 4, count=60, value_bytes=700)
    chunks = chunks_of(sender, at, 2500)
    assert {len(chunk.rows) for chunk in chunks[2:-1]} == {3}
    assert len(chunks_of(sender, at, 10)) == len(model.rows) + len(model.sessions)


def test_the_reader_sees_one_moment_while_the_shard_goes_on(sender: DataDatabase) -> None:
    at, model = fill(sender, 4)
    with contextlib.closing(SnapshotReader(sender.path, at)) as reader:
        chunk = reader.next_chunk(2000)
        keys = [key for key, _ in model.items()]
        later = [(key, row(key, 999, b"later")) for key in keys]
        sender.flush([ShardFlush(applied(4, at.generation, 999), dict(later))])
        count = len(chunk.rows)
        while not chunk.last:
            chunk = reader.next_chunk(2000)
            count += len(chunk.rows)
        assert count == len(model.rows) + len(model.sessions)
        assert reader.applied == at


def test_the_reader_announces_what_it_reads_not_what_it_was_told(sender: DataDatabase) -> None:
    at, _ = fill(sender, 4)
    newer = attrs.evolve(at, index=at.index + 50)
    sender.flush([ShardFlush(newer)])
    with contextlib.closing(SnapshotReader(sender.path, at)) as reader:
        assert reader.applied == newer


def test_a_shard_that_has_moved_to_another_generation_is_refused(sender: DataDatabase) -> None:
    at, _ = fill(sender, 4)
    sender.install(applied(4, sender.create_generation(), 1000))
    with pytest.raises(SnapshotRefused, match="is gone"):
        SnapshotReader(sender.path, at)


@pytest.mark.parametrize("stop_after", [0, 1, 2, 5])
def test_a_receiver_that_restarts_goes_on_where_it_was(
    sender: DataDatabase, tmp_path: Path, stop_after: int
) -> None:
    at, model = fill(sender, 4)
    chunks = chunks_of(sender, at)
    path = tmp_path / "receiver.db"
    first = DataDatabase.open(path)
    writer = SnapshotWriter(first, at)
    writer.begin(b"t1")
    for chunk in chunks[:stop_after]:
        writer.write(chunk)
    crashed = DataDatabase.open(copy_store(path, tmp_path / "crashed"))
    first.close()
    assert crashed.sweep(1000) == 0, "a transfer under way was swept"
    writer = SnapshotWriter(crashed, at)
    assert writer.begin(b"t1") == stop_after
    for chunk in chunks[stop_after:]:
        writer.write(chunk)
    check_state(crashed, writer.finish(), model)
    crashed.close()


def test_a_reader_goes_back_to_what_the_receiver_has_lost(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    chance = random.Random(3)
    with contextlib.closing(SnapshotReader(sender.path, at)) as reader:
        while True:
            chunk = reader.next_chunk(chance.randrange(500, 3000))
            if chance.random() < 0.3:
                reader.seek(writer.next_chunk)  # the chunk got lost on the way
                continue
            if chance.random() < 0.3 and writer.next_chunk:
                with pytest.raises(SnapshotRefused):
                    reader.seek(chunk.number + 2)
            writer.write(chunk)
            if chunk.last:
                break
    check_state(receiver, writer.finish(), model)


def test_repeated_and_early_chunks_are_not_written(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    chunks = chunks_of(sender, at)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    for number, chunk in enumerate(chunks):
        assert writer.write(chunks[-1] if number + 1 < len(chunks) else chunk) in (
            number,
            number + 1,
        )
        writer.write(chunk)
        writer.write(chunks[0])
    check_state(receiver, writer.finish(), model)


def test_another_transfer_starts_afresh_and_the_old_rows_are_swept_behind_it(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, model = fill(sender, 4)
    chunks = chunks_of(sender, at)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t1")
    writer.write(chunks[0])
    old = writer.applied.generation
    writer = SnapshotWriter(receiver, at)
    assert writer.begin(b"t2") == 0
    assert writer.applied.generation != old
    assert receiver.sweep(1000) == 0, "what has come may be of use"
    for chunk in chunks:
        writer.write(chunk)
    check_state(receiver, writer.finish(), model)
    receiver.install(writer.applied)
    assert receiver.sweep(1000) == len(chunks[0].rows)


def test_the_same_transfer_id_with_another_state_starts_afresh(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, _ = fill(sender, 4)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    writer.write(chunks_of(sender, at)[0])
    assert SnapshotWriter(receiver, attrs.evolve(at, index=at.index + 1)).begin(b"t") == 0


@pytest.mark.parametrize(
    "change",
    ["value", "drop a row", "swap halves", "last", "crc", "digestless shape"],
)
def test_a_chunk_that_was_changed_on_the_way_is_refused(
    sender: DataDatabase, receiver: DataDatabase, change: str
) -> None:
    at, _ = fill(sender, 4, count=9)
    (chunk,) = chunks_of(sender, at, 1 << 20)
    rows = [list(item) for item in chunk.rows]
    match change:
        case "value":
            rows[2][2] = b"forged"
        case "drop a row":
            rows.pop(3)
        case "swap halves":
            rows = rows[4:] + rows[:4]
        case "last":
            chunk = attrs.evolve(chunk, last=False)
        case "crc":
            chunk = attrs.evolve(chunk, crc=chunk.crc ^ 1)
        case _:
            rows[1] = rows[1][:3]
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    with pytest.raises(SnapshotRefused):
        writer.write(attrs.evolve(chunk, rows=rows))
    assert writer.next_chunk == 0


def test_a_snapshot_that_does_not_add_up_to_its_state_hash_is_refused_and_swept(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, _ = fill(sender, 4, count=20)
    writer = SnapshotWriter(receiver, attrs.evolve(at, state_hash=at.state_hash ^ 1))
    writer.begin(b"t")
    for chunk in chunks_of(sender, at):
        writer.write(chunk)
    with pytest.raises(SnapshotRefused, match="does not add up"):
        writer.finish()
    assert receiver.sweep(1000) == 22
    assert writer.begin(b"t") == 0


def test_a_snapshot_that_is_not_finished_cannot_be_finished(
    sender: DataDatabase, receiver: DataDatabase
) -> None:
    at, _ = fill(sender, 4)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    writer.write(chunks_of(sender, at)[0])
    with pytest.raises(SnapshotRefused):
        writer.finish()


def test_a_finished_snapshot_is_found_after_a_crash_before_its_install(
    sender: DataDatabase, receiver: DataDatabase, tmp_path: Path
) -> None:
    at, model = fill(sender, 4)
    writer = SnapshotWriter(receiver, at)
    writer.begin(b"t")
    chunks = chunks_of(sender, at)
    for chunk in chunks:
        writer.write(chunk)
    assert receiver.received(writer.applied.generation) is None
    generation = writer.finish()
    crashed = DataDatabase.open(copy_store(receiver.path, tmp_path / "crashed"))
    found = crashed.received(generation)
    assert found == writer.applied
    assert crashed.sweep(1000) == 0
    assert SnapshotWriter(crashed, at).begin(b"t") == len(chunks)
    crashed.install(found)
    check_state(crashed, crashed.applied()[4].generation, model)
    crashed.close()


def test_a_damaged_row_stops_the_sender_and_names_its_shard(sender: DataDatabase) -> None:
    at, _ = fill(sender, 4)
    with contextlib.closing(sqlite3.connect(sender.path)) as connection:
        connection.execute("UPDATE kv SET value=x'00' WHERE id=77")
        connection.commit()
    with pytest.raises(Corrupt) as caught:
        chunks_of(sender, at)
    assert caught.value.shard == 4


def test_a_lost_row_stops_the_sender_before_its_last_chunk(sender: DataDatabase) -> None:
    at, _ = fill(sender, 4)
    with contextlib.closing(sqlite3.connect(sender.path)) as connection:
        connection.execute("DELETE FROM kv WHERE id=77")
        connection.commit()
    with pytest.raises(Corrupt, match="do not add up"):
        chunks_of(sender, at)


def test_a_row_digest_depends_on_every_field_and_on_where_each_ends() -> None:
    digests = {
        row_digest(b"ab", 1, b"c", None),
        row_digest(b"a", 1, b"bc", None),
        row_digest(b"ab", 2, b"c", None),
        row_digest(b"ab", 1, b"", "c"),
        row_digest(b"ab", 1, b"c", ""),
        row_digest(b"abc", 1, b"", None),
    }
    assert len(digests) == 6
    # Stored and compared between nodes of different versions: never to change.
    assert row_digest(b"key", 7, b"value", "text/plain") == 1286363365849606936


def test_a_reader_that_is_closed_while_it_reads_is_closed_behind_that(
    sender: DataDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would have to wait for it, on the loop."""
    at, _ = fill(sender, 1, 10)
    reader = SnapshotReader(sender.path, at)
    read = reader._next_chunk

    def closed_meanwhile(bytes_max: int) -> SnapshotChunk:
        reader.close()
        return read(bytes_max)

    monkeypatch.setattr(reader, "_next_chunk", closed_meanwhile)
    assert reader.next_chunk(2_000).rows
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        reader._connection.execute("SELECT 1")
