"""Makes up for coordinators that have died: no transaction is left half done.

What a leader does about transactions over several shards (kritad/coordinator.py):

* An intent that it has seen in its shard for too long: it asks the home key's shard what
  became of the attempt. Asked so, that shard decides against it if nobody has decided yet.
  Then the intent is let go, with its part done if the transaction has happened.
* A decision that it has seen in its shard for too long: it tells every shard to do its part,
  and has it forgotten when all have. Until then the record stays, however long that is.

All of this may be done twice, by two leaders or beside the coordinator: an intent is let
go once, and with it the part is done once. Time is the leader's own, from when it first saw
it: a new leader has patience anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.host.clock import Clock
from kritad.host.replica import Replica
from kritad.host.request import Request
from kritad.state.decisions import Record, Verdict
from kritad.state.intents import Intent
from kritad.state.two_phase import keys_of_plan

_INTERVAL_MS = 500.0
_TIMEOUT_MS = 5_000.0
# A coordinator that lives has its decision forgotten long before.
_RECORD_AGE_MS = 15_000.0


class Resolver:
    """See the module's docstring. ``shard_of`` says who owns a key; None: nobody knows."""

    def __init__(
        self,
        clock: Clock,
        submit: Callable[[Request], None],
        shard_of: Callable[[bytes], int | None],
    ) -> None:
        self._clock = clock
        self._submit = submit
        self._shard_of = shard_of
        self._step_ms = 0.0
        self._since_ms: dict[tuple[int, object], float] = {}  # by shard and what is there
        self._in_flight: set[object] = set()

    def step(self, replicas: Iterable[Replica]) -> None:
        """Begin what is due. ~0.3 µs for a replica that has nothing of the kind."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._step_ms < _INTERVAL_MS:
            return
        self._step_ms = now_ms
        seen, self._since_ms = self._since_ms, {}
        for replica in replicas:
            if replica.leads and replica.shard != META_SHARD:
                self._look(replica, seen, now_ms)

    def _look(self, replica: Replica, seen: dict[tuple[int, object], float], now_ms: float) -> None:
        shard, keys = replica.shard, replica.state.keys
        for intent in keys.intents:
            tag: tuple[int, object] = shard, intent.attempt
            since_ms = self._since_ms[tag] = seen.get(tag, now_ms)
            if now_ms - since_ms >= intent.hold_ms:
                self._resolve(shard, intent)
        for key, record in keys.two_phase.decisions.open.items():
            tag = shard, key
            since_ms = self._since_ms[tag] = seen.get(tag, now_ms)
            if now_ms - since_ms >= _RECORD_AGE_MS:
                self._finish(record)

    def _resolve(self, shard: int, intent: Intent) -> None:
        def decided(status: int, body: Any) -> None:
            if status != Status.OK:
                return  # the next step asks again
            verdict, plan, *_ = body
            part = None
            if verdict == Verdict.COMMITTED:
                part = [effect for effect in plan if effect[0] in intent.keys]
            fields = (shard, intent.attempt, part)
            self._ask(("finish", shard, intent.attempt), Op.TXN_FINISH, shard, b"", fields)

        home_shard = self._shard_of(intent.home)
        if home_shard is not None:
            tag = ("decide", shard, intent.attempt)
            fields = (intent.home, intent.attempt, False)
            self._ask(tag, Op.TXN_DECIDE, home_shard, intent.home, fields, decided)

    def _finish(self, record: Record) -> None:
        """Tell every shard once more; who has done its part has nothing to do."""
        parts: dict[int, list[Any]] = {}
        for effect, key in zip(record.plan, keys_of_plan(record.plan), strict=True):
            shard = self._shard_of(key)
            if shard is None:
                return
            parts.setdefault(shard, []).append(effect)
        waiting = set(parts)
        tag = ("record", record.home, record.attempt)
        if tag in self._in_flight:
            return
        self._in_flight.add(tag)
        failed = False

        def finished(shard: int, status: int, body: Any) -> None:
            nonlocal failed
            failed = failed or status != Status.OK or bool(body[1])
            waiting.discard(shard)
            if waiting:
                return
            self._in_flight.discard(tag)
            home_shard = self._shard_of(record.home)
            if not failed and home_shard is not None:
                forget = (record.home, record.attempt)
                self._ask(("forget", *forget), Op.TXN_FORGET, home_shard, record.home, forget)

        for shard, part in parts.items():
            fields = (shard, record.attempt, part)

            def respond(status: int, body: Any, shard: int = shard) -> None:
                finished(shard, status, body)

            self._send(Op.TXN_FINISH, shard, b"", fields, respond)

    def _ask(
        self,
        tag: object,
        op: Op,
        shard: int,
        key: bytes,
        fields: tuple[Any, ...],
        then: Callable[[int, Any], None] | None = None,
    ) -> None:
        """Unless the same is under way."""
        if tag in self._in_flight:
            return
        self._in_flight.add(tag)

        def respond(status: int, body: Any) -> None:
            self._in_flight.discard(tag)
            if then is not None:
                then(status, body)

        self._send(op, shard, key, fields, respond)

    def _send(
        self,
        op: Op,
        shard: int,
        key: bytes,
        fields: tuple[Any, ...],
        respond: Callable[[int, Any], None],
    ) -> None:
        deadline_ms = self._clock.monotonic_ms() + _TIMEOUT_MS
        body = encode_body(op, *fields)
        self._submit(Request(op, body, key, shard, respond, deadline_ms, write=True))
