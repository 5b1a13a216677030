"""Three processes become a cluster, and every one of them serves every key."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from krita import Client
from tests.system.cluster import META_SHARD, Cluster
from tests.system.conftest import MakeCluster
from tests.system.node import Node, wait_until

pytestmark = pytest.mark.slow


def test_each_node_that_joins_raises_every_shards_replicas_up_to_three(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(count=1)
    cluster.start()
    with cluster.client() as db:
        for number in range(50):
            db.put(f"early:{number}", f"value {number}")
        for nodes in (2, 3):
            cluster.add_node().restart()
            cluster.wait_grown(nodes)
            db.put(f"grown:{nodes}", b"x")
    cluster.settle()
    status = cluster.wait_status()
    assert status["health"] == "healthy"
    assert status["failures_tolerated"] == 1
    assert {len(shard["replicas"]) for shard in status["shards"]} == {3}
    for node in cluster.nodes:
        with Client(node.address) as db:
            for number in range(50):
                (value, *_) = db.call("get", f"early:{number}", 1, node=node.address)
                assert value == f"value {number}".encode(), f"{node}'s own copy of {number}"


def test_leaders_are_spread_over_the_nodes(shared: Cluster) -> None:
    with shared.client() as db:
        db.put("spread", b"x")
    wait_until("each node leads a data shard", lambda: set(shared.leaders().values()) == {1, 2, 3})
    assert META_SHARD not in shared.leaders()


# --- as the first users know it -----------------------------------------------------

CURL = shutil.which("curl")


def ask(node: Node, method: str, path: str, body: str | None = None) -> tuple[int, str]:
    """The status and the body, by the real curl where there is one."""
    if CURL is None:
        status, data = node.http(method, path, None if body is None else body.encode())
        return status, data.decode()
    command = [CURL, "--silent", "--show-error", "--max-time", "10", "--request", method]
    command += ["--write-out", "\n%{http_code}", f"http://{node.address}{path}"]
    if body is not None:
        command += ["--data", body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True)
    text, _, status_text = done.stdout.rpartition("\n")
    return int(status_text), text


STORED = '{"status":"success","message":"200 ok","key":"greeting"}'
READ = '{"status":"success","message":"200 ok","key":"greeting","value":"hello"}'


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_first_users_curl_lines_get_the_same_bytes_on_every_port(
    shared: Cluster, place: int
) -> None:
    node = shared.nodes[place]
    assert ask(node, "PUT", "/greeting", "value=hello") == (200, STORED)
    for reader in shared.nodes:
        assert ask(reader, "GET", "/greeting") == (200, READ)
        assert ask(reader, "GET", "/key?value=greeting") == (200, READ)
    assert ask(node, "PUT", "/key", "key=greeting&value=hello") == (200, STORED)
    assert ask(node, "DELETE", "/greeting") == (200, STORED)
    for path in ("/greeting", "/key?value=greeting"):
        status, text = ask(node, "GET", path)
        assert status == 404
        assert text.startswith('{"status":"error","message":"there is no such key"')
    assert ask(node, "DELETE", "/greeting")[0] == 404
    assert ask(node, "GET", "/health") == (200, "healthy")


@pytest.mark.parametrize(
    ("method", "path", "body", "missing"),
    [
        ("GET", "/key", None, "?value="),
        ("PUT", "/greeting", "worth=hello", "worth"),
        ("PUT", "/greeting", "", "value"),
        ("PUT", "/key", "key=greeting", "value"),
    ],
)
def test_a_curl_line_that_lacks_something_is_told_what(
    shared: Cluster, method: str, path: str, body: str | None, missing: str
) -> None:
    for node in shared.nodes:
        status, text = ask(node, method, path, body)
        answer = json.loads(text)
        assert status == 400
        assert answer["status"] == "error"
        assert missing in answer["message"] + answer["hint"]


def test_put_of_key_without_a_key_field_sets_the_key_called_key(shared: Cluster) -> None:
    node = shared.nodes[0]
    assert ask(node, "PUT", "/key", "value=itself")[0] == 200
    status, text = ask(shared.nodes[1], "GET", "/key?value=key")
    assert (status, json.loads(text)["value"]) == (200, "itself")


def test_a_value_of_any_bytes_goes_in_by_one_node_and_out_by_another(shared: Cluster) -> None:
    data = bytes(range(256)) * 40
    assert shared.nodes[0].http("PUT", "/v1/kv/raw", data)[0] == 201
    for node in shared.nodes:
        assert node.http("GET", "/v1/kv/raw") == (200, data)
        with Client(node.address) as db:
            (value, *_) = db.call("get", "raw", 0, node=node.address)
            assert value == data
    assert shared.nodes[2].http("DELETE", "/v1/kv/raw")[0] == 204
    assert shared.nodes[1].http("GET", "/v1/kv/raw")[0] == 404
