"""One HTTP request on its way to its answer.

A handler is a plain function of an ``Exchange``. It answers at once, or submits
one operation to the database and goes on in ``then`` when the reply is there;
no task and no cancel scope is spent on a request. What has to wait or to stream is
``work`` for the connection's own task, which is idle meanwhile. Whatever a handler raises
becomes an answer here: an error of the database, a refusal, or a bug, which is
logged under an id that the client is told.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from krita.codec import encode_body
from krita.errors import (
    BadRequest,
    DeadlineExceeded,
    InternalError,
    KritaError,
    Outcome,
    ProtocolError,
    Status,
    Unauthenticated,
    from_wire,
    to_wire,
)
from krita.operations import OPERATIONS, Op
from kritad.access import Principal
from kritad.server.http_answers import (
    JSON,
    NOT_APPLIED,
    absent_document,
    answer_bytes,
    error_code,
    error_document,
    error_headers,
    json_bytes,
    refusal_document,
)
from kritad.server.http_origin import ORIGIN, SITE, foreign, is_foreign
from kritad.server.http_wire import HttpRefusal, HttpRequest
from kritad.server.interface import Database, Gatekeeper, Respond
from kritad.trail import Trail

if TYPE_CHECKING:
    from kritad.server.http_stream import Sink

_log = logging.getLogger(__name__)

_METHODS = {
    name.encode(): name
    for name in ("GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "PATCH")
}  # fmt: skip

Then = Callable[["Exchange", object], None]
Otherwise = Callable[["Exchange", KritaError], None]
Work = Callable[["Exchange", "Sink"], Awaitable[None]]

REQUEST_ID = b"krita-request-id"
TIMEOUT = b"krita-timeout"
_REQUEST_ID = re.compile(rb"[!-~]{1,128}")
# As ?timeout= has it: float() would also take 1_0, and infinity.
_SECONDS = re.compile(rb"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_TIMEOUT_S_MAX = 60.0


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the request's time passed before the database was asked")


class Exchange:
    """``answer`` is None until there is one; ``on_answer`` is called when it comes. With
    ``work`` there is something to be done in the connection's task before."""

    __slots__ = (
        "_began", "_database", "_gatekeeper", "_head_only", "_loopback", "_on_answer", "_stages",
        "_until", "answer", "close", "request", "work",
    )  # fmt: skip

    def __init__(
        self,
        request: HttpRequest,
        database: Database,
        gatekeeper: Gatekeeper,
        loopback: bool,
        on_answer: Callable[[], None],
    ) -> None:
        self.request = request
        self.answer: bytes | None = None
        self.close = not request.keep_alive
        self._database = database
        self._gatekeeper = gatekeeper
        self._loopback = loopback
        self._on_answer = on_answer
        self._head_only = request.method == b"HEAD"
        self._began = perf_counter()
        self._stages: dict[bytes, float] = {}  # of its operations, one after the other: trail.py
        self._until: float | None = None  # when nobody waits any more; None: nobody has said
        self.work: Work | None = None

    def __repr__(self) -> str:
        request = self.request
        state = "open" if self.answer is None else f"answered, {len(self.answer)} bytes"
        return f"<Exchange {request.method.decode()} {request.path!r}: {state}>"

    @property
    def database(self) -> Database:
        """The service behind the server."""
        return self._database

    def run(self, handler: Callable[[Exchange], None]) -> None:
        """Let the handler answer; never raises."""
        try:
            headers = self.request.headers
            if REQUEST_ID in headers:
                self._check_request_id()
            if TIMEOUT in headers:
                self._limit_by_header(headers[TIMEOUT])
            handler(self)
        except Exception as error:
            self._fail_with(error)

    async def perform(self, sink: Sink) -> None:
        """Do the ``work``. Raises OSError when the connection breaks."""
        assert self.work is not None
        try:
            await self.work(self, sink)
        except OSError:
            raise
        except Exception as error:
            if sink.begun:
                self.close = True
                _log.error("an answer broke off by a bug: %r", self, exc_info=error)
            else:
                self._fail_with(error)

    def limit_time(self, seconds: float) -> None:
        """The client waits for no longer than that, from the request's beginning. Raises
        BadRequest."""
        if not 0 < seconds <= _TIMEOUT_S_MAX:
            raise BadRequest(f"a timeout is up to {_TIMEOUT_S_MAX:g} seconds, and more than none")
        self._until = self._began + seconds

    def limit_whole(self) -> None:
        """All that is asked of the database has one deadline, the node's own unless the client
        has named one. (Without this each operation has one of its own.)"""
        if self._until is None:
            self._until = self._began + self._database.timeout_ms / 1000.0

    def _limit_by_header(self, header: bytes) -> None:
        self.limit_time(float(header) if _SECONDS.fullmatch(header) else 0.0)

    def _check_request_id(self) -> None:
        name = self.request.headers[REQUEST_ID]
        if not _REQUEST_ID.fullmatch(name):
            del self.request.headers[REQUEST_ID]
            raise BadRequest("Krita-Request-Id has 1 to 128 visible characters of ASCII")

    def principal(self) -> Principal:
        """Who asks, by the Authorization header. Raises Unauthenticated, or
        Forbidden for a web page of somebody else's."""
        headers = self.request.headers
        header = headers.get(b"authorization")
        if header is None:
            if (ORIGIN in headers or SITE in headers) and self._loopback:
                self._check_origin()
            return self._gatekeeper.authenticate(None, self._loopback)
        scheme, _, token = header.partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            raise Unauthenticated(
                "the Authorization header is not understood",
                hint="send Authorization: Bearer TOKEN",
            )
        return self._gatekeeper.authenticate(token, self._loopback)

    def _check_origin(self) -> None:
        if is_foreign(self.request.headers, self._database.identity.address):
            raise foreign()

    def check(self, op: Op) -> None:
        """Raises Unauthenticated or Forbidden unless the asker may do ``op``."""
        self._gatekeeper.check(self.principal(), OPERATIONS[op])

    def submit(
        self, op: Op, fields: tuple[object, ...], then: Then, otherwise: Otherwise | None = None
    ) -> None:
        """Ask the database; ``then`` gets the reply's body, ``otherwise`` an error
        (without it, the error is the answer)."""

        def respond(status: int, body: object) -> None:
            # Called from within the database, which our mistakes must not reach.
            try:
                if status == Status.OK:
                    then(self, body)
                elif otherwise is None:
                    self.fail(from_wire(status, body))
                else:
                    otherwise(self, from_wire(status, body))
            except Exception as error:
                self._fail_with(error)

        deadline_ms = None if self._until is None else self._left_ms()
        if deadline_ms is not None and deadline_ms <= 0.0:
            late = _late()
            respond(late.status, to_wire(late))
            return
        trail = Trail(respond, self._began, perf_counter, self._stages)
        self._database.submit(op, encode_body(op, *fields), self.principal(), deadline_ms, 0, trail)

    @property
    def left_s(self) -> float:
        """For how long the client still waits; below 0 it does not any more."""
        return math.inf if self._until is None else self._until - perf_counter()

    def _left_ms(self) -> float:
        """As deadlines have it: whole milliseconds, so 1 for less, and 0 when it has passed."""
        left_ms = self.left_s * 1000.0
        return max(1.0, left_ms) if left_ms > 0.0 else 0.0

    def send(
        self, op: Op, fields: tuple[object, ...], respond: Respond, deadline_ms: float | None = None
    ) -> None:
        """Ask the database, for somebody else than the exchange itself to hear. Raises
        DeadlineExceeded when the client does not wait any more, unless the deadline is
        another one."""
        if deadline_ms is None and self._until is not None:
            deadline_ms = self._left_ms()
            if deadline_ms <= 0.0:
                raise _late()
        body = encode_body(op, *fields)
        self._database.submit(op, body, self.principal(), deadline_ms, 0, respond)

    async def ask(
        self,
        op: Op,
        fields: tuple[object, ...],
        deadline_ms: float | None = None,
        answered: Callable[[], None] = lambda: None,
    ) -> object:
        """The reply's body, for ``work``. Raises KritaError. ``answered`` hears of the reply
        also when nobody waits for it any more."""
        done = trio.Event()
        answers: list[tuple[int, object]] = []

        def respond(status: int, body: object) -> None:
            answered()
            answers.append((status, body))
            done.set()

        try:
            self.send(op, fields, respond, deadline_ms)
        except KritaError:
            answered()
            raise
        await done.wait()
        status, body = answers[0]
        if status != Status.OK:
            raise from_wire(status, body)
        return body

    def connection_line(self) -> bytes:
        """What an answer's head says of the connection."""
        if self.close:
            return b"Connection: close\r\n"
        return b"Connection: keep-alive\r\n" if self.request.http_1_0 else b""

    def reply(
        self, code: int, body: bytes, headers: bytes = b"", content_type: bytes = JSON
    ) -> None:
        """Give the answer. The first one counts."""
        if self.answer is not None:
            return
        connection = self.connection_line() if self.close or self.request.http_1_0 else b""
        headers += self._timing_line()
        name = self.request.headers.get(REQUEST_ID)
        if name is not None:
            headers += b"Krita-Request-Id: %b\r\n" % name
        self.answer = answer_bytes(
            code, content_type, body, headers, connection=connection, head_only=self._head_only
        )
        self.count(code)
        self._on_answer()

    def _timing_line(self) -> bytes:
        total_ms = (perf_counter() - self._began) * 1000.0
        line = b"Server-Timing: total;dur=%.2f" % total_ms
        for stage, seconds in self._stages.items():
            line += b", %b;dur=%.2f" % (stage, seconds * 1000.0)
        return line + b"\r\n"

    def count(self, code: int) -> None:
        """An answer with this status has begun."""
        method = _METHODS.get(self.request.method, "other")
        self._database.metrics.http_requests.inc(method, str(code))

    def reply_json(self, code: int, document: dict[str, object], headers: bytes = b"") -> None:
        """Give a document as the answer."""
        self.reply(code, json_bytes(document), headers)

    def reply_absent(self, key: bytes, headers: bytes = b"") -> None:
        """Answer that there is no such key."""
        self.reply_json(404, absent_document(key), headers + NOT_APPLIED)

    def fail(self, error: KritaError) -> None:
        """Give the error as the answer."""
        code = error_code(error)
        if code >= 500:
            # Logged only if the client asked for it by a name: in an outage all requests fail.
            named = REQUEST_ID in self.request.headers
            name = self.name()
            if named:
                what = self._what()
                _log.warning("%s failed (request %s): %d %s", what, name, code, error.message)
        self.reply_json(code, error_document(error), error_headers(error, code))

    def name(self) -> str:
        """What the client calls the request, or is told to call it, as every answer from 500
        on does."""
        name = self.request.headers.setdefault(REQUEST_ID, secrets.token_hex(8).encode())
        return name.decode("latin-1")

    def _what(self) -> str:
        # Without the key: it may be a client's secret, and may be long.
        return f"{self.request.method.decode()} {self.request.path[:24].decode('latin-1')!r}"

    def refuse(self, refusal: HttpRefusal) -> None:
        """Give the refusal as the answer."""
        headers = NOT_APPLIED
        if refusal.allow:
            headers += f"Allow: {', '.join(refusal.allow)}\r\n".encode()
        document = refusal_document(refusal.message, refusal.hint, refusal.error)
        self.reply_json(refusal.code, document, headers)

    def _fail_with(self, error: Exception) -> None:
        """Answer with whatever was raised; never raises itself."""
        try:
            if isinstance(error, HttpRefusal):
                self.refuse(error)
            elif isinstance(error, KritaError) and not isinstance(error, ProtocolError):
                self.fail(error)  # a ProtocolError is the database's malformed reply
            else:
                self._fail_by_bug(error)
        except Exception as worse:  # what it says cannot be told
            self._fail_by_bug(worse)

    def _fail_by_bug(self, error: Exception) -> None:
        trace = self.name()
        _log.error("a request failed by a bug (trace %s): %r", trace, self, exc_info=error)
        self.close = True
        self.fail(
            InternalError(
                f"the server has a bug (trace {trace})",
                hint="its log has the details under that trace",
                outcome=Outcome.NOT_APPLIED if self.request.safe else Outcome.UNKNOWN,
            )
        )
