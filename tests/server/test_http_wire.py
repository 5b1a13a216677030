"""Requests out of bytes, and the bytes that are refused."""

from __future__ import annotations

import pytest

from kritad.server.http_wire import Bodies, HttpWire, Phase
from kritad.server.limits import ServerLimits

LIMITS = ServerLimits(value_bytes_max=1000)
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def wire_of(*pieces: bytes) -> HttpWire:
    wire = HttpWire(LIMITS)
    for piece in pieces:
        wire.receive(piece)
    return wire


def test_a_request_is_the_same_whether_it_comes_whole_or_byte_by_byte() -> None:
    data = b"PUT /a%20b?x=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc"
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        wire = wire_of(*pieces)
        (request,) = wire.requests
        assert wire.refusal is None
        assert (request.method, request.path, request.query) == (b"PUT", b"/a%20b", b"x=1")
        assert request.headers[b"x-a"] == b"1, 2"
        assert request.body == b"abc"
        assert request.keep_alive
        assert wire.phase is Phase.IDLE


def test_pipelined_requests_come_out_in_order() -> None:
    wire = wire_of(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(50)))
    assert [request.path for request in wire.requests] == [b"/%d" % i for i in range(50)]


def test_a_chunked_body_is_put_together_and_its_trailers_are_not_believed() -> None:
    wire = wire_of(
        b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
    )
    (request,) = wire.requests
    assert request.body == b"abcde"
    assert b"authorization" not in request.headers


def test_the_path_of_an_absolute_url_is_taken() -> None:
    (request,) = wire_of(b"GET http://h:1/a/b?c HTTP/1.1\r\nHost: h\r\n\r\n").requests
    assert (request.path, request.query) == (b"/a/b", b"c")


def test_an_offer_to_upgrade_is_ignored_and_the_connection_closed_after_it() -> None:
    wire = wire_of(
        b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + GOOD, GOOD
    )
    (request,) = wire.requests
    assert wire.refusal is None
    assert not request.keep_alive


def test_what_follows_connection_close_is_ignored() -> None:
    wire = wire_of(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GOOD, GOOD)
    assert [request.path for request in wire.requests] == [b"/a"]
    assert wire.refusal is None


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"https://h/a", b"/a"), (b"HTTP://h/a", b"/a"), (b"http://h", b"/"),
        (b"ftp://h/a", None), (b"gopher://h", None),
    ],
)  # fmt: skip
def test_only_a_path_and_an_http_url_are_targets(target: bytes, path: bytes | None) -> None:
    wire = wire_of(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % target)
    assert [request.path for request in wire.requests] == ([] if path is None else [path])
    assert (wire.refusal is not None and wire.refusal.code == 400) is (path is None)


def test_a_head_of_just_the_limits_passes() -> None:
    url = b"/" + b"a" * (LIMITS.url_bytes_max - 1)
    left = LIMITS.head_bytes_max - len(url) - len(b"Host" + b"h" + b"X") - 2 * 4
    for lines in (b"X: " + b"y" * left, b"\r\n".join([b"X: y"] * (LIMITS.headers_max - 1))):
        wire = wire_of(b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\n\r\n" % (url, lines))
        assert (wire.refusal, len(wire.requests)) == (None, 1)
        wire = wire_of(b"GET %b HTTP/1.1\r\nHost: h\r\n%b\r\nX: y\r\n\r\n" % (url, lines))
        assert wire.refusal is not None
        assert wire.refusal.code == 431


def test_an_http_1_0_request_needs_no_host() -> None:
    (request,) = wire_of(b"GET /a HTTP/1.0\r\n\r\n").requests
    assert request.http_1_0
    assert not request.keep_alive


@pytest.mark.parametrize(
    "host", ["", "a", "a_b.c:80", "127.0.0.1:8080", "[::1]:80", "[fe80::1%25e0]"]
)
def test_whatever_can_be_a_host_is_one(host: str) -> None:
    assert wire_of(b"GET /a HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode()).refusal is None


def _put(*lines: bytes, version: bytes = b"1.1") -> bytes:
    head = b"\r\n".join((b"PUT /a HTTP/" + version, b"Host: a", *lines))
    return head + b"\r\n\r\nabc"


def _put_chunked(coding: bytes, version: bytes = b"1.1") -> bytes:
    head = _put(b"Transfer-Encoding: " + coding, version=version).removesuffix(b"abc")
    return head + b"3\r\nabc\r\n0\r\n\r\n"


REFUSED = {
    "Content-Length and Transfer-Encoding": (
        400,
        _put(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    ),
    "Transfer-Encoding and Content-Length": (
        400,
        _put(b"Transfer-Encoding: chunked", b"Content-Length: 3"),
    ),
    "two equal Content-Lengths": (400, _put(b"Content-Length: 3", b"Content-Length: 3")),
    "two different Content-Lengths": (400, _put(b"Content-Length: 3", b"Content-Length: 4")),
    "a list of Content-Lengths": (400, _put(b"Content-Length: 3, 3")),
    "a signed Content-Length": (400, _put(b"Content-Length: +3")),
    "a negative Content-Length": (400, _put(b"Content-Length: -3")),
    "a Content-Length of 23 digits": (400, _put(b"Content-Length: 99999999999999999999999")),
    "another coding before chunked": (400, _put_chunked(b"gzip, chunked")),
    "two Transfer-Encodings": (
        400,
        _put(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    ),
    "a coding that is not chunked": (400, _put_chunked(b"xchunked")),
    "chunked in HTTP/1.0": (400, _put_chunked(b"chunked", b"1.0")),
    "a body with an upgrade": (
        400,
        _put(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 3"),
    ),
    "lines that end in a bare LF": (400, b"GET /a HTTP/1.1\nHost: a\n\n"),
    "a header that ends in a bare LF": (400, b"GET /a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    "a folded header": (400, _put(b"X: a\r\n b")),
    "a space before the colon": (400, _put(b"X : a")),
    "a NUL in a header": (400, _put(b"X: a\x00b")),
    "a chunk size that is no number": (
        400,
        b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ),
    "junk in a chunk extension": (
        400,
        b"PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;\x01\r\nabc\r\n0\r\n",
    ),
    "no Host": (400, b"GET /a HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, b"GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    "a Host with a blank": (400, b"GET /a HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "a Host with a path": (400, b"GET /a HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "a Host with a user": (400, b"GET /a HTTP/1.1\r\nHost: me@a\r\n\r\n"),
    "a Host beyond ASCII": (400, "GET /a HTTP/1.1\r\nHost: ключ\r\n\r\n".encode()),
    "two Authorizations": (400, _put(b"Authorization: Bearer a", b"Authorization: Bearer b")),
    "two Hosts in HTTP/1.0": (400, b"GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/2.0 in a request line": (505, b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n"),
    "HTTP/0.9": (505, b"GET /a\r\n\r\n"),
    "HTTP/1.2": (505, b"GET /a HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/1.9": (505, b"GET /a HTTP/1.9\r\nHost: a\r\n\r\n"),
    "a method in small letters": (400, b"get /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a space in the URL": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a URL beyond ASCII": (400, "GET /ключ HTTP/1.1\r\nHost: a\r\n\r\n".encode()),
    "an unknown expectation without a body": (417, _put(b"Expect: the-unexpected")),
    "a compressed body": (415, _put(b"Content-Encoding: gzip", b"Content-Length: 3")),
    "a part of a value": (400, _put(b"Content-Range: bytes 0-2/9", b"Content-Length: 3")),
    "two If-Locks": (400, _put(b"If-Lock: a@1", b"If-Lock: b@2")),
    "an unknown expectation": (417, _put(b"Expect: the-unexpected", b"Content-Length: 3")),
    "a body over the limit": (
        413,
        _put(b"Content-Length: 1001").replace(b" /a", b" /v1/kv/a"),
    ),
    "a form over its limit": (413, _put(b"Content-Length: 999999")),
    "a URL over its limit": (414, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "headers and a URL over the limit together": (
        431,
        b"GET /" + b"a" * 13_000 + b" HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    ),
    "a header of 64 KB": (431, _put(b"X: " + b"a" * 65_536)),
    "5,000 headers": (431, _put(*[b"X: y"] * 5_000)),
    "something that is not HTTP": (400, b"SSH-2.0-OpenSSH_9.2\r\n"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_and_nothing_behind_it_is_read(name: str) -> None:
    code, data = REFUSED[name]
    wire = wire_of(GOOD + data + GOOD, GOOD)
    assert wire.refusal is not None
    assert wire.refusal.code == code
    assert [request.path for request in wire.requests] == [b"/good"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_is_refused_also_when_it_comes_byte_by_byte(name: str) -> None:
    code, data = REFUSED[name]
    wire = wire_of(*[data[i : i + 1] for i in range(len(data))], GOOD)
    assert wire.refusal is not None
    assert wire.refusal.code == code
    assert not wire.requests


CHUNKED = b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunked_body_over_the_limit_is_refused_while_it_comes() -> None:
    wire = wire_of(CHUNKED, b"200\r\n" + b"x" * 512 + b"\r\n")
    assert wire.refusal is None
    wire.receive(b"200\r\n" + b"x" * 512)
    assert wire.refusal is not None
    assert wire.refusal.code == 413
    assert "value_bytes_max is 1000" in wire.refusal.message
    assert wire.refusal.error == "too_large"


@pytest.mark.parametrize("content_type", [b"application/json", b"APPLICATION/JSON", b"a/b"])
def test_the_limit_of_a_body_goes_by_what_the_url_takes(content_type: bytes) -> None:
    for path, codes in ((b"/v1/bulk", None), (b"/a", None), (b"/v1/kv/a", 413)):
        head = b"PUT %b HTTP/1.1\r\nHost: a\r\nContent-Type: %b\r\n" % (path, content_type)
        refusal = wire_of(head + b"Content-Length: 1001\r\n\r\n").refusal
        assert (None if refusal is None else refusal.code) == codes


def test_a_body_that_says_it_is_not_encoded_is_taken() -> None:
    wire = wire_of(_put(b"Content-Encoding: Identity", b"Content-Length: 3"))
    assert wire.requests[0].body == b"abc"


def test_a_header_that_never_ends_is_refused_before_it_is_whole() -> None:
    wire = wire_of(b"GET /a HTTP/1.1\r\nHost: a\r\nX: ")
    pieces = 0
    while wire.refusal is None:
        wire.receive(b"a" * 1000)
        pieces += 1
        assert pieces < 100, "an endless header was taken"
    assert wire.refusal.code == 431


@pytest.mark.parametrize("start", [b"0\r\nX-T: ", b"0\r\n", b"5;name="])
def test_neither_a_trailer_nor_what_stands_behind_a_chunks_size_goes_on_for_ever(
    start: bytes,
) -> None:
    wire = wire_of(CHUNKED, start)
    sent = 0
    while wire.refusal is None:
        wire.receive(b"a" * 1000)
        sent += 1000
        assert sent <= 2 * LIMITS.head_bytes_max
    assert wire.refusal.code == 431


def test_small_chunks_in_small_pieces_are_a_body_like_any() -> None:
    wire = HttpWire(ServerLimits())
    wire.receive(CHUNKED)
    for _ in range(LIMITS.head_bytes_max):
        for piece in (b"1\r", b"\n", b"x", b"\r\n"):
            wire.receive(piece)
    wire.receive(b"0\r\n\r\n")
    assert wire.refusal is None
    assert wire.requests[0].body == b"x" * LIMITS.head_bytes_max


def test_a_full_read_of_small_requests_with_the_head_of_one_more_is_no_huge_head() -> None:
    wire = wire_of(GOOD * 2000 + b"GET /", b"last HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.refusal is None
    assert len(wire.requests) == 2001


def test_it_is_known_that_a_client_waits_for_a_100() -> None:
    wire = wire_of(
        b"PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    )
    assert wire.expects_continue
    wire.receive(b"x")
    assert not wire.expects_continue
    assert len(wire.requests) == 1


def test_large_bodies_are_bounded_together_and_small_ones_are_not_counted() -> None:
    limits = ServerLimits(bodies_bytes_max=1500, body_free_bytes=100)
    bodies = Bodies(limits.bodies_bytes_max)
    head = b"PUT /v1/kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    wires = [HttpWire(limits, bodies) for _ in range(3)]
    wires[0].receive(head % 1200 + b"x" * 1100)
    wires[1].receive(head % 1200 + b"x" * 600)
    assert bodies.left == 0
    wires[1].receive(b"x")
    assert wires[1].refusal is not None
    assert (wires[1].refusal.code, wires[1].refusal.error) == (503, "busy")
    wires[2].receive(head % 100 + b"x" * 100)
    assert len(wires[2].requests) == 1
    wires[1].release()
    wires[0].receive(b"x" * 100)
    assert wires[0].requests[0].body == b"x" * 1200
    assert bodies.left == 1500


def test_nobody_is_sent_a_100_who_has_not_asked_for_one() -> None:
    assert not wire_of(_put(b"Content-Length: 9")).expects_continue


@pytest.mark.parametrize("expectation", [b"100-continue", b"the-unexpected"])
def test_an_http_1_0_client_knows_no_expectations(expectation: bytes) -> None:
    """RFC 9110 §10.1.1: it would take a 100 for its answer."""
    head = _put(b"Expect: " + expectation, b"Content-Length: 9", version=b"1.0")
    wire = wire_of(head)
    assert (wire.refusal, wire.expects_continue) == (None, False)
