"""What reaches over all shards: scans, leases, retentions. Whichever node is asked gathers.

There is no moment that several shards share, so what comes from several of them is no
snapshot: each shard's part is as of a moment of its own, within the request. How the
parts of a scan are put together is in scan_page.py.

Rules:
* What is told to all shards (a lease, a retention) has happened when all have it in their
  logs, and is known when all have said what they know: when the arcs of those that have
  answered are the whole ring. A shard that was split meanwhile has not told its other half,
  and does not speak for it, so all are told or asked again.
* If one fails, the failure is the answer, as *unknown* if any may have done it; all of these
  may be said again. To revoke what was revoked in part is to revoke the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from krita.codec import decode_body, encode_body
from krita.errors import (
    BadRequest,
    KritaError,
    LeaseUnknown,
    Outcome,
    Status,
    Unavailable,
    from_wire,
    to_wire,
)
from krita.limits import KEY_BYTES_MAX, LEASE_LIMIT
from krita.operations import LeaseChange, Op, What
from krita.ring import META_SHARD
from kritad.host.host import Host
from kritad.host.ownership import no_map_yet
from kritad.host.request import Request, Respond
from kritad.scan_page import Question, ScanPage, ShardCounts, cover_the_ring
from kritad.state.reading import SCAN_BYTES_MAX, SCAN_ROWS_MAX, first_of, what_of
from kritad.state.verbs import check_lease, check_ttl

Handler = Callable[[Op, bytes, float, bool, Respond], None]

_ROUNDS_AT_ONCE = 5  # of telling all shards, while one is being split
# Behind these, so many more with pauses: a node without a replica of the shard hears of the split
# when the meta shard has been told, some 0.2 s later, or when that has a leader again.
_PAUSE_MS = 200.0
_PAUSES_MAX = 25


@attrs.define(eq=False)
class _Round:
    """A question to several shards, and what they have said so far."""

    then: Callable[[dict[int, Any]], None]
    fail: Callable[[KritaError], None]
    waiting: set[int]
    write: bool
    answers: dict[int, Any] = attrs.field(factory=dict)
    problem: KritaError | None = None

    def answered(self, shard: int, status: int, body: Any) -> None:
        """One of them. The last one decides."""
        self.waiting.discard(shard)
        if status == Status.OK:
            self.answers[shard] = body
        else:
            self.problem = _worse(self.problem, from_wire(status, body))
        if self.waiting:
            return
        if self.problem is None:
            self.then(self.answers)
            return
        if self.write and self.answers and self.problem.outcome is Outcome.NOT_APPLIED:
            self.problem.outcome = Outcome.UNKNOWN  # others have done it
        self.fail(self.problem)


def _worse(first: KritaError | None, second: KritaError) -> KritaError:
    return second if first is None or second.outcome > first.outcome else first


@attrs.define(eq=False)
class Everywhere:
    """What all shards are told (``write``) or asked; their answers end with the arc that they
    speak for. ``reply`` gets those of the last round; when they were told, of all rounds."""

    gather: Gather
    op: Op
    fields: Sequence[object]
    deadline_ms: float
    respond: Respond
    reply: Callable[[list[Any]], list[object]]  # may raise KritaError
    write: bool = True
    answers: list[Any] = attrs.field(factory=list)
    rounds: int = 0

    def ask(self) -> None:
        """Tell or ask all that are known now. Raises Unavailable."""
        asks = dict.fromkeys(self.gather.shards(), self.fields)
        self.gather.ask(self.op, asks, self.deadline_ms, self._then, self.fail, write=self.write)

    def _then(self, answers: dict[int, Any]) -> None:
        self.answers = [*(self.answers if self.write else ()), *answers.values()]
        self.rounds += 1
        try:
            if cover_the_ring([tuple(answer[-2:]) for answer in answers.values()]):
                self.respond(Status.OK, self.reply(self.answers))
            elif self.gather.again(self, self.rounds - _ROUNDS_AT_ONCE):
                pass
            elif self.write:
                split = "a shard is being split, and its other half may not have heard this"
                raise Unavailable(split, hint="say it again", outcome=Outcome.UNKNOWN)
            else:
                raise Unavailable("a shard is being split", hint="ask again")
        except KritaError as error:
            self.fail(error)

    def fail(self, error: KritaError) -> None:
        """Answer with an error."""
        done = self.write and self.answers and self.rounds > 1
        if done and error.outcome is Outcome.NOT_APPLIED:
            error.outcome = Outcome.UNKNOWN  # it was done in part, the last time
        _fail(self.respond, error)


class Gather:
    """See the module's docstring. Its handlers raise KritaError for what is wrong."""

    def __init__(
        self, host: Host, value_bytes_max: int, scan_rows_max: int = SCAN_ROWS_MAX
    ) -> None:
        self._host = host
        self._scan_rows_max = scan_rows_max
        self._bytes_max = min(SCAN_BYTES_MAX, value_bytes_max)
        self.handlers: dict[int, Handler] = {
            Op.SCAN: self._scan,
            Op.LEASE_GRANT: self._lease_grant,
            Op.LEASE_KEEPALIVE: self._lease_keepalive,
            Op.LEASE_REVOKE: self._lease_revoke,
            Op.LEASE_SHOW: self._lease_show,
            Op.RETENTION_SET: self._retention_set,
            Op.RETENTION_LIST: self._retention_list,
        }

    def __repr__(self) -> str:
        return f"<Gather of {self._host!r}>"

    def shards(self) -> list[int]:
        """All data shards that this node knows of. Raises Unavailable."""
        host = self._host
        known = {record.shard for record in host.view.data_shards}
        # Split off here, and not heard of by the meta shard yet.
        known |= {shard for shard in host.replicas if shard != META_SHARD}
        if not known:
            raise no_map_yet()
        return sorted(known)

    def again(self, question: Question, pauses: int) -> bool:
        """Have it asked once more, at once while ``pauses`` is below 0, then that many times
        after a pause. False: it was asked often enough, or there is no time left."""

        def ask() -> None:
            try:
                question.ask()
            except KritaError as error:
                question.fail(error)

        if pauses < 0:
            ask()
            return True
        host = self._host
        if pauses >= _PAUSES_MAX or host.clock.monotonic_ms() + _PAUSE_MS >= question.deadline_ms:
            return False
        host.after(_PAUSE_MS, ask)
        return True

    def ask(
        self,
        op: Op,
        asks: Mapping[int, Sequence[object]],
        deadline_ms: float,
        then: Callable[[dict[int, Any]], None],
        fail: Callable[[KritaError], None],
        *,
        write: bool = False,
    ) -> None:
        """Ask each shard with these fields; ``then`` gets the answers of all."""
        question = _Round(then, fail, set(asks), write)
        for shard, fields in asks.items():
            body = encode_body(op, shard, *fields)

            def respond(status: int, reply: object, shard: int = shard) -> None:
                question.answered(shard, status, reply)

            request = Request(op, body, b"", shard, respond, deadline_ms, write=write)
            if not write:
                request.fields = decode_body(op, body)[1:]
            self._host.submit(request)

    # --- leases ------------------------------------------------------------------------

    def _lease_grant(
        self, op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        ttl_ms, lease = decode_body(op, body)
        ttl_ms = check_ttl(ttl_ms, keep=False)
        if ttl_ms is None:
            raise BadRequest("a lease has a ttl_ms: when it ends unless it is kept alive")
        number = secrets.randbelow(LEASE_LIMIT - 1) + 1 if lease is None else check_lease(lease)
        self._change(
            number, LeaseChange.GRANT, ttl_ms, deadline_ms, respond, lambda _: [number, ttl_ms]
        )

    def _lease_keepalive(
        self, op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        lease = check_lease(decode_body(op, body)[0])

        def ttl_of(answers: list[Any]) -> list[object]:
            return [min(answer[0] for answer in answers)]

        self._change(lease, LeaseChange.KEEPALIVE, None, deadline_ms, respond, ttl_of)

    def _lease_revoke(
        self, op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        lease = check_lease(decode_body(op, body)[0])

        def keys_of(answers: list[Any]) -> list[object]:
            if all(ttl_ms is None for ttl_ms, *_ in answers):
                raise LeaseUnknown(f"lease {lease} has ended, or never was")
            return [sum(answer[1] for answer in answers)]

        self._change(lease, LeaseChange.REVOKE, None, deadline_ms, respond, keys_of)

    def _change(
        self,
        lease: int,
        change: LeaseChange,
        ttl_ms: int | None,
        deadline_ms: float,
        respond: Respond,
        reply: Callable[[list[Any]], list[object]],
    ) -> None:
        fields = lease, int(change), ttl_ms
        Everywhere(self, Op.LEASE_CHANGE, fields, deadline_ms, respond, reply).ask()

    def _lease_show(
        self, op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        lease = check_lease(decode_body(op, body)[0])

        def reply(answers: list[Any]) -> list[object]:
            if any(answer[0] is None for answer in answers):
                raise LeaseUnknown(f"lease {lease} has ended, or never was")
            ttl_ms, left_ms = (min(answer[place] for answer in answers) for place in (0, 1))
            keys = sorted(key for answer in answers for key in answer[2])
            return [ttl_ms, left_ms, first_of(keys, self._bytes_max)]

        fields = lease, None
        Everywhere(self, Op.LEASE_STATE, fields, deadline_ms, respond, reply, write=False).ask()

    # --- retentions --------------------------------------------------------------------

    def _retention_set(
        self, op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        prefix, retention_ms = decode_body(op, body)
        if type(prefix) is not bytes or len(prefix) > KEY_BYTES_MAX:
            raise BadRequest(f"a prefix is a byte string of at most {KEY_BYTES_MAX} bytes")
        fields = prefix, retention_ms
        Everywhere(self, Op.RETENTION_CHANGE, fields, deadline_ms, respond, lambda _: []).ask()

    def _retention_list(
        self, _op: Op, _body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        def reply(answers: list[Any]) -> list[object]:
            # Shards may differ by a change that is under way; what all keep is what holds.
            rules: dict[bytes, list[Any]] = {}
            for found, *_ in answers:
                for prefix, retention_ms, since_ms in found:
                    known = rules.setdefault(prefix, [prefix, retention_ms, since_ms])
                    known[1:] = min(known[1], retention_ms), max(known[2], since_ms)
            return [[rules[prefix] for prefix in sorted(rules)]]

        Everywhere(self, Op.RETENTION_STATE, (), deadline_ms, respond, reply, write=False).ask()

    # --- scans -------------------------------------------------------------------------

    def _scan(
        self, op: Op, body: bytes, deadline_ms: float, _forwarded: bool, respond: Respond
    ) -> None:
        start, stop, limit, reverse, what = decode_body(op, body)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise BadRequest(f"limit is a number from 1 on, not {limit!r}")
        rows_max = min(limit or SCAN_ROWS_MAX, self._scan_rows_max)
        if what_of(what) == What.COUNT:
            ShardCounts(self, start, stop, deadline_ms, respond).ask()
            return
        page = ScanPage(
            self, start, stop, deadline_ms, respond, rows_max, bool(reverse), what, self._bytes_max
        )
        page.ask()


def _fail(respond: Respond, error: KritaError) -> None:
    respond(error.status, to_wire(error))
