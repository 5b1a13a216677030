"""Where a request is served: here, on another node, or later.

Rules:
* Any node takes any request and forwards it at most once; one that was
  forwarded already is served here or refused with NotLeader.
* The server never proposes a write twice. A write that may be in a log
  somewhere (it was sent to a node whose answer did not come) ends as
  *unknown*; one that was refused is free to look for the leader again.
* A request without a leader to go to waits for one until its deadline: an
  election is shorter than any sensible timeout, and waiting here costs a
  client nothing while a refusal costs it a round trip.
* What was answered meanwhile, because its deadline passed, goes nowhere: it has no body any
  more, and would be an entry that nobody can read.
* A shard that was split sends back what is for its other half. Whoever forwarded it, or
  asked this node and no other, is told so (WrongShard) and knows better soon; what came
  from a client that leaves the way to us waits here, and is routed by its key anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from krita.errors import (
    Busy,
    KritaError,
    NoSpace,
    NotLeader,
    OutcomeUnknown,
    Status,
    TooLarge,
    Unavailable,
    WrongShard,
)
from krita.operations import Op
from kritad.buggify import buggify
from kritad.host.clock import Clock
from kritad.host.leaders import NO_NODE, LeaderTable
from kritad.host.replica import Replica
from kritad.host.request import IN_DOUBT, KEYED, Request
from kritad.raft.errors import ProposalRefused, Refusal
from kritad.trail import FORWARD, QUEUE

# More parked requests than this and new ones are refused: memory is bounded.
_PARKED_MAX = 10_000

# What needs room on the disk for good. What has been prepared is decided and finished: others
# wait for it.
_GROWING = frozenset({Op.PUT, Op.ADD, Op.APPEND, Op.LOCK, Op.TXN, Op.TXN_PREPARE})

# What needs some for as long as it is on its way through the WAL, and then makes some, or none.
_PASSING = frozenset({Op.DELETE, Op.TOUCH})

_NO_SPACE = NoSpace(
    "the shard's leader is below its disk reserve and takes no writes",
    hint="make room on its disk, or delete keys; it clears by itself",
)

_NO_SPACE_NOW = Busy(
    "the disk of the shard's leader is nearly full, and takes not even deletes just now",
    hint="ask again; if it stays so, make room on its disk",
)

# (status, body, whether it was sent); status None: the connection was lost.
OnReply = Callable[[int | None, object, bool], None]


class Forwarder(Protocol):
    """The part of the transport that carries requests to other nodes."""

    def request(self, node: int, request: Request, on_reply: OnReply) -> None:
        """Send it; ``on_reply`` is called exactly once, maybe at once."""

    def address_of(self, node: int) -> str | None:
        """Where a node listens."""


class Router:
    """See the module's docstring. ``shard_of`` says who owns a key, by what this node
    knows now; None: it knows nothing yet. ``served`` is told of which shard a request is
    served here, by its leader."""

    def __init__(
        self,
        node: int,
        replicas: Mapping[int, Replica],
        leaders: LeaderTable,
        forwarder: Forwarder,
        clock: Clock,
        mark: Callable[[Replica], None],
        shard_of: Callable[[bytes], int | None],
        served: Callable[[int], None],
    ) -> None:
        self._node = node
        self._replicas = replicas
        self._leaders = leaders
        self._forwarder = forwarder
        self._clock = clock
        self._mark = mark
        self._shard_of = shard_of
        self._served = served
        self._parked: list[Request] = []
        self.space_low = False  # this node's disk: it takes no puts
        self.nearly_full = False  # nor deletes

    def route(self, request: Request) -> None:
        """Serve, forward or park it, if it is not answered yet. Never raises."""
        if request.respond is None:
            return
        if request.nearest:
            # Once: if that node cannot answer, the leader is asked.
            node, request.nearest = request.nearest, NO_NODE
            self._forward(node, request)
            return
        replica = self._replicas.get(request.shard)
        if replica is not None and replica.leads:
            self._serve(replica, request)
            return
        node, term = self._leaders.of(request.shard)
        if request.forwarded:
            request.fail(self._not_leader(request.shard, node, term))
        elif node not in (NO_NODE, self._node):
            self._forward(node, request)
        else:
            self._park(request)

    def _not_leader(self, shard: int, node: int, term: int) -> KritaError:
        detail: dict[str, object] = {"shard": shard, "term": term}
        address = self._forwarder.address_of(node)
        if node not in (NO_NODE, self._node) and address is not None:
            detail |= {"node": node, "address": address}
        return NotLeader(f"this node does not lead shard {shard}", detail=detail)

    def _serve(self, replica: Replica, request: Request) -> None:
        if request.op in KEYED and not replica.state.owns(request.key):
            self.misplaced(request)  # before it costs the log an entry
            return
        self._served(request.shard)
        try:
            if buggify("router.busy"):
                raise ProposalRefused(Refusal.BUSY)
            if request.op in _GROWING and self.space_low and not replica.raft.transferring:
                request.fail(_NO_SPACE)  # else there may be room where the shard is led next
            elif self.nearly_full and request.op in _PASSING and not replica.raft.transferring:
                request.fail(_NO_SPACE_NOW)
            elif request.write:
                replica.propose(request, replica.stamp_ms(self._clock))
            elif request.op == Op.LEADER_TRANSFER:
                self._transfer(replica, request)
            elif request.op == Op.CHANGES and replica.has_applied(request.fields[0]):
                replica.poll(request, self._clock.monotonic_ms())
            else:
                replica.read(request)
        except ProposalRefused as refusal:
            self._refused(request, refusal)
        self._mark(replica)

    def _transfer(self, replica: Replica, request: Request) -> None:
        """``request.key`` holds the wanted node, in decimal."""
        wanted = int(request.key)
        raft = replica.raft
        for member in sorted(raft.configuration.voters):
            if raft.configuration.nodes.get(member) == wanted:
                if member != replica.id:
                    if not raft.progress[member].recent_active:
                        break  # it would stop the writes and lead to nothing
                    raft.transfer(member)
                request.answer(Status.OK, [wanted])
                return
        request.fail(
            Unavailable(
                f"node {wanted} has no voter of shard {request.shard} that answers",
                hint="`kritash shard list` shows who has",
            )
        )

    def _refused(self, request: Request, refusal: ProposalRefused) -> None:
        reason = refusal.reason
        if reason is Refusal.BUSY:
            request.fail(Busy("too many writes are waiting for replication", hint="slow down"))
        elif reason is Refusal.TOO_LARGE:
            request.fail(TooLarge("the command is larger than a log entry may be"))
        elif request.forwarded:
            node, term = self._leaders.of(request.shard)
            request.fail(self._not_leader(request.shard, node, term))
        else:
            self._park(request)

    def _forward(self, node: int, request: Request) -> None:
        def on_reply(status: int | None, body: object, sent: bool) -> None:
            request.sent = False
            if (trail := request.trail) is not None:
                trail.passed(FORWARD)
            wrong_shard = status == Status.WRONG_SHARD and request.op in KEYED
            if status == Status.NOT_LEADER or wrong_shard:
                self._park(request)
            elif status is not None:
                request.answer(status, body)
            elif sent and request.write:
                request.fail(
                    OutcomeUnknown(
                        f"the connection to node {node} was lost while it had the write",
                        hint=IN_DOUBT,
                    )
                )
            else:
                self._park(request)

        if buggify("router.no-link"):
            self._park(request)
            return
        if (trail := request.trail) is not None:
            trail.passed(QUEUE)
        request.sent = True
        self._forwarder.request(node, request, on_reply)

    def _park(self, request: Request) -> None:
        if request.respond is None:
            return
        if len(self._parked) >= _PARKED_MAX:
            request.fail(Unavailable("too many requests are waiting for a leader"))
        else:
            self._parked.append(request)

    def requeue(self, request: Request) -> None:
        """What a leader that went away had not begun: surely not executed, so route it anew."""
        if request.forwarded:
            self.route(request)
        else:
            self._park(request)

    def misplaced(self, request: Request) -> None:
        """A request by key whose shard does not own the key: surely not executed. It goes
        to the shard that does, if that is known."""
        assert request.op in KEYED, request
        shard = self._shard_of(request.key)
        if shard is not None and shard != request.shard:
            request.shard = shard
            self.route(request)
        elif request.forwarded:
            request.fail(
                WrongShard(
                    f"shard {request.shard} was split, and the key is not its own any more",
                    hint="fetch the shard map again",
                    detail={"shard": request.shard},
                )
            )
        else:
            self._park(request)

    def retry_parked(self) -> None:
        """A leader may be known now, or a shard that was split off. Called on each tick
        and on each change of a leader or of the meta shard's state."""
        if self._parked:
            parked, self._parked = self._parked, []
            for request in parked:
                if request.respond is None:
                    continue
                if request.op in KEYED:
                    request.shard = self._shard_of(request.key) or request.shard
                self.route(request)
