"""kritash with real nodes: what follows and what holds goes on when a leader dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.cluster import Cluster
from tests.system.node import environment, wait_until
from tests.system.shell import kritash

pytestmark = pytest.mark.slow

TIMEOUT_S = 60


@contextmanager
def running(cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """kritash in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "kritash", "--json", "--nodes", cluster.addresses, *words]
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_watch_and_a_lock_outlive_the_leader_of_their_shard(cluster: Cluster) -> None:
    names = [f"{{life}}{number}" for number in range(20)]
    lock = "{life}lock"
    program = ("sh", "-c", 'echo "$KRITA_LOCK"; read line; exit 7')
    with cluster.client() as client, client.watch(prefix="{life}") as begun:
        token = begun.begin()
    following = ("watch", "--prefix", "{life}", "--from", token, "--count", "22")
    with (
        cluster.client() as client,
        running(cluster, *following) as watch,
        running(cluster, "lock", "run", lock, "--ttl", "15s", "--", *program) as holder,
    ):
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert watch.stdout is not None
        held = holder.stdout.readline().decode().strip()
        for name in names[:10]:
            client.put(name, "before")
        victim = next(n for n in cluster.nodes if n.address == client.explain(lock).address)
        victim.kill()
        for name in names[10:]:
            kritash(cluster, "--timeout-ms", "20000", "put", name, "v", "--if-lock", held)
        holder.stdin.write(b"end\n")
        holder.stdin.flush()
        assert holder.wait(TIMEOUT_S) == 7
        wait_until("the lock is free", lambda: client.get(lock) is None)
        seen = [json.loads(line) for line in watch.stdout]
        assert watch.wait(TIMEOUT_S) == 0
    assert [event["key"] for event in seen] == [lock, *names, lock]
    assert [event["type"] for event in seen] == ["put"] * 21 + ["delete"]


def test_a_program_is_ended_when_nobody_can_renew_its_lock(cluster: Cluster) -> None:
    program = ("sh", "-c", 'echo "$KRITA_LOCK"; exec sleep 60')
    with running(cluster, "lock", "run", "lock", "--ttl", "2s", "--", *program) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"lock@")
        for node in cluster.nodes[:2]:
            node.pause()
        try:
            assert holder.wait(TIMEOUT_S) == 8
        finally:
            for node in cluster.nodes[:2]:
                node.resume()
