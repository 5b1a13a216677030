"""GET /openapi.json: every address that is served is described and none that is not, and
what the server answers is what the description says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from krita.errors import ERRORS, Status
from kritad import __version__
from kritad.server.http_answers import error_code
from kritad.server.http_routes import Routes
from kritad.server.openapi.document import document
from tests.server.raw import Answer, ask, request
from tests.server.schema import fits, resolve
from tests.server.service import Health, running

LIMIT = 1 << 20
# As whoever reads it sees it.
DOCUMENT: dict[str, Any] = json.loads(json.dumps(document(LIMIT)))
PATHS: dict[str, dict[str, Any]] = DOCUMENT["paths"]
OPERATIONS = [(path, method) for path, methods in PATHS.items() for method in methods]

# Headers that HTTP itself defines for every answer.
OF_HTTP = {"date", "content-type", "content-length", "connection", "cache-control", "allow"}
OF_HTTP |= {"x-content-type-options"}
NOT_SEEN = 409  # sessions are not used over HTTP


def responses_of(path: str, method: str) -> dict[str, Any]:
    found = PATHS[path][method]["responses"]
    return {code: resolve(DOCUMENT, response) for code, response in found.items()}


def check(path: str, method: str, answer: Answer) -> None:
    """The answer is one of those that are described, in all that is described."""
    described = responses_of(path, method.lower())
    said = f"{method} {path}: {answer.code}"
    assert str(answer.code) in described, f"{said} is not described"
    response = described[str(answer.code)]
    headers = {name.lower() for name in response.get("headers", {})}
    assert answer.headers.keys() - OF_HTTP <= headers, said
    if answer.code in (204, 304) or method == "HEAD":
        assert "content" not in response, said
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    content = response["content"]
    assert media_type in content or "*/*" in content, said
    schema = content.get(media_type, {}).get("schema")
    if schema is not None:
        is_json = media_type == "application/json"
        value = json.loads(answer.body) if is_json else answer.body.decode()
        assert fits(DOCUMENT, schema, value), f"{said}: {value}"


# -- The document ----------------------------------------------------------------


def test_every_address_and_method_is_described_and_no_other() -> None:
    served = {
        path: {method.decode().lower() for method in methods}
        for path, methods in Routes(LIMIT).templates.items()
    }
    assert served == {path: set(methods) for path, methods in PATHS.items()}


def test_every_reference_leads_to_something_and_every_component_is_used() -> None:
    text = json.dumps(DOCUMENT)
    used = set(re.findall(r'"\$ref": "#/components/([^"]+)"', text))
    kinds = ("schemas", "headers", "parameters", "responses")
    there = {f"{kind}/{name}" for kind in kinds for name in DOCUMENT["components"][kind]}
    assert used == there


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [PATHS[path][method]["operationId"] for path, method in OPERATIONS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_an_operation_is_whole(path: str, method: str) -> None:
    operation = PATHS[path][method]
    given = [resolve(DOCUMENT, one) for one in operation.get("parameters", ())]
    in_path = {one["name"] for one in given if one["in"] == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    assert all(response["description"] for response in responses_of(path, method).values())


def test_every_error_of_the_database_is_described() -> None:
    codes = {error_code(error("")) for error in ERRORS.values()} - {NOT_SEEN}
    described = {int(name[-3:]) for name in DOCUMENT["components"]["responses"]}
    assert codes <= described


async def test_a_node_serves_it() -> None:
    async with running() as node:
        node.service.access.may_be_anybody = False  # type: ignore[attr-defined]
        answer = await ask(node, request("GET", "/openapi.json"))
    assert (answer.code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.document["openapi"] == "3.1.0"
    info = answer.document["info"]
    assert isinstance(info, dict)
    assert info["version"] == __version__


# -- What is answered ------------------------------------------------------------

BYTES = "/v1/kv/{key}"
# Template, method, path, body, headers; one after the other, so each finds what is there.
REQUESTS: list[tuple[str, str, str, bytes, dict[str, str]]] = [
    (BYTES, "GET", "/v1/kv/k", b"", {}),
    (BYTES, "PUT", "/v1/kv/k", b"v", {"Content-Type": "application/json"}),
    (BYTES, "PUT", "/v1/kv/k", b"\xff", {}),
    (BYTES, "GET", "/v1/kv/k", b"", {}),
    (BYTES, "HEAD", "/v1/kv/k", b"", {}),
    (BYTES, "GET", "/v1/kv/k?consistency=stale", b"", {}),
    (BYTES, "GET", "/v1/kv/k?consistency=loose", b"", {}),
    (BYTES, "GET", "/v1/kv/k", b"", {"If-None-Match": '"2"'}),
    (BYTES, "GET", "/v1/kv/k", b"", {"If-Match": '"77"'}),
    (BYTES, "HEAD", "/v1/kv/k", b"", {"If-Match": '"77"'}),
    (BYTES, "PUT", "/v1/kv/k", b"x", {"If-None-Match": "*"}),
    (BYTES, "DELETE", "/v1/kv/k", b"", {"If-Match": '"77"'}),
    (BYTES, "DELETE", "/v1/kv/k", b"", {}),
    (BYTES, "DELETE", "/v1/kv/k", b"", {"If-Match": "malformed"}),
    (BYTES, "HEAD", "/v1/kv/k", b"", {}),
    (BYTES, "GET", f"/v1/kv/{'k' * 5000}", b"", {}),
    (BYTES, "GET", f"/v1/kv/{'k' * 20000}", b"", {}),
    (BYTES, "GET", "/v1/kv/k", b"", {"Authorization": "Bearer wrong"}),
    (BYTES, "GET", "/v1/kv/k", b"", {"Expect": "miracles"}),
    (BYTES, "GET", "/v1/kv/k", b"", {f"X-{number}": "x" for number in range(200)}),
    ("/{name}", "GET", "/n", b"", {}),
    ("/{name}", "PUT", "/n", b"value=%FF", {}),
    ("/{name}", "PUT", "/n", b"", {}),
    ("/{name}", "GET", "/n", b"", {}),
    ("/{name}", "HEAD", "/n", b"", {}),
    ("/{name}", "DELETE", "/n", b"", {}),
    ("/{name}", "DELETE", "/n", b"", {}),
    ("/key", "PUT", "/key", b"value=v", {}),
    ("/key", "PUT", "/key", b"key=n&value=v", {}),
    ("/key", "GET", "/key?value=n", b"", {}),
    ("/key", "HEAD", "/key?value=n", b"", {}),
    ("/key", "GET", "/key?value=nobody", b"", {}),
    ("/key", "GET", "/key", b"", {}),
    ("/key", "DELETE", "/key", b"", {}),
    ("/", "GET", "/", b"", {}),
    ("/", "HEAD", "/", b"", {}),
    ("/", "PUT", "/", b"value=v", {}),
    ("/", "DELETE", "/", b"", {}),
    *((path, method, path, b"", {}) for method in ("GET", "HEAD")
      for path in ("/livez", "/readyz", "/health", "/metrics", "/openapi.json")),
    ("/metrics", "GET", "/metrics", b"", {"Authorization": "Bearer wrong"}),
]  # fmt: skip


async def test_what_is_answered_is_as_it_is_described() -> None:
    async with running() as node:
        seen = set()
        for path, method, target, body, headers in REQUESTS:
            answer = await ask(node, request(method, target, body, headers))
            check(path, method, answer)
            seen.add((path, method.lower(), answer.code))
    assert {(path, method) for path, method, _ in seen} == set(OPERATIONS), "not all were asked"
    good = {(path, method, int(code)) for path, method in OPERATIONS
            for code in responses_of(path, method) if int(code) < 400}  # fmt: skip
    assert good - seen <= {(BYTES, "head", 304)}, "an answer is described and was never seen"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
async def test_a_no_of_a_check_is_as_it_is_described(path: str) -> None:
    async with running() as node:
        node.service.status = Health(False, False, False, ["shard 3 has no leader"])
        for method in ("GET", "HEAD"):
            answer = await ask(node, request(method, path))
            assert answer.code >= 500
            check(path, method, answer)


def failing() -> Iterator[tuple[str, str, str, bytes, Status]]:
    """What each status of the database comes to on each address, but for those that a
    request cannot end with."""
    for path, target in ((BYTES, "/v1/kv/k"), ("/{name}", "/n"), ("/key", "/key?value=n")):
        for method in ("GET", "PUT", "DELETE"):
            impossible = {Status.SESSION_EXPIRED}
            if method == "GET":
                impossible |= {Status.UNKNOWN, Status.NO_SPACE}  # reading is never in doubt
            if method == "DELETE":
                impossible.add(Status.NO_SPACE)  # they are taken
            if path != BYTES:
                impossible.add(Status.CONDITION_FAILED)  # there are no conditions
            where = target if method == "GET" else target.partition("?")[0]
            body = b"value=v" if method == "PUT" else b""
            for status in sorted(ERRORS.keys() - impossible):
                yield path, method, where, body, status


@pytest.mark.parametrize(("path", "method", "target", "body", "status"), list(failing()))
async def test_an_error_is_as_it_is_described(
    path: str, method: str, target: str, body: bytes, status: Status
) -> None:
    async with running() as node:
        node.service.fail_with = ERRORS[status]("the test asked for it", hint="ask otherwise")
        check(path, method, await ask(node, request(method, target, body)))


# -- The judge itself ------------------------------------------------------------


def test_an_answer_that_is_not_described_is_found() -> None:
    good = {"status": "error", "message": "m", "code": "busy", "outcome": "not applied"}
    error = {"$ref": "#/components/schemas/Error"}
    assert fits(DOCUMENT, error, good)
    for change in ({"code": "tired"}, {"outcome": 1}, {"message": None}, {"key": {"hex": "00"}}):
        assert not fits(DOCUMENT, error, good | change)
    assert not fits(DOCUMENT, error, {"status": "error"})
    body = json.dumps(good).encode()
    headers = {"content-type": "application/json", "krita-outcome": "not-applied"}
    check(BYTES, "GET", Answer(400, headers, body))
    for answer in (
        Answer(418, headers, body),
        Answer(400, headers | {"krita-colour": "blue"}, body),
        Answer(400, headers | {"content-type": "text/html"}, body),
        Answer(400, headers, b"{}"),
    ):
        with pytest.raises(AssertionError):
            check(BYTES, "GET", answer)
