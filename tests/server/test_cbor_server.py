"""One CBOR connection over a real socket: who gets in, bounds, ends."""

from __future__ import annotations

import struct

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from krita.codec import encode, encode_body
from krita.errors import Busy, Foreign, KritaError, Status, Unauthenticated
from krita.framing import pack_frame
from krita.handshake import derive_peer_key
from krita.hello import FEATURES, MAGIC, Hello, Identity, Role
from krita.operations import Op
from kritad.server.limits import ServerLimits
from tests.server.raw import RawCbor, cbor, is_alive, last_words
from tests.server.service import CLUSTER, TOKEN, Running, running, until

GREETING = MAGIC + pack_frame(encode(Hello().to_wire()))


def get(key: bytes) -> bytes:
    return encode_body(Op.GET, key, 0)


def put(key: bytes, value: bytes) -> bytes:
    return encode_body(Op.PUT, None, None, None, key, value, None, None)


def peer_hello(cluster_id: bytes = CLUSTER) -> Hello:
    identity = Identity(cluster_id, 7, b"t" * 16, 1, "127.0.0.1:9")
    return Hello(
        features=FEATURES, role=Role.PEER, lane="urgent", identity=identity, nonce=b"n" * 16
    )


async def is_served(node: Running) -> bool:
    """Whether well-behaved clients of both kinds are served."""
    async with cbor(node) as raw:
        pong = await raw.request(Op.PING)
    return pong.status == 0 and await is_alive(node)


async def test_a_put_is_read_back() -> None:
    async with running() as node, cbor(node) as raw:
        reply = await raw.request(Op.PUT, None, None, None, b"k", b"v", None, None)
        assert (reply.status, reply.body) == (0, [1, False])
        reply = await raw.request(Op.GET, b"k", 0, deadline_ms=250)
        assert reply.body == [b"v", 1, None, 1, None]
        assert node.service.options == (250, 0)


async def test_replies_come_as_they_are_ready_and_not_in_the_order_of_the_requests() -> None:
    async with running() as node, cbor(node) as raw:
        node.service.hold()
        first, data = raw.connection.request(Op.PING, encode_body(Op.PING))
        await raw.stream.send_all(data)
        await until(lambda: node.service.held == 1)
        held = node.service.take_held()
        assert (await raw.request(Op.GET, b"k", 0)).status == 0
        for answer in held:
            answer()
        assert (await raw.reply(first)).status == 0


async def test_an_unknown_operation_is_answered_and_the_connection_goes_on() -> None:
    async with running() as node, cbor(node) as raw:
        request_id, data = raw.connection.request(200, b"\x80")
        await raw.stream.send_all(data)
        assert (await raw.reply(request_id)).status == Status.UNSUPPORTED
        assert (await raw.request(Op.PING)).status == 0


async def test_a_client_without_a_valid_token_is_refused_and_told_so() -> None:
    async with running() as node:
        with pytest.raises(Unauthenticated):
            async with cbor(node, Hello(token=b"wrong")):
                pass
        async with cbor(node, Hello(token=TOKEN)) as raw:
            await raw.request(Op.PING)
        assert node.service.principals[-1].kind == "admin"


async def test_a_peer_that_proves_itself_sends_one_way_and_asks() -> None:
    async with running() as node, cbor(node, peer_hello(), derive_peer_key(TOKEN)) as raw:
        await raw.stream.send_all(raw.connection.one_way(Op.RAFT, b"\x82\xf6\xf6"))
        assert (await raw.request(Op.PING)).status == 0
        ((principal, op, body),) = node.service.delivered
        assert (principal.kind, principal.node, op, body) == ("peer", 7, Op.RAFT, b"\x82\xf6\xf6")
        assert node.service.principals[-1].kind == "peer"


async def test_a_peer_of_another_cluster_is_refused_and_told_which() -> None:
    async with running() as node:
        with pytest.raises(Foreign, match=CLUSTER.hex()):
            async with cbor(node, peer_hello(b"x" * 16), derive_peer_key(TOKEN)):
                pass
        assert node.service.admitted == []
        async with cbor(node, peer_hello(b""), derive_peer_key(TOKEN)) as raw:
            assert (await raw.request(Op.PING)).status == 0, "a node that joins has no cluster yet"


async def test_strangers_that_take_this_node_for_theirs_are_logged_once_and_not_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as node:
        for number in (*range(40), 0, 0):
            with pytest.raises(Foreign):
                async with cbor(node, peer_hello(bytes([number + 1]) * 16), derive_peer_key(TOKEN)):
                    pass
    said = [record.getMessage() for record in caplog.records if "takes it for" in record.message]
    assert len(said) == 16
    assert f"this node belongs to cluster {CLUSTER.hex()}" in said[0]
    assert "--join_ip" in said[0]


async def until_refused(node: Running, hello: Hello) -> None:
    """Connect, and raise what the server says when it ends the connection."""
    async with cbor(node, hello, derive_peer_key(TOKEN)) as raw:
        goodbye = await raw.until_closed()
    assert goodbye is not None
    raise goodbye


async def test_a_peer_that_the_cluster_does_not_know_so_is_told_why() -> None:
    async with running() as node:
        node.service.turn_away = Foreign("node 7 has another store")
        with pytest.raises(Foreign, match="another store"):
            await until_refused(node, peer_hello())


async def test_a_peer_without_the_key_is_refused_before_it_may_send_anything() -> None:
    async with running() as node:
        with pytest.raises(Foreign):  # its own check, of our proof
            async with cbor(node, peer_hello(), derive_peer_key(b"another token")):
                pass
        hello = MAGIC + pack_frame(encode(peer_hello().to_wire()))
        proof = pack_frame(encode([b"p" * 32]))
        async with await node.connect() as stream:
            await stream.send_all(hello)
            await stream.receive_some()  # the welcome
            await stream.send_all(proof + pack_frame(encode([0, int(Op.RAFT), b"\x80"])))
            while await stream.receive_some():
                pass
        assert node.service.delivered == []


async def test_requests_that_come_before_the_welcome_are_refused() -> None:
    async with running() as node:
        early = pack_frame(encode([1, int(Op.PING), b"\x80"]))
        error = await last_words(node, GREETING + early)
        assert "did not wait for the welcome" in error.message
        assert node.service.submitted == 0


def nested(depth: int) -> bytes:
    return b"\x81" * depth + b"\x00"


def colliding(count: int) -> bytes:
    """A map whose keys, were they taken, would all have one hash."""
    keys = b"".join(b"\x1b" + struct.pack(">Q", 1 + i * (2**61 - 1) % 2**64) for i in range(count))
    pairs = b"".join(keys[i : i + 9] + b"\x00" for i in range(0, len(keys), 9))
    return b"\xb9" + struct.pack(">H", count) + pairs


BROKEN = {
    "a frame of 2**32-1 bytes": (b"\xff\xff\xff\xff", "4294967295"),
    "a frame of 0 bytes": (b"\x00\x00\x00\x00", "empty"),
    "an item that ends within": (pack_frame(b"\x83\x01"), "end within"),
    "bytes after the item": (pack_frame(b"\x83\x01\x10\x40\x00"), "left over"),
    "an array too deep": (pack_frame(nested(40)), "not CBOR"),
    "a million arrays in each other": (pack_frame(nested(1_000_000)), "not CBOR"),
    "a key twice": (pack_frame(b"\xa2\x61a\x00\x61a\x01"), "not CBOR"),
    "a tag": (pack_frame(b"\xc0\x61a"), "tags are not allowed"),
    "a regular expression": (pack_frame(b"\xd8\x23\x61a"), "tags are not allowed"),
    "a bignum": (pack_frame(b"\xc2\x49" + b"\xff" * 9), "tags are not allowed"),
    "an indefinite array": (pack_frame(b"\x9f\x01\xff"), "not CBOR"),
    "text that is no UTF-8": (pack_frame(b"\x62\xff\xff"), "not CBOR"),
    "a reserved initial byte": (pack_frame(b"\x1c"), "not CBOR"),
    "16,000 colliding keys": (pack_frame(colliding(16_000)), "not CBOR"),
    "an item that is no request": (pack_frame(encode("hello")), "not [id, op, body]"),
    "a request of two elements": (pack_frame(encode([1, 2])), "not [id, op, body]"),
    "a body that is no byte string": (pack_frame(encode([1, 2, []])), "no bytes"),
    "an id below nought": (pack_frame(encode([-1, 1, b""])), "id -1"),
    "a one-way message of a client": (pack_frame(encode([0, int(Op.RAFT), b""])), "id 0"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_frame_ends_its_connection_with_a_reason_and_no_other(name: str) -> None:
    data, says = BROKEN[name]
    async with running() as node, cbor(node) as good, cbor(node) as raw:
        assert (await raw.request(Op.PING)).status == 0
        await raw.stream.send_all(data)
        error = await raw.until_closed()
        assert isinstance(error, KritaError)
        assert error.status is Status.BAD_REQUEST
        assert says in error.message
        assert (await good.request(Op.PING)).status == 0
        assert await is_served(node)


async def test_a_frame_cut_short_by_the_end_of_the_connection_is_no_request() -> None:
    async with running() as node:
        async with cbor(node) as raw:
            _, data = raw.connection.request(Op.PUT, put(b"k", b"v"))
            await raw.stream.send_all(data[:-1])
            await raw.stream.send_eof()
            assert await raw.until_closed() is None
        assert node.service.submitted == 0
        assert await is_served(node)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"\x00KRITA\x02\n", "magic"),
        (MAGIC + b"\xff\xff\xff\xff", "4294967295"),
        (MAGIC + struct.pack(">I", 1 << 20), "1048576"),
        (MAGIC + pack_frame(b"\xff"), "not CBOR"),
        (MAGIC + pack_frame(encode([])), "malformed"),
        (MAGIC + pack_frame(encode([9, 9, 0, 0, "", None, None, None])), "versions"),
    ],
    ids=["other magic", "huge", "1 MB before the hello", "no CBOR", "no hello", "other version"],
)
async def test_a_bad_hello_is_refused_with_a_reason(sent: bytes, says: str) -> None:
    async with running() as node:
        assert says in (await last_words(node, sent)).message
        assert await is_served(node)


async def test_a_hello_that_does_not_come_in_time_is_refused(quick_clock: MockClock) -> None:
    async with running() as node:
        since = quick_clock.current_time()
        error = await last_words(node, MAGIC + b"\x00\x00")
        assert "hello" in error.message
        assert 4.7 < quick_clock.current_time() - since < 5.5


async def test_a_client_that_is_idle_stays_connected(quick_clock: MockClock) -> None:
    async with running() as node, cbor(node) as raw:
        await trio.sleep(90)  # longer than any deadline there is
        assert (await raw.request(Op.PING)).status == 0
        assert quick_clock.current_time() >= 90


async def send_pings(raw: RawCbor, count: int) -> list[int]:
    pings = [raw.connection.request(Op.PING, encode_body(Op.PING)) for _ in range(count)]
    await raw.stream.send_all(b"".join(data for _, data in pings))
    return [request_id for request_id, _ in pings]


async def test_no_more_than_the_bound_is_in_flight_and_everything_is_answered() -> None:
    limits = ServerLimits(requests_in_flight_max=10)
    async with running(limits) as node, cbor(node) as raw:
        node.service.hold()
        ids = await send_pings(raw, 100)
        await until(lambda: node.service.held == 10)
        await wait_all_tasks_blocked()
        assert node.service.submitted == 10
        for _ in range(5):
            node.service.release_one()
        await until(lambda: node.service.held == 10)
        assert node.service.submitted == 15
        node.service.release()
        for request_id in ids:
            assert (await raw.reply(request_id)).status == 0


def polls(raw: RawCbor, count: int) -> bytes:
    body = encode_body(Op.CHANGES, 1, 0, None, None, None, 60_000, None)
    return b"".join(raw.connection.request(Op.CHANGES, body)[1] for _ in range(count))


async def test_polls_that_wait_take_no_request_s_place() -> None:
    limits = ServerLimits(requests_in_flight_max=4, polls_in_flight_max=10)
    async with running(limits) as node, cbor(node) as raw:
        node.service.hold()
        await raw.stream.send_all(polls(raw, 9))
        await send_pings(raw, 3)
        await until(lambda: node.service.held == 12)
        await send_pings(raw, 2)
        await until(lambda: node.service.held == 13)
        await wait_all_tasks_blocked()
        assert node.service.submitted == 13, "of the others there are as many as may be"


async def test_of_polls_there_is_a_bound_as_well_and_everything_is_answered() -> None:
    limits = ServerLimits(requests_in_flight_max=4, polls_in_flight_max=10)
    async with running(limits) as node, cbor(node) as raw:
        node.service.hold()
        await raw.stream.send_all(polls(raw, 15))
        ids = await send_pings(raw, 1)
        await until(lambda: node.service.held == 10)
        await wait_all_tasks_blocked()
        assert node.service.submitted == 10
        node.service.release()
        assert (await raw.reply(ids[0])).status == 0


async def test_a_client_that_has_finished_sending_still_gets_its_replies() -> None:
    async with running() as node, cbor(node) as raw:
        node.service.hold()
        ids = await send_pings(raw, 3)
        await raw.stream.send_eof()
        await until(lambda: node.service.held == 3)
        await wait_all_tasks_blocked(0.01)  # the end has been read, too
        node.service.release()
        for request_id in ids:
            assert (await raw.reply(request_id)).status == 0
        assert await raw.until_closed() is None


async def test_a_client_that_does_not_read_is_not_read_either_and_then_closed(
    quick_clock: MockClock,
) -> None:
    async with running() as node:
        async with cbor(node) as raw:
            await raw.request(Op.PUT, None, None, None, b"k", b"x" * 1_000_000, None, None)
            gets = [raw.connection.request(Op.GET, get(b"k"))[1] for _ in range(900)]
            await raw.stream.send_all(b"".join(gets))
            since = quick_clock.current_time()
            await node.until_quiet()
            assert 29 < quick_clock.current_time() - since < 33
            assert node.service.submitted < 100, "replies were gathered without end"
        assert 'krita_cbor_refusals_total{code="slow_consumer"} 1' in node.service.metrics.render()
        assert await is_served(node)


async def test_replies_to_what_was_in_flight_beyond_the_bound_close_the_connection() -> None:
    limits = ServerLimits(output_bytes_max=8_000_000)
    async with running(limits) as node, cbor(node) as raw:
        await raw.request(Op.PUT, None, None, None, b"k", b"x" * 1_000_000, None, None)
        node.service.hold()
        gets = [raw.connection.request(Op.GET, get(b"k"))[1] for _ in range(20)]
        await raw.stream.send_all(b"".join(gets))
        await until(lambda: node.service.held == 20)
        node.service.release()
        await node.until_quiet()
        assert 'krita_cbor_refusals_total{code="slow_consumer"} 1' in node.service.metrics.render()
        assert await is_served(node)


async def test_a_reader_that_is_merely_slow_gets_everything_and_stays(
    quick_clock: MockClock,
) -> None:
    async with running() as node, cbor(node) as raw:
        await raw.request(Op.PUT, None, None, None, b"k", b"x" * 500_000, None, None)
        gets = [raw.connection.request(Op.GET, get(b"k")) for _ in range(60)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.stream.send_all, b"".join(data for _, data in gets))
            for request_id, _ in gets:
                reply = await raw.reply(request_id)
                assert isinstance(reply.body, list)
                assert len(reply.body[0]) == 500_000
        await trio.sleep(90)
        assert (await raw.request(Op.PING)).status == 0
        assert quick_clock.current_time() >= 90


async def test_a_bug_ends_its_connection_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as node, cbor(node) as good:
        async with cbor(node) as raw:
            node.service.bug = ZeroDivisionError("planted")
            await send_pings(raw, 1)
            assert await raw.until_closed() is None
        node.service.bug = None
        assert "planted" in caplog.text
        assert "krita_connection_failures_total 1" in node.service.metrics.render()
        assert (await good.request(Op.PING)).status == 0
        assert await is_served(node)


async def test_a_client_too_many_is_told_so_and_a_peer_is_let_in() -> None:
    limits = ServerLimits(connections_max=1, connections_reserved=2)
    async with running(limits) as node, cbor(node):
        with pytest.raises(Busy, match="connections_max"):
            async with cbor(node):
                pass
        async with cbor(node, peer_hello(), derive_peer_key(TOKEN)) as peer:
            assert (await peer.request(Op.PING)).status == 0
