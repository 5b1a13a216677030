"""Sessions: what makes a retried write happen once.

A session lives in one shard: it is opened through that shard's log, and its id
is the index of the entry that opened it. Every write carries three numbers,

    (session, sequence, acked_to)

of which the first two name the write for ever, however often it is sent. The
shard keeps the reply to each sequence, and answers a repetition with the kept
reply instead of executing it. ``acked_to`` tells it which replies it may forget:
all up to and including that sequence.

Rules, which the whole of exactly-once stands on:

- A sequence is given to one operation and never to another, not even when that
  operation failed or was given up.
- ``acked_to`` rises only over sequences that are *settled*: answered, or given
  up. A given-up write that still lies in some queue is refused by the shard once
  ``acked_to`` has passed it, so giving up also fences it off.
- A sequence is at most ``WINDOW`` above ``acked_to``, which bounds what the shard
  has to keep.
- A session is opened explicitly, never by its first write: were it, a retry
  after expiry would find no session, make one, and execute a second time.
- A shard that is split leaves a copy of each session to the new one. So a write whose
  key has moved goes there under its old (session, sequence), and what an earlier
  attempt has done is known; new writes there use a session of that shard. One that
  was opened behind the split is unknown to the other half. Nobody else's is taken for
  it: the ids of the halves' later sessions differ.

Source: Ongaro, "Consensus: Bridging Theory and Practice", §6.3. There a client
has one request outstanding; the window and ``acked_to`` are what §6.3 proposes for
clients with many.
"""

from __future__ import annotations

import attrs

WINDOW = 1024  # sequences above acked_to that one session may use


@attrs.define(eq=False)
class Session:
    """One session in one shard, as its client sees it. No I/O, no clock."""

    shard: int
    id: int
    acked_to: int = 0  # every sequence up to here is settled
    _sequence_next: int = 1
    # Settled sequences above acked_to: those that overtook an unsettled one.
    _settled: set[int] = attrs.field(factory=set)

    @property
    def has_room(self) -> bool:
        """Whether ``take`` may be called: the window has a free place."""
        return self._sequence_next - self.acked_to <= WINDOW

    def take(self) -> Ticket:
        """The next sequence, for one operation and its repetitions."""
        assert self.has_room, self
        sequence = self._sequence_next
        self._sequence_next = sequence + 1
        return Ticket(self, sequence)

    def settle(self, sequence: int) -> None:
        """The operation with this sequence has its answer, or was given up.

        Amortised O(1). Call it once per sequence.
        """
        assert self.acked_to < sequence < self._sequence_next, (self, sequence)
        if sequence != self.acked_to + 1:
            self._settled.add(sequence)
            return
        settled = self._settled
        while sequence + 1 in settled:
            sequence += 1
            settled.remove(sequence)
        self.acked_to = sequence

    def __repr__(self) -> str:
        used = self._sequence_next - 1
        return f"<Session {self.id} of shard {self.shard}: acked {self.acked_to} of {used}>"


@attrs.define(eq=False)
class Ticket:
    """One operation's place in a session. Kept for all its repetitions."""

    session: Session
    sequence: int

    def settle(self) -> None:
        """The operation has its answer, or was given up; see Session.settle."""
        self.session.settle(self.sequence)

    def __repr__(self) -> str:
        return f"<Ticket {self.session.id}/{self.sequence} in shard {self.session.shard}>"


@attrs.define(eq=False)
class Sessions:
    """The sessions of one client: at most one current per shard.

    A session that expired stays alive in the tickets that refer to it, whose
    operations still have to learn what became of them.
    """

    _current: dict[int, Session] = attrs.field(factory=dict)

    def current(self, shard: int) -> Session | None:
        """The session for new writes to a shard; None: it has to be opened first."""
        return self._current.get(shard)

    def opened(self, shard: int, session_id: int) -> Session:
        """The shard has opened a session for us: it becomes the current one."""
        session = Session(shard, session_id)
        self._current[shard] = session
        return session

    def expire(self, session: Session) -> None:
        """The shard has forgotten this session: take no more tickets from it.

        Many writes of a pipeline report the same expiry; only the first counts,
        and none ends the session that replaced it.
        """
        if self._current.get(session.shard) is session:
            del self._current[session.shard]

    def __repr__(self) -> str:
        return f"<Sessions {list(self._current.values())}>"
