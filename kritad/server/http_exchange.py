"""One HTTP request on its way to its answer.

A handler is a plain function of an ``Exchange``. It answers at once, or submits
one operation to the database and goes on in ``then`` when the reply is there;
no task and no cancel scope is spent on a request. Whatever a handler raises
becomes an answer here: an error of the database, a refusal, or a bug, which is
logged under an id that the client is told.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from krita.codec import encode_body
from krita.errors import (
    BadRequest,
    InternalError,
    KritaError,
    Outcome,
    ProtocolError,
    Status,
    from_wire,
)
from krita.operations import OPERATIONS, Op
from kritad.access import Principal
from kritad.server.http_answers import (
    JSON,
    answer_bytes,
    error_code,
    error_document,
    error_headers,
    json_bytes,
    refusal_document,
)
from kritad.server.http_wire import HttpRefusal, HttpRequest
from kritad.server.interface import Database, Gatekeeper

_log = logging.getLogger(__name__)

_METHODS = {
    name.encode(): name
    for name in ("GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS", "PATCH")
}  # fmt: skip

Then = Callable[["Exchange", object], None]
Otherwise = Callable[["Exchange", KritaError], None]


class Exchange:
    """``answer`` is None until there is one; ``on_answer`` is called when it comes."""

    __slots__ = (
        "_database", "_gatekeeper", "_head_only", "_loopback", "_on_answer", "answer", "close",
        "request",
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
            handler(self)
        except Exception as error:
            self._fail_with(error)

    def principal(self) -> Principal:
        """Who asks, by the Authorization header. Raises Unauthenticated or BadRequest."""
        header = self.request.headers.get(b"authorization")
        if header is None:
            return self._gatekeeper.authenticate(None, self._loopback)
        scheme, _, token = header.partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            raise BadRequest(
                "the Authorization header is not understood",
                hint="send Authorization: Bearer TOKEN",
            )
        return self._gatekeeper.authenticate(token, self._loopback)

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

        self._database.submit(op, encode_body(op, *fields), self.principal(), None, 0, respond)

    def reply(
        self, code: int, body: bytes, headers: bytes = b"", content_type: bytes = JSON
    ) -> None:
        """Give the answer. The first one counts."""
        if self.answer is not None:
            return
        if self.close:
            connection = b"Connection: close\r\n"
        elif self.request.http_1_0:
            connection = b"Connection: keep-alive\r\n"
        else:
            connection = b""
        self.answer = answer_bytes(
            code, content_type, body, headers, connection=connection, head_only=self._head_only
        )
        method = _METHODS.get(self.request.method, "other")
        self._database.metrics.http_requests.inc(method, str(code))
        self._on_answer()

    def reply_json(self, code: int, document: dict[str, object], headers: bytes = b"") -> None:
        """Give a document as the answer."""
        self.reply(code, json_bytes(document), headers)

    def fail(self, error: KritaError) -> None:
        """Give the error as the answer."""
        code = error_code(error)
        self.reply_json(code, error_document(error), error_headers(error, code))

    def refuse(self, refusal: HttpRefusal) -> None:
        """Give the refusal as the answer."""
        headers = b"Krita-Outcome: not-applied\r\n"
        if refusal.allow:
            headers += f"Allow: {', '.join(refusal.allow)}\r\n".encode()
        document = refusal_document(refusal.message, refusal.hint, refusal.error)
        self.reply_json(refusal.code, document, headers)

    def _fail_with(self, error: Exception) -> None:
        if isinstance(error, HttpRefusal):
            self.refuse(error)
        elif isinstance(error, KritaError) and not isinstance(error, ProtocolError):
            self.fail(error)  # a ProtocolError is the database's malformed reply
        else:
            trace = secrets.token_hex(4)
            _log.error("a request failed by a bug (trace %s): %r", trace, self, exc_info=error)
            self.close = True
            self.fail(
                InternalError(
                    f"the server has a bug (trace {trace})",
                    hint="its log has the details under that trace",
                    outcome=Outcome.NOT_APPLIED if self.request.safe else Outcome.UNKNOWN,
                )
            )
