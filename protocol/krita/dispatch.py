"""The dispatcher: every call of one client, from its start to its result. Sans-IO.

A driver (``krita.client``, ``krita.aio``) owns sockets and time and does what
this object says; all rules are here and in what it is made of:

    Router    where to send         Sessions   that a write happens once
    Trial     what a failure means  Links      connections, their calls and bytes

The driver's duties: ``start`` calls; run the errands of ``links`` (connect, send,
close) and report ``dialed``, ``received`` and ``closed``, and ``wrote`` where a socket
does not take at once what it is given; call ``tick`` no later than ``due``.

A call that lacks something is *parked* under what it needs: the shard map, a
session in its shard, a place in the session's window. The first to need a map or
a session starts an internal call that fetches it; the others join.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from krita.call import Call, CallState, Need, errand_failed
from krita.connection import Event, Goodbye, Reply, Welcomed
from krita.errors import (
    BadRequest,
    ConnectionFailed,
    Foreign,
    KritaError,
    Outcome,
    OutcomeUnknown,
    ProtocolError,
    WrongShard,
    from_wire,
)
from krita.fetches import FETCH_TIMEOUT_S, MAP, Fetches, request_for
from krita.hello import Hello
from krita.link import Link, Links, LinkState, other_cluster, other_protocol
from krita.parking import Parking
from krita.retry import GiveUp
from krita.ring import ShardMap
from krita.routing import Router
from krita.session import Session, Sessions

if TYPE_CHECKING:
    import random

    from krita.request import Request


class Dispatcher:
    """See the module. Not thread-safe; ``now`` is seconds on any steady clock."""

    def __init__(
        self,
        seeds: Sequence[str],
        chance: random.Random,
        *,
        token: bytes | None = None,
        sessions: bool = True,
        zone: str = "",
    ) -> None:
        self.router = Router(seeds, chance, zone)
        self.sessions = Sessions() if sessions else None
        self.links = Links(Hello(token=token))
        self.due = math.inf  # never later than the first thing that falls due
        self._chance = chance
        self._calls: dict[Call, None] = {}  # all that have not finished, in order
        self._parking = Parking()
        self._fetches = Fetches()
        self._ended = ""  # why no more calls are taken

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._calls)} calls, {self.links!r}, {self.router!r}>"

    # What the caller does

    def start(
        self,
        request: Request[Any],
        timeout_s: float,
        now: float,
        done: Callable[[Call], None] | None = None,
    ) -> Call:
        """Begin a call. ``done`` is called once, perhaps before this returns, and
        may start further calls. After ``close`` or ``abandon`` every call fails at once."""
        call = self._begin(request, timeout_s + request.patience_s, now)
        call.done = done
        if self._ended:
            self._finish(call, now, error=call.interrupted(self._ended))
            return call
        self._advance(call, now)
        if self.router.map_doubtful and call.shard is not None:
            self._refresh(now)
        return call

    def cancel(self, call: Call, now: float) -> None:
        """Nobody wants the result any more; ``done`` is not called. A write that was
        sent may still be applied; its sequence is given up."""
        if call.state is not CallState.FINISHED:
            call.done, link = None, call.link
            self._detach(call)
            self._finish(call, now, error=OutcomeUnknown("the call was cancelled"))
            if link is not None:
                self._pump(link, now)

    def abandon(self, why: str) -> None:
        """End every call, after a method of this object was left half way, and whatever is
        started yet: what is told of the end of one call may start the next."""
        self._ended = why
        for call in list(self._calls):
            call.abandon(why)

    def close(self, now: float) -> None:
        """End every call and every link, for good. Idempotent."""
        self._ended = "the client is closed"
        self._fetches.forget()
        for call in list(self._calls):
            if call.state is not CallState.FINISHED:  # one may cancel another
                self._finish(call, now, error=call.interrupted("the client was closed"))
        for link in self.links:
            self.links.drop(link)

    # What the driver reports

    def dialed(self, link: Link) -> None:
        """The link's transport is connected."""
        if link.state is LinkState.DIALING:
            link.dialed()

    def received(self, link: Link, data: bytes, now: float) -> None:
        """Bytes have come. Never raises for what they are."""
        if link.state is LinkState.DEAD:
            return
        try:
            events = link.receive(data, now)
        except KritaError as error:
            self._lost(link, error, now)
            return
        for event in events:
            if type(event) is Reply:
                call = link.answered(event.id)
                if call is not None:  # else nobody waits for it any more
                    self._replied(call, event, now)
            else:
                self._handle(link, event, now)
        self._pump(link, now)

    def wrote(self, link: Link, moved_bytes: int, left_bytes: int, now: float) -> None:
        """The transport has taken so much of what was taken from the link, and so much is left.
        To be told when something is left, and until nothing is."""
        link.wrote(moved_bytes, left_bytes, now)
        self._pump(link, now)

    def closed(self, link: Link, reason: str, now: float) -> None:
        """The transport could not be connected, or has ended."""
        self._lost(link, ConnectionFailed(f"{link.address}: {reason}"), now)

    def tick(self, now: float) -> None:
        """Do what has fallen due. Nothing before ``due``; O(calls) after it, which
        comes about once per timeout when the timeouts are alike."""
        if now < self.due:
            return
        self.due = math.inf
        for link in self.links:
            if link.state is LinkState.READY:
                continue
            if link.ready_due <= now:
                self.closed(link, "no connection in time", now)
            else:
                self._wake_at(link.ready_due)
        in_vain: dict[Link | None, None] = {}
        for call in [call for call in self._calls if call.due <= now]:
            if call.state is not CallState.FINISHED and call.due <= now:
                in_vain[self._overdue(call, now)] = None
        for link_in_vain in in_vain:
            self._relieve(link_in_vain, now)
        if self._calls:
            self._wake_at(min(call.due for call in self._calls))

    # A call on its way

    def _begin(self, request: Request[Any], timeout_s: float, now: float) -> Call:
        deadline = now + timeout_s
        call = Call(request, now, deadline, deadline)
        self._calls[call] = None
        return call

    def _advance(self, call: Call, now: float) -> None:
        """Take a call as far as it gets by itself: to a link, or to what it needs."""
        request = call.request
        key = request.key
        if key is not None or request.shard is not None or type(request.node) is int:
            if self.router.map is None or (call.wants_map and MAP in self._fetches):
                self._park(call, MAP, now)
                return
            shard = self.router.shard_of(key) if key is not None else request.shard
            if call.shard != shard:
                self._move(call, shard)
            elif call.wants_map:
                # The map says what it said before. Either it or the node that was asked
                # is behind, and there is nothing to do about it but to give them time.
                self._pause(call, now)
                return
            call.wants_map = False
        if not call.body and not self._prepare(call, now):
            return
        self._route(call, now)

    def _move(self, call: Call, shard: int | None) -> None:
        """The call belongs to this shard (now). A write keeps its ticket and its body: a
        shard that was split off has a copy of the session, and what the old one may have
        done with an earlier attempt is in there (``krita.session``)."""
        call.shard = shard
        if call.trial is not None:
            call.trial.tried.clear()  # at the old one

    def _prepare(self, call: Call, now: float) -> bool:
        """Encode the body, a write's with a ticket. False: parked for one, or at its end."""
        if not call.request.in_session:
            return self._encode(call, (), now)
        if self.sessions is None:
            return self._encode(call, (0, 0, 0), now)
        assert call.shard is not None
        session = self.sessions.current(call.shard)
        if session is None:
            self._park(call, ("session", call.shard), now)
            return False
        if not session.has_room:
            self._park(call, ("window", call.shard), now)
            return False
        call.ticket = ticket = session.take()
        return self._encode(call, (session.id, ticket.sequence, session.acked_to), now)

    def _encode(self, call: Call, session: tuple[int, ...], now: float) -> bool:
        try:
            call.body = call.request.encode(*session)
        except BadRequest as error:  # one call's own: whoever is at work here serves all
            self._finish(call, now, error=error)
            return False
        return True

    def _route(self, call: Call, now: float) -> None:
        """Give the call to the link of the node that shall have it."""
        request, trial = call.request, call.trial
        if request.node is not None:
            try:
                address, call.direct = self.router.node_address(request.node), False
            except KritaError as error:
                self._finish(call, now, error=error)
                return
        else:
            tried = trial.tried if trial is not None else ()
            address, call.direct = self.router.choose(call.shard, tried, now, spread=request.spread)
        link = self.links.find(address)
        if link is None:
            link = self.links.dial(address, now)
            self._wake_at(link.ready_due)
        if link.has_room_for(call):
            self._send(link, call, now)
        else:
            link.queue(call)
            self._wake_at(call.due)

    def _send(self, link: Link, call: Call, now: float) -> None:
        try:
            link.send(call, now)
        except KritaError as error:  # too large for this cluster's frames
            call.link = None
            self._finish(call, now, error=error)
            return
        if call.due < self.due:
            self.due = call.due

    def _pump(self, link: Link, now: float) -> None:
        while (call := link.next_call()) is not None:
            self._send(link, call, now)

    def _relieve(self, link: Link | None, now: float) -> None:
        """Calls have left it without an answer. Those behind them take their places, or go where
        calls go now: else each would wait here for an attempt's time, one after the other."""
        if link is not None and link.state is LinkState.READY:
            for call in link.take_queued():
                if call.state is not CallState.FINISHED:  # one may cancel another
                    self._advance(call, now)

    # What calls need

    def _park(self, call: Call, need: Need, now: float) -> None:
        self._parking.park(call, need)
        self._wake_at(call.due)
        if need[0] != "window":
            self._fetch(need, now)

    def _fetch(self, need: Need, now: float) -> None:
        """Start the internal call that brings what is needed, unless it is under way."""
        if need in self._fetches:
            return
        call = self._begin(request_for(need), FETCH_TIMEOUT_S, now)
        self._fetches.begun(need, call)
        self._advance(call, now)

    def _refresh(self, now: float) -> None:
        """Fetch the map again, but not all the time."""
        if self._fetches.may_refresh(now):
            self._fetch(MAP, now)

    def _fetched(self, call: Call, now: float) -> None:
        """An internal call has finished: go on with the calls that need it."""
        need = self._fetches.ended(call)
        if isinstance(call.result, int) and self.sessions is not None:
            self._admit(self.sessions.opened(need[1], call.result), now)
        useless = call.error is not None and (need != MAP or self.router.map is None)
        for parked in self._parking.release(need):
            if useless:
                assert call.error is not None
                self._failed(parked, errand_failed(call.error, need), None, now)
            else:
                self._advance(parked, now)

    def _release(self, call: Call, now: float) -> None:
        """Give up the call's sequence, which may let others into the window."""
        ticket, call.ticket = call.ticket, None
        assert ticket is not None, "only who has a ticket gives it up"
        call.body = b""
        ticket.settle()
        if not self._ended:
            self._admit(ticket.session, now)

    def _admit(self, session: Session, now: float) -> None:
        for call in self._parking.admit(session):
            self._advance(call, now)

    # What becomes of a call

    def _handle(self, link: Link, event: Event, now: float) -> None:
        """Whatever comes on a link besides replies."""
        if isinstance(event, Welcomed):
            identity = event.welcome.identity
            if not self.router.is_ours(identity.cluster_id):
                self._lost(link, other_cluster(link.address), now)
                return
            link.welcomed()
            self.router.reached(link.address, identity.node)
            self._pump(link, now)
        elif isinstance(event, Goodbye):
            self._lost(link, event.error, now)
        else:
            raise AssertionError(f"a client's connection cannot have {event!r}")

    def _replied(self, call: Call, reply: Reply, now: float) -> None:
        link, call.link = call.link, None
        assert link is not None
        if reply.status:
            self._failed(call, from_wire(reply.status, reply.body), link.address, now)
            return
        if call.request.spread:
            self.router.nearness.learn(link.address, now - call.sent_at, now)
        try:
            result = call.request.read(reply.body)
        except ProtocolError as error:
            if call.request.write:
                error.outcome = Outcome.APPLIED
            self._finish(call, now, error=error)
            return
        if isinstance(result, ShardMap):
            self.router.learn_map(result, now, link.address)
        self._finish(call, now, result=result)

    def _lost(self, link: Link, error: KritaError, now: float) -> None:
        """A link has ended: its calls fail, each by whether it may have been sent."""
        if link.state is LinkState.DEAD:
            return
        if link.state is not LinkState.READY or not link.idle:
            self.router.failed(link.address, now)
        if link.state is LinkState.READY:
            error = ConnectionFailed(error.message, hint=error.hint)
        elif isinstance(error, (Foreign, ProtocolError)):
            self.router.misfit(link.address, now)
            if isinstance(error, ProtocolError):
                error = other_protocol(link.address, error)
        sent, unsent = self.links.drop(link)
        for call in sent:
            lost = OutcomeUnknown(f"the connection was lost: {error.message}", hint=error.hint)
            self._failed(call, lost, link.address, now)
        for call in unsent:
            self._failed(call, error, link.address, now)

    def _overdue(self, call: Call, now: float) -> Link | None:
        """Its time is over, or its attempt's. Returns the link on which it was sent in vain."""
        if call.state is CallState.PAUSED and now < call.deadline:
            self._advance(call, now)
            return None
        link = call.link if call.state is CallState.SENT else None
        answer_due = math.inf if link is None else link.answer_due(call)
        call.due = min(call.deadline, answer_due)  # later, if bytes have moved meanwhile
        if now < call.due:
            return None
        if now >= call.deadline:
            if link is not None:
                # Or every call whose time is shorter than an attempt's would go there.
                self.router.kept_waiting(link.address, now)
            error = self._expire(call, now)
            self._detach(call)
            self._finish(call, now, error=error)
        if link is None or now < answer_due:
            return link
        if link.heard_at <= call.sent_at:
            # Not a word since: the node is gone or stopped, and every call on this
            # link would find out in turn.
            self._lost(link, ConnectionFailed(f"{link.address} has fallen silent"), now)
        elif call.state is CallState.SENT:
            link.forget(call)
            late = OutcomeUnknown(f"{link.address} did not answer in time")
            self._failed(call, late, link.address, now)
        return link

    def _failed(self, call: Call, error: KritaError, address: str | None, now: float) -> None:
        """An attempt has failed, at this address if at any: again, or the end."""
        if call.state is CallState.FINISHED:
            return  # cancelled by the ``done`` of another that failed with it
        call.link = None
        call.state = CallState.PAUSED
        if address is not None and isinstance(error, OutcomeUnknown):
            # It may answer for the map and be cut off from its peers: those who call next
            # do not find that out each by waiting.
            self.router.kept_waiting(address, now)
        trial = call.attempts(self.sessions is not None)
        hopeless = self.router.nobody_left(address, call.request.node is not None)
        verdict = trial.judge(error, now, address, hopeless=hopeless)
        if isinstance(verdict, GiveUp):
            self._finish(call, now, error=verdict.error)
            return
        self.router.doubt_arcs(error)
        if verdict.rebind:
            self._renew_session(call, now)
        pause = address is None or call.request.node is not None or verdict.rule.pause
        if isinstance(error, WrongShard) and not pause:
            call.wants_map = True
            self._fetch(MAP, now)
            self._advance(call, now)
            return
        if address is not None and not pause:
            pause = self.router.learn_failure(call.shard, address, error, verdict.rule, trial)
        if verdict.rule.refresh:
            self._refresh(now)
        if pause:
            self._pause(call, now)
        else:
            self._advance(call, now)

    def _pause(self, call: Call, now: float) -> None:
        """Go on with the call in a while; in a longer one each time."""
        assert call.trial is not None, "only what has failed is put off"
        call.state = CallState.PAUSED
        call.wants_map = False
        call.due = min(now + call.trial.pause_s(self._chance), call.deadline)
        self._wake_at(call.due)

    def _renew_session(self, call: Call, now: float) -> None:
        assert call.ticket is not None, "only a write with a session can miss it"
        assert self.sessions is not None
        session = call.ticket.session
        if session.shard == call.shard:
            self.sessions.expire(session)
        # Else it was opened behind the split: its own shard knows it well.
        self._release(call, now)

    def _expire(self, call: Call, now: float) -> KritaError:
        """The deadline has passed: the error that says the most."""
        trial = call.attempts(self.sessions is not None)
        self._fetches.explain(call, trial)
        return trial.expire(now, waiting=call.state is CallState.SENT)

    def _detach(self, call: Call) -> None:
        """Take an unfinished call out of wherever it is."""
        if call.link is not None:
            call.link.forget(call)
        elif call.state is CallState.PARKED:
            self._parking.leave(call)

    def _finish(
        self, call: Call, now: float, *, result: object = None, error: KritaError | None = None
    ) -> None:
        call.state = CallState.FINISHED
        call.result, call.error = result, error
        del self._calls[call]
        if call.ticket is not None:
            self._release(call, now)
        if call.fetches is not None:
            self._fetched(call, now)
        else:
            call.tell()

    def _wake_at(self, when: float) -> None:
        if when < self.due:
            self.due = when
