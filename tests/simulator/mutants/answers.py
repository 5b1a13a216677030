"""Planted bugs: what a client is told of its write."""

from __future__ import annotations

from collections.abc import Sequence

from krita.errors import DeadlineExceeded, Status, Unavailable
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.host.router import Router
from kritad.raft.ready import Ready
from kritad.raft.types import Entry
from tests.simulator.mutants.mutant import Mutant

_apply = Replica.apply
_take_ready = Replica.take_ready


def _send_again(router: Router, node: int, request: Request) -> None:
    """A write whose answer was lost on its way waits for a leader and is sent again."""

    def on_reply(status: int | None, body: object, _sent: bool) -> None:
        request.sent = False
        if status is None or status == Status.NOT_LEADER:
            router._park(request)
        else:
            request.answer(status, body)

    request.sent = True
    router._forwarder.request(node, request, on_reply)


def _answer_who_waits_here(replica: Replica, entries: Sequence[Entry]) -> int:
    """Whoever waits for an index is told what became of the entry that stands there."""
    for entry in entries:
        request = replica._writes.get(entry.index)
        while request is not None:
            request.term = entry.term
            request = request.older
    return _apply(replica, entries)


def _writes_of_a_deposed(replica: Replica) -> list[Request]:
    """The waiting writes of a replica that leads no more, taken from it."""
    found: list[Request] = []
    if not replica.leads:
        writes, replica._writes = replica._writes, {}
        for request in writes.values():
            chained: Request | None = request
            while chained is not None:
                found.append(chained)
                chained = chained.older
    return found


def _deny_when_deposed(replica: Replica) -> Ready | None:
    """A leader that is none any more says of all waiting writes that they were not applied."""
    ready = _take_ready(replica)
    for request in _writes_of_a_deposed(replica):
        request.fail(Unavailable("the shard changed its leader", hint="send it again"))
    return ready


def _deny_when_late(request: Request) -> None:
    """A deadline that passes says that nothing was applied, wherever the request stood."""
    if request.respond is not None:
        request.fail(DeadlineExceeded("the deadline passed", hint="send it again"))


def _requeue_writes(replica: Replica) -> Ready | None:
    """A leader that is none any more looks for the next one with its waiting writes."""
    ready = _take_ready(replica)
    for request in _writes_of_a_deposed(replica):
        request.older, request.term = None, 0
        replica._requeue(request)
    return ready


MUTANTS = (
    Mutant(
        name="lost-forward-is-sent-again",
        rule="the server never proposes a write twice",
        source="design 10, raft.md B43 (redisraft#13)",
        hint="witness: one value at two revisions; needs writes without a session through a node "
        "that does not lead, and connections between nodes that break",
        patches=((Router, "_forward", _send_again),),
    ),
    Mutant(
        name="deposed-leader-proposes-elsewhere",
        rule="the server never proposes a write twice",
        source="design 10, raft.md B43",
        hint="witness: one value at two revisions; needs writes without a session and changes of "
        "leader",
        patches=((Replica, "take_ready", _requeue_writes),),
    ),
    Mutant(
        name="deposed-leader-denies",
        rule="lost leadership proves nothing about an appended write",
        source="design 1.3 and 10, raft.md 6",
        hint="witness: a failed write is read; needs changes of leader under load (a client with a "
        "session may hide it by sending again)",
        patches=((Replica, "take_ready", _deny_when_deposed),),
    ),
    Mutant(
        name="index-without-its-term",
        rule="a write is answered by the entry at its index and term",
        source="design 10, raft.md 6",
        hint="witness: two values at one revision, a value that is nowhere; acknowledged write "
        "lost; needs a deposed leader with an uncommitted tail that stays in contact",
        patches=((Replica, "apply", _answer_who_waits_here),),
    ),
    Mutant(
        name="deadline-denies",
        rule="a deadline that passes behind an append says unknown",
        source="design 1.3 and 10, raft.md 6",
        hint="witness: a failed write is read; needs short timeouts and a slow quorum",
        patches=((Request, "expire", _deny_when_late),),
    ),
)
