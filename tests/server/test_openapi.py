"""/openapi.json says of every address what the server does, and of nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from krita.errors import Status
from krita.limits import LEASE_LIMIT
from kritad.metrics import Metrics
from kritad.server.http_answers import error_name_of
from kritad.server.http_routes import Methods, Routes
from kritad.server.limits import ServerLimits
from kritad.server.openapi import DOCUMENT, PATHS
from kritad.server.openapi_parts import ERRORS, PARAMETERS
from kritad.server.openapi_schemas import LEASE, SCHEMAS
from tests.server.raw import ask, request
from tests.server.service import running


def templates() -> dict[str, Methods]:
    """The addresses of the table of routes, as the document writes them."""
    routes = Routes(ServerLimits(), Metrics())
    found = {path.decode(): methods for path, methods in routes.paths.items()}
    found["/{name}"] = routes.named
    for prefix, methods in routes.below.items():
        name = "id" if b"lease" in prefix else "name" if b"lock" in prefix else "key"
        found[f"{prefix.decode()}{{{name}}}"] = methods
    return found


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    routes = {
        path: {method.decode().lower() for method in methods}
        for path, methods in templates().items()
    }
    assert routes == {path: set(methods) for path, methods in PATHS.items()}


def references(item: object) -> Iterator[str]:
    if isinstance(item, dict):
        if isinstance(item.get("$ref"), str):
            yield item["$ref"]
        for part in item.values():
            yield from references(part)
    elif isinstance(item, list):
        for part in item:
            yield from references(part)


def test_what_is_referred_to_is_there_and_what_is_there_is_referred_to() -> None:
    components: Any = DOCUMENT["components"]
    there = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "parameters", "headers", "responses")
        for name in components[kind]
    }
    assert set(references(DOCUMENT)) == there


def test_every_error_that_the_database_may_give_is_in_the_document() -> None:
    components: Any = DOCUMENT["components"]
    names = components["schemas"]["Error"]["properties"]["code"]["enum"]
    assert {error_name_of(status) for status in Status if status} <= set(names)
    assert set(ERRORS) >= {
        400, 401, 403, 404, 409, 410, 412, 413, 422, 423, 429, 500, 503, 504, 507,
    }  # fmt: skip


def test_every_address_says_what_an_error_looks_like_that_it_does_not_name() -> None:
    operations: list[Any] = [op for methods in PATHS.values() for op in methods.values()]
    assert all("default" in op["responses"] for op in operations)


@pytest.mark.parametrize("lease", [1, 10**17, 10**18, LEASE_LIMIT - 1])
def test_every_lease_that_the_server_may_choose_fits_the_document(lease: int) -> None:
    assert re.fullmatch(str(LEASE["pattern"]), str(lease))


def test_what_has_to_be_more_than_nothing_is_so_in_the_document() -> None:
    retain: Any = PATHS["/v1/retention"]["put"]
    keep = next(each for each in retain["parameters"] if each.get("name") == "keep")
    at_revision: Any = PARAMETERS["at_revision"]
    assert keep["schema"]["minimum"] > 0
    assert at_revision["schema"]["minimum"] > 0


def test_a_revision_that_nobody_knows_fits_the_document() -> None:
    """Of a transaction of several groups it is null, in its whole and in its results."""
    whole: Any = SCHEMAS["TransactionResults"]["properties"]
    for revision in (whole["revision"], whole["results"]["items"]["properties"]["revision"]):
        assert {"type": "null"} in revision["oneOf"]


def test_operations_have_names_of_their_own_and_parameters_too() -> None:
    operations: list[Any] = [op for methods in PATHS.values() for op in methods.values()]
    names = [op["operationId"] for op in operations]
    assert len(names) == len(set(names))
    for op in operations:
        named = [json.dumps(parameter) for parameter in op["parameters"]]
        assert len(named) == len(set(named)), op["operationId"]


async def test_the_document_is_served_to_everybody() -> None:
    async with running() as node:
        answer = await ask(node, request("GET", "/openapi.json"))
        assert (answer.code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.document["openapi"] == "3.1.0"
        assert answer.document["paths"] == json.loads(json.dumps(PATHS))


WRITES = [
    (path, method)
    for path, methods in PATHS.items()
    for method in methods
    if method not in ("get", "head")
]


@pytest.mark.parametrize(("path", "method"), WRITES)
async def test_what_guards_a_write_is_in_the_document_or_refused(path: str, method: str) -> None:
    taken = set(references(PATHS[path][method]["parameters"]))
    if "#/components/parameters/idempotency" in taken:
        return
    async with running() as node:
        for name in ("If-Match", "If-None-Match", "If-Lock", "Idempotency-Key"):
            url = path.replace("{", "").replace("}", "")
            answer = await ask(node, request(method.upper(), url, headers={name: "*"}))
            assert (answer.code, answer.document["outcome"]) == (400, "not applied")
            assert name in str(answer.document["message"])
        assert node.service.submitted == 0


@pytest.mark.parametrize("path", sorted(templates()))
async def test_a_method_that_the_document_does_not_have_is_405(path: str) -> None:
    async with running() as node:
        answer = await ask(node, request("PATCH", path.replace("{", "").replace("}", "")))
        assert answer.code == 405
        assert set(answer.headers["allow"].lower().split(", ")) == set(PATHS[path])
