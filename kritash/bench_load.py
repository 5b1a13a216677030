"""The load generator's loop: connections that each keep requests in flight.

One thread, plain non-blocking sockets, a selector. A coroutine per request
would cost more than the request: here a reply is popped from a dict, its
latency appended to an array, and the next request encoded, all in one pass for
each system call.

A request goes to the leader of its key by the router's picture, and on to where
a ``NotLeader`` points. What surely was not applied is tried again after
``PAUSE_S`` (and counted under ``retries``), with its clock running; what may have
been applied is an error, unless repeating does no harm (reads, sessions, fill).
"""

from __future__ import annotations

import selectors
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable

import attrs

from krita.codec import encode
from krita.connection import FLAG_FORWARDED, Reply
from krita.errors import KritaError, NotLeader, Outcome, OutcomeUnknown, Unavailable, from_wire
from krita.operations import Op
from krita.ring import ShardMap
from krita.routing import Router
from kritash.bench_link import Link, LinkClosed
from kritash.bench_workload import GET, PUT, Work

PAUSE_S = 0.02  # before a failed request is tried again
MAP_PAUSE_S = 0.1  # between two requests for the shard map
SWEEP_S = 0.1  # how often silent links are looked for
DRAIN_S = 2.0  # how long the last replies are waited for

_SHARD_MAP = int(Op.SHARD_MAP)
_ASK_MAP: Work = (-1, _SHARD_MAP, encode([]), None)


@attrs.define(eq=False)
class Tally:
    """What was measured. Latencies in seconds, in order of completion."""

    latencies: dict[int, array[float]] = attrs.field(
        factory=lambda: {GET: array("f"), PUT: array("f")}
    )
    errors: Counter[str] = attrs.field(factory=Counter)  # by class; the request is lost
    retries: Counter[str] = attrs.field(factory=Counter)  # by class; it was tried again
    last_error: KritaError | None = None

    @property
    def done(self) -> int:
        """Requests that succeeded."""
        return sum(map(len, self.latencies.values()))


class Logical:
    """One of the user's connections: a link to each node that it needs."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        # shard: link and flags. Emptied whenever the router learns something.
        self.routes: dict[int, tuple[Link, int]] = {}
        self.idle = 0  # places in flight for which there was no request


class Load:
    """``run`` once; then read ``tally``."""

    def __init__(
        self,
        router: Router,
        following: Callable[[], Work | None],
        connections: int,
        in_flight: int,
        *,
        token: bytes | None,
        timeout_s: float,
        repeatable: bool,
    ) -> None:
        """``following`` gives the next request, None when there is no more.
        ``repeatable``: sending a put twice does no harm."""
        self.tally = Tally()
        self.router = router
        self._following = following
        self._in_flight = in_flight
        self._token = token
        self._timeout_s = timeout_s
        self._repeatable = repeatable
        self._selector = selectors.DefaultSelector()
        self._logicals = [Logical() for _ in range(connections)]
        self._parked: deque[tuple[float, float, Logical, Work]] = deque()  # due, issued, …
        self.interrupted = False
        self._issuing = True
        self._outstanding = 0
        self._map_asked = 0.0
        self._swept = 0.0

    def run(self, seconds: float, every: Callable[[float], None] | None = None) -> float:
        """Generates load until the time is over, there is no more, or Ctrl-C (see
        ``interrupted``); returns the seconds it took. ``every`` is called about once
        a second with the time so far.

        Raises the KritaError with which a node turns us away for good
        (Unauthenticated, say); what else the cluster does is in ``tally``.
        """
        start = now = reported = time.perf_counter()
        try:
            try:
                for logical in self._logicals:
                    self._issue(logical, self._in_flight, start)
                while now - start < seconds and self._outstanding:
                    self._turn(now)
                    now = time.perf_counter()
                    if every is not None and now - reported >= 1.0:
                        every(now - start)
                        reported = now
            except KeyboardInterrupt:
                self.interrupted = True
            self._drain()
        finally:
            self._close()
        return now - start

    def _turn(self, now: float) -> None:
        for key, mask in self._selector.select(PAUSE_S):
            link: Link = key.data
            if link.is_closed:
                continue  # lost a moment ago, while an earlier event was served
            try:
                if mask & selectors.EVENT_WRITE:
                    link.writable()
                if mask & selectors.EVENT_READ:
                    self._receive(link)
            except LinkClosed as closed:
                self._lose(link, closed)
        if self._parked and self._parked[0][0] <= now:
            self._unpark(now)
        if now - self._swept > SWEEP_S:
            self._sweep(now)

    def _receive(self, link: Link) -> None:
        was_open = link.node
        replies = link.receive()
        logical = link.owner
        assert isinstance(logical, Logical)
        if link.node and not was_open:
            self.router.reached(link.address, link.node)
            logical.routes.clear()
        now = time.perf_counter()
        latencies, pending, freed = self.tally.latencies, link.pending, 0
        for reply in replies:
            issued, work = pending.pop(reply.id)
            if not reply.status and work[1] != _SHARD_MAP:
                latencies[work[1]].append(now - issued)
                freed += 1
                if work[3] is not None:
                    work[3].settle()
            else:
                freed += self._unusual(link, reply, issued, work, now)
        self._outstanding -= freed
        if freed:
            self._issue(logical, freed, now)

    def _issue(self, logical: Logical, count: int, now: float) -> None:
        """Starts that many new requests; sends once per link."""
        if not self._issuing:
            return
        touched: set[Link] = set()
        following, routes = self._following, logical.routes
        for started in range(count):
            work = following()
            if work is None:
                logical.idle += count - started
                break
            self._outstanding += 1
            route = routes.get(work[0]) or self._route(logical, work[0], now)
            if route is None:
                self._park(logical, now, work, now)
                continue
            link, flags = route
            link.request(now, work, flags)
            touched.add(link)
        self._flush(touched)

    def _flush(self, links: set[Link]) -> None:
        for link in links:
            try:
                link.flush()
            except LinkClosed as closed:
                self._lose(link, closed)

    def _route(self, logical: Logical, shard: int, now: float) -> tuple[Link, int] | None:
        """Where the shard's requests go; None while nobody can be connected to."""
        address, direct = self.router.choose(shard, (), now)
        link = logical.links.get(address)
        if link is None:
            try:
                link = Link(address, self._token, self._selector, logical)
            except LinkClosed:
                self.router.failed(address, now)
                return None
            logical.links[address] = link
        # Direct: a node that does not lead shall say so instead of forwarding.
        route = (link, FLAG_FORWARDED if direct else 0)
        if link.is_open and direct:
            logical.routes[shard] = route
        elif self.router.map_doubtful:
            self._ask_map(link, now)
        return route

    def _unusual(self, link: Link, reply: Reply, issued: float, work: Work, now: float) -> int:
        """A reply that is no success of a measured request; 1 if it ended one."""
        if work[1] == _SHARD_MAP:
            self._learn_map(reply, now)
            return 0
        error = from_wire(reply.status, reply.body)
        if isinstance(error, NotLeader):
            self.router.doubt(work[0], link.address)
            self.router.learn_hint(work[0], error)
            self._forget_routes()
        return self._fail(link, error, issued, work, now)

    def _fail(self, link: Link, error: KritaError, issued: float, work: Work, now: float) -> int:
        """One attempt failed: parks it for another, or counts it; 1 if it is over."""
        safe = error.outcome is Outcome.NOT_APPLIED or work[1] == GET or self._repeatable
        hopeless = not (error.retryable or error.outcome is Outcome.UNKNOWN)
        late = now - issued > self._timeout_s
        name = type(error).__name__
        self.tally.last_error = error
        if safe and not hopeless and not late:
            self.tally.retries[name] += 1
            logical = link.owner
            assert isinstance(logical, Logical)
            self._park(logical, issued, work, now)
            return 0
        self._give_up(name, work)
        return 1

    def _give_up(self, name: str, work: Work) -> None:
        self.tally.errors[name] += 1
        if work[3] is not None:
            work[3].settle()

    def _park(self, logical: Logical, issued: float, work: Work, now: float) -> None:
        if not self._issuing:
            self._outstanding -= 1
            return
        self._parked.append((now + PAUSE_S, issued, logical, work))

    def _unpark(self, now: float) -> None:
        """Tries again what has waited long enough."""
        touched: set[Link] = set()
        while self._parked and self._parked[0][0] <= now:
            _, issued, logical, work = self._parked.popleft()
            if now - issued > self._timeout_s:
                self._give_up(Unavailable.__name__, work)
                self._outstanding -= 1
                self._issue(logical, 1, now)
                continue
            route = self._route(logical, work[0], now)
            if route is None:
                self._park(logical, issued, work, now)
            else:
                route[0].request(issued, work, route[1])
                touched.add(route[0])
        self._flush(touched)

    def _lose(self, link: Link, closed: LinkClosed) -> None:
        """A connection ended: what was on it is unknown, what waited is not."""
        if link.is_closed:
            return
        if closed.reason is not None and not closed.reason.retryable:
            raise closed.reason
        now = time.perf_counter()
        logical = link.owner
        assert isinstance(logical, Logical)
        logical.links.pop(link.address, None)
        self.router.failed(link.address, now)
        self._forget_routes()
        sent, unsent = link.abandon()
        lost = OutcomeUnknown(str(closed))
        freed = 0
        for issued, work in sent:
            if work[1] != _SHARD_MAP:
                freed += self._fail(link, lost, issued, work, now)
        for issued, work in unsent:
            if work[1] != _SHARD_MAP:
                self._park(logical, issued, work, now)
        self._outstanding -= freed
        if freed:
            self._issue(logical, freed, now)

    def _ask_map(self, link: Link, now: float) -> None:
        if now - self._map_asked > MAP_PAUSE_S:
            self._map_asked = now
            link.request(now, _ASK_MAP, 0)

    def _learn_map(self, reply: Reply, now: float) -> None:
        if not reply.status:
            self.router.learn_map(ShardMap.from_wire(reply.body), now)
            self._forget_routes()

    def _forget_routes(self) -> None:
        for logical in self._logicals:
            logical.routes.clear()

    def _sweep(self, now: float) -> None:
        """Ends links whose node keeps silent beyond the timeout, and fills places
        that had no request."""
        self._swept = now
        for logical in self._logicals:
            for link in list(logical.links.values()):
                oldest = link.oldest()
                if oldest is not None and now - oldest > self._timeout_s:
                    self._lose(link, LinkClosed(f"{link.address} does not answer"))
            idle, logical.idle = logical.idle, 0
            if idle:
                self._issue(logical, idle, now)

    def _drain(self) -> None:
        """Waits a little for the last replies, which count for nothing, so that the
        next run does not begin with this one's work."""
        self._issuing = False
        self._outstanding -= len(self._parked)
        self._parked.clear()
        kept, self.tally = self.tally, Tally()
        started = now = time.perf_counter()
        while self._outstanding > 0 and now - started < DRAIN_S:
            self._turn(now)
            now = time.perf_counter()
        self.tally = kept

    def _close(self) -> None:
        for logical in self._logicals:
            for link in logical.links.values():
                link.close()
            logical.links.clear()
        self._selector.close()

    def __repr__(self) -> str:
        return (
            f"<Load outstanding={self._outstanding} parked={len(self._parked)}"
            f" done={self.tally.done} errors={dict(self.tally.errors)}>"
        )
