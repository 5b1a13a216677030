"""What a node says of itself over HTTP."""

from __future__ import annotations

import pytest

from tests.server.raw import ask, request
from tests.server.service import Health, running


async def test_the_root_says_what_this_is_and_what_to_try_by_the_name_it_was_called() -> None:
    async with running() as node:
        answer = await ask(node, b"GET / HTTP/1.1\r\nHost: db1:9000\r\n\r\n")
        assert answer.code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.body.decode()
        assert 'curl -X PUT http://db1:9000/greeting -d "value=hello"' in text
        health = next(line for line in text.splitlines() if "http://db1:9000/health" in line)
        assert health.endswith("what is wrong with this node, if anything is"), "not the cluster"
        assert "http://db1:9000/metrics" in text
        assert node.service.submitted == 0


@pytest.mark.parametrize("host", [b"a;reboot", b"$(reboot)", b"a&b", b"", b"a" * 300])
async def test_what_a_shell_would_execute_is_not_taken_over_from_the_host_header(
    host: bytes,
) -> None:
    async with running() as node:
        answer = await ask(node, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        assert b"curl http://127.0.0.1:8080/greeting\n" in answer.body


async def test_a_healthy_node_says_so_everywhere() -> None:
    async with running() as node:
        for path, word in (("/health", b"healthy"), ("/livez", b"live"), ("/readyz", b"ready")):
            answer = await ask(node, request("GET", path))
            assert (answer.code, answer.body) == (200, word)


async def test_a_node_without_a_quorum_is_unhealthy_but_stays_alive() -> None:
    async with running() as node:
        node.service.status = Health(ready=False, healthy=False, problems=["shard 3 has no leader"])
        sick = await ask(node, request("GET", "/health"))
        assert sick.code == 500
        assert "shard 3 has no leader" in str(sick.document["message"])
        assert (await ask(node, request("GET", "/readyz"))).code == 503
        assert (await ask(node, request("GET", "/livez"))).code == 200


async def test_a_node_that_is_not_well_says_so_as_every_error_does() -> None:
    async with running() as node:
        node.service.status = Health(False, False, False, ["the node has failed"])
        for path, code, name in (
            ("/livez", 503, "unavailable"),
            ("/readyz", 503, "unavailable"),
            ("/health", 500, "unhealthy"),
        ):
            sick = await ask(node, request("GET", path))
            assert (sick.code, sick.headers["krita-outcome"]) == (code, "not-applied")
            assert ("retry-after" in sick.headers) == (code == 503)
            assert len(sick.headers["krita-request-id"]) == 16
            assert sick.document["problems"] == ["the node has failed"]
            assert sick.document.items() >= {"code": name, "outcome": "not applied"}.items()


async def test_metrics_count_requests_and_connections() -> None:
    async with running() as node:
        await ask(node, request("GET", "/nothing"))
        await ask(node, b"GET /a HTTP/1.1\r\n\r\n")
        await ask(node, request("BREW", "/pot"))
        text = (await ask(node, request("GET", "/metrics"))).body.decode()
        assert 'krita_http_requests_total{method="GET",code="404"} 1' in text
        assert 'krita_http_requests_total{method="invalid",code="400"} 2' in text
        assert 'krita_connections{protocol="http"} 1' in text
        assert "krita_connections_accepted_total 4" in text
        assert "nothing" not in text, "a key is in the metrics"
