"""Nodes are killed, stopped and restarted while clients write. Nothing is lost."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import ExitStack

import pytest

from krita import Client
from tests.system.cluster import Cluster
from tests.system.conftest import MakeCluster
from tests.system.load import Writers, check_kept
from tests.system.node import TIMEOUT_S, Node

pytestmark = pytest.mark.slow


def test_no_acknowledged_write_is_lost_when_the_busiest_leader_is_killed_three_times_and_then_all(
    cluster: Cluster,
) -> None:
    addresses = [node.address for node in cluster.nodes]
    with Writers(cluster.addresses) as writers:
        writers.wait_more(100)
        for _ in range(3):
            victim = cluster.busiest()
            victim.kill()
            writers.wait_more(100)  # without it
            victim.restart()
            writers.wait_more(100)  # with it
    assert not writers.errors, "a client did not hide the death of a node"
    cluster.settle()
    check_kept(writers.keys, addresses)

    with Writers(cluster.addresses) as more:
        more.wait_more(100)
        for node in cluster.nodes:
            node.kill()
        cluster.start_all()
        more.wait_more(100)
    assert not more.errors, "a client did not hide the restart of the cluster"
    cluster.settle()
    check_kept(writers.keys | more.keys, addresses)


def test_a_leader_that_was_stopped_never_serves_a_value_that_was_replaced_meanwhile(
    cluster: Cluster,
) -> None:
    keys = [f"stale:{n}" for n in range(16)]
    with cluster.client() as db:
        for number in range(3):
            before, after = f"before {number}", f"after {number}"
            for key in keys:
                db.put(key, before)
            leader = cluster.busiest()
            others = [node.address for node in cluster.nodes if node is not leader]
            with ExitStack() as stack:
                readers = {key: stack.enter_context(Reader(leader, key)) for key in keys}
                for reader in readers.values():
                    assert reader.read().endswith(before.encode())
                leader.pause()
                stack.callback(leader.resume)
                outside = stack.enter_context(Client(others, timeout_ms=15_000))
                for key in keys:
                    outside.put(key, after)
                # Sent while it sleeps, on connections that it has: the first thing it
                # sees, perhaps before anybody tells it that it leads no more.
                for reader in readers.values():
                    reader.ask()
                leader.resume()
                for key, reader in readers.items():
                    answer = reader.answer()
                    fresh = answer.startswith(b"HTTP/1.1 200") and answer.endswith(after.encode())
                    refused = answer.startswith(b"HTTP/1.1 503")
                    assert fresh or refused, f"{key} in round {number}: {answer!r}"
            leader.wait_ready()
    cluster.settle()


def test_a_leader_whose_followers_are_silent_answers_no_linearizable_read(
    cluster: Cluster,
) -> None:
    # Nobody could tell it that it has been replaced, so it must not even know its own
    # value for sure. (Here they are stopped, and have replaced nobody.)
    keys = [f"unsure:{n}" for n in range(16)]
    with cluster.client() as db, ExitStack() as stack:
        for key in keys:
            db.put(key, b"known")
        leader = cluster.busiest()
        readers = [stack.enter_context(Reader(leader, key)) for key in keys]
        for node in cluster.nodes:
            if node is not leader:
                node.pause()
                stack.callback(node.resume)
        assert leader.http("GET", "/v1/kv/unsure:0?consistency=stale") == (200, b"known")
        for reader in readers:
            reader.ask()
        answered, _, _ = select.select(readers, [], [], 1.0)
        assert not answered, [reader.answer() for reader in answered]
        for node in cluster.nodes:
            node.resume()
        for reader in readers:
            answer = reader.answer()
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert answer.endswith(b"known"), answer


class Reader:
    """Reads one key through one node over one HTTP connection, a step at a time."""

    def __init__(self, node: Node, key: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", node.port), TIMEOUT_S)
        self._request = f"GET /v1/kv/{key} HTTP/1.1\r\nHost: {node.address}\r\n\r\n".encode()

    def __enter__(self) -> Reader:
        return self

    def fileno(self) -> int:
        """For ``select``."""
        return self._socket.fileno()

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self) -> None:
        """Send the request; it is in the kernel when this returns."""
        self._socket.sendall(self._request)

    def answer(self) -> bytes:
        """Head and body of the answer."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, _ = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(data) < len(head) + 4 + length:
            data += self._receive()
        return data

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        assert data, "the node closed the connection instead of answering"
        return data

    def read(self) -> bytes:
        self.ask()
        return self.answer()


def test_a_restarted_node_serves_again(cluster: Cluster) -> None:
    with cluster.client() as db:
        db.put("kept", b"1")
        for node in cluster.nodes:
            assert node.terminate() == 0
            db.put("kept while", f"{node.number} was away")
            node.restart()
            assert node.http("GET", "/kept while".replace(" ", "%20"))[0] == 200
            assert node.http("PUT", f"/v1/kv/by{node.number}", b"x")[0] == 201
    cluster.settle()


def test_sigterm_hands_the_leaders_over_instead_of_leaving_an_election_behind(
    make_cluster: MakeCluster,
) -> None:
    # An election would take six seconds at the least: a write that takes less than
    # half of that did not wait for one.
    cluster = make_cluster(flags=["--raft_election_ms=6000"])
    cluster.start()
    with Writers(cluster.addresses) as writers:
        writers.wait_more(50)
        victim = cluster.busiest()
        assert victim.terminate() == 0
        writers.wait_more(200)
    assert not writers.errors
    assert writers.slowest_s < 3.0
    victim.restart()
    cluster.settle()
    check_kept(writers.keys, [node.address for node in cluster.nodes])


def test_a_second_signal_ends_a_stop_that_takes_its_time(cluster: Cluster) -> None:
    victim = cluster.busiest()
    others = [node for node in cluster.nodes if node is not victim]
    with ExitStack() as stack:
        for node in others:  # nobody to hand the leaders to
            node.pause()
            stack.callback(node.resume)
        os.kill(victim.pid, signal.SIGTERM)
        victim.wait_logged("SIGTERM: stopping")
        os.kill(victim.pid, signal.SIGINT)
        assert victim.wait_exit() == 0
    assert "SIGINT again: ending at once" in victim.log_text()
    assert "Traceback" not in victim.log_text()
    victim.restart()
    cluster.settle()


def test_a_cluster_that_was_stopped_by_sigterm_comes_back_with_everything(
    cluster: Cluster,
) -> None:
    with Writers(cluster.addresses, 2) as writers:
        writers.wait_more(200)
    for node in cluster.nodes:
        assert node.terminate() == 0
    cluster.start_all()
    cluster.settle()
    check_kept(writers.keys, [node.address for node in cluster.nodes])
