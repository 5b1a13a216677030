"""The only door: what is checked in front of the log, and that everybody is answered once."""

from __future__ import annotations

import attrs
import pytest
import trio

from krita.codec import decode, encode, encode_body
from krita.errors import Foreign, Outcome, ProtocolError, Status
from krita.operations import OPERATIONS, Consistency, Op
from krita.ring import ShardMap
from kritad.access import ANONYMOUS, PEER, Principal
from kritad.host.peer_codec import encode_messages
from kritad.host.replica import Replica
from kritad.raft.messages import Heartbeat
from tests.kritad.service_bench import LOCAL, NODE, ROOT, VALUE_BYTES_MAX, Bench

# --- data ----------------------------------------------------------------------------------


def test_a_key_is_put_read_and_deleted(bench: Bench) -> None:
    status, body = bench.put(b"k", b"v")
    assert status == Status.OK
    assert isinstance(body, list)
    revision, existed = body
    assert existed is False
    assert bench.do(Op.GET, b"k")[1] == [b"v", revision, None, revision, None]
    assert bench.do(Op.DELETE, None, None, None, b"k") == (Status.OK, [revision + 1, True])
    status, body = bench.do(Op.GET, b"k")
    assert status == Status.OK
    assert body == [None, 0, None, revision + 1, None], "absent, and still the shard's revision"


def test_keys_go_to_the_shards_that_own_their_arcs(bench: Bench) -> None:
    shard_map = ShardMap.from_wire(bench.do(Op.SHARD_MAP)[1])
    keys = [b"key %d" % n for n in range(20)]
    before = {shard: r.state.index for shard, r in bench.cluster.nodes[0].host.replicas.items()}
    for key in keys:
        bench.put(key, b"v")
    after = {shard: r.state.index for shard, r in bench.cluster.nodes[0].host.replicas.items()}
    for info in shard_map.shards:
        owned = sum(shard_map.shard_of(key).shard == info.shard for key in keys)
        assert after[info.shard] - before[info.shard] == owned


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (b"", Status.BAD_REQUEST),
        (None, Status.BAD_REQUEST),
        ("text", Status.BAD_REQUEST),
        (7, Status.BAD_REQUEST),
        (b"x" * 4096, Status.OK),
        (b"x" * 4097, Status.TOO_LARGE),
    ],
)
def test_keys_have_a_shape_and_a_limit(bench: Bench, key: object, status: Status) -> None:
    assert bench.put(key, b"v")[0] == status
    assert bench.do(Op.GET, key)[0] == status
    assert bench.do(Op.DELETE, None, None, None, key)[0] == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"", Status.OK),
        (b"x" * VALUE_BYTES_MAX, Status.OK),
        (b"x" * (VALUE_BYTES_MAX + 1), Status.TOO_LARGE),
        ("text", Status.BAD_REQUEST),
        (None, Status.BAD_REQUEST),
    ],
)
def test_values_have_a_shape_and_a_limit(bench: Bench, value: object, status: Status) -> None:
    assert bench.put(b"k", value)[0] == status


def test_what_is_over_a_limit_is_in_no_log(bench: Bench) -> None:
    before = [r.raft.last_index for r in bench.cluster.nodes[0].host.replicas.values()]
    replies = bench.submit(Op.PUT, None, None, None, b"k", b"x" * 2000)
    assert replies.outcome == Outcome.NOT_APPLIED
    bench.cluster.settle()
    assert before == [r.raft.last_index for r in bench.cluster.nodes[0].host.replicas.values()]


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x01", encode({"a": 1}), b"\x80\x80"])
@pytest.mark.parametrize("op", [op for op in Op if op not in (Op.RAFT, Op.LEADERS)])
def test_a_malformed_body_is_answered_at_once_or_not_looked_at(
    bench: Bench, op: Op, body: bytes
) -> None:
    if op in (Op.CLUSTER_STATUS, Op.NODE_LIST, Op.SHARD_LIST, Op.MOVE_LIST):
        return  # these have no fields, and start a task
    replies = bench.submit(op, who=NODE, body=body)
    bench.cluster.run(3000)
    status, _ = replies.one
    if OPERATIONS[op].fields:
        assert status in (Status.BAD_REQUEST, Status.UNSUPPORTED), status
    assert not bench.cluster.nodes[0].host.failure


def test_the_bytes_of_the_client_are_what_stands_in_the_log(bench: Bench) -> None:
    # Not as our encoder would write them: the array's length in two bytes.
    body = bytes.fromhex("9807") + encode([None, None, None, b"k", b"v", None, None])[1:]
    assert decode(body) == [None, None, None, b"k", b"v", None, None]
    replies = bench.submit(Op.PUT, body=body)
    bench.cluster.settle()
    assert replies.one[0] == Status.OK
    shard_map = bench.cluster.nodes[0].host.build_shard_map()
    assert shard_map is not None
    replica = bench.cluster.nodes[0].replica(shard_map.shard_of(b"k").shard)
    assert replica.raft.log.held(replica.raft.last_index, replica.raft.last_index)[0].data.endswith(
        body
    )


def test_an_unknown_operation_is_unsupported(bench: Bench) -> None:
    for op in (0, 999, -1, Op.RAFT, Op.LEADERS, Op.META_BOOTSTRAP):
        assert bench.do(op, who=NODE)[0] == Status.UNSUPPORTED


def test_access_is_asked_before_anything_is_decoded(bench: Bench) -> None:
    remote = Principal(ANONYMOUS, loopback=False)
    assert bench.submit(Op.PUT, who=remote, body=b"\xff").one[0] == Status.UNAUTHENTICATED
    assert bench.submit(Op.META_PLACE, who=ROOT, body=b"\xff").one[0] == Status.FORBIDDEN
    assert bench.submit(Op.LEADER_TRANSFER, 1, 1, who=LOCAL).one[0] == Status.UNAUTHENTICATED


def test_sessions_are_opened_in_a_shard_that_there_is(bench: Bench) -> None:
    status, body = bench.do(Op.SESSION_OPEN, 2)
    assert status == Status.OK
    assert isinstance(body, list)
    assert bench.do(Op.SESSION_KEEPALIVE, 2, body[0])[0] == Status.OK
    for shard in (0, -1, 4097, None, "2", True):
        assert bench.do(Op.SESSION_OPEN, shard)[0] == Status.BAD_REQUEST


def test_who_asks_for_a_session_s_id_gets_another_one(bench: Bench) -> None:
    first, second = (bench.do(Op.SESSION_OPEN, 2, 77)[1] for _ in range(2))
    assert isinstance(first, list)
    assert isinstance(second, list)
    assert first != second
    assert [77] not in (first, second)
    assert min(first[0], second[0]) > 1 << 40, "no small number that a log would give again"


def test_a_write_in_a_session_happens_once_however_often_it_is_sent(bench: Bench) -> None:
    shard_map = bench.cluster.nodes[0].host.build_shard_map()
    assert shard_map is not None
    shard = shard_map.shard_of(b"k").shard
    session = bench.do(Op.SESSION_OPEN, shard)[1][0]  # type: ignore[index]
    first = bench.do(Op.PUT, session, 1, 0, b"k", b"v")
    again = bench.do(Op.PUT, session, 1, 0, b"k", b"v")
    assert first == again
    assert first[0] == Status.OK


# --- deadlines -----------------------------------------------------------------------------


def without_quorum(three: Bench) -> Bench:
    for node in three.cluster.nodes[1:]:
        three.cluster.cut(three.cluster.nodes[0], node)
    three.cluster.cut(three.cluster.nodes[1], three.cluster.nodes[2])
    three.cluster.run(5000)  # nobody leads any more
    return three


@pytest.mark.parametrize(("asked_ms", "waits_ms"), [(None, 2000), (500, 500), (10**9, 60_000)])
def test_who_cannot_be_served_is_told_at_the_deadline(
    three: Bench, asked_ms: float | None, waits_ms: int
) -> None:
    bench = without_quorum(three)
    replies = bench.submit(Op.PUT, None, None, None, b"k", b"v", deadline_ms=asked_ms)
    bench.cluster.run(waits_ms - 100)
    assert replies.all == []
    bench.cluster.run(250)
    assert replies.one[0] == Status.DEADLINE
    assert replies.outcome == Outcome.NOT_APPLIED


def test_a_deadline_that_has_passed_already_is_answered_soon(bench: Bench) -> None:
    replies = bench.submit(Op.GET, b"k", deadline_ms=0)
    bench.cluster.tick()
    bench.cluster.tick()
    assert len(replies.all) == 1


# --- stale reads ---------------------------------------------------------------------------


def follower_of(three: Bench, key: bytes) -> tuple[int, Replica]:
    shard_map = three.cluster.nodes[0].host.build_shard_map()
    assert shard_map is not None
    info = shard_map.shard_of(key)
    node = next(n for n in three.cluster.nodes if n.number != info.leader)
    return node.number, node.replica(info.shard)


def test_a_stale_read_is_answered_here_and_now_with_its_age(three: Bench) -> None:
    three.put(b"k", b"v")
    three.cluster.run(1000)
    number, replica = follower_of(three, b"k")
    before = three.cluster.network.forwarded
    status, body = three.submit(Op.GET, b"k", Consistency.STALE, node=number).one
    assert status == Status.OK
    assert isinstance(body, list)
    value, _, _, shard_revision, staleness_ms = body
    assert value == b"v"
    assert shard_revision == replica.state.index
    assert 0 <= staleness_ms <= 500
    assert three.cluster.network.forwarded == before


def test_without_a_leader_a_stale_read_says_how_old_it_is(three: Bench) -> None:
    three.put(b"k", b"v")
    three.cluster.run(1000)  # the followers have heard that it is committed
    bench = without_quorum(three)
    body = bench.submit(Op.GET, b"k", Consistency.STALE).one[1]
    assert isinstance(body, list)
    assert body[0] == b"v"
    assert body[4] >= 3000


def test_a_stale_read_of_a_poisoned_replica_is_asked_of_the_leader(three: Bench) -> None:
    three.put(b"k", b"v")
    number, replica = follower_of(three, b"k")
    replica.raft.poison("damaged")
    status, body = three.do(Op.GET, b"k", Consistency.STALE, node=number)
    assert status == Status.OK
    assert isinstance(body, list)
    assert (body[0], body[4]) == (b"v", None)


@pytest.mark.parametrize("consistency", [2, -1, "stale", b""])
def test_an_unknown_consistency_is_refused(bench: Bench, consistency: object) -> None:
    assert bench.do(Op.GET, b"k", consistency)[0] == Status.BAD_REQUEST


def test_a_linearizable_read_names_no_age(bench: Bench) -> None:
    for consistency in (None, Consistency.LINEARIZABLE):
        body = bench.do(Op.GET, b"k", consistency)[1]
        assert isinstance(body, list)
        assert body[4] is None


# --- the cluster ---------------------------------------------------------------------------


def test_a_ping_says_who_is_there(bench: Bench) -> None:
    status, body = bench.submit(Op.PING).one
    assert status == Status.OK
    assert isinstance(body, list)
    host = bench.cluster.nodes[0].host
    assert body[0] == 1
    assert body[1] == host.identity.cluster_id
    assert body[3] == bench.cluster.clock.wall_ms()


def test_the_shard_map_has_every_arc_and_its_leader(three: Bench) -> None:
    shard_map = ShardMap.from_wire(three.do(Op.SHARD_MAP)[1])
    assert {info.shard for info in shard_map.shards} == {1, 2}
    assert set(shard_map.nodes) == {1, 2, 3}
    for info in shard_map.shards:
        leader = three.cluster.leader(info.shard)
        assert leader is not None
        assert info.leader == leader.number


def test_leadership_is_transferred_by_an_administrator(three: Bench) -> None:
    leader = three.cluster.leader(1)
    assert leader is not None
    heir = next(n for n in three.cluster.nodes if n is not leader)
    assert three.do(Op.LEADER_TRANSFER, 1, heir.number, who=ROOT) == (Status.OK, [heir.number])
    three.cluster.settle()
    assert three.cluster.leader(1) is heir


@pytest.mark.parametrize(("shard", "node"), [(99, 1), (1, 99), (None, 1), (1, None), ("1", 1)])
def test_a_transfer_of_what_there_is_not_is_refused(
    bench: Bench, shard: object, node: object
) -> None:
    assert bench.do(Op.LEADER_TRANSFER, shard, node, who=ROOT)[0] == Status.BAD_REQUEST


def test_a_join_gives_the_same_store_the_same_membership_each_time(three: Bench) -> None:
    fields = (b"j" * 16, "new:8080", "zone")
    first = three.do(Op.NODE_JOIN, *fields, who=Principal(PEER), node=3)
    status, body = first
    assert status == Status.OK
    assert isinstance(body, list)
    cluster_id, node, meta_replica, members = body
    assert cluster_id == three.cluster.nodes[0].identity.cluster_id
    assert node == 4
    assert meta_replica > 0
    assert [1, "n1:8080"] in members
    again = three.do(Op.NODE_JOIN, *fields, who=Principal(PEER), node=2)[1]
    assert isinstance(again, list)
    assert again[:3] == body[:3]


def test_a_join_with_an_address_that_nobody_can_dial_is_refused(bench: Bench) -> None:
    status, _ = bench.do(Op.NODE_JOIN, b"j" * 16, "not an address", "", who=Principal(PEER))
    assert status == Status.BAD_REQUEST
    assert len(bench.cluster.nodes[0].host.view.nodes) == 1


def test_a_node_that_starts_is_noted_and_one_with_another_disk_is_not(three: Bench) -> None:
    identity = three.cluster.nodes[1].identity
    view = three.cluster.nodes[0].host.view
    fields = (identity.node, identity.store_uuid, identity.boot_counter, "moved:8080")
    assert three.do(Op.NODE_ANNOUNCE, *fields, who=NODE)[0] == Status.OK
    three.cluster.run_until(lambda: three.cluster.nodes[0].host.view is not view)
    assert three.cluster.nodes[0].host.transport.address_of(2) == "moved:8080"
    fields = (identity.node, b"?" * 16, identity.boot_counter, "moved:8080")
    assert three.do(Op.NODE_ANNOUNCE, *fields, who=NODE)[0] == Status.FOREIGN


def test_one_way_frames_are_taken_from_nodes_only(bench: Bench) -> None:
    body = encode_messages([Heartbeat(1, 9, 99, 1, 0, 0)])
    bench.service.deliver(NODE, Op.RAFT, body)
    for who in (LOCAL, ROOT):
        with pytest.raises(ProtocolError):
            bench.service.deliver(who, Op.RAFT, body)


def test_a_node_on_another_disk_is_turned_away(three: Bench) -> None:
    identity = three.cluster.nodes[1].identity
    three.service.admit_peer(identity)
    with pytest.raises(Foreign):
        three.service.admit_peer(attrs.evolve(identity, store_uuid=b"?" * 16))


# --- answering -----------------------------------------------------------------------------


def test_a_stopping_node_refuses_and_says_so(bench: Bench) -> None:
    bench.service.stopping = True
    replies = bench.submit(Op.PUT, None, None, None, b"k", b"v")
    assert replies.one[0] == Status.UNAVAILABLE
    assert replies.outcome == Outcome.NOT_APPLIED
    assert not bench.service.health().ready


def test_a_bug_in_one_request_is_answered_and_leaves_the_others_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_request: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(bench.cluster.nodes[0].host, "submit", broken)
        replies = bench.submit(Op.PUT, None, None, None, b"secret key", b"v")
    assert replies.one[0] == Status.INTERNAL
    assert "secret key" not in str(replies.one[1])
    assert "please report this" in caplog.text
    assert bench.put(b"k", b"v")[0] == Status.OK


def test_every_request_is_counted_once_by_name_and_outcome(bench: Bench) -> None:
    bench.put(b"k", b"v")
    bench.put(b"", b"v")
    bench.do(999)
    text = bench.service.metrics.render()
    assert 'krita_commands_total{op="put",code="ok"} 1' in text, text
    assert 'krita_commands_total{op="put",code="bad_request"} 1' in text
    assert 'krita_commands_total{op="unknown",code="unsupported"} 1' in text


async def test_a_call_waits_for_its_answer(bench: Bench) -> None:
    assert (await bench.service.call(Op.PING, encode_body(Op.PING), LOCAL))[0] == Status.OK
    async with trio.open_nursery() as nursery:
        answers: list[tuple[int, object]] = []

        async def put() -> None:
            body = encode_body(Op.PUT, None, None, None, b"k", b"v")
            answers.append(await bench.service.call(Op.PUT, body, LOCAL))

        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        bench.cluster.settle()
    assert answers[0][0] == Status.OK


# --- health --------------------------------------------------------------------------------


def test_a_node_that_serves_is_live_ready_and_healthy(three: Bench) -> None:
    health = three.service.health()
    assert (health.live, health.ready, health.healthy, health.problems) == (True, True, True, [])


def test_a_node_without_leaders_is_live_and_not_ready(three: Bench) -> None:
    health = without_quorum(three).service.health()
    assert health.live
    assert not health.ready
    assert any("no leader is known" in problem for problem in health.problems)


def test_a_failed_node_is_not_live_and_says_why(bench: Bench) -> None:
    bench.cluster.nodes[0].host.fail(OSError("the disk is gone"))
    health = bench.service.health()
    assert not health.live
    assert not health.ready
    assert "the disk is gone" in health.problems[0]


def test_a_full_disk_and_damage_are_named(bench: Bench) -> None:
    host = bench.cluster.nodes[0].host
    host.note_space(5, True)
    host.damaged[3] = "a row does not match"
    problems = " ".join(bench.service.health().problems)
    assert "below its reserve" in problems
    assert "shard 3 is damaged here: a row does not match" in problems
    assert bench.put(b"k", b"v")[0] == Status.NO_SPACE
    assert bench.do(Op.DELETE, None, None, None, b"k")[0] == Status.OK
    host.note_space(1 << 40, False)
    assert bench.put(b"k", b"v")[0] == Status.OK
