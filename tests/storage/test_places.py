"""Inner rows stand on the ring where their user's key does."""

from __future__ import annotations

from krita.ring import token
from kritad.storage.extent import Extent
from kritad.storage.places import INNER_PREFIX, inner_body, inner_key, stored_token

KEYS = [b"k", b"{tag}k", b"k{tag}", b"{}k", b"\0", b"\xfe\xff", b"x" * 4096]


def test_a_user_s_key_stands_where_the_ring_says() -> None:
    for key in KEYS:
        assert stored_token(key) == token(key)


def test_an_inner_row_stands_where_it_was_told_to() -> None:
    for place in (0, 1, 0x7B7B7B7B, 0x7B61627D, (1 << 32) - 1):  # two of them look like tags
        key = inner_key(b"x", b"{body}", place)
        assert stored_token(key) == place
        assert inner_body(key) == b"{body}"
        assert key.startswith(INNER_PREFIX)


def test_the_cells_of_an_arc_count_a_row_where_it_stands() -> None:
    extent = Extent.of((1 << 30, 3 << 30))
    for key in KEYS + [inner_key(b"x", b"body", token(key)) for key in KEYS]:
        inside = 1 << 30 <= stored_token(key) < 3 << 30
        assert extent.contains(key) is inside
        if inside:
            assert extent.cell_of(key) == (stored_token(key) - (1 << 30)) // extent.step


def test_inner_rows_have_a_size_and_are_nobody_s_key() -> None:
    extent = Extent.everything()
    extent.count_row(0, b"k", 5, 10)
    extent.count_row(0, inner_key(b"x", b"", 0), 7, 10)
    assert (extent.keys, extent.bytes, extent.rows_hash) == (1, 11 + 16, 12)


def test_rows_of_a_kind_are_in_the_order_of_their_bodies() -> None:
    bodies = [b"a", b"ab", b"b"]
    keys = [inner_key(b"x", body.ljust(3, b"\0"), 0xFFFFFFFF - n) for n, body in enumerate(bodies)]
    assert keys == sorted(keys)
    assert inner_key(b"w", b"z", 0) < keys[0] < inner_key(b"y", b"", 0)
