"""What lasts, over HTTP and on three real nodes: watches, locks, leases, scans, repetitions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from tests.system.cluster import Cluster
from tests.system.node import TIMEOUT_S, Node, wait_until

pytestmark = pytest.mark.slow

Document = dict[str, Any]


def call(
    node: Node,
    method: str,
    path: str,
    document: object = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Document]:
    """One request, with a body in JSON; its status, and the answer if it has one."""
    connection = HTTPConnection(node.address, timeout=TIMEOUT_S)
    try:
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if data.startswith(b"{") else {}
    finally:
        connection.close()


class Watch:
    """A watch over server-sent events that begins anew where it was when it breaks."""

    def __init__(self, nodes: list[Node], query: str) -> None:
        self.events: list[Document] = []
        self.broken = 0
        self._nodes = nodes
        self._query = query
        self._token = ""
        self._connection: HTTPConnection | None = None
        self._answer: HTTPResponse | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._answer = None

    def until(self, count: int) -> None:
        """Until so many changes have been told."""
        while len(self.events) < count:
            try:
                self._read()
            except OSError:
                self.broken += 1
                self.close()

    def begin(self) -> None:
        """Connect; what happens from now on is told."""
        node = next(node for node in self._nodes if node.up)
        headers = {"Accept": "text/event-stream"}
        if self._token:
            headers["Last-Event-ID"] = self._token
        self._connection = HTTPConnection(node.address, timeout=TIMEOUT_S)
        self._connection.request("GET", f"/v1/watch{self._query}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.read()
        while not self._token:
            self._read()

    def _read(self) -> None:
        if self._answer is None:
            self.begin()
        assert self._answer is not None
        line = self._answer.readline()
        if not line:
            raise ConnectionResetError("the watch has ended")
        if line.startswith(b"id: "):
            self._token = line[4:].strip().decode()
        elif line.startswith(b"data: "):
            event = json.loads(line[6:])
            if event["type"] not in ("progress", "error"):
                self.events.append(event)


@contextmanager
def watching(nodes: list[Node], query: str = "") -> Iterator[Watch]:
    watch = Watch(nodes, query)
    watch.begin()
    try:
        yield watch
    finally:
        watch.close()


def test_a_watch_tells_each_write_once_though_nodes_are_killed(cluster: Cluster) -> None:
    keys = [f"w:{number}" for number in range(30)]
    with watching(cluster.nodes, "?prefix=w:") as watch, cluster.client(15_000) as db:
        for number, key in enumerate(keys):
            if number in (10, 20):
                victim = cluster.busiest() if number == 10 else cluster.nodes[0]
                victim.kill()
            db.put(key, str(number))
            if number == 15:
                cluster.start_all()
        watch.until(len(keys))
        # In any order between shards, each once, and in a shard in the order of its log.
        assert sorted(event["key"] for event in watch.events) == sorted(keys)
        assert watch.broken, "the node that was watched at was killed"


def test_a_lock_that_is_waited_for_goes_to_whoever_waits(shared: Cluster) -> None:
    here, there, _ = shared.nodes
    with ExitStack() as stack:
        status, mine = call(here, "POST", "/v1/lock/l", {"owner": "me", "ttl": 60})
        assert status == 200
        waiting = HTTPConnection(there.address, timeout=TIMEOUT_S)
        stack.callback(waiting.close)
        waiting.request("POST", "/v1/lock/l", json.dumps({"owner": "you", "ttl": 60, "wait": 60}))
        assert call(here, "POST", "/v1/lock/l", {"owner": "him", "ttl": 1})[0] == 423
        assert call(here, "DELETE", f"/v1/lock/l?token={mine['token']}")[0] == 204
        answer = waiting.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["token"] > mine["token"]


def test_the_keys_of_a_lease_end_when_nobody_keeps_it_and_a_watch_hears_of_it(
    shared: Cluster,
) -> None:
    here, there, _ = shared.nodes
    _, lease = call(here, "POST", "/v1/lease", {"ttl": 1})
    with watching([there], "?prefix=leased:") as watch:
        for number in range(5):
            path = f"/v1/kv/leased:{number}?lease={lease['lease']}"
            assert call(here, "PUT", path, {})[0] == 201
        assert call(there, "PUT", f"/v1/lease/{lease['lease']}")[0] == 200
        watch.until(10)
        assert [event["type"] for event in watch.events[-5:]] == ["expire"] * 5
    assert call(there, "GET", f"/v1/lease/{lease['lease']}")[0] == 410
    assert call(there, "GET", "/v1/kv?prefix=leased:")[1]["items"] == []


def test_a_scan_by_pages_sees_every_key_once_at_whichever_node(shared: Cluster) -> None:
    writes = [{"do": "put", "key": f"s:{number:03}", "value": "x"} for number in range(250)]
    assert call(shared.nodes[0], "POST", "/v1/bulk", {"operations": writes})[0] == 200
    found: list[str] = []
    cursor = ""
    for page in range(100):
        node = shared.nodes[page % 3]
        _, answer = call(node, "GET", f"/v1/kv?prefix=s:&limit=20{cursor}")
        found += [item["key"] for item in answer["items"]]
        if answer["next_cursor"] is None:
            break
        cursor = f"&cursor={answer['next_cursor']}"
    assert found == [write["key"] for write in writes]
    connection = HTTPConnection(shared.nodes[1].address, timeout=TIMEOUT_S)
    connection.request("GET", "/v1/kv?prefix=s:", headers={"Accept": "application/x-ndjson"})
    lines = connection.getresponse().read().splitlines()
    connection.close()
    assert [json.loads(line)["key"] for line in lines] == found


def test_a_request_that_is_repeated_at_another_node_happens_once(shared: Cluster) -> None:
    headers = {"Idempotency-Key": "order-17"}
    numbers = {
        call(node, "POST", "/v1/kv/orders?do=add&by=1", headers=headers)[1]["number"]
        for node in shared.nodes
    }
    assert numbers == {1}


def test_a_read_at_another_node_sees_what_was_written(shared: Cluster) -> None:
    def written() -> bool:
        status, put = call(shared.nodes[0], "PUT", "/v1/kv/own", {})
        assert status in (200, 201)
        least = {"Krita-Min-Revision": str(put["revision"])}
        return all(
            call(node, "GET", "/v1/kv/own?consistency=stale", headers=least)[0] == 200
            for node in shared.nodes
        )

    assert wait_until("it is read everywhere", written)
