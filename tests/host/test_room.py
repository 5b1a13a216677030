"""How much may wait for the disk, by the room that it has."""

from __future__ import annotations

import pytest

from kritad.host.room import Bounds, bounds_for, flush_bytes_of

MIB = 1 << 20


@pytest.mark.parametrize(
    ("room_bytes", "expected"),
    [
        (None, Bounds(64 * MIB, 1 << 62, 256 * MIB)),
        (1 << 40, Bounds(64 * MIB, 1 << 37, 256 * MIB)),
        (1024 * MIB, Bounds(64 * MIB, 128 * MIB, 128 * MIB)),
        (80 * MIB, Bounds(10 * MIB, 10 * MIB, 10 * MIB)),
        (0, Bounds(1 * MIB, 4 * MIB, 1 * MIB)),
    ],
)
def test_what_may_wait_is_an_eighth_of_the_room_and_never_nothing(
    room_bytes: int | None, expected: Bounds
) -> None:
    assert bounds_for(64 * MIB, room_bytes) == expected


def test_small_memtables_stay_small_where_there_is_no_room() -> None:
    assert bounds_for(1000, 0) == Bounds(1000, 4 * MIB, 4000)


def test_a_row_takes_three_pages_and_no_page_is_counted_twice() -> None:
    assert flush_bytes_of(10, 2_200, 1 << 40) == 10 * 3 * 4096 + 2_200
    assert flush_bytes_of(1_000_000, 220 * MIB, 50 * MIB) == (50 + 220) * MIB
