"""Web pages, which a browser on the node's own machine lets ask."""

from __future__ import annotations

import pytest

from kritad import stream as stream_module
from kritad.server.http_origin import is_foreign
from tests.server.raw import Answer, ask
from tests.server.service import TOKEN, Running, running

OWN = "db1.example:8080"
EVIL = {"Origin": "http://evil.example"}


@pytest.mark.parametrize(
    ("host", "headers", "foreign"),
    [
        ("127.0.0.1:8080", {}, False),
        ("whatever", {}, False),
        ("127.0.0.1:8080", {"origin": "http://127.0.0.1:8080"}, False),
        ("LocalHost:8080", {"origin": "http://localhost:8080"}, False),
        ("localhost", {"origin": "https://localhost"}, False),
        ("[::1]:8080", {"origin": "http://[::1]:8080"}, False),
        ("DB1.example:8080", {"origin": "http://db1.example:8080"}, False),
        ("127.0.0.1:8080", {"sec-fetch-site": "same-origin"}, False),
        ("127.0.0.1:8080", {"sec-fetch-site": "none"}, False),
        ("127.0.0.1:8080", {"sec-fetch-site": "cross-site"}, True),
        ("127.0.0.1:8080", {"sec-fetch-site": "same-site"}, True),
        ("127.0.0.1:8080", {"sec-fetch-site": "of tomorrow"}, True),
        ("127.0.0.1:8080", {"origin": "null"}, True),
        ("127.0.0.1:8080", {"origin": ""}, True),
        ("127.0.0.1:8080", {"origin": "http://127.0.0.1:3000"}, True),
        ("127.0.0.1:8080", {"origin": "http://evil.example"}, True),
        ("127.0.0.1:8080", {"origin": "http://127.0.0.1:8080.evil.example"}, True),
        # Names that DNS may say are this machine.
        ("evil.example:8080", {"origin": "http://evil.example:8080"}, True),
        ("127.0.0.1.evil.example", {"origin": "http://127.0.0.1.evil.example"}, True),
        ("localhost.evil.example", {"origin": "http://localhost.evil.example"}, True),
        ("a:b:c", {"origin": "http://a:b:c"}, True),
        ("", {"origin": "http://"}, True),
    ],
)
def test_a_page_is_foreign_unless_it_is_of_this_node(
    host: str, headers: dict[str, str], foreign: bool
) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    assert is_foreign(sent | {b"host": host.encode()}, OWN) is foreign


async def send(node: Running, line: str, headers: dict[str, str], body: str = "") -> Answer:
    """As a browser on this machine does."""
    head = [f"{line} HTTP/1.1", f"Host: 127.0.0.1:{node.port}", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return await ask(node, ("\r\n".join(head) + "\r\n\r\n" + body).encode())


BULK = '{"operations":[{"do":"put","key":"a","value":"1"}]}'


@pytest.mark.parametrize(
    ("line", "body"),
    [
        ("POST /v1/bulk", BULK),
        ("POST /v1/get", '{"keys":["a"]}'),
        ("PUT /v1/kv/a", "x"),
        ("PUT /a", "value=x"),
        ("DELETE /a", ""),
        ("GET /v1/kv/a", ""),
        ("GET /v1/kv/a?wait=5", ""),
        ("GET /v1/watch", ""),
        ("POST /v1/lock/l", '{"owner":"evil","ttl":9,"wait":9}'),
        ("GET /metrics", ""),
    ],
)
async def test_a_foreign_page_is_refused_and_nothing_is_done(line: str, body: str) -> None:
    async with running() as node:
        for headers in (EVIL, {"Sec-Fetch-Site": "cross-site"}):
            answer = await send(node, line, headers | {"Content-Type": "text/plain"}, body)
            assert (answer.code, answer.document["code"]) == (403, "forbidden")
            assert "token" in str(answer.document["hint"])
        assert node.service.submitted == 0


async def test_a_page_of_the_node_itself_and_one_with_a_token_are_served() -> None:
    async with running() as node:
        own = {"Origin": f"http://127.0.0.1:{node.port}", "Sec-Fetch-Site": "same-origin"}
        token = {"Authorization": f"Bearer {TOKEN.decode()}"}
        for headers in (own, EVIL | token):
            assert (await send(node, "PUT /a", headers, "value=x")).code == 200
        assert (await send(node, "GET /livez", EVIL)).code == 200, "it says nothing of data"


async def test_over_other_interfaces_what_is_lacking_is_a_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "_is_loopback", lambda _remote: False)
    async with running() as node:
        assert (await send(node, "PUT /a", EVIL, "value=x")).code == 401
