"""The older versions of keys whose retention asks for them.

When such a key changes, what it was goes into an inner row (storage/places.py), whose key
is the user's key and the entry that ended the version, so that a key's versions lie
together in order. An absence is a version as well: between a delete and the next put the
key was not there, and that has to be known to say what it was *then*. A version goes by its
deadline, like any key with a time to live.

What a key was is what entries have made it: one whose time was over was there until an entry
has ended it. So the past does not change, whenever it is asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs

from krita.codec import decode, encode
from krita.errors import Compacted
from krita.values import iso_time
from kritad.state.retention import Retention
from kritad.storage.places import inner_body, inner_key, stored_token
from kritad.storage.rows import Row
from kritad.storage.table import Table

KIND = b"h"
_LENGTH = struct.Struct(">I")  # of any key that a log may have, whatever the limits were
_INDEX = struct.Struct(">Q")
_LAST = (1 << 64) - 1


@attrs.frozen
class Version:
    """What a key was from the entry ``revision`` on until another changed it."""

    revision: int  # of an absence: where it began, as far as is known
    value: bytes | None  # None: it was absent
    content_type: str | None
    until_index: int  # the entry that ended it
    until_ms: int  # the shard's clock then

    def to_wire(self) -> list[object]:
        """As ``key_history`` answers it."""
        return [self.revision, self.value, self.content_type, self.until_index, self.until_ms]


def version_row(key: bytes, version: Version) -> tuple[bytes, bytes]:
    """The inner row that keeps it: key and value."""
    body = _prefix(key) + _INDEX.pack(version.until_index)
    fields = [version.revision, version.value, version.content_type, version.until_ms]
    return inner_key(KIND, body, stored_token(key)), encode(fields)


def is_version(key: bytes) -> bool:
    """Whether the inner row of that key is a version."""
    return key[1:2] == KIND


def version_of(key: bytes) -> tuple[bytes, int]:
    """The user's key and the ``until_index`` of a version's row."""
    body = inner_body(key)
    (until_index,) = _INDEX.unpack(body[-_INDEX.size :])
    return body[_LENGTH.size : -_INDEX.size], until_index


class Versions:
    """Reading them. Raises storage's errors."""

    def __init__(self, table: Table, retention: Retention) -> None:
        self._table = table
        self._retention = retention

    def newest(self, key: bytes, before: int = _LAST, wanted: int = 1) -> Iterator[Version]:
        """The versions of a key, the newest first: those that ended at or before the entry
        ``before``. About so many are ``wanted``. ~6 µs for each that is taken."""
        start = inner_key(KIND, _prefix(key) + _INDEX.pack(0), 0)
        stop = inner_key(KIND, _prefix(key) + _INDEX.pack(before), (1 << 32) - 1) + b"\0"
        for row_key, row in self._table.between(start, stop, reverse=True, wanted=wanted):
            yield _version(row_key, row)

    def as_of(self, key: bytes, index: int) -> Version | Row | None:
        """What the key was behind the entry at ``index``: a version, the row that it has,
        or None for absent. Raises Compacted."""
        current = self._table.get(key)
        found = self._first_behind(key, index)
        if found is not None:
            if found.revision <= index:
                return found
        elif current is not None and current.revision <= index:
            return current
        rule = self._retention.of(key)
        since = None if rule is None else rule.since_index
        if since is None or index < since or found is not None or current is not None:
            raise _compacted(key, f"revision {index}", f"revision {since}", since)
        return None

    def at(self, key: bytes, time_ms: int, clock_ms: int) -> Version | Row | None:
        """As ``as_of``, at a time of the shard's clock. Raises Compacted.

        The clock stands still while nothing happens: at a time behind it the key is what it
        is now. (Whoever asks has to know that the time has come: data_service.py.)
        """
        rule = self._retention.of(key)
        if rule is None or time_ms < rule.whole_from_ms(clock_ms):
            since = None if rule is None else rule.whole_from_ms(clock_ms)
            begins = None if since is None else iso_time(since)
            raise _compacted(key, iso_time(time_ms), begins, since)
        found = self._first_after(key, time_ms)
        return self._table.get(key) if found is None else found

    def _first_after(self, key: bytes, time_ms: int) -> Version | None:
        """The oldest version that ended behind that time. Entries and times grow together,
        so it is searched for by halves: some 20 looks, however many versions there are."""
        found = next(self.newest(key), None)
        if found is None or found.until_ms <= time_ms:
            return None
        low, high = 0, found.until_index
        while low < high:
            middle = (low + high) // 2
            version = self._first_behind(key, middle)
            assert version is not None, "there is one at the end of these entries"
            if version.until_ms > time_ms:
                found, high = version, middle
            else:
                low = version.until_index
        return found

    def _first_behind(self, key: bytes, index: int) -> Version | None:
        start = inner_key(KIND, _prefix(key) + _INDEX.pack(index + 1), 0)
        stop = inner_key(KIND, _prefix(key) + _INDEX.pack(_LAST), (1 << 32) - 1)
        for row_key, row in self._table.between(start, stop, wanted=1):
            return _version(row_key, row)
        return None


def _prefix(key: bytes) -> bytes:
    return _LENGTH.pack(len(key)) + key


def _version(row_key: bytes, row: Row) -> Version:
    match decode(row.value):
        case [int(revision), bytes() | None as value, str() | None as content_type, int(until_ms)]:
            return Version(revision, value, content_type, version_of(row_key)[1], until_ms)
    raise AssertionError(f"{row_key!r} holds no version, and matches its digest")


def _shown(key: bytes) -> str:
    """A key for people, who may read it on a terminal: nothing in it is a control character."""
    text = key.decode(errors="backslashreplace")[:80]
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _compacted(key: bytes, asked: str, begins: str | None, oldest: int | None) -> Compacted:
    """``begins`` is ``oldest`` in words; both None where nothing is kept."""
    name = _shown(key)
    if oldest is None:
        return Compacted(
            f'no older versions are kept of "{name}"',
            hint="set a retention for its prefix; from then on they are",
        )
    return Compacted(
        f'{asked} is older than what is kept of "{name}": that begins at {begins}',
        detail={"oldest": oldest},
    )
