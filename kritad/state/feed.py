"""A shard's newest changes, in order: what a watch is answered from.

The feed is memory of a replica, not part of the state: each replica has its own, made of
what it has applied since it began, and bounded by bytes. Within these bounds every
replica's feed says the same, so a watch may go on at any of them. Behind the
feed's ``oldest`` lies everything that it has: whoever asks for less is told so, and never
given a feed with a gap (raft.md B46: watches that skip).

A change costs 0.4 µs. A row is shared with the memtable; the feed keeps it alive after a
newer one has replaced it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import itemgetter

from krita.operations import Change
from kritad.storage.rows import Row

FEED_BYTES_MAX = 16 << 20  # per replica
# Of a node, in memory that is really used: where it has more replicas than some nine that are
# written to, each keeps less.
FEEDS_MEMORY_BYTES_MAX = 256 << 20
_EVENT_BYTES = 200  # what an event counts beside its key and value
_EVENT_MEMORY_BYTES = 310  # and what it takes
_SCAN_MAX = 10_000  # events looked at for one answer, and more than one entry makes
NEWEST = -1  # instead of an index: that is all there is

# The entry that made it (several events may have one), its kind, the key, and what the key
# holds since; None: nothing. Of a split: no key, and the shard_new and the place of the cut.
# A plain tuple: every put of every replica makes one.
Event = tuple[int, Change, bytes, Row | tuple[int, int] | None]

_at = itemgetter(0)


class Feed:
    """See the module's docstring."""

    def __init__(self, index: int) -> None:
        """Begins behind the entry at ``index``."""
        self.oldest = index  # everything behind it is here
        self._events: list[Event] = []
        self._size_bytes = 0

    def __repr__(self) -> str:
        return f"<Feed {len(self._events)} events behind {self.oldest}>"

    def put(self, at: int, key: bytes, row: Row) -> None:
        """The newest change: a key was set."""
        self._events.append((at, Change.PUT, key, row))
        self._size_bytes += _EVENT_BYTES + len(key) + len(row.value)
        if self._size_bytes > FEED_BYTES_MAX:
            self._trim()

    def gone(self, at: int, key: bytes, kind: Change) -> None:
        """A key was deleted, or has ended."""
        self._events.append((at, kind, key, None))
        self._size_bytes += _EVENT_BYTES + len(key)
        if self._size_bytes > FEED_BYTES_MAX:
            self._trim()

    def split(self, at: int, shard_new: int, place: int) -> None:
        """The keys from ``place`` on are another shard's."""
        self._events.append((at, Change.SPLIT, b"", (shard_new, place)))
        self._size_bytes += _EVENT_BYTES

    def behind(
        self,
        after: int,
        start: bytes,
        stop: bytes | None,
        limit: int,
        bytes_max: int = FEED_BYTES_MAX,
    ) -> tuple[list[Event], int] | None:
        """The changes of a range of keys behind ``after``, splits always among them, and
        up to which index that is all (NEWEST: up to now). None: the feed does not reach
        back that far.

        About ``limit`` of them and ``bytes_max`` in keys and values: those of one entry are
        not separated. 0.3 µs for each event that is looked at.
        """
        if after < self.oldest:
            return None
        first = bisect_right(self._events, after, key=_at)
        found: list[Event] = []
        size = 0
        looked_at = self._events[first : first + _SCAN_MAX]
        for event in looked_at:
            at, kind, key, _ = event
            if kind is not Change.SPLIT and (key < start or (stop is not None and key >= stop)):
                continue
            size += event_bytes(event)
            # Not by the event before in the feed: that may be of the same entry, and of a key
            # that nobody asks for.
            full = len(found) >= limit or size > bytes_max
            if full and found and found[-1][0] != at:
                return found, at - 1
            found.append(event)
        if len(self._events) - first > _SCAN_MAX:
            # More than one look takes in; what belongs to the last entry may be cut off.
            last = looked_at[-1][0]
            return [event for event in found if event[0] < last], last - 1
        return found, NEWEST

    @property
    def memory_bytes(self) -> int:
        """What it takes of the process's memory, about."""
        return self._size_bytes + len(self._events) * (_EVENT_MEMORY_BYTES - _EVENT_BYTES)

    def halve(self) -> None:
        """Give up the older half."""
        self._trim(self._size_bytes // 2)

    def _trim(self, wanted: int | None = None) -> None:
        """Give up the oldest entries' events, until what is kept counts no more than that: by
        default an eighth less than may be."""
        events = self._events
        if wanted is None:
            wanted = FEED_BYTES_MAX - FEED_BYTES_MAX // 8
        place = 0
        while place < len(events) - 1 and (
            self._size_bytes > wanted or (place and events[place][0] == events[place - 1][0])
        ):
            self._size_bytes -= _EVENT_BYTES + event_bytes(events[place])
            place += 1
        self.oldest = events[place - 1][0] if place else self.oldest
        del events[:place]
        if events and events[0][0] == self.oldest:  # one entry has made all that is left
            events.clear()
            self._size_bytes = 0


def keep_within(feeds: Iterable[Feed], bytes_max: int = FEEDS_MEMORY_BYTES_MAX) -> None:
    """Have the largest give up what is old, until they take no more memory together. 0.2 µs
    for each while they do not."""
    sizes = {feed: feed.memory_bytes for feed in feeds}
    excess = sum(sizes.values()) - bytes_max
    while excess > 0 and sizes:
        largest = max(sizes, key=sizes.__getitem__)
        largest.halve()
        excess -= sizes.pop(largest) - largest.memory_bytes


def event_bytes(event: Event) -> int:
    """What its key and value have together."""
    _, _, key, row = event
    return len(key) + len(row.value) if type(row) is Row else len(key)
