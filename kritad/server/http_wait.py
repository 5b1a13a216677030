"""GET /v1/kv/{key}?wait=S&after=REVISION: answered when the key has changed.

What it answers is the key's state, not its changes: whoever asks again with the
``Krita-Revision`` of the last answer sees each state that lasts, and may miss one that is
replaced at once. A watch (http_watch.py) misses none.

Rules:
* Waiting costs the database one poll at the key's shard, that is woken by this key alone.
* A poll is given up and begun anew every few seconds, with a fresh shard map: the key may
  have moved to another shard meanwhile.
* A client's timeout ends the wait as well, and then with 503: what it waited for is not
  looked for, and a lock not taken, when it has gone.
* Whether the key has changed is what a read says, not a poll: what wakes it may be a split.
"""

from __future__ import annotations

import trio

from krita.errors import BadRequest, Compacted, KritaError, ProtocolError
from krita.operations import Change, Op
from kritad.server.http_exchange import Exchange
from kritad.server.http_kv import PREFIX, Found, answer_found, get, read_get
from kritad.server.http_names import key_of
from kritad.server.http_options import READ_FIELDS, milliseconds, number, query_of
from kritad.server.http_shards import shard_of
from kritad.server.http_stream import Sink
from kritad.server.watches import Place, Watches

WAIT_S_MAX = 600.0
_POLL_S = 10.0
_POLL_MARGIN_MS = 5_000.0  # of a poll's deadline over what it waits
_PAUSE_S = 0.1


def get_or_wait(exchange: Exchange, watches: Watches) -> None:
    """GET and HEAD of /v1/kv/{key}"""
    query = exchange.request.query
    if b"wait" not in query and b"%" not in query:  # by which a name may be encoded
        get(exchange)
        return
    fields = query_of(exchange, READ_FIELDS)
    if "wait" not in fields:
        get(exchange)
        return
    if fields.keys() - {"wait", "after"}:
        raise BadRequest("wait goes with after, and with nothing else that a GET may ask")
    key = key_of(exchange.request.path[len(PREFIX) :])
    wait_s = milliseconds(fields["wait"], "wait", most_s=WAIT_S_MAX) / 1000
    after = number(fields["after"], "after") if "after" in fields else None

    async def work(exchange: Exchange, sink: Sink) -> None:
        with watches.place() as place:
            await _answer(exchange, KeyWait(exchange, sink, place, key, wait_s), after)

    exchange.work = work


async def _answer(exchange: Exchange, wait: KeyWait, after: int | None) -> None:
    while True:
        found = await wait.look()
        if after is None:
            after = found.shard_revision  # from now on
        if found.revision > after or (found.value is None and wait.may_be_gone):
            answer_found(exchange, wait.key, found)
            return
        if wait.is_over:
            headers = b"Krita-Revision: %d\r\n" % max(after, found.shard_revision)
            if found.value is not None:
                headers += b'ETag: "%d"\r\n' % found.revision
            exchange.reply(304, b"", headers)
            return
        await wait.poll(after if found.value is None else found.shard_revision)


class KeyWait:
    """One request that waits for a change of one key."""

    def __init__(
        self, exchange: Exchange, sink: Sink, place: Place, key: bytes, wait_s: float
    ) -> None:
        self.key = key
        # Whether the key, if it is absent, was deleted while we waited. (Or may have been:
        # what happened so long ago is not kept.)
        self.may_be_gone = False
        self._exchange = exchange
        # A client that gives up before has then to be told that nothing was done, not later.
        self._until = trio.current_time() + min(wait_s, exchange.left_s)
        self._sink = sink
        self._place = place
        self._told: dict[int, int] = {}  # up to where each shard's polls have told all
        self._scope = trio.CancelScope()  # of the poll, or of nothing
        sink.on_stop = lambda: self._scope.cancel()

    @property
    def is_over(self) -> bool:
        """Whether the time has passed, the server is stopping, or the client has finished
        sending."""
        return self._sink.stopped or trio.current_time() >= self._until

    async def look(self) -> Found:
        """The key as it is now. Raises KritaError."""
        return read_get(await self._exchange.ask(Op.GET, (self.key,)))

    async def poll(self, after: int) -> None:
        """Wait until something has happened to the key behind ``after``, or a few seconds; not
        at all when nothing is waited for any more. Raises KritaError."""
        if self._sink.stopped:
            return
        wait_s = min(max(0.0, self._until - trio.current_time()), _POLL_S)
        self.may_be_gone = False
        self._scope = trio.CancelScope()
        with self._scope:
            try:
                shard = await shard_of(self._exchange, self.key)
                since = max(after, self._told.get(shard, 0))
                fields = (shard, since, self.key, self.key + b"\0", None, int(wait_s * 1000), None)
                deadline_ms = wait_s * 1000 + _POLL_MARGIN_MS
                self._place.asked()
                answered = self._place.answered
                reply = await self._exchange.ask(Op.CHANGES, fields, deadline_ms, answered)
                self._heard(shard, reply)
            except Compacted:
                self.may_be_gone = True
            except KritaError as problem:
                if not problem.retryable:
                    raise
                await trio.sleep(min(_PAUSE_S, wait_s))

    def _heard(self, shard: int, reply: object) -> None:
        match reply:
            case [list(events), int(upto), *_]:
                self._told[shard] = upto
                self.may_be_gone = self.may_be_gone or any(
                    event[0] in (Change.DELETE, Change.EXPIRE) for event in events
                )
            case _:
                raise ProtocolError("the reply to changes is malformed")
