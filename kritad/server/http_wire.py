"""HTTP/1.1 requests out of bytes: llhttp (httptools), and what it does not check.

Sans-IO: ``receive`` bytes, then read ``requests``, ``refusal``, ``phase``. Rules
(RFC 9112; measured against h11 and Hypercorn, all of which let some through):

* Lengths are never in doubt: Content-Length with Transfer-Encoding, two
  Content-Lengths, a coding other than chunked, HTTP/1.0 with chunked, a body
  on an upgrade are refused (§6.3, §11.2, smuggling).
* Lines end in CRLF, headers are not folded (§2.2, §5.2).
* HTTP/1.1 has exactly one Host, which could be one; nothing has two (§3.2).
* URL, head, number of headers and body are bounded, before they are stored, and so are the
  bodies of all connections together.
* After a refusal not one more byte is looked at, whatever it was meant to be.
* What was complete before the refusal is answered first.

An offer to upgrade (curl --http2 makes one) is ignored, as §7.8 of RFC 9110
allows, and the connection closed after the answer.
"""

from __future__ import annotations

import enum
import re
from collections import deque

import httptools
from attrs import define, frozen

from kritad.server.limits import ServerLimits

# Headers that must not come twice: the two readings of a pair differ.
_SINGLE = frozenset({b"host", b"authorization", b"content-type", b"expect", b"if-lock", b"origin"})
_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_RAW = b"/v1/kv/"  # below this a body is the value itself
# The characters of a host and a port (RFC 3986 §3.2.2); a target without a host has an empty one.
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")


class Phase(enum.Enum):
    """Where in a request the bytes stand."""

    IDLE = 0  # between two requests
    HEAD = 1
    BODY = 2


@frozen(eq=False)
class HttpRefusal(Exception):
    """An answer that is not about a key: a request that HTTP or its limits forbid."""

    code: int
    message: str
    hint: str = ""
    allow: tuple[str, ...] = ()  # for 405
    error: str = "bad_request"  # what the answer calls its code


@define(eq=False)
class HttpRequest:
    """One whole request. ``path`` and ``query`` are as sent, still percent-encoded."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]  # names in lower case; repeated ones joined by commas
    body: bytes
    keep_alive: bool
    http_1_0: bool = False

    @property
    def safe(self) -> bool:
        """Whether it may be answered beside another one (RFC 9112 §9.3.2)."""
        return self.method in _SAFE


@define
class Bodies:
    """How much more of large bodies may be held, by all connections that share this."""

    left: int


class HttpWire:
    """One connection's requests, as they come in. ``release`` it when the connection ends."""

    def __init__(self, limits: ServerLimits, bodies: Bodies | None = None) -> None:
        self.limits = limits
        self._bodies = bodies or Bodies(limits.bodies_bytes_max)
        self._held_bytes = 0  # of them, by the body that is being received
        self.requests: deque[HttpRequest] = deque()
        self.refusal: HttpRefusal | None = None
        self.phase = Phase.IDLE
        self.started = 0  # requests begun: tells one head from the next
        self.closing = False  # the last of ``requests`` ends the connection
        # The client waits for a 100 before it sends the body.
        self.expects_continue = False
        self._parser = httptools.HttpRequestParser(self)
        # Without this a request behind "Connection: close" turns the answered
        # one into an error; with it, it is ignored, which §9.6 asks for.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._headers_count = 0
        self._head_bytes = 0
        self._unfinished_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._body_bytes_max = 0
        self._http_1_0 = False

    def __repr__(self) -> str:
        return f"<HttpWire {self.phase.name}, request {self.started}, {len(self.requests)} ready>"

    @property
    def head_only(self) -> bool:
        """Whether the request that is being read is a HEAD: its refusal has no body either."""
        return bool(self._url) and self._parser.get_method() == b"HEAD"

    def receive(self, data: bytes) -> None:
        """Take what arrived; never raises. ~10 µs for a request of five headers."""
        if self.refusal is not None or self.closing:
            return
        before, body_before = self.started, self._body_bytes
        try:
            self._parser.feed_data(data)
            if self.phase is not Phase.IDLE and self.started == before:
                if self._body_bytes != body_before:
                    self._unfinished_bytes = 0
                else:
                    self._check_unfinished(len(data))
        except httptools.HttpParserUpgrade:
            self.closing = True
        except httptools.HttpParserCallbackError as error:
            # What our own callbacks raise arrives as its context.
            if not isinstance(error.__context__, HttpRefusal):
                raise
            self.refusal = error.__context__
        except HttpRefusal as refusal:
            self.refusal = refusal
        except httptools.HttpParserError as error:
            self.refusal = _explain(error)

    def _check_unfinished(self, more: int) -> None:
        """The parser keeps an unfinished header to itself, and would keep it for ever; so it
        does with a trailer, and with what stands behind the size of a chunk. The piece that
        the head began in is not counted: it may hold other requests."""
        self._unfinished_bytes += more
        if self._unfinished_bytes > self.limits.head_bytes_max:
            raise self._head_too_large()

    # What the parser calls, in this order.

    def on_message_begin(self) -> None:
        self.phase = Phase.HEAD
        self.started += 1
        self._url = b""
        self._headers = {}
        self._headers_count = self._head_bytes = self._unfinished_bytes = self._body_bytes = 0
        self._body = []
        self._http_1_0 = False

    def on_url(self, url: bytes) -> None:
        self._url = url = self._url + url if self._url else url
        self._head_bytes = size = len(url)
        if size > self.limits.url_bytes_max:
            raise HttpRefusal(414, f"the URL is over {self.limits.url_bytes_max} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers_count += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._headers_count > self.limits.headers_max:
            raise HttpRefusal(431, f"there are more than {self.limits.headers_max} headers")
        if self._head_bytes > self.limits.head_bytes_max:
            raise self._head_too_large()
        if self.phase is not Phase.HEAD:
            return  # a trailer: counted, not believed
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in _SINGLE:
                raise HttpRefusal(400, f"there are two {name.decode().title()} headers")
            value = headers[name] + b", " + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        self.phase = Phase.BODY
        self._unfinished_bytes = 0
        headers = self._headers
        version = self._parser.get_http_version()
        if version == "1.1":
            host = headers.get(b"host")
            if host is None:
                raise HttpRefusal(400, "there is no Host header", "HTTP/1.1 requires one")
            if not _HOST.fullmatch(host):
                raise HttpRefusal(400, "the Host header names no host", "send HOST or HOST:PORT")
        elif version == "1.0":
            self._http_1_0 = True
        else:
            raise _not_spoken(f"HTTP/{version}")
        if b"expect" in headers and version == "1.1":
            self._check_expectation(headers[b"expect"])
        if b"transfer-encoding" in headers or b"content-length" in headers:
            self._expect_body(headers, version)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            raise self._body_too_large()
        self._hold(self._body_bytes - self.limits.body_free_bytes)
        self._body.append(body)

    def _hold(self, wanted: int) -> None:
        more = wanted - self._held_bytes
        if more <= 0:
            return
        if more > self._bodies.left:
            raise HttpRefusal(
                503, "too many large bodies are on their way to this node", error="busy"
            )
        self._bodies.left -= more
        self._held_bytes = wanted

    def release(self) -> None:
        """The body is whole, or will not be."""
        self._bodies.left += self._held_bytes
        self._held_bytes = 0

    def on_message_complete(self) -> None:
        self.phase = Phase.IDLE
        self.release()
        self.expects_continue = False
        path, _, query = self._url.partition(b"?")
        keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self.requests.append(
            HttpRequest(
                self._parser.get_method(),
                path if path.startswith(b"/") else _origin_form(path),
                query,
                self._headers,
                b"".join(self._body) if self._body else b"",
                keep_alive,
                self._http_1_0,
            )
        )
        if not keep_alive:
            self.closing = True

    def _expect_body(self, headers: dict[bytes, bytes], version: str) -> None:
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
            raise HttpRefusal(400, "the only Transfer-Encoding understood is HTTP/1.1's chunked")
        if self._parser.should_upgrade():
            # llhttp takes the body for the bytes of the other protocol.
            raise HttpRefusal(400, "a request with a body cannot ask for an upgrade")
        # Forms and JSON write some bytes as several; the bytes that they mean are counted by
        # whoever reads them. What a client says of its body's type does not matter there.
        limits = self.limits
        raw = self._url.startswith(_RAW)
        self._body_bytes_max = limits.value_bytes_max if raw else limits.form_bytes_max
        length = headers.get(b"content-length")
        # llhttp has seen that it is digits, and below 2**64.
        if length is not None and int(length) > self._body_bytes_max:
            raise self._body_too_large()
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            raise HttpRefusal(
                415,
                "a body with a Content-Encoding is not understood",
                "send it as it is; a Content-Type is stored with a value",
            )
        if b"content-range" in headers and self._parser.get_method() == b"PUT":
            # §14.5 of RFC 9110: else a part would be stored as the whole.
            raise HttpRefusal(
                400, "a PUT of a part is not understood (Content-Range)", "send the whole value"
            )
        self.expects_continue = b"expect" in headers and version == "1.1"

    def _check_expectation(self, expect: bytes) -> None:
        if expect.lower() != b"100-continue":
            raise HttpRefusal(417, "the only expectation understood is 100-continue")

    def _head_too_large(self) -> HttpRefusal:
        return HttpRefusal(431, f"the headers are over {self.limits.head_bytes_max} bytes")

    def _body_too_large(self) -> HttpRefusal:
        return HttpRefusal(
            413,
            f"the body is over {self._body_bytes_max} bytes,"
            f" as value_bytes_max is {self.limits.value_bytes_max}",
            "raise value_bytes_max on every node, or store the value in pieces",
            error="too_large",
        )


def _origin_form(target: bytes) -> bytes:
    """The path of an absolute-form target (§3.2.2), which proxies send."""
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        return b"/" + rest.partition(b"/")[2]
    if target == b"*":
        return target
    raise HttpRefusal(400, "the request's target is neither a path nor an http URL")


def _not_spoken(version: str) -> HttpRefusal:
    return HttpRefusal(505, f"{version} is not spoken here", "use HTTP/1.1")


def _explain(error: httptools.HttpParserError) -> HttpRefusal:
    """llhttp says what it stumbled over; say what the sender should have written."""
    said = str(error)
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return HttpRefusal(400, "this is not an HTTP request", "methods are in capitals: GET")
    if isinstance(error, httptools.HttpParserInvalidURLError):
        return HttpRefusal(
            400,
            "the URL holds a character that URLs may not",
            "percent-encode it: %20 for a space, %D0%9A for a letter beyond ASCII",
        )
    if "Invalid HTTP version" in said:  # it has read two digits, and does not say which
        return _not_spoken("this version of HTTP")
    if "PRI/Upgrade" in said:  # the preface of HTTP/2, of a client that takes it for granted
        return _not_spoken("HTTP/2.0")
    if "Expected HTTP/" in said:
        return HttpRefusal(
            400,
            "the request line is not METHOD URL HTTP/1.1",
            "percent-encode spaces in the URL: %20",
        )
    if "Expected CRLF" in said or "Missing expected" in said:
        return HttpRefusal(400, f"malformed HTTP: {said}", "lines end in CR LF")
    return HttpRefusal(400, f"malformed HTTP: {said}")
