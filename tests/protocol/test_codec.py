"""krita.codec: only one well-formed item passes, whatever the bytes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from krita import codec
from krita.codec import (
    CodecError,
    decode,
    decode_body,
    decode_each,
    encode,
    encode_body,
    encode_head,
    encode_number,
)
from krita.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX
from krita.operations import Op

_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=40)
    | st.text(max_size=20)
)
_ITEMS = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
_LARGE = b"x" * (codec._SMALL_BYTES_MAX + 1)


@given(_ITEMS)
def test_what_is_encoded_decodes_to_the_same(item: object) -> None:
    assert decode(encode(item)) == item


def _drained(items: Iterable[object]) -> list[object]:
    """All of them, and behind those what the next was refused for, if it was."""
    said: list[object] = []
    try:
        said.extend(items)
    except CodecError as error:
        said.append(error.message)
    return said


@given(st.lists(_ITEMS.map(encode) | st.binary(max_size=12), max_size=6))
@example([b"\x82\x01", b"\x02", b"\x03\x04"])  # together they would be three items
@example([b"\x01\x02", b"\x03"])
@example([b"\x81", encode(codec._END)])
@example([b"\x44ab", b"cd", b"\x01"])
@example([b"\x01", _LARGE, b"\x02"])
def test_parts_decoded_together_are_what_each_is_by_itself(parts: list[bytes]) -> None:
    """Also where only their sum would be well formed, and up to the first that is not."""
    assert _drained(decode_each(parts)) == _drained(map(decode, parts))


@given(st.integers(0, (1 << 64) - 1))
@example(23)
@example(24)
@example(255)
@example(256)
@example(65535)
@example(65536)
@example((1 << 32) - 1)
@example(1 << 32)
def test_numbers_by_themselves_are_encoded_as_in_an_item(number: int) -> None:
    assert encode_number(number) == encode(number)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_the_head_of_a_byte_string_is_as_in_an_item(length: int) -> None:
    assert encode_head(length) + bytes(length) == encode(bytes(length))


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x82")
@example(b"\xa1\xf9\x7e\x00\x00")
def test_arbitrary_bytes_raise_nothing_but_codec_errors(data: bytes) -> None:
    try:
        decode(data)
    except CodecError:
        return
    # Accepted: then it was one item to the last byte, so no other length is.
    for longer in (data + b"\x00", data + data):
        with pytest.raises(CodecError):
            decode(longer)
    with pytest.raises(CodecError):
        decode(data[:-1])


@given(_ITEMS, st.data())
def test_a_mutated_message_raises_nothing_but_codec_errors(
    item: object, data: st.DataObject
) -> None:
    mutable = bytearray(encode([7, 2, item]))
    for _ in range(data.draw(st.integers(1, 4))):
        mutable[data.draw(st.integers(0, len(mutable) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        decode(bytes(mutable))


@given(st.binary(max_size=40))
@example(b"\x41")
@example(b"\xa1\x61")
def test_the_fast_way_and_the_slow_one_accept_the_same_and_complain_alike(data: bytes) -> None:
    outcomes = []
    for way in (decode, codec._decode_from_stream):
        try:
            outcomes.append(repr(way(data)))
        except CodecError as error:
            outcomes.append(error.message)
    assert outcomes[0] == outcomes[1]


@given(_ITEMS, st.binary(min_size=1, max_size=12))
def test_trailing_bytes_are_refused(item: object, trailing: bytes) -> None:
    with pytest.raises(CodecError):
        decode(encode(item) + trailing)


@given(_ITEMS, _ITEMS)
def test_a_second_item_is_refused_also_where_the_end_mark_is_expected(
    first: object, second: object
) -> None:
    with pytest.raises(CodecError, match="left over"):
        decode(encode(first) + encode(second))


@pytest.mark.parametrize("trailing", [b"\x00", b"\xff", encode([1])])
def test_trailing_bytes_are_refused_behind_a_large_item_too(trailing: bytes) -> None:
    assert decode(encode([1, _LARGE])) == [1, _LARGE]
    with pytest.raises(CodecError, match="left over"):
        decode(encode([1, _LARGE]) + trailing)


@pytest.mark.parametrize("cut", [1, 9, 40_000])
def test_a_truncated_large_item_is_refused(cut: int) -> None:
    with pytest.raises(CodecError, match="end within"):
        decode(encode([1, _LARGE])[:-cut])


@pytest.mark.parametrize("large", [False, True])
def test_every_tag_is_refused(large: bool) -> None:
    inner: object = _LARGE if large else 0
    tags = [*range(512), 1004, 43000, 55799, 65535, 1 << 32, (1 << 64) - 1]
    for tag in tags:
        data = cbor2.dumps([1, cbor2.CBORTag(tag, inner)])
        if large and tag > 40:
            break
        with pytest.raises(CodecError, match="tags are not allowed"):
            decode(data)
        with pytest.raises(CodecError, match="tags are not allowed"):
            list(decode_each([b"\x01", data]))


def test_a_tag_in_place_of_the_end_mark_is_refused() -> None:
    with pytest.raises(CodecError):
        decode(encode(1) + b"\xc1")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("hexed", "reason"),
    [
        ("9f00ff", "indefinite"),
        ("5f4100ff", "indefinite"),
        ("7f6161ff", "indefinite"),
        ("bf616100ff", "indefinite"),
        ("a2616100616101", "Duplicate"),
        ("a10000", "map key"),
        ("a1f600", "map key"),
        ("a18000", "map key"),
        ("61ff", "text"),
        ("1c", "unknown"),
        ("ff", "break"),
        ("f818", "simple"),
    ],
)
def test_what_our_rules_forbid_is_refused_by_name(hexed: str, reason: str, large: bool) -> None:
    data = bytes.fromhex(hexed)
    if large:
        data = b"\x82" + encode(_LARGE) + data
    with pytest.raises(CodecError, match=reason):
        decode(data)
    with pytest.raises(CodecError, match=reason):
        list(decode_each([b"\x01", data]))  # where several are decoded together, too


@pytest.mark.parametrize("large", [False, True])
def test_nesting_ends_at_the_limit(large: bool) -> None:
    leaf = encode(_LARGE if large else 0)
    deepest = b"\x81" * CBOR_DEPTH_MAX + leaf
    assert encode(decode(deepest)) == deepest
    with pytest.raises(CodecError, match="depth"):
        decode(b"\x81" + deepest)


def test_ten_thousand_levels_are_refused_without_recursion() -> None:
    with pytest.raises(CodecError, match="depth"):
        decode(b"\x81" * 10_000 + b"\x00")
    with pytest.raises(CodecError):
        decode(b"\xc1" * 10_000 + b"\x00")


@pytest.mark.parametrize("head", ["9b", "bb", "5b", "7b"])
@pytest.mark.parametrize("length", [1 << 24, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
def test_a_length_that_is_only_claimed_allocates_nothing(head: str, length: int) -> None:
    data = bytes.fromhex(head) + length.to_bytes(8)
    for padded in (data, b"\x82" + encode(_LARGE) + data):
        with pytest.raises(CodecError, match="end within"):
            decode(padded)


def test_as_many_elements_as_allowed_pass_and_one_more_is_refused() -> None:
    allowed = encode([0] * (CBOR_ITEMS_MAX - 1))
    assert decode(allowed) == [0] * (CBOR_ITEMS_MAX - 1)
    with pytest.raises(CodecError, match="more than 1048576 elements"):
        decode(encode([0] * CBOR_ITEMS_MAX))
    # Spread over many arrays it is as many.
    with pytest.raises(CodecError, match="more than 1048576 elements"):
        decode(encode([[0] * 1000] * 1100))


def test_a_large_value_is_not_taken_for_many_elements() -> None:
    item = [1, 2, bytes(3 * CBOR_ITEMS_MAX), "é" * CBOR_ITEMS_MAX, 1 << 60, -5, 1.5, {"a": None}]
    assert decode(encode(item)) == item


def test_integers_made_to_collide_as_map_keys_are_refused_at_once() -> None:
    keys = [index * ((1 << 61) - 1) for index in range(8)]
    data = b"\xb9" + (16_000).to_bytes(2) + b"".join(cbor2.dumps(k) + b"\x00" for k in keys) * 2000
    started = time.process_time()
    with pytest.raises(CodecError):
        decode(data)
    assert time.process_time() - started < 0.5


def test_a_codec_error_is_a_protocol_error_that_was_not_applied() -> None:
    with pytest.raises(CodecError) as caught:
        decode(b"\x00\x00")
    assert caught.value.outcome == 0
    assert "left over" in str(caught.value)


def test_a_body_is_the_array_of_its_fields() -> None:
    body = encode_body(Op.GET, b"k", 1)
    assert body == encode([b"k", 1])
    assert decode_body(Op.GET, body) == [b"k", 1, None, None, None, None]


def test_missing_fields_of_a_body_are_null_and_unknown_ones_ignored() -> None:
    assert decode_body(Op.SPLIT, encode([1, 2])) == [1, 2, None, None, None]
    assert decode_body(Op.LEADER_TRANSFER, encode([1, 2, "from the future"])) == [1, 2]
    assert decode_body(Op.PING, encode([])) == []


@pytest.mark.parametrize("body", [encode({"key": b"k"}), encode(b"k"), b"", b"\x80\x80"])
def test_a_body_that_is_no_array_is_refused(body: bytes) -> None:
    with pytest.raises(CodecError):
        decode_body(Op.GET, body)


def test_more_fields_than_the_table_has_are_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="session_open has fewer fields"):
        encode_body(Op.SESSION_OPEN, 1, 2, 3)
