"""Entry records: any damage is an error, never a missing or another entry."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kritad.raft.records import HEADER_BYTES, CorruptRecord, pack_entry, pack_run, unpack_run
from kritad.raft.types import Entry, EntryKind

ENTRIES = st.lists(
    st.builds(
        Entry,
        st.integers(1, 2**64 - 1),
        st.integers(1, 2**64 - 1),
        st.sampled_from(EntryKind),
        st.binary(max_size=40),
    ),
    max_size=5,
)


@given(ENTRIES, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_run_comes_back_as_it_was(entries: list[Entry], shard: int) -> None:
    run = pack_run(shard, entries)
    read = unpack_run(shard, run)
    assert read == entries
    assert b"".join(entry.record or b"" for entry in read) == run


@given(ENTRIES.filter(bool), st.data())
@settings(max_examples=150, deadline=None)
def test_one_flipped_bit_anywhere_is_noticed(entries: list[Entry], data: st.DataObject) -> None:
    run = bytearray(pack_run(7, entries))
    position = data.draw(st.integers(0, len(run) - 1))
    run[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptRecord):
        unpack_run(7, bytes(run))


def test_a_run_that_ends_early_is_noticed() -> None:
    run = pack_run(7, [Entry(1, 1, EntryKind.COMMAND, b"abc")])
    for end in (1, HEADER_BYTES - 1, HEADER_BYTES, len(run) - 1):
        with pytest.raises(CorruptRecord, match="ends inside"):
            unpack_run(7, run[:end])


def test_a_record_of_another_shard_is_corrupt() -> None:
    run = pack_run(7, [Entry(1, 1, EntryKind.COMMAND, b"abc")])
    with pytest.raises(CorruptRecord, match="in shard 8"):
        unpack_run(8, run)


def test_a_record_is_made_once() -> None:
    entry = Entry(1, 1, EntryKind.COMMAND, b"abc")
    assert pack_entry(7, entry) is pack_entry(7, entry)
