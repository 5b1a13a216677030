"""CBOR (RFC 8949) as Krita speaks it: one item, strictly read, nothing left over.

Rules. An item is built of integers of 64 bits, byte strings, text strings,
arrays, maps with string keys, false, true, null and, in status documents,
floats. Lengths are definite, keys of a map are unique, nesting ends at
``CBOR_DEPTH_MAX``, and an item has at most ``CBOR_ITEMS_MAX`` elements in all.
Tags are refused, every one: a decoder that honours them compiles regular
expressions (35), parses MIME (36), builds cycles (28, 29) and megabyte integers
(2, 3) for whoever asks. Map keys are strings because Python randomises only the
hashes of strings: 16,000 chosen integers as keys cost 2.7 s of CPU.

Every reader of an item checks the types of the fields it uses; this module
only promises that the bytes were exactly one well-formed item.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Never

import cbor2

from krita.errors import ProtocolError
from krita.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_MAX
from krita.operations import OPERATIONS


class CodecError(ProtocolError):
    """The bytes are not one CBOR item by our rules; the message says why not."""


def _refuse_tag(*_: object) -> Never:
    raise CodecError("tags are not allowed")


class _EveryTag(dict[int, Callable[..., Never]]):
    """Says of every tag that refusing it is how it is decoded.

    cbor2 asks its own decoders first about the tags it knows and ``tag_hook``
    about the others. A list of the known ones would be out of date with the
    first version of cbor2 that learns another. (A dict, because cbor2 asks of
    anything else whether it is a Mapping, which costs 0.2 µs an item.)
    """

    def __getitem__(self, tag: int) -> Callable[..., Never]:
        return _refuse_tag


_TAGS = _EveryTag({0: _refuse_tag})  # not empty: an empty one might be passed over

# How trailing bytes are found. ``loads`` ignores them, and asking a CBORDecoder
# over a file where it stopped costs twice as much as decoding. So a small item
# is decoded as the first of an array of two, in front of a number that nobody
# can guess: bytes left over take the number's place, missing bytes eat into it.
# Measured, 124 bytes of [id, op, body]: plain loads 0.33 µs, all switches 0.63,
# this way 0.70, CBORDecoder and tell() 1.36, encoding again to compare 1.50.
_END = int.from_bytes(secrets.token_bytes(8)) | 1 << 63 | 1
_END_BYTES = b"\x1b" + _END.to_bytes(8)

# Above this the copy that the trick makes costs more than the file does
# (64 KiB: 5.8 against 7.1 µs; 1 MiB: 1,600 against 81).
_SMALL_BYTES_MAX = 64 << 10


# How many parts `decode_each` decodes together: their number fits two bytes.
_TOGETHER_MAX = 4096

_two_bytes = struct.Struct(">BH").pack
_four_bytes = struct.Struct(">BI").pack
_eight_bytes = struct.Struct(">BQ").pack


def encode(item: object) -> bytes:
    """The item's bytes, integers in their shortest form. About 1 µs if small.

    Raises cbor2.CBOREncodeError for what CBOR cannot say: a bug of the caller's,
    as is an integer of more than 64 bits (it would become a tag).
    """
    return cbor2.dumps(item)


def decode(data: bytes) -> object:
    """The one item that ``data`` is. About 0.7 µs for a small message.

    Raises CodecError for everything else, whatever the bytes; anything but that
    is our bug. Time and memory are linear in ``len(data)``, not in its claims.
    """
    if len(data) > _SMALL_BYTES_MAX:
        return _decode_from_stream(data)
    item: object
    try:
        item, end = cbor2.loads(
            b"\x82" + data + _END_BYTES,
            tag_hook=_refuse_tag,
            semantic_decoders=_TAGS,
            max_depth=CBOR_DEPTH_MAX + 1,  # the array around it
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except cbor2.CBORError:
        end = None
    # A float may equal an integer, but none above 2**53 that is odd: _END is.
    if end == _END:
        return item
    # What is wrong is said by the slow way: what the fast one complains of may be
    # the end mark, which has been read as part of a truncated item.
    return _decode_from_stream(data)


def decode_each(parts: list[bytes]) -> Iterable[object]:
    """Each part's one item, as ``decode`` gives it. 0.3 µs for each of many small parts,
    0.7 if there is but one. What is wrong with a part is raised when it is its turn.
    """
    count = len(parts)
    if 1 < count <= _TOGETHER_MAX and sum(map(len, parts)) <= _SMALL_BYTES_MAX:
        # One array of them all, with the end mark behind each: every part is checked
        # to be exactly one item as in `decode`, and what all calls cost is paid once.
        together = b"\x99" + (2 * count).to_bytes(2) + _END_BYTES.join(parts) + _END_BYTES
        try:
            items = cbor2.loads(
                together,
                tag_hook=_refuse_tag,
                semantic_decoders=_TAGS,
                max_depth=CBOR_DEPTH_MAX + 1,
                allow_indefinite=False,
                allow_duplicate_keys=False,
                strict_hashable_types=True,
            )
        except cbor2.CBORError:
            pass  # one of them is wrong: see which
        else:
            if items[1::2] == [_END] * count:
                found: list[object] = items[::2]
                return found
    return map(decode, parts)


_NUMBERS = [encode(number) for number in range(256)]


def encode_number(number: int) -> bytes:
    """A whole number from nought up to 2**64. 0.15 µs, a third of what ``encode`` takes."""
    if number < 256:
        return _NUMBERS[number]
    if number < 65536:
        return _two_bytes(0x19, number)
    if number < 1 << 32:
        return _four_bytes(0x1A, number)
    return _eight_bytes(0x1B, number)


def encode_head(length: int) -> bytes:
    """What stands before a byte string of that length."""
    if length < 24:
        return bytes((0x40 | length,))
    if length < 256:
        return bytes((0x58, length))
    if length < 65536:
        return _two_bytes(0x59, length)
    return _four_bytes(0x5A, length) if length < 1 << 32 else _eight_bytes(0x5B, length)


def encode_body(op: int, *fields: object) -> bytes:
    """The body of a request: its fields in the order of ``OPERATIONS``; trailing
    ones may be left out and are then null."""
    assert len(fields) <= len(OPERATIONS[op].fields), f"{OPERATIONS[op].name} has fewer fields"
    return cbor2.dumps(fields)


def decode_body(op: int, body: bytes) -> list[object]:
    """A request's fields, as many as ``OPERATIONS`` names: missing ones are None,
    those that a newer client sent behind them are dropped.

    Raises CodecError, which concerns this request alone and not its connection.
    """
    fields = decode(body)
    if not isinstance(fields, list):
        raise CodecError(f"the body of {OPERATIONS[op].name} is not an array")
    count = len(OPERATIONS[op].fields)
    if len(fields) < count:
        fields.extend([None] * (count - len(fields)))
    elif len(fields) > count:
        del fields[count:]
    return fields


def _decode_from_stream(data: bytes) -> object:
    if len(data) > CBOR_ITEMS_MAX:  # fewer bytes cannot hold too many elements
        _check_items(data)
    stream = BytesIO(data)  # shares the bytes
    decoder = cbor2.CBORDecoder(
        stream,
        tag_hook=_refuse_tag,
        semantic_decoders=_TAGS,
        max_depth=CBOR_DEPTH_MAX,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        item: object = decoder.decode()
    except cbor2.CBORError as error:
        raise CodecError(_describe(error)) from error
    if stream.tell() != len(data):
        raise CodecError("not CBOR: bytes are left over after the item")
    return item


def _describe(error: cbor2.CBORError) -> str:
    cause = error.__cause__
    if isinstance(cause, CodecError):
        return f"not CBOR by our rules: {cause.message}"
    if isinstance(error, cbor2.CBORDecodeEOF):
        return "not CBOR: the bytes end within an item"
    return f"not CBOR by our rules: {error}"


def _check_items(data: bytes) -> None:
    """Raise CodecError when there are more elements than ``CBOR_ITEMS_MAX``.

    Walks over the heads of the items, 0.2 µs each, and jumps over strings: a
    large frame is a few large strings, and a hostile one is left at the limit.
    Whatever else may be wrong with the bytes is the decoder's to say.
    """
    position, count, end = 0, 0, len(data)
    while position < end:
        major, info = divmod(data[position], 32)
        position += 1
        length = info
        if info >= 24:
            extra = 1 << (info - 24) if info < 28 else 0
            length = int.from_bytes(data[position : position + extra])
            position += extra
        if major in (2, 3):
            position += length
        count += 1
        if count > CBOR_ITEMS_MAX:
            raise CodecError(f"an item has more than {CBOR_ITEMS_MAX} elements")
