"""The log: window, terms, truncation, compaction, and the boots it refuses."""

from __future__ import annotations

import random

import attrs
import pytest

from kritad.raft.configuration import encode_configuration
from kritad.raft.errors import InvariantBroken
from kritad.raft.log import UNKNOWN_TERM, Log
from kritad.raft.records import HEADER_BYTES
from kritad.raft.types import Boot, Configuration, Entry, EntryKind, SnapshotMeta
from tests.raft.lone import boot_of, log_of


def test_terms_are_known_for_the_whole_log_and_for_nothing_else() -> None:
    log = Log(boot_of([1, 1, 3], snapshot=SnapshotMeta(4, 1)), 1 << 20)
    assert [log.term(index) for index in range(3, 9)] == [UNKNOWN_TERM, 1, 1, 1, 3, UNKNOWN_TERM]


def test_the_window_keeps_about_its_bytes_behind_the_applied_index() -> None:
    log = Log(boot_of(), window_bytes=400)
    size = HEADER_BYTES + 15
    for index in range(1, 101):
        log.append([Entry(index, 1, EntryKind.COMMAND, bytes(15))])
        log.commit_to(index)
        log.handed = index
        log.applied_to(index)
        held_bytes = (log.last_index + 1 - log.first_held) * size
        assert held_bytes <= 500
        assert log.term(index // 2 + 1) == 1
    assert log.first_held in range(88, 92)


def test_entries_that_are_not_applied_stay_in_memory_however_many() -> None:
    log = Log(boot_of(), window_bytes=1)
    log.append(log_of([1] * 50))
    log.commit_to(50)
    log.handed = 50
    log.applied_to(10)
    assert log.first_held in (10, 11)
    assert [entry.index for entry in log.held(11, 50)] == list(range(11, 51))


def test_a_batch_holds_at_least_one_entry_and_else_no_more_than_its_bytes() -> None:
    log = Log(boot_of([1] * 10), 1 << 20)
    size = HEADER_BYTES + 3
    assert [entry.index for entry in log.batch(3, 0)] == [3]
    assert [entry.index for entry in log.batch(3, 2 * size)] == [3, 4]
    assert [entry.index for entry in log.batch(3, 3 * size - 1)] == [3, 4]
    assert [entry.index for entry in log.batch(9, 1 << 20)] == [9, 10]


def test_uncommitted_bytes_are_zero_when_all_is_committed_whatever_happened() -> None:
    dice = random.Random(3)
    log = Log(boot_of(), window_bytes=100)
    for _ in range(500):
        if dice.random() < 0.6:
            index = log.last_index + 1
            log.append([Entry(index, 1, EntryKind.COMMAND, bytes(dice.randint(0, 50)))])
        elif dice.random() < 0.3 and log.last_index > log.commit:
            log.truncate(dice.randint(log.commit + 1, log.last_index))
        else:
            log.commit_to(dice.randint(log.commit, log.last_index))
            log.handed = log.commit
            log.applied_to(dice.randint(log.applied, log.commit))
        expected = sum(
            len(entry.data) + HEADER_BYTES for entry in log.held(log.commit + 1, log.last_index)
        )
        assert log.uncommitted_bytes == expected


def test_nothing_committed_is_ever_truncated() -> None:
    log = Log(boot_of([1, 1, 1], commit=2), 1 << 20)
    with pytest.raises(InvariantBroken, match="committed up to 2"):
        log.truncate(2)
    assert log.last_index == 3


def test_a_log_that_was_cut_or_begun_anew_is_as_up_to_date_as_what_is_left() -> None:
    log = Log(boot_of([3, 4, 5], snapshot=SnapshotMeta(4, 2)), 1 << 20)
    ends = []
    for cut in (7, 6, 5):
        log.truncate(cut)
        ends.append((log.last_index, log.last_term))
    log.append(log_of([6], 5))
    log.restart(SnapshotMeta(9, 3))
    assert [*ends, (log.last_index, log.last_term)] == [(6, 4), (5, 3), (4, 2), (9, 3)]
    assert log.is_up_to_date(9, 3)
    assert not log.is_up_to_date(8, 3)


def test_only_what_a_save_has_carried_is_truncated_on_the_disk() -> None:
    log = Log(boot_of([1, 1]), 1 << 20)
    log.append(log_of([1, 1], 3))
    log.truncate(4)  # never saved
    assert (log.truncate_from, log.unsaved) == (0, 3)
    log.truncate(2)
    assert (log.truncate_from, log.unsaved) == (2, 2)
    log.append(log_of([2, 2, 2], 2))
    log.truncate(3)  # above what the save will truncate anyway
    assert (log.truncate_from, log.unsaved) == (2, 2)


def test_compaction_keeps_the_terms_and_the_configuration_of_what_is_left() -> None:
    for index in range(1, 7):
        log = Log(boot_of([1, 1, 2, 2, 3, 3], commit=6), 1 << 20)
        log.handed = 6
        log.applied_to(6)
        log.compact(index)
        assert [log.term(i) for i in range(index, 8)] == [*[1, 1, 2, 2, 3, 3][index - 1 :], -1]
        assert log.snapshot.index == index
        assert log.terms_agree()
        assert log.configurations == [(index, log.configuration)]
        assert log.configuration.voters == {1, 2, 3}
        log.compact(index - 1)  # one that comes late
        assert log.snapshot.index == index
        log.append([Entry(7, 3, EntryKind.COMMAND, b"")])
        assert (log.term(7), log.last_term) == (3, 3)


def test_the_term_of_the_first_entry_behind_a_snapshot_is_known() -> None:
    """It may be the snapshot's own term, which has no run yet."""
    log = Log(boot_of(snapshot=SnapshotMeta(5, 2)), window_bytes=1)
    log.append(log_of([2, 2, 3], 6))
    log.commit_to(8)
    log.handed = 8
    log.applied_to(8)
    assert [log.term(index) for index in (5, 6, 7, 8)] == [2, 2, 2, 3]


def test_a_guess_skips_every_place_that_cannot_agree() -> None:
    log = Log(boot_of([1, 1, 4, 4, 6]), 1 << 20)
    assert log.guess(99, 9) == 5
    assert log.guess(5, 5) == 4
    assert log.guess(4, 3) == 2
    assert log.guess(2, 0) == 0


def test_a_configuration_is_in_force_from_append_until_truncation() -> None:
    log = Log(boot_of([1]), 1 << 20)
    newer = Configuration(2, frozenset({1}), nodes={1: 1})
    assert log.append([Entry(2, 1, EntryKind.CONF, encode_configuration(newer))])
    assert (log.configuration, log.configuration_index) == (newer, 2)
    assert log.truncate(2)
    assert (log.configuration.version, log.configuration_index) == (1, 0)


@pytest.mark.parametrize(
    "lies",
    [
        {"applied_index": 4},
        {"last_index": 4},
        {"terms": []},
        {"entries": log_of([1], 3)},
        {"entries": log_of([1, 1, 1], 2)},
    ],
    ids=["applied beyond the end", "last entry missing", "no terms", "hole", "shifted"],
)
def test_a_boot_that_lost_something_is_refused(lies: dict[str, object]) -> None:
    boot: Boot = attrs.evolve(boot_of([1, 1, 1]), **lies)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r".+"):
        Log(boot, 1 << 20)


def test_a_log_shorter_than_what_was_committed_is_refused() -> None:
    with pytest.raises(ValueError, match="commit index 3"):
        Log(boot_of([1], commit=3), 1 << 20)
