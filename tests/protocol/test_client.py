"""The blocking client against a cluster on real sockets: its operations, and its life.

What it does about failures is in test_client_failures.py, pipelines are in
test_client_pipelines.py.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from krita.client import Client
from krita.errors import (
    BadRequest,
    ConditionFailed,
    KritaError,
    Outcome,
    TooLarge,
)
from krita.limits import KEY_BYTES_MAX
from krita.operations import Op
from tests.protocol import server
from tests.protocol.conftest import once
from tests.protocol.server import Cluster

# Operations


def test_a_value_comes_back_as_it_was_put(db: Client) -> None:
    result = db.put("name", "Ada", content_type="text/plain")
    assert not result.existed
    value = db.get("name")
    assert value is not None
    assert (value.data, value.text(), value.content_type) == (b"Ada", "Ada", "text/plain")
    assert value.revision == result.revision
    assert db.put(b"name", b"Bob").existed


def test_an_absent_key_is_none_and_an_empty_value_is_not(db: Client) -> None:
    assert db.get("nothing") is None
    db.put("empty", b"")
    value = db.get("empty")
    assert value is not None
    assert value.data == b""


def test_delete_says_whether_there_was_something(db: Client) -> None:
    db.put("name", "Ada")
    assert db.delete("name").existed
    assert not db.delete("name").existed
    assert db.get("name") is None


def test_a_condition_that_does_not_hold_is_told_with_the_revision(db: Client) -> None:
    revision = db.put("name", "Ada", if_revision=0).revision
    with pytest.raises(ConditionFailed) as caught:
        db.put("name", "Bob", if_revision=0)
    assert caught.value.detail == {"revision": revision}
    db.delete("name", if_revision=revision)


def test_ping_tells_who_answered(db: Client) -> None:
    pong = db.ping()
    assert (pong.node, pong.cluster_id) == (1, server.CLUSTER_ID.hex())


def test_the_shard_map_is_fetched_when_asked_for(cluster: Cluster, db: Client) -> None:
    assert db.shard_map().version == 1
    cluster.map_version = 2
    assert db.shard_map().version == 2


def test_any_operation_can_be_called_by_name_on_a_chosen_node(three: Cluster) -> None:
    with Client(three.address(1)) as db:
        assert db.call("node_status", node=3) == [{"node": 3}]
        assert db.call("node_status", node=three.address(2)) == [{"node": 2}]
        assert db.call(Op.NODE_STATUS) == [{"node": 1}]
        with pytest.raises(BadRequest, match="no node 9"):
            db.call("node_status", node=9)


def test_a_write_called_by_name_gets_its_session_fields(cluster: Cluster, db: Client) -> None:
    revision, existed = db.call("put", "name", b"Ada", None, None)
    assert (revision > 0, existed) == (True, False)
    assert once(cluster)


# What is refused before anything is sent


@pytest.mark.parametrize(
    ("key", "cls"),
    [("", BadRequest), (b"", BadRequest), (7, BadRequest), ("k" * (KEY_BYTES_MAX + 1), TooLarge)],
)
def test_a_bad_key_is_refused_before_it_is_sent(
    cluster: Cluster, db: Client, key: str, cls: type[KritaError]
) -> None:
    for operation in (db.get, db.delete, db.pipeline().get):
        with pytest.raises(cls):
            operation(key)
    assert not cluster.connections


def test_bad_arguments_are_refused_before_they_are_sent(cluster: Cluster, db: Client) -> None:
    with pytest.raises(BadRequest, match="value is str or bytes, not int"):
        db.put("k", 7)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="if_revision"):
        db.put("k", "v", if_revision=-1)
    with pytest.raises(BadRequest, match="consistency"):
        db.get("k", consistency="loose")
    with pytest.raises(BadRequest, match="timeout_ms"):
        db.get("k", timeout_ms=0)
    with pytest.raises(BadRequest, match="no operation"):
        db.call("gett")
    with pytest.raises(BadRequest, match="not for clients"):
        db.call("raft")
    with pytest.raises(BadRequest, match="has the fields"):
        db.call("ping", 1)
    assert not cluster.connections


def test_a_value_over_the_limit_of_the_cluster_is_refused_and_the_client_lives_on(
    cluster: Cluster, db: Client
) -> None:
    cluster.value_bytes_max = 100
    with pytest.raises(TooLarge) as caught:
        db.put("k", b"x" * 100_000)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert db.put("k", b"x").existed is False


# Life


def test_threads_that_share_a_client_take_turns(cluster: Cluster, db: Client) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for number in range(50):
                db.put(name, str(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert once(cluster)
    assert cluster.connections == 1


def test_a_closed_client_says_so(cluster: Cluster) -> None:
    db = Client(cluster.seeds)
    db.put("k", "1")
    db.close()
    db.close()
    with pytest.raises(BadRequest, match="closed"):
        db.get("k")


def test_importing_krita_imports_no_event_loop() -> None:
    script = (
        "import sys, krita, krita.client;"
        "sys.exit(', '.join({'anyio', 'trio', 'asyncio'} & set(sys.modules)) or None)"
    )
    path = f"sys.path[:0] = {[p for p in sys.path if p]!r}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {path}; {script}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
