"""Client sessions: what makes a write that was sent twice happen once.

A client opens a session through the log, with an id of 62 random bits that the node which is
asked has drawn. (The entry's index would be one that nobody had before, but for a cluster that
was set back to a backup: its log uses the same places again, and a client of the time before
would use the session of another one.) Each write of a session carries its
sequence number and ``acked_to``: the client has the answers to everything up to
there and will not ask again. The shard keeps the replies above ``acked_to``.

Rules:
* Only the log decides. Sessions end by count, the least recently used in log
  order first, and by the shard's clock, which only entries move. A local clock
  here would let replicas disagree about who is still known.
* A session that ended is unknown for good; making it anew on its next write
  would execute a retry twice.
* What is kept of a reply is a status and a few plain values, from which results.py
  makes the reply again: the state must not depend on the wording of a message,
  which another version of this program may have changed.

Sources: thesis 6.3; raft.md 6.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import attrs

from krita.codec import decode, encode
from krita.errors import BadRequest, Busy, SessionExpired
from krita.limits import CBOR_ITEMS_MAX, FRAME_BYTES_MAX_PEER, FRAME_OVERHEAD_BYTES
from kritad.state.verbs import Reply
from kritad.storage.digests import HASH_MODULUS, session_digest

SESSIONS_MAX = 4096  # per shard
SESSION_TTL_MS = 3_600_000  # after the last use, by the shard's clock
SEQUENCE_WINDOW = 1024  # how far a sequence number may be ahead of acked_to
# Per shard; the count that bounds the memory, about 200 bytes each: a reply that has values
# counts for as many as it has pieces. Clients that acknowledge as they should keep as
# many as they have requests in flight.
REPLIES_MAX = 1 << 18
# One session may have all of them, and is one item of a snapshot's chunk and one of CBOR.
_PIECE_BYTES = 144
_ITEM_BYTES = 40  # a number or a list among a reply's values, besides what is in it

_HASH_MASK = HASH_MODULUS - 1


ID_BITS = 62


def is_session_id(value: object) -> bool:
    """Whether it can be one: SQLite keeps it as a signed number, and 0 is no session."""
    return type(value) is int and 0 < value < 1 << 63


@attrs.define(eq=False)
class Session:
    """One client's memory of itself in this shard."""

    id: int
    last_used_index: int  # log index; orders the sessions, also after a restart
    last_used_clock_ms: int
    acked_to: int = 0
    replies: dict[int, Reply] = attrs.field(factory=dict)  # by sequence, all > acked_to
    digest: int = 0  # as counted in Sessions.hash; 0: not yet

    def encode(self) -> bytes:
        """Equal sessions give equal bytes, whatever order the replies came in.
        ~1 µs, and 0.5 µs per reply."""
        replies = sorted(self.replies.items())
        return encode(
            [
                self.acked_to,
                self.last_used_index,
                self.last_used_clock_ms,
                [[sequence, status, *values] for sequence, (status, values) in replies],
            ]
        )

    @classmethod
    def restore(cls, session_id: int, blob: bytes) -> Session:
        """The inverse of encode; storage has checked that these are its bytes."""
        fields = decode(blob)
        assert isinstance(fields, list), "a session's blob is an array"
        acked_to, last_used_index, last_used_clock_ms, replies = fields
        return cls(
            session_id,
            last_used_index,
            last_used_clock_ms,
            acked_to,
            {sequence: (status, values) for sequence, status, *values in replies},
            session_digest(session_id, blob),
        )


class Sessions:
    """The sessions of one shard, the least recently used first."""

    def __init__(self, blobs: Iterable[tuple[int, bytes]] = ()) -> None:
        restored = [Session.restore(session_id, blob) for session_id, blob in blobs]
        restored.sort(key=lambda session: session.last_used_index)
        self._sessions = OrderedDict((session.id, session) for session in restored)
        self._replies_count = sum(map(_weight_of_all, restored))
        self._hash = sum(session.digest for session in restored) & _HASH_MASK
        self._uncounted: set[int] = set()  # changed since their digest was counted
        self._unflushed: set[int] = set()  # changed or ended since the last freeze

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)} replies={self._replies_count}>"

    def __len__(self) -> int:
        return len(self._sessions)

    def __contains__(self, session_id: int) -> bool:
        return session_id in self._sessions

    def copy(self) -> Sessions:
        """The same sessions, of which none has been frozen yet. ~5 µs each, counting
        those that have changed into the hash."""
        total = self.hash  # first: it counts those that have changed
        other = Sessions()
        for session in self._sessions.values():
            own = attrs.evolve(session, replies=dict(session.replies))
            other._sessions[own.id] = own
        other._replies_count = self._replies_count
        other._hash = total
        other._unflushed = set(self._sessions)
        return other

    def open(self, session_id: int, index: int, clock_ms: int) -> int:
        """A new session, opened by the entry at ``index``. Raises Busy if the id is in use."""
        if session_id in self._sessions:
            raise Busy("a session has just this id", hint="ask for another one")
        self._sessions[session_id] = Session(session_id, index, clock_ms)
        self._changed(session_id)
        self._end_surplus()
        return session_id

    def touch(self, session_id: int, index: int, clock_ms: int) -> None:
        """Keep a session alive. Raises SessionExpired."""
        self._use(self._known(session_id), index, clock_ms)

    def begin(
        self, session_id: int, sequence: int, acked_to: int, index: int, clock_ms: int
    ) -> Reply | None:
        """The reply of a write that has been executed before; None when it has to
        be executed now and reported to ``finish``.

        Raises SessionExpired; BadRequest for a sequence that was acknowledged or
        is too far ahead. Nothing has changed when it raises.
        """
        session = self._known(session_id)
        if acked_to >= sequence:
            raise BadRequest(f"sequence {sequence} is not above its own acked_to {acked_to}")
        reply = session.replies.get(sequence)
        if reply is None:
            if sequence <= session.acked_to:
                raise BadRequest(f"sequence {sequence} of this session is already acknowledged")
            if sequence > max(acked_to, session.acked_to) + SEQUENCE_WINDOW:
                raise BadRequest(
                    f"sequence {sequence} is more than {SEQUENCE_WINDOW} ahead of acked_to",
                    hint="wait for earlier replies before you send more",
                )
        self._use(session, index, clock_ms)
        if acked_to > session.acked_to:
            self._forget(session, acked_to)
        return reply

    def finish(self, session_id: int, sequence: int, reply: Reply) -> None:
        """Remember the reply of the write that ``begin`` let through."""
        session = self._sessions[session_id]
        assert sequence not in session.replies, "a sequence was executed twice"
        session.replies[sequence] = reply
        self._replies_count += _weight(reply)
        if self._replies_count > REPLIES_MAX:
            self._end_surplus()

    def expire(self, clock_ms: int) -> None:
        """End the sessions whose time is over. ~0.2 µs when there are none: the
        first in line has the oldest clock, as both follow the log."""
        deadline_ms = clock_ms - SESSION_TTL_MS
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.last_used_clock_ms >= deadline_ms:
                return
            self._end(oldest)

    @property
    def hash(self) -> int:
        """The sum of all digests modulo 2**64. Encodes the sessions that changed
        since it was last asked for, so a write does not pay for it."""
        for session_id in self._uncounted:
            session = self._sessions[session_id]
            self._count(session, session.encode())
        self._uncounted.clear()
        return self._hash

    def freeze(self) -> list[tuple[int, bytes | None]]:
        """What changed since the last freeze, by id; None for a session that ended."""
        changed: list[tuple[int, bytes | None]] = []
        for session_id in sorted(self._unflushed):
            session = self._sessions.get(session_id)
            blob = None if session is None else session.encode()
            if session is not None and blob is not None and session_id in self._uncounted:
                self._count(session, blob)
            changed.append((session_id, blob))
        self._uncounted.clear()
        self._unflushed.clear()
        return changed

    def _known(self, session_id: int) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionExpired(
                f"this shard does not know the session {session_id}, or no longer",
                hint="open a new session; what an earlier try of this write did is unknown",
            )
        return session

    def _use(self, session: Session, index: int, clock_ms: int) -> None:
        session.last_used_index = index
        session.last_used_clock_ms = clock_ms
        self._sessions.move_to_end(session.id)
        self._changed(session.id)

    def _changed(self, session_id: int) -> None:
        self._uncounted.add(session_id)
        self._unflushed.add(session_id)

    def _forget(self, session: Session, acked_to: int) -> None:
        """Drop the replies that the client has. Usually the next one or two."""
        replies = session.replies
        acked: Iterable[int] = range(session.acked_to + 1, acked_to + 1)
        if acked_to - session.acked_to > len(replies):  # it may be any number that CBOR has
            acked = [known for known in replies if known <= acked_to]
        for sequence in acked:
            reply = replies.pop(sequence, None)
            if reply is not None:
                self._replies_count -= _weight(reply)
        session.acked_to = acked_to

    def _end_surplus(self) -> None:
        while len(self._sessions) > SESSIONS_MAX or self._replies_count > REPLIES_MAX:
            self._end(next(iter(self._sessions.values())))

    def _end(self, session: Session) -> None:
        del self._sessions[session.id]
        self._replies_count -= _weight_of_all(session)
        self._hash = (self._hash - session.digest) & _HASH_MASK
        self._uncounted.discard(session.id)
        self._unflushed.add(session.id)

    def _count(self, session: Session, blob: bytes) -> None:
        digest = session_digest(session.id, blob)
        self._hash = (self._hash + digest - session.digest) & _HASH_MASK
        session.digest = digest


def _weight(reply: Reply) -> int:
    """For how many replies of numbers alone it counts. 0.1 µs for those."""
    values = reply[1]
    if len(values) <= 2:  # nearly all: a put's
        return 1
    return 1 + _bytes_of(values) // _PIECE_BYTES


def _weight_of_all(session: Session) -> int:
    return sum(map(_weight, session.replies.values()))


def _bytes_of(value: object) -> int:
    """In memory, about, and surely no less than when it is stored."""
    if isinstance(value, bytes):
        return _ITEM_BYTES + len(value)
    if isinstance(value, str):
        return _ITEM_BYTES + len(value.encode())
    return _ITEM_BYTES + (sum(map(_bytes_of, value)) if isinstance(value, list) else 0)


assert REPLIES_MAX * _PIECE_BYTES < FRAME_BYTES_MAX_PEER - FRAME_OVERHEAD_BYTES
assert REPLIES_MAX * _PIECE_BYTES // _ITEM_BYTES < CBOR_ITEMS_MAX
