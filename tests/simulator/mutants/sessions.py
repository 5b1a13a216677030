"""Planted bugs: what makes a write that was sent twice happen once."""

from __future__ import annotations

from krita.operations import Op
from kritad import data_service
from kritad.host.host import Host
from kritad.host.request import Respond
from kritad.state import sessions as product
from kritad.state.verbs import Reply
from tests.simulator.mutants.mutant import Mutant

_begin = product.Sessions.begin
_forget = product.Sessions._forget
_tick = Host.tick


def _execute_again(
    sessions: product.Sessions,
    session_id: int,
    sequence: int,
    acked_to: int,
    index: int,
    clock_ms: int,
) -> Reply | None:
    """The reply of a write that was executed before is not looked for."""
    reply = _begin(sessions, session_id, sequence, acked_to, index, clock_ms)
    if reply is not None:
        del sessions._sessions[session_id].replies[sequence]
        sessions._replies_count -= product._weight(reply)
    return None


def _forget_one_more(sessions: product.Sessions, session: product.Session, acked_to: int) -> None:
    """The reply right behind those that the client has is dropped too."""
    _forget(sessions, session, acked_to)
    reply = session.replies.pop(acked_to + 1, None)
    if reply is not None:
        sessions._replies_count -= product._weight(reply)


def _acknowledge_one_more(
    sessions: product.Sessions, session: product.Session, acked_to: int
) -> None:
    """The client is taken to have one answer more than it says."""
    _forget(sessions, session, acked_to + 1)


def _make_anew(sessions: product.Sessions, session_id: int) -> product.Session:
    """A session that nobody knows is made by its next write."""
    session = sessions._sessions.get(session_id)
    if session is None:
        session = sessions._sessions[session_id] = product.Session(session_id, session_id, 0)
    return session


def _expire_by_the_own_clock(host: Host) -> None:
    """Sessions end when the clock of the replica's own node says so."""
    _tick(host)
    for replica in host.replicas.values():
        replica.state._sessions.expire(host.clock.wall_ms())


def _draw_nothing(
    service: data_service.DataService,
    op: Op,
    body: bytes,
    deadline_ms: float,
    forwarded: bool,
    respond: Respond,
) -> None:
    """A session's id is the index of the entry that opens it."""
    service._to_shard(op, body, deadline_ms, forwarded, respond)


MUTANTS = (
    Mutant(
        name="session-ids-are-places-in-the-log",
        rule="a session's id is one that nobody had before, also where the log was set back",
        source="state/sessions.py",
        hint="sessions: a recovery with a log that lacks what a client has been answered",
        patches=((data_service.DataService, "_session_open", _draw_nothing),),
    ),
    Mutant(
        name="retries-are-executed-again",
        rule="a sequence number is executed once",
        source="thesis 6.3, raft.md B43",
        hint="witness: one value at two revisions; linearizability of conditional writes; needs "
        "lost answers and sessions",
        patches=((product.Sessions, "begin", _execute_again),),
    ),
    Mutant(
        name="reply-forgotten-too-early",
        rule="a reply is kept until the client has said that it has it",
        source="raft.md 6 (acked_to)",
        hint="witness: one value at two revisions; needs a pipelined session whose older write "
        "is retried",
        patches=((product.Sessions, "_forget", _forget_one_more),),
    ),
    Mutant(
        name="session-acknowledges-one-more",
        rule="acked_to is what the client says",
        source="raft.md 6 (acked_to)",
        hint="witness: a write is refused as acknowledged (a definite no) and has happened; needs "
        "a pipelined session whose older write is retried",
        patches=((product.Sessions, "_forget", _acknowledge_one_more),),
    ),
    Mutant(
        name="unknown-session-is-made-anew",
        rule="a session that ended is unknown for good",
        source="raft.md 6",
        hint="witness: one value at two revisions; needs sessions that expire (a small "
        "SESSION_TTL_MS or SESSIONS_MAX) while a write is being retried",
        patches=((product.Sessions, "_known", _make_anew),),
    ),
    Mutant(
        name="sessions-expire-by-the-own-clock",
        rule="sessions end by the shard's clock, which only the log moves",
        source="raft.md 6",
        hint="state hash; needs wall clocks that are an hour apart (or a small SESSION_TTL_MS)",
        patches=((Host, "tick", _expire_by_the_own_clock),),
    ),
)
