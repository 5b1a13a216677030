"""Makes up for coordinators that have died: no transaction is left half done.

What a leader does about transactions over several shards (kritad/coordinator.py):

* An intent in its shard whose time is over: it asks the home key's shard what became of the
  attempt. Asked so, that shard decides against it if nobody has decided yet. Then the
  intent is let go, with its part done if the transaction has happened.
* A decision in its shard that is not forgotten: it tells every shard to do its part, and
  forgets it when all have. Until then the record stays, however long that is.

All of this may be done twice, by two leaders or beside the coordinator: an intent is let
go once, and with it the part is done once.
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
from kritad.state.decisions import Record, Verdict, txn_of
from kritad.state.intents import Intent
from kritad.state.two_phase import keys_of_plan

_INTERVAL_MS = 500.0
_TIMEOUT_MS = 5_000.0
# A coordinator that lives forgets its decision long before.
_RECORD_AGE_MS = 15_000


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
        self._in_flight: set[object] = set()

    def step(self, replicas: Iterable[Replica]) -> None:
        """Begin what is due. ~0.3 µs for a replica that has nothing of the kind."""
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._step_ms < _INTERVAL_MS:
            return
        self._step_ms = now_ms
        for replica in replicas:
            if not replica.leads or replica.shard == META_SHARD:
                continue
            keys = replica.state.keys
            if keys.intents.by_key:
                clock_ms = max(self._clock.wall_ms(), replica.state.clock_ms)
                for intent in keys.intents.overdue(clock_ms):
                    self._resolve(replica.shard, intent)
            if keys.two_phase.decisions.open:
                self._push(keys.two_phase.decisions.open)

    def _resolve(self, shard: int, intent: Intent) -> None:
        def decided(status: int, body: Any) -> None:
            if status != Status.OK:
                return  # the next step asks again
            verdict, plan, *_ = body
            part = None
            if verdict == Verdict.COMMITTED and plan:
                part = [effect for effect in plan if effect[0] in intent.keys]
            elif verdict == Verdict.COMMITTED:
                return  # it is forgotten, so this shard has done its part: a stale look
            self._ask(("finish", shard, intent.attempt), Op.TXN_FINISH, shard, b"",
                      (shard, intent.attempt, part))  # fmt: skip

        home_shard = self._shard_of(intent.home)
        if home_shard is not None:
            fields = (intent.home, intent.txn, intent.attempt, False, None, None, None)
            tag = ("decide", shard, intent.attempt)
            self._ask(tag, Op.TXN_DECIDE, home_shard, intent.home, fields, decided)

    def _push(self, records: dict[bytes, Record]) -> None:
        clock_ms = self._clock.wall_ms()
        for key, record in records.items():
            if record.at_ms + _RECORD_AGE_MS <= clock_ms:
                self._finish(txn_of(key), record)

    def _finish(self, txn: bytes, record: Record) -> None:
        """Tell every shard once more; who has done its part has nothing to do."""
        parts: dict[int, list[Any]] = {}
        for effect, key in zip(record.plan, keys_of_plan(record.plan), strict=True):
            shard = self._shard_of(key)
            if shard is None:
                return
            parts.setdefault(shard, []).append(effect)
        waiting = set(parts)
        tag = ("record", txn)
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
                fields = (record.home, txn)
                self._ask(("forget", txn), Op.TXN_FORGET, home_shard, record.home, fields)

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
