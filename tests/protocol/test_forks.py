"""What a client does in a process that was forked from the one that made it.

The forks are made in processes of their own: pytest's has threads, and must not be forked.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import krita
from krita import requests
from krita.client import Client
from krita.errors import BadRequest, OutcomeUnknown, Unavailable
from krita.operations import Op
from tests.protocol.conftest import once
from tests.protocol.server import Cluster

BLOCKING = """
import os, sys, krita
with krita.Client(sys.argv[1]) as db:
    db.put("k", "0")
    child = os.fork()
    who = "parent" if child else "child"
    for number in range(50):
        db.put(f"{who}{number}", who)
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    db.put("k", "1")
"""

ASYNCHRONOUS = """
import os, sys, anyio, krita
from krita import requests
from krita.aio import AsyncClient

async def main():
    async with AsyncClient(sys.argv[1]) as db:
        await db.put("k", "0")
        child = os.fork()
        if not child:
            try:
                db.submit(requests.put("k", "child"), print)
            except krita.BadRequest as error:
                os._exit(0 if "parent" in str(error) else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        await db.put("k", "1")

anyio.run(main, backend=sys.argv[2])
"""


def run(script: str, *arguments: str) -> None:
    command = [sys.executable, "-c", script, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(krita.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_forked_process_has_connections_and_sessions_of_its_own(cluster: Cluster) -> None:
    run(BLOCKING, cluster.seeds)
    assert cluster.connections == 2
    assert once(cluster)
    with Client(cluster.seeds) as db:
        for who in ("parent", "child"):
            found = db.get_many([f"{who}{number}" for number in range(50)])
            assert all(value is not None and value.text() == who for value in found.values())


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_forked_process_is_refused_the_asynchronous_client_of_its_parent(
    cluster: Cluster, backend: str
) -> None:
    run(ASYNCHRONOUS, cluster.seeds, backend)
    assert cluster.count(Op.PUT) == 2


def test_what_was_under_way_at_a_fork_ends_in_the_child_and_says_why(db: Client) -> None:
    db.put("k", "0")
    mailbox = db.mailbox()
    mailbox.post(requests.put("k", "1"))
    mailbox.post(requests.get("k"))
    db.forked()
    for kind in (OutcomeUnknown, Unavailable):
        error = mailbox.take().error
        assert type(error) is kind
        assert "forked" in str(error)
    assert db.get("k") is not None


def test_a_lock_that_a_thread_held_at_a_fork_does_not_stop_the_child(db: Client) -> None:
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with db._lock:
            held.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        db.forked()
        db.put("k", "1")
    finally:
        leave.set()
        thread.join()


def test_a_client_that_is_closed_stays_so_in_a_forked_process(db: Client) -> None:
    db.close()
    db.forked()
    with pytest.raises(BadRequest, match="closed"):
        db.get("k")
