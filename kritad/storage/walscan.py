"""Whether a write-ahead log was torn by a crash or damaged afterwards.

SQLite takes the first frame whose checksum fails for the end of the WAL. After a
crash that is right; after one flipped bit it silently forgets every transaction
behind it (200 of 200 trials, reliability.md fact 3). For raft.db that means
forgetting entries and votes that others rely on. So, before SQLite sees the file:

1. Walk the chain of checksums as SQLite does. No failure: CLEAN.
2. What fails may have been torn only if it belongs to the last transaction of this
   WAL, because with ``synchronous=FULL`` each commit is synced before the next one
   is written. A commit frame of this WAL (its salts say so) at or behind the failure
   that is followed by yet another frame of this WAL proves the opposite: CORRUPT.
3. Within the last transaction, a crash loses whole sectors. If a single flipped bit
   explains the failure (the checksum is linear, so that can be computed) and the rest
   of the transaction is there to its commit, it was written whole and damaged
   later: CORRUPT. The rest matters: a sector that was lost shows what stood there in
   an earlier round of this WAL, and that may differ in one bit, as page 1 does when
   the file has grown by a page.
4. Anything else: TORN, as SQLite will treat it.

Assumed: a 512-byte sector is written whole or not at all, and RaftDatabase.open
truncates the WAL, so that leftovers of an earlier crash are never in the way.
Not told apart: several flipped bits within the very last transaction, from a tear;
and one, from a lost sector that differs in one bit from what it should hold, if all else
of its transaction arrived.

Source: sqlite.org/walformat.html.
"""

from __future__ import annotations

import enum
import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path

import attrs

from kritad.storage.errors import StoreFailed

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_MAGIC = 0x377F0682  # the lowest bit: checksums are over big-endian words
_MASK = 0xFFFFFFFF
# What is rewritten at a time. Linux takes less than 2 GiB in one write, and says so only by what
# it returns; and a whole WAL in memory may be more than there is.
_BLOCK_BYTES = 4 << 20
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")


class Verdict(enum.Enum):
    """What scan_wal found."""

    ABSENT = "absent"  # no file, or an empty one
    CLEAN = "clean"  # every frame of this WAL belongs to a whole transaction
    TORN = "torn"  # a crash interrupted the last transaction; normal
    CORRUPT = "corrupt"  # committed transactions are damaged


@attrs.frozen
class _Frame:
    """One frame's header and where its page starts."""

    pages_after_commit: int  # 0: not a commit frame
    salts: tuple[int, int]
    sums: tuple[int, int]
    start: int  # of the frame header in the file


@attrs.frozen
class _Flip:
    """A frame as it was before one of its bits flipped."""

    sums: tuple[int, int]
    committed: bool  # whether it was a commit frame


def scan_wal(path: Path) -> Verdict:
    """See the module's docstring. Reads the whole file: ~0.15 s for 4 MiB.

    Raises StoreFailed when it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Verdict.ABSENT
    except OSError as error:
        raise StoreFailed(f"cannot read {path}: {error.strerror}") from error
    return judge_wal(data) if data else Verdict.ABSENT


def rewrite_wal(path: Path) -> None:
    """Write a WAL over itself and sync it. Costs what writing its bytes costs.

    After a failed fsync Linux goes on showing what it did not write and says OK to the
    next fsync (raft.md B5). SQLite would find that transaction when it opens the file
    again, and copy half of it into the main file before the power goes. Raises StoreFailed.
    """
    try:
        with path.open("r+b", buffering=0) as file:
            start = 0
            while data := os.pread(file.fileno(), _BLOCK_BYTES, start):
                if os.pwrite(file.fileno(), data, start) != len(data):
                    raise StoreFailed(
                        f"cannot write all of {path}", "check the disk (space, dmesg)"
                    )
                start += len(data)
            if start:
                os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreFailed(f"cannot write {path}: {error.strerror}") from error


def bytes_of(path: Path) -> int:
    """How large a file is; 0: there is none. Raises StoreFailed. ~1.5 µs."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StoreFailed(f"cannot ask for the size of {path}: {error.strerror}") from error


def judge_wal(data: bytes) -> Verdict:
    """The verdict on a WAL's content. Pure."""
    header = _read_header(data)
    if header is None:
        # The header is one sector and synced before any frame: a frame behind a bad
        # header means that it was whole once.
        return Verdict.CORRUPT if any(data[HEADER_BYTES:]) else Verdict.TORN
    big_endian, page_bytes, salts, sums = header
    step = FRAME_HEADER_BYTES + page_bytes
    frames = [_read_frame(data, start) for start in range(HEADER_BYTES, len(data) - step + 1, step)]
    committed = True  # whether a transaction is complete so far
    for number, frame in enumerate(frames):
        words = _frame_words(data, frame, page_bytes, big_endian)
        expected = _checksum(words, sums)
        if frame.salts != salts or expected != frame.sums:
            rest = frames[number + 1 :]
            damaged = _followed_by_proof(frames[number:], salts) or any(
                _is_whole(data, rest, salts, flip, page_bytes, big_endian)
                for flip in _single_flips(frame, words, salts, expected)
            )
            if damaged:
                return Verdict.CORRUPT
            ours = any(other.salts == salts for other in frames[number:])
            return Verdict.TORN if ours or not committed else Verdict.CLEAN
        sums = expected
        committed = frame.pages_after_commit != 0
    whole = committed and HEADER_BYTES + len(frames) * step == len(data)
    return Verdict.CLEAN if whole else Verdict.TORN


def _read_header(data: bytes) -> tuple[bool, int, tuple[int, int], tuple[int, int]] | None:
    """(big-endian checksums, page size, salts, checksum so far); None if it is bad."""
    if len(data) < HEADER_BYTES:
        return None
    magic, _, page_bytes, _, salt1, salt2, sum1, sum2 = _HEADER.unpack_from(data)
    big_endian = bool(magic & 1)
    sums = _checksum(_words(data[:24], big_endian), (0, 0))
    if magic & ~1 != _MAGIC or sums != (sum1, sum2):
        return None
    return big_endian, page_bytes, (salt1, salt2), sums


def _read_frame(data: bytes, start: int) -> _Frame:
    _, pages, salt1, salt2, sum1, sum2 = _FRAME.unpack_from(data, start)
    return _Frame(pages, (salt1, salt2), (sum1, sum2), start)


def _frame_words(data: bytes, frame: _Frame, page_bytes: int, big_endian: bool) -> array[int]:
    """What the frame's checksum covers: 8 bytes of its header, and the page."""
    page = frame.start + FRAME_HEADER_BYTES
    covered = data[frame.start : frame.start + 8] + data[page : page + page_bytes]
    return _words(covered, big_endian)


def _words(data: bytes, big_endian: bool) -> array[int]:
    words = array("I", data)
    if big_endian != (_NATIVE_BIG):
        words.byteswap()
    return words


_NATIVE_BIG = array("I", b"\x00\x00\x00\x01")[0] == 1


def _checksum(words: array[int], sums: tuple[int, int]) -> tuple[int, int]:
    s0, s1 = sums
    pairs = iter(words)
    for x0, x1 in zip(pairs, pairs, strict=True):
        s0 = (s0 + x0 + s1) & _MASK
        s1 = (s1 + x1 + s0) & _MASK
    return s0, s1


def _followed_by_proof(frames: list[_Frame], salts: tuple[int, int]) -> bool:
    """Whether a commit of this WAL is among ``frames`` and not the last of them."""
    ours = [frame for frame in frames if frame.salts == salts]
    return any(frame.pages_after_commit for frame in ours[:-1])


def _single_flips(
    frame: _Frame, words: array[int], salts: tuple[int, int], expected: tuple[int, int]
) -> Iterator[_Flip]:
    """What ``frame`` may have been, if one flipped bit is all that is wrong with it."""
    committed = frame.pages_after_commit != 0
    salt_bits = sum((a ^ b).bit_count() for a, b in zip(frame.salts, salts, strict=True))
    if salt_bits:
        if salt_bits == 1 and expected == frame.sums:
            yield _Flip(frame.sums, committed)
        return
    if sum((a ^ b).bit_count() for a, b in zip(frame.sums, expected, strict=True)) == 1:
        yield _Flip(expected, committed)
    # A word that is off by d changes the sums by d times (weight0, weight1), which
    # depend on how many words follow; walking backwards they are Fibonacci numbers.
    off0, off1 = ((b - a) & _MASK for a, b in zip(frame.sums, expected, strict=True))
    weight0, weight1 = 0, 1  # of the last word: it enters s1 only
    for place in range(len(words) - 1, -1, -1):
        word = words[place]
        for bit in range(32):
            delta = (1 << bit) if word >> bit & 1 else -(1 << bit)
            if (delta * weight0 - off0) & _MASK == 0 and (delta * weight1 - off1) & _MASK == 0:
                # Word 1 is pages_after_commit.
                yield _Flip(frame.sums, word ^ 1 << bit != 0 if place == 1 else committed)
        weight0, weight1 = weight1, (weight0 + weight1) & _MASK


def _is_whole(
    data: bytes,
    rest: list[_Frame],
    salts: tuple[int, int],
    flip: _Flip,
    page_bytes: int,
    big_endian: bool,
) -> bool:
    """Whether, with the flipped bit put right, the transaction goes on to its commit."""
    sums, committed = flip.sums, flip.committed
    for frame in rest:
        if committed:
            return True
        sums = _checksum(_frame_words(data, frame, page_bytes, big_endian), sums)
        if frame.salts != salts or sums != frame.sums:
            return False
        committed = frame.pages_after_commit != 0
    return committed
