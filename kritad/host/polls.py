"""Requests that wait for a change: ``changes`` with nothing to tell yet.

A watch is a row of such polls, each of which goes on where the last one ended. So
nothing is kept for a watcher that is slow but its place in the shard's feed, and whoever falls
out of that is told. A poll may wait at any replica that hears its leader: what a replica
has applied is what has happened, in order.

Rules:
* A poll that has waited for its time is answered with no events and how far the replica
  is: from there the watcher knows that nothing has passed unseen (a bookmark).
* A change of one key costs the polls for just that key one look, and those for ranges one
  comparison each. One that only waits costs nothing: in a heap by time, looking at all of
  80,000 took 100 ms at each tick.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from krita.operations import Change
from kritad.host.request import Request
from kritad.state.feed import Event

POLLS_MAX = 10_000  # of one replica
_WOKEN_MAX = 1_000


class Polls:
    """The polls that wait at one replica."""

    def __init__(self) -> None:
        self._of_key: dict[bytes, dict[Request, None]] = {}
        self._of_range: dict[Request, None] = {}
        # A heap of (until, number, poll). Who is woken stays in it, and goes when most have gone.
        self._times: list[tuple[float, int, Request]] = []
        self._numbers = itertools.count()
        self.count = 0

    def __repr__(self) -> str:
        return f"<Polls {self.count}>"

    def add(self, request: Request) -> None:
        """Let it wait; its ``fields`` are those of ``changes`` behind the shard."""
        self.count += 1
        heapq.heappush(self._times, (request.wait_until_ms, next(self._numbers), request))
        key = _single_key(request)
        if key is None:
            self._of_range[request] = None
        else:
            self._of_key.setdefault(key, {})[request] = None

    def woken(self, events: Iterable[Event]) -> list[Request]:
        """Those that one of the events concerns. They wait no longer."""
        found: dict[Request, None] = {}
        for _, kind, key, _ in events:
            if kind is Change.SPLIT:
                return self.all()
            found |= self._of_key.get(key, {})
            for request in self._of_range:
                _, start, stop, *_ = request.fields
                if key >= (start or b"") and (stop is None or key < stop):  # type: ignore[operator]
                    found[request] = None
        self._remove(found)
        return list(found)

    def overdue(self, now_ms: float) -> list[Request]:
        """Those whose time to wait has passed. They wait no longer."""
        found: dict[Request, None] = {}
        while self._times and self._times[0][0] <= now_ms:
            *_, request = heapq.heappop(self._times)
            if self._waits(request):
                found[request] = None
        self._remove(found)
        return list(found)

    def all(self) -> list[Request]:
        """Every one of them. They wait no longer."""
        found = list(self._each())
        self._remove(found)
        return found

    def _each(self) -> Iterable[Request]:
        yield from self._of_range
        for requests in self._of_key.values():
            yield from requests

    def _waits(self, request: Request) -> bool:
        key = _single_key(request)
        return request in (self._of_range if key is None else self._of_key.get(key, ()))

    def _remove(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.count -= 1
            key = _single_key(request)
            if key is None:
                del self._of_range[request]
                continue
            held = self._of_key[key]
            del held[request]
            if not held:
                del self._of_key[key]
        if len(self._times) > 2 * self.count + _WOKEN_MAX:
            waiting = {time[2]: time for time in self._times if self._waits(time[2])}
            self._times = list(waiting.values())
            heapq.heapify(self._times)


def _single_key(request: Request) -> bytes | None:
    """The only key that it is about; None: it is about several."""
    _, start, stop, *_ = request.fields
    if isinstance(start, bytes) and stop == start + b"\0":
        return start
    return None
