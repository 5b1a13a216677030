"""Where calls wait for something that other calls bring: a map, a session, room."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from krita.call import Call, CallState, Need

if TYPE_CHECKING:
    from krita.session import Session


class Parking:
    """Parked calls by what they need, in the order they came.

    Invariant: a call is in here exactly while it is PARKED, under ``call.needs``.
    """

    def __init__(self) -> None:
        self._parked: dict[Need, deque[Call]] = {}
        self._admitting: set[int] = set()  # shards whose window is being filled

    def park(self, call: Call, need: Need) -> None:
        """The call waits here until it is let go, or its deadline passes."""
        call.state = CallState.PARKED
        call.needs = need
        call.due = call.deadline
        self._parked.setdefault(need, deque()).append(call)

    def leave(self, call: Call) -> None:
        """The call is not going to wait any longer. O(calls with the same need)."""
        assert call.state is CallState.PARKED
        assert call.needs is not None
        self._parked[call.needs].remove(call)
        call.state, call.needs = CallState.PAUSED, None

    def release(self, need: Need) -> Iterator[Call]:
        """Let go everybody who is waiting for this now, one by one."""
        parked = self._parked.get(need, ())
        for _ in range(len(parked)):
            if not parked:
                return  # some were cancelled while others were let go
            yield self._next(need)

    def admit(self, session: Session) -> Iterator[Call]:
        """Let go those who wait for the window, as many as it has room for."""
        need = ("window", session.shard)
        # A call that is let go may fail at once and so make room again, which
        # brings us here anew: the loop that is running sees to it.
        if need not in self._parked or session.shard in self._admitting:
            return
        self._admitting.add(session.shard)
        while self._parked[need] and session.has_room:
            yield self._next(need)
        self._admitting.remove(session.shard)

    def _next(self, need: Need) -> Call:
        call = self._parked[need].popleft()
        call.state, call.needs = CallState.PAUSED, None
        return call

    def __len__(self) -> int:
        return sum(map(len, self._parked.values()))

    def __repr__(self) -> str:
        counts = {need: len(calls) for need, calls in self._parked.items() if calls}
        return f"<Parking {counts}>"
