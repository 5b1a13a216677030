"""Transactions over several groups, on the node that was asked: it asks what their steps want.

What is asked and what follows is in txn_steps.py. Here is what is left: who is asked, with which
deadline, and when the client is told.

Rules:
* A client is told by its deadline, whatever the shards do. Until the decision was asked for, that
  may say that nothing has happened, and then nothing will.
* What concerns keys that are held goes on behind the client's deadline: others wait for them.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import Any

import attrs

from krita.codec import encode, encode_body
from krita.errors import DeadlineExceeded, KritaError, to_wire
from krita.operations import OPERATIONS, Op, Route
from kritad import txn_steps
from kritad.host.clock import Clock
from kritad.host.host import Host
from kritad.host.request import Request, Respond
from kritad.state.intents import ATTEMPT_LIMIT
from kritad.state.repeats import Asker
from kritad.state.transactions import Transaction
from kritad.txn_steps import Answer, Ask, Steps, Told, Wish, steps

_ANSWER_MS = 300.0  # before the deadline: to tell a client what has been decided
_DIGEST_BYTES = 16


def may_wait(request: Request, wait_ms: int, clock: Clock) -> None:
    """How long a prepare's leader may keep it waiting; 0: not at all."""
    request.wait_until_ms = clock.monotonic_ms() + wait_ms if wait_ms else 0.0


class Coordinator:
    """Runs transactions over several groups on this node."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __repr__(self) -> str:
        return f"<Coordinator on {self._host!r}>"

    def begin(self, fields: list[Any], deadline_ms: float, respond: Respond) -> None:
        """Do the transaction. Raises KritaError for what is wrong with it at once."""
        session, sequence, acked_to, key, *rest = fields
        transaction = Transaction.parse(rest)
        name = rest[3]
        digest = None
        if name is not None:
            digest = blake2b(encode([key, *rest[:3]]), digest_size=_DIGEST_BYTES).digest()
        asker = Asker(session, sequence, acked_to, name, digest)
        run = steps(Wish(key, transaction, asker), self._host.owner, self._draw)
        # ``sent`` says of it that it is being decided, so what its deadline may claim.
        client = Request(Op.TXN, b"", key, 0, respond, deadline_ms, write=True)
        self._host.deadlines.add(client)
        _Run(self._host, run, client).go_on(None)

    def _draw(self) -> int:
        return self._host.chance.randrange(1, ATTEMPT_LIMIT)


@attrs.define(eq=False)
class _Run:
    """One transaction under way: asks what its steps want to know."""

    host: Host
    run: Steps
    client: Request
    answers: list[Answer | None] = attrs.field(factory=list)
    decided: bool = False
    patient_until_ms: float = 0.0  # how long it waits for keys, once it does

    def go_on(self, answers: list[Answer] | None) -> None:
        """The next step."""
        try:
            asked = next(self.run) if answers is None else self.run.send(answers)
        except StopIteration as done:
            self.client.answer(*done.value)
        except KritaError as error:
            self.client.fail(error)
        else:
            if asked.reply is not None:
                self._promise(asked.reply, asked.at_once)
            self.answers = [None] * len(asked.asks)
            for place, ask in enumerate(asked.asks):
                self._ask(ask, partial(self._answered, place))

    def _promise(self, reply: Told, at_once: bool) -> None:
        """The client is told this, now or when it cannot wait any more."""
        by_ms = self.client.deadline_ms - _ANSWER_MS
        if at_once or by_ms <= self.host.clock.monotonic_ms():
            self.client.answer(*reply)
        elif not self.decided:
            self.decided = True

            def tell(_status: int, _body: object) -> None:
                self.client.answer(*reply)

            self.host.deadlines.add(Request(Op.TXN, b"", b"", 0, tell, by_ms))

    def _ask(self, ask: Ask, respond: Respond) -> None:
        client = self.client
        deadline_ms = client.deadline_ms
        if ask.op == Op.TXN_DECIDE and not client.sent:
            if client.respond is None:  # it was told that nothing has happened
                late = DeadlineExceeded("the deadline passed before the transaction was decided")
                respond(late.status, to_wire(late))
                return
            client.sent = True
        elif ask.op != Op.TXN_PREPARE:
            # Whether the client is there or not, others wait for the keys.
            deadline_ms += txn_steps.HOLD_MS
        by_key = OPERATIONS[ask.op].route is Route.KEY
        key = ask.fields[0] if by_key else b""
        shard = self.host.shard_of(key) if by_key else ask.shard
        fields = ask.fields
        if ask.op == Op.TXN_PREPARE:
            fields = (*fields[:-1], self._wait_ms(fields[-1]))
        body = encode_body(ask.op, *fields)
        request = Request(ask.op, body, key, shard or 0, respond, deadline_ms, write=True)
        if ask.op == Op.TXN_PREPARE:
            request.fields = fields[3]
            may_wait(request, fields[-1], self.host.clock)
        self.host.submit(request)

    def _wait_ms(self, in_all_ms: int) -> int:
        """What is left of the time for which it waits for keys; 0: it does not."""
        now_ms = self.host.clock.monotonic_ms()
        if in_all_ms and not self.patient_until_ms:
            self.patient_until_ms = now_ms + in_all_ms
        return max(1, int(self.patient_until_ms - now_ms)) if in_all_ms else 0

    def _answered(self, place: int, status: int, body: object) -> None:
        self.answers[place] = status, body
        if None not in self.answers:
            self.go_on([answer for answer in self.answers if answer is not None])
