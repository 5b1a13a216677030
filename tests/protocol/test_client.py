"""The blocking client against a cluster on real sockets."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import krita.client
from krita.client import Client
from krita.errors import (
    BadRequest,
    Busy,
    ConditionFailed,
    ConnectionFailed,
    Forbidden,
    KritaError,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    ProtocolError,
    SessionExpired,
    TooLarge,
    Unauthenticated,
    Unavailable,
    WrongShard,
)
from krita.limits import KEY_BYTES_MAX
from krita.operations import Consistency, Op
from krita.values import Value
from tests.protocol import server
from tests.protocol.server import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with server.running() as one:
        yield one


@pytest.fixture
def three() -> Iterator[Cluster]:
    with server.running(nodes=3) as nodes:
        yield nodes


@pytest.fixture
def db(cluster: Cluster) -> Iterator[Client]:
    with Client(cluster.seeds) as client:
        yield client


@contextmanager
def _chatter() -> Iterator[str]:
    """A server that greets, as SMTP's do; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.sendall(b"220 mail.example ESMTP\r\n")
                sock.recv(100)

        thread = threading.Thread(target=greet)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def once(cluster: Cluster) -> bool:
    """Whether no (session, sequence) was executed twice, and something was."""
    return set(cluster.executed.values()) == {1}


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


# Failures


def test_a_write_whose_answer_is_lost_is_repeated_and_happens_once(
    cluster: Cluster, db: Client
) -> None:
    db.put("k", "0")
    cluster.on(Op.PUT, server.apply_then_drop)
    result = db.put("k", "1")
    assert cluster.count(Op.PUT) == 3
    assert once(cluster)
    value = db.get("k")
    assert value is not None
    assert value.revision == result.revision


def test_a_write_lost_before_it_was_executed_happens_once(cluster: Cluster, db: Client) -> None:
    cluster.on(Op.PUT, server.drop)
    db.put("k", "1", if_revision=0)
    assert once(cluster)


def test_a_conditional_write_whose_answer_is_lost_does_not_fail_on_itself(
    cluster: Cluster, db: Client
) -> None:
    cluster.on(Op.PUT, server.apply_then_drop)
    assert not db.put("k", "1", if_revision=0).existed


def test_without_sessions_a_lost_answer_is_told_as_unknown(cluster: Cluster) -> None:
    with Client(cluster.seeds, sessions=False) as db:
        db.put("k", "0")
        cluster.on(Op.PUT, server.apply_then_drop)
        with pytest.raises(OutcomeUnknown):
            db.put("k", "1")
        assert cluster.count(Op.PUT) == 2
        assert db.get("k") is not None  # reads are repeated as before


def test_an_unknown_outcome_told_by_the_node_is_resolved_by_repeating(
    cluster: Cluster, db: Client
) -> None:
    cluster.on(Op.PUT, server.apply_then_answer(OutcomeUnknown("leadership was lost")))
    db.put("k", "1")
    assert once(cluster)


def test_a_session_expired_on_a_first_try_is_replaced(cluster: Cluster, db: Client) -> None:
    db.put("k", "1")
    cluster.expire_sessions()
    assert db.put("k", "2").existed
    assert cluster.count(Op.SESSION_OPEN) == 2
    assert once(cluster)


def test_a_session_expired_on_a_retry_is_told_as_unknown(cluster: Cluster, db: Client) -> None:
    db.put("k", "1")

    def apply_then_expire(exchange: server.Exchange) -> None:
        server.apply_then_drop(exchange)
        cluster.sessions.clear()

    cluster.on(Op.PUT, apply_then_expire)
    with pytest.raises(OutcomeUnknown) as caught:
        db.put("k", "2")
    assert isinstance(caught.value.__cause__, SessionExpired)
    assert once(cluster)
    assert db.put("k", "3").existed


def test_a_refusal_after_a_lost_answer_is_told_as_unknown(cluster: Cluster, db: Client) -> None:
    cluster.on(Op.PUT, server.apply_then_drop)
    cluster.on(Op.PUT, server.answer(Forbidden("not any more")))
    with pytest.raises(OutcomeUnknown, match="not any more"):
        db.put("k", "1")


def test_a_busy_node_is_asked_again(cluster: Cluster, db: Client) -> None:
    cluster.on(Op.GET, server.answer(Busy("full")), times=2)
    assert db.get("k") is None
    assert cluster.count(Op.GET) == 3


def test_a_busy_node_is_told_when_the_deadline_passes(cluster: Cluster, db: Client) -> None:
    db.get("k")
    cluster.on(Op.PUT, server.answer(Busy("full")), times=1000)
    with pytest.raises(Busy, match="gave up after"):
        db.put("k", "1", timeout_ms=60)
    assert not cluster.executed


def test_a_write_without_an_answer_is_unknown_at_the_deadline_and_a_read_is_not(
    cluster: Cluster, db: Client
) -> None:
    db.put("k", "0")
    cluster.on(Op.PUT, server.apply_then_ignore)
    with pytest.raises(OutcomeUnknown):
        db.put("k", "1", timeout_ms=40)
    cluster.on(Op.GET, server.ignore)
    with pytest.raises(KritaError) as caught:
        db.get("k", timeout_ms=40)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    # The connection was kept, and late or missing answers confuse nobody.
    value = db.get("k")
    assert value is not None
    assert value.data == b"1"
    assert cluster.connections == 1


def test_a_sequence_given_up_is_acknowledged_so_that_it_cannot_happen_later(
    cluster: Cluster, db: Client
) -> None:
    db.put("k", "0")
    held = server.Hold()
    cluster.on(Op.PUT, held)
    with pytest.raises(OutcomeUnknown):
        db.put("k", "old", timeout_ms=40)
    db.put("k", "new")
    db.put("k", "newer")  # says acked_to beyond the one given up
    cluster.do(held.release)
    value = db.get("k")
    assert value is not None
    assert value.data == b"newer"


def test_a_hint_to_the_new_leader_is_followed_at_once(three: Cluster) -> None:
    with Client(three.seeds) as db:
        db.put("k", "1")
        three.lead(2, term=2)
        db.put("k", "2")
        assert three.count(Op.PUT, node=2) == 1
        db.put("k", "3")
        assert three.count(Op.PUT, node=1) == 2  # the new leader is remembered
        assert three.forwards == 0
        assert once(three)


def test_two_nodes_that_point_at_each_other_do_not_trap_the_client(three: Cluster) -> None:
    three.forwarding = False
    with Client(three.seeds) as db:
        db.get("k")
        three.lead(3, term=4)
        wrong = NotLeader("no", detail={"node": 2, "address": three.address(2), "term": 3})
        back = NotLeader("no", detail={"node": 1, "address": three.address(1), "term": 3})
        three.on(Op.GET, server.answer(wrong), node=1, times=1000)
        three.on(Op.GET, server.answer(back), node=2, times=1000)
        assert db.get("k") is None
        assert three.count(Op.GET, node=1) + three.count(Op.GET, node=2) <= 4


def test_a_leader_that_died_is_replaced_by_the_one_the_others_name(three: Cluster) -> None:
    with Client(three.seeds) as db:
        db.put("k", "1")
        three.stop(1)
        three.lead(2, term=2)
        db.put("k", "2")
        db.put("k", "3")
        assert once(three)


def test_an_old_shard_map_is_fetched_again_when_a_node_says_so(
    cluster: Cluster, db: Client
) -> None:
    db.get("k")
    before = cluster.count(Op.SHARD_MAP)
    cluster.on(Op.GET, server.answer(WrongShard("moved")))
    db.get("k")
    assert cluster.count(Op.SHARD_MAP) == before + 1


def test_an_address_that_the_nodes_tell_need_not_be_reachable(cluster: Cluster) -> None:
    cluster.moved_to = "127.0.0.1:1"  # nobody listens there
    with Client(cluster.seeds) as db:
        db.put("k", "1")
        assert db.get("k") is not None


def test_a_cluster_that_is_not_there_is_told_with_the_reason() -> None:
    with (
        Client("127.0.0.1:1", timeout_ms=80) as db,
        pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1: Connection refused; gave up"),
    ):
        db.get("k")


def test_a_node_that_comes_back_is_used_again(cluster: Cluster, db: Client) -> None:
    db.put("k", "1")
    cluster.stop(1)
    with pytest.raises(Unavailable):
        db.put("k", "2", timeout_ms=60)
    cluster.restart(1)
    db.put("k", "3")
    assert db.get("k") is not None


def test_a_broken_idle_connection_puts_no_write_in_doubt(cluster: Cluster) -> None:
    with Client(cluster.seeds, sessions=False) as db:
        db.put("k", "1")
        cluster.stop(1)
        cluster.restart(1)
        db.put("k", "2")


def test_a_refused_token_is_told_at_once(cluster: Cluster) -> None:
    cluster.token = b"secret"
    with pytest.raises(Unauthenticated):
        krita.client.connect(cluster.seeds, token="wrong")
    with krita.client.connect(cluster.seeds, token="secret") as db:
        db.put("k", "1")


def test_a_server_of_another_kind_is_told_at_once() -> None:
    with _chatter() as address, Client(address) as db, pytest.raises(ProtocolError):
        db.get("k")


def test_a_stale_read_may_be_answered_by_any_replica(three: Cluster) -> None:
    with Client(three.seeds) as db:
        db.put("k", "1")
        for _ in range(40):
            db.get("k", consistency=Consistency.STALE)
        assert all(three.count(Op.GET, node=node) for node in (1, 2, 3))


# Pipelines


def test_the_results_of_a_pipeline_are_in_the_order_given(db: Client) -> None:
    with db.pipeline() as p:
        for number in range(300):
            p.put(f"k{number}", str(number))
        found = [p.get(f"k{number}") for number in range(300)]
        p.delete("k0")
    assert [item.value().text() for item in found] == [str(n) for n in range(300)]  # type: ignore[attr-defined]
    assert len(p.results) == 601
    assert not p.errors


def test_operations_of_a_pipeline_on_one_key_happen_in_their_order(
    cluster: Cluster, db: Client
) -> None:
    cluster.on(Op.PUT, server.answer(Busy("full")))
    with db.pipeline() as p:
        for number in range(20):
            p.put("k", str(number))
        last = p.get("k")
    value = last.value()
    assert isinstance(value, Value)
    assert value.text() == "19"


def test_an_item_of_a_pipeline_fails_for_itself(db: Client) -> None:
    with db.pipeline() as p:
        p.put("a", "1", if_revision=99)
        p.put("b", "1")
    assert isinstance(p.results[0], ConditionFailed)
    assert [type(error) for error in p.errors] == [ConditionFailed]
    assert db.get("b") is not None
    with pytest.raises(ConditionFailed):
        p.items[0].value()


def test_a_pipeline_beyond_the_window_of_its_session_is_carried_out_once(
    cluster: Cluster, db: Client
) -> None:
    with db.pipeline() as p:
        for number in range(3000):
            p.put(f"{{tag}}{number}", "v")
    assert not p.errors
    assert len(cluster.executed) == 3000
    assert once(cluster)


def test_a_pipeline_whose_connection_breaks_is_carried_out_once(
    cluster: Cluster, db: Client
) -> None:
    for _ in range(5):
        cluster.on(Op.PUT, server.apply_then_drop)
        with db.pipeline() as p:
            for number in range(200):
                p.put(f"k{number}", "v")
        assert not p.errors
    assert once(cluster)
    assert len(cluster.executed) == 1000


def test_a_pipeline_whose_session_expired_is_carried_out_in_a_new_one(
    cluster: Cluster, db: Client
) -> None:
    with db.pipeline() as p:
        p.put("k", "1")
    cluster.expire_sessions()
    with db.pipeline() as p:
        for number in range(100):
            p.put(f"k{number}", "v")
    assert not p.errors
    assert cluster.count(Op.SESSION_OPEN) <= 4
    assert once(cluster)


def test_a_pipeline_larger_than_the_sockets_buffers_does_not_block_itself(db: Client) -> None:
    with db.pipeline() as p:
        for number in range(40):
            p.put(f"k{number}", bytes(500_000))
            p.get(f"k{number}")
    assert not p.errors


def test_a_value_too_large_in_a_pipeline_spares_the_others(cluster: Cluster, db: Client) -> None:
    cluster.value_bytes_max = 1000
    with db.pipeline() as p:
        for number in range(1500):
            p.put(f"{{t}}{number}", "v")
        for _ in range(1500):
            p.put("{t}large", bytes(80_000))
    assert [type(error) for error in p.errors] == [TooLarge] * 1500


def test_a_pipeline_is_not_executed_when_its_block_fails(cluster: Cluster, db: Client) -> None:
    p = db.pipeline()

    def fail() -> None:
        with p:
            p.put("k", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not cluster.executed
    with pytest.raises(BadRequest, match="not been executed"):
        _ = p.results


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
