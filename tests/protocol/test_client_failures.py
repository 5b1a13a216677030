"""The blocking client when nodes fail: what it repeats, whom it asks, and what it tells."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import krita.client
from krita.client import Client
from krita.errors import (
    Busy,
    ConnectionFailed,
    Forbidden,
    KritaError,
    NotLeader,
    Outcome,
    OutcomeUnknown,
    SessionExpired,
    Unauthenticated,
    Unavailable,
    WrongShard,
)
from krita.operations import Consistency, Op
from tests.protocol import server
from tests.protocol.conftest import once
from tests.protocol.server import Cluster


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
        cluster.holdings.expire_sessions()

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


@pytest.mark.parametrize("known", [False, True])
def test_a_majority_that_is_lost_is_told_as_unavailable(three: Cluster, known: bool) -> None:
    three.lead(2, term=2)
    with Client(three.seeds) as db:
        if known:
            db.put("k", "0")
        three.forwarding = three.hints = False
        three.stop(2)
        three.stop(3)
        for _ in range(5):  # whichever node is the last one to be asked
            for act in (db.get, lambda key, **more: db.put(key, "1", **more)):
                with pytest.raises(KritaError) as caught:
                    act("k", timeout_ms=60)
                assert type(caught.value) in (Unavailable, NotLeader)
                assert caught.value.outcome is Outcome.NOT_APPLIED


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
    with (
        _chatter() as address,
        Client(address, timeout_ms=100_000) as db,
        pytest.raises(ConnectionFailed, match=r"does not speak Krita's protocol \(check"),
    ):
        db.get("k")


def test_a_server_of_another_kind_among_the_addresses_is_passed_over(cluster: Cluster) -> None:
    with _chatter() as address, Client(f"{address},{cluster.seeds}") as db:
        db.put("k", "1")
        assert db.get("k") is not None


def test_a_stale_read_may_be_answered_by_any_replica(three: Cluster) -> None:
    with Client(three.seeds) as db:
        db.put("k", "1")
        for _ in range(40):
            db.get("k", consistency=Consistency.STALE)
        assert all(three.count(Op.GET, node=node) for node in (1, 2, 3))
