"""krita.framing: however the stream is cut, the same payloads come out."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.framing import FrameBuffer, FrameError, pack_frame

_PAYLOADS = st.lists(st.binary(min_size=1, max_size=50), max_size=12)


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(places)]


@given(_PAYLOADS, st.lists(st.integers(0, 10_000), max_size=20))
def test_a_stream_cut_anywhere_gives_the_payloads_that_went_in(
    payloads: list[bytes], cuts: list[int]
) -> None:
    buffer = FrameBuffer(50)
    out: list[bytes] = []
    for piece in _cut(b"".join(map(pack_frame, payloads)), cuts):
        out += buffer.feed(piece)
    assert out == payloads
    assert buffer.pending_bytes == 0


@given(_PAYLOADS, st.lists(st.integers(0, 10_000), max_size=20), st.lists(st.booleans()))
def test_one_at_a_time_and_all_at_once_may_be_mixed(
    payloads: list[bytes], cuts: list[int], one: list[bool]
) -> None:
    buffer = FrameBuffer(50)
    out: list[bytes] = []
    choices = iter(one)
    for piece in _cut(b"".join(map(pack_frame, payloads)), cuts):
        if next(choices, False):
            payload = buffer.feed_one(piece)
            out += [] if payload is None else [payload]
        else:
            out += buffer.feed(piece)
    assert out + buffer.feed(b"") == payloads


def test_byte_by_byte_works_and_holds_only_what_came() -> None:
    buffer = FrameBuffer(1 << 20)
    frame = pack_frame(b"x" * 300)
    for count, byte in enumerate(frame[:-1], 1):
        assert buffer.feed(bytes([byte])) == []
        assert buffer.pending_bytes == count
    assert buffer.feed(frame[-1:]) == [b"x" * 300]
    assert buffer.pending_bytes == 0


def test_a_frame_of_exactly_the_limit_passes() -> None:
    assert FrameBuffer(8).feed(pack_frame(b"12345678")) == [b"12345678"]


@pytest.mark.parametrize("length", [9, 1 << 20, (1 << 32) - 1])
def test_a_length_above_the_limit_is_refused_before_its_bytes_come(length: int) -> None:
    for feed in (FrameBuffer(8).feed, FrameBuffer(8).feed_one):
        with pytest.raises(FrameError, match=f"a frame of {length} bytes") as caught:
            feed(length.to_bytes(4))
        assert caught.value.detail == {"frame_bytes": length, "frame_bytes_max": 8}


@pytest.mark.parametrize("head", [b"\x00\x00\x00\x00", pack_frame(b"fine") + bytes(4)])
def test_an_empty_frame_is_refused(head: bytes) -> None:
    with pytest.raises(FrameError, match="empty"):
        FrameBuffer(8).feed(head)
    buffer = FrameBuffer(8)
    with pytest.raises(FrameError, match="empty"):  # noqa: PT012
        while buffer.feed_one(head):
            head = b""


def test_a_length_in_pieces_is_refused_with_its_last_byte() -> None:
    buffer = FrameBuffer(8)
    assert buffer.feed(b"\x00\x00\x00") == []
    with pytest.raises(FrameError):
        buffer.feed(b"\x09")


def test_a_raised_limit_holds_for_the_next_frame() -> None:
    buffer = FrameBuffer(4)
    stream = pack_frame(b"tiny") + pack_frame(b"not so tiny")
    assert buffer.feed_one(stream) == b"tiny"
    buffer.frame_bytes_max = 100
    assert buffer.feed(b"") == [b"not so tiny"]


def test_a_frame_in_many_pieces_is_not_copied_for_each() -> None:
    buffer = FrameBuffer(1 << 24)
    held = buffer._partial
    buffer.feed((1 << 20).to_bytes(4))
    for _ in range((1 << 20) // 4096 - 1):
        buffer.feed(bytes(4096))
    assert buffer._partial is held
    assert buffer.feed(bytes(4096)) == [bytes(1 << 20)]


def test_a_buffer_says_what_it_holds() -> None:
    buffer = FrameBuffer(100)
    buffer.feed(pack_frame(b"abcdef")[:7])
    assert repr(buffer) == "<FrameBuffer holds 7, wants 10 bytes>"
