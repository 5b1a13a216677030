"""GET /v1/watch: what changes, as it does, for as long as the client listens.

    ?key=K | ?prefix=P | ?start=A&stop=B    which keys; all without them
    &from=TOKEN                             go on behind it; or Last-Event-ID, which wins.
                                            With key also a Krita-Revision of that key
    &progress=S                             how often to say that there is nothing new

As server-sent events with ``Accept: text/event-stream``, else as lines of JSON.

Rules:
* One poll at a time is out at each shard, and the next one leaves when the client has taken
  what the last one brought. A slow client so costs no memory; when it has fallen out of
  what the shard keeps, it is told (``compacted``), and nothing is skipped.
* Before the first byte it is known whether the watch can go on from its token: if not, the
  answer is 410. Later an error is the last event.
* A shard without a leader is asked again until it has one; the watch just waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial

import trio
from attrs import define, field, frozen

from krita.errors import (
    BadRequest,
    Compacted,
    KritaError,
    Status,
    Unavailable,
    from_wire,
)
from krita.operations import Change, Op
from krita.ring import tag_of, token
from kritad.data_service import check_key
from kritad.server.http_answers import NDJSON, SSE, error_document, json_bytes, json_text
from kritad.server.http_exchange import Exchange
from kritad.server.http_names import accepts, checked_key
from kritad.server.http_options import RANGE_FIELDS, milliseconds, number, query_of, range_of
from kritad.server.http_shards import ask_each, beginnings, shard_of
from kritad.server.http_stream import Sink
from kritad.server.watch_positions import WHOLE_RING, Positions, WatchEvent
from kritad.server.watches import Place, Watches

_FIELDS = RANGE_FIELDS | {"key", "from", "progress"}
_LAST_EVENT_ID = b"last-event-id"
PROGRESS_S = 10.0
_PROGRESS_S_MAX = 60.0
# Of one poll's answer, about. There is one for each shard, and each may be in memory while
# a slow client reads another.
_POLL_BYTES = 64 << 10
_POLL_EVENTS = 500
_POLL_MARGIN_MS = 5_000.0  # of a poll's deadline over what it waits: well above the host's own
_POLL_MS_MAX = 20_000.0
_PAUSE_S = 0.2  # before a shard that has failed is asked again

_TYPES = {Change.PUT: "put", Change.DELETE: "delete", Change.EXPIRE: "expire"}


@frozen
class Wanted:
    """Which keys, and from where on."""

    start: bytes
    stop: bytes | None
    key: bytes | None  # any key of the one group that is watched; None: of several
    single: bool  # whether that is the only key
    since: str | None
    progress_s: float

    @property
    def scope(self) -> int:
        """As Positions has it."""
        return WHOLE_RING if self.key is None else token(self.key)


def watch(exchange: Exchange, watches: Watches) -> None:
    """GET"""
    wanted = _wanted(exchange)
    exchange.work = Watch(exchange, wanted, watches).work


def _wanted(exchange: Exchange) -> Wanted:
    fields = query_of(exchange, _FIELDS)
    since = exchange.request.headers.get(_LAST_EVENT_ID) or fields.get("from")
    progress_s = PROGRESS_S
    if "progress" in fields:
        progress_s = milliseconds(fields["progress"], "progress", most_s=_PROGRESS_S_MAX) / 1000
        if progress_s < 0.1:
            raise BadRequest("progress must be at least 0.1 seconds")
    text = None if since is None else since.decode("latin-1")
    if "key" not in fields:
        start, stop = range_of(fields)
        # A prefix with a whole {tag} in it is of one group, and so in one shard.
        one = "prefix" in fields and tag_of(start) != start
        return Wanted(start, stop, start if one else None, False, text, progress_s)
    if fields.keys() & RANGE_FIELDS:
        raise BadRequest("key, and a prefix or a range, are two ways to say what to watch")
    key = checked_key(fields["key"])
    check_key(key)
    return Wanted(key, key + b"\0", key, True, text, progress_s)


@define(eq=False)
class Watch:
    """One such stream. ``work`` runs in the connection's task."""

    _exchange: Exchange
    _wanted: Wanted
    _watches: Watches
    _lines: bool = field(init=False)  # else server-sent events
    _positions: Positions = field(init=False)
    # What polls have answered and the client has not been told yet: shard, status, body.
    _inbox: deque[tuple[int, int, object]] = field(factory=deque, init=False)
    _again: dict[int, float] = field(factory=dict, init=False)  # failed; when to ask anew
    _wake: trio.Event = field(factory=trio.Event, init=False)
    _place: Place = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = not accepts(self._exchange.request.headers.get(b"accept"), SSE)

    async def work(self, _exchange: Exchange, sink: Sink) -> None:
        """Serve it until the client goes or something ends it."""
        sink.endless = True
        with self._watches.place() as self._place:
            await self._serve(sink)

    async def _serve(self, sink: Sink) -> None:
        if self._wanted.since is None:
            shards = await beginnings(self._exchange, self._wanted.key)
            self._positions = self._no_positions(shards)
        else:
            self._positions = await self._given(self._wanted.since)
            await self._check_kept()
        sink.on_stop = self._wake_up
        await sink.begin(NDJSON if self._lines else SSE)
        if not self._lines:
            await sink.write(b"retry: 1000\n\n")
        await sink.write(self._progress())
        for shard in self._positions.after:
            self._poll(shard)
        error = await self._tell(sink)
        await sink.write(self._error(error))
        await sink.finish()

    # --- where to begin ----------------------------------------------------------------

    def _no_positions(self, after: dict[int, int]) -> Positions:
        return Positions(self._exchange.database.identity.cluster_id, self._wanted.scope, after)

    async def _given(self, since: str) -> Positions:
        wanted = self._wanted
        if wanted.single and since.isdigit() and len(since) < 20:
            assert wanted.key is not None
            shard = await shard_of(self._exchange, wanted.key)
            return self._no_positions({shard: number(since.encode(), "from")})
        cluster_id = self._exchange.database.identity.cluster_id
        return Positions.from_token(since, cluster_id, wanted.scope)

    async def _check_kept(self) -> None:
        """Raises Compacted, with a token in its detail, unless all shards can go on."""
        wanted = self._wanted
        asked: dict[int, tuple[object, ...]] = {
            shard: (shard, after, wanted.start, wanted.stop, 1, 0, 1)
            for shard, after in self._positions.after.items()
        }
        oldest: dict[int, int] = {}
        problems = await ask_each(self._exchange, Op.CHANGES, asked, lambda _shard, _reply: None)
        for shard, problem in problems.items():
            if not isinstance(problem, Compacted):
                raise problem
            oldest[shard] = int(str(problem.detail.get("oldest", 0)))
        if oldest:
            raise self._compacted(oldest)

    def _compacted(self, oldest: dict[int, int]) -> Compacted:
        return Compacted(
            "what has changed since then is not kept any more",
            hint="begin a watch without from, read what you watch anew, and go on with the watch",
            detail={"oldest": self._positions.no_older_than(oldest).token},
        )

    # --- the polls ---------------------------------------------------------------------

    def _poll(self, shard: int) -> None:
        wanted = self._wanted
        wait_ms = min(wanted.progress_s * 1000, _POLL_MS_MAX)
        after = self._positions.after[shard]
        self._place.asked()
        self._exchange.send(
            Op.CHANGES,
            (shard, after, wanted.start, wanted.stop, _POLL_EVENTS, int(wait_ms), _POLL_BYTES),
            partial(self._answered, shard),
            wait_ms + _POLL_MARGIN_MS,
        )

    def _answered(self, shard: int, status: int, body: object) -> None:
        """Called from within the database."""
        self._place.answered()
        if not self._place.left:
            self._inbox.append((shard, status, body))
            self._wake_up()

    def _wake_up(self) -> None:
        self._wake.set()

    # --- what is told ------------------------------------------------------------------

    async def _tell(self, sink: Sink) -> KritaError:
        """Tell the client what comes, until there is a reason not to, which is returned."""
        progress_at = trio.current_time() + self._wanted.progress_s
        while not sink.stopped:
            with trio.move_on_at(min([progress_at, *self._again.values()])):
                await self._wake.wait()
            self._wake = trio.Event()
            while self._inbox and not sink.stopped:
                shard, status, body = self._inbox.popleft()
                if status != Status.OK:
                    error = from_wire(status, body)
                    if not error.retryable:
                        return self._explained(shard, error)
                    self._again[shard] = trio.current_time() + _PAUSE_S
                    continue
                told, new = self._positions.take(shard, body)
                if told:
                    await sink.write(b"".join(self._event(event) for event in told))
                    progress_at = trio.current_time() + self._wanted.progress_s
                for each in (shard, *new):
                    self._poll(each)
            for shard in list(self._due()):
                del self._again[shard]
                self._poll(shard)
            if trio.current_time() >= progress_at:
                progress_at = trio.current_time() + self._wanted.progress_s
                await sink.write(self._progress())
        return Unavailable("this node is stopping", hint="go on at another node with the token")

    def _due(self) -> Iterator[int]:
        now = trio.current_time()
        return (shard for shard, at in self._again.items() if at <= now)

    def _explained(self, shard: int, error: KritaError) -> KritaError:
        oldest = error.detail.get("oldest")
        if isinstance(error, Compacted) and isinstance(oldest, int):
            return self._compacted({shard: oldest})
        return error

    def _event(self, event: WatchEvent) -> bytes:
        document: dict[str, object] = {"type": _TYPES[event.kind], "key": json_text(event.key)}
        if event.kind is Change.PUT:
            document["value"] = None if event.value is None else json_text(event.value)
        document["revision"] = event.revision
        if event.content_type is not None:
            document["content_type"] = event.content_type
        return self._framed(document, event.token)

    def _progress(self) -> bytes:
        return self._framed({"type": "progress"}, self._positions.token)

    def _error(self, error: KritaError) -> bytes:
        return self._framed({"type": "error"} | error_document(error), None)

    def _framed(self, document: dict[str, object], place: str | None) -> bytes:
        if place is not None:
            document["token"] = place
        data = json_bytes(document)
        if self._lines:
            return data + b"\n"
        head = b"" if place is None else b"id: %b\n" % place.encode()
        return b"%bdata: %b\n\n" % (head, data)
