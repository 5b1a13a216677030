"""krita.connection: bytes in, events out, and nothing that a stranger can break."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita.codec import encode, encode_body
from krita.connection import (
    FLAG_FORWARDED,
    Connection,
    Event,
    Goodbye,
    HelloReceived,
    OneWay,
    PeerProved,
    Reply,
    Request,
    SendData,
    ServerConnection,
    State,
    Welcomed,
)
from krita.errors import (
    Busy,
    ConditionFailed,
    Foreign,
    KritaError,
    Outcome,
    ProtocolError,
    Status,
    TooLarge,
    Unauthenticated,
    Unavailable,
    to_wire,
)
from krita.framing import FrameError, pack_frame
from krita.handshake import derive_peer_key
from krita.hello import MAGIC, Hello
from krita.limits import FRAME_BYTES_MAX_HELLO, FRAME_BYTES_MAX_PEER
from krita.operations import Op
from tests.protocol.pair import (
    ACCEPTOR,
    ACCEPTOR_NONCE,
    CLIENT_HELLO,
    FRAME_BYTES_MAX,
    KEY,
    PEER_HELLO,
    judged_peer_pair,
    open_client_pair,
    open_peer_pair,
    sent,
)

_BODY = encode_body(Op.GET, b"k", 0)


def test_a_client_gets_in_with_one_round_trip() -> None:
    client, server = Connection.client(CLIENT_HELLO), Connection.server()
    assert server.receive_data(client.greeting()) == [HelloReceived(CLIENT_HELLO)]
    assert server.state is State.JUDGING
    (event,) = client.receive_data(server.accept(ACCEPTOR, FRAME_BYTES_MAX))
    assert isinstance(event, Welcomed)
    assert event.welcome.identity == ACCEPTOR
    assert client.frame_bytes_max == FRAME_BYTES_MAX
    assert (client.state, server.state) == (State.OPEN, State.OPEN)


def test_a_peer_gets_in_with_two_and_both_are_told() -> None:
    dialer, acceptor, welcome = judged_peer_pair()
    (send,) = dialer.receive_data(welcome)
    assert acceptor.state is State.PROVING
    answer, proved = acceptor.receive_data(sent(send))
    assert proved == PeerProved(PEER_HELLO)
    (welcomed,) = dialer.receive_data(sent(answer))
    assert isinstance(welcomed, Welcomed)
    assert (dialer.state, acceptor.state) == (State.OPEN, State.OPEN)
    assert dialer.frame_bytes_max == acceptor.frame_bytes_max == FRAME_BYTES_MAX_PEER


def test_requests_and_replies_pass_in_any_order() -> None:
    client, server = open_client_pair()
    first, data_1 = client.request(Op.GET, _BODY)
    second, data_2 = client.request(Op.PING, encode_body(Op.PING), deadline_ms=500)
    third, data_3 = client.request(Op.GET, _BODY, flags=FLAG_FORWARDED)
    assert server.receive_data(data_1 + data_2 + data_3) == [
        Request(first, Op.GET, _BODY, None, 0),
        Request(second, Op.PING, b"\x80", 500, 0),
        Request(third, Op.GET, _BODY, None, FLAG_FORWARDED),
    ]
    assert client.in_flight == 3
    replies = server.reply(third, 0, [b"v", 7]) + server.reply(first, 0, None)
    assert client.receive_data(replies) == [Reply(third, 0, [b"v", 7]), Reply(first, 0, None)]
    assert client.in_flight == 1


@given(st.lists(st.binary(max_size=30), max_size=8), st.data())
def test_the_network_may_cut_the_stream_anywhere(bodies: list[bytes], data: st.DataObject) -> None:
    dialer, acceptor = Connection.client(PEER_HELLO, KEY), Connection.server()
    to_acceptor, to_dialer = bytearray(dialer.greeting()), bytearray()
    seen: list[Event] = []
    pending = list(bodies)
    while to_acceptor or to_dialer or pending:
        if pending and dialer.state is State.OPEN:
            to_acceptor += dialer.one_way(Op.RAFT, pending.pop(0))
        for stream, end, back in (
            (to_acceptor, acceptor, to_dialer),
            (to_dialer, dialer, to_acceptor),
        ):
            count = data.draw(st.integers(0, min(len(stream), 60))) or len(stream)
            piece, stream[:count] = bytes(stream[:count]), b""
            for event in end.receive_data(piece) if piece else ():
                if isinstance(event, SendData):
                    back += event.data
                elif isinstance(event, HelloReceived):
                    assert isinstance(end, ServerConnection)
                    back += end.accept(
                        ACCEPTOR, FRAME_BYTES_MAX_PEER, peer_key=KEY, nonce=ACCEPTOR_NONCE
                    )
                else:
                    seen.append(event)
    assert [event.body for event in seen if isinstance(event, OneWay)] == bodies
    assert len(seen) == len(bodies) + 2  # PeerProved and Welcomed


def test_a_request_right_behind_a_peers_proof_is_not_lost() -> None:
    _, acceptor, welcome = judged_peer_pair()
    dialer = Connection.client(PEER_HELLO, KEY)
    proof = sent(dialer.receive_data(welcome)[0])
    large = pack_frame(encode([0, Op.RAFT, bytes(2 * FRAME_BYTES_MAX_HELLO)]))
    events = acceptor.receive_data(proof + large)
    assert [type(event) for event in events] == [SendData, PeerProved, OneWay]


def test_a_large_reply_right_behind_the_welcome_is_not_refused() -> None:
    dialer, acceptor, welcome = judged_peer_pair()
    done = sent(acceptor.receive_data(sent(dialer.receive_data(welcome)[0]))[0])
    events = dialer.receive_data(done + acceptor.goodbye(Unavailable("x" * 5000)))
    assert [type(event) for event in events] == [Welcomed, Goodbye]


def test_one_way_messages_need_no_reply_and_have_no_id() -> None:
    dialer, acceptor = open_peer_pair()
    assert acceptor.receive_data(dialer.one_way(Op.RAFT, b"\x80")) == [OneWay(Op.RAFT, b"\x80")]
    assert dialer.in_flight == 0


def test_a_client_may_not_send_one_way_messages() -> None:
    _, server = open_client_pair()
    with pytest.raises(ProtocolError, match="has the id 0"):
        server.receive_data(pack_frame(encode([0, Op.RAFT, b"\x80"])))


def test_a_peer_s_message_without_a_reply_has_the_id_0_and_no_other() -> None:
    _, acceptor = open_peer_pair()
    with pytest.raises(ProtocolError, match="has the id -1"):
        acceptor.receive_data(pack_frame(encode([-1, Op.RAFT, b"\x80"])))


@pytest.mark.parametrize("options", [(0,), (0, 0), (None, (1 << 64) - 1), ((1 << 64) - 1, 1)])
def test_a_deadline_and_flags_may_be_any_numbers(options: tuple[Any, ...]) -> None:
    _, server = open_client_pair()
    deadline_ms, flags = (*options, 0)[:2]
    (event,) = server.receive_data(pack_frame(encode([9, Op.GET, _BODY, *options])))
    assert event == Request(9, Op.GET, _BODY, deadline_ms, flags)


def test_elements_that_a_newer_side_added_are_ignored() -> None:
    client, server = open_client_pair()
    request = pack_frame(encode([9, Op.GET, _BODY, 100, 1, "new", {"er": 1}]))
    assert server.receive_data(request) == [Request(9, Op.GET, _BODY, 100, 1)]
    request_id, _ = client.request(Op.GET, _BODY)
    reply = pack_frame(encode([request_id, 0, [], "new"]))
    assert client.receive_data(reply) == [Reply(request_id, 0, [])]


def test_unknown_operations_reach_the_caller_who_answers_unsupported() -> None:
    _, server = open_client_pair()
    (event,) = server.receive_data(pack_frame(encode([1, 9999, b""])))
    assert event == Request(1, 9999, b"", None, 0)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([], "not \\[id, op, body\\]"),
        ([1, 2], "not \\[id, op, body\\]"),
        ({"id": 1}, "not \\[id, op, body\\]"),
        (7, "not \\[id, op, body\\]"),
        ([-1, 1, b""], "has the id -1"),
        (["1", 1, b""], "no number"),
        ([True, 1, b""], "no number"),
        ([1, None, b""], "no number"),
        ([1, 1, []], "body no bytes"),
        ([1, 1, "text"], "body no bytes"),
        ([1, 1, b"", -1], "deadline"),
        ([1, 1, b"", 1.5], "deadline"),
        ([1, 1, b"", None, "1"], "flags"),
        ([1, 1, b"", None, -1], "flags"),
    ],
)
def test_a_malformed_request_ends_the_connection_with_a_reason(item: object, reason: str) -> None:
    _, server = open_client_pair()
    with pytest.raises(ProtocolError, match=reason):
        server.receive_data(pack_frame(encode(item)))
    assert server.state is State.CLOSED
    with pytest.raises(ProtocolError, match="closed"):
        server.receive_data(b"")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ([1, 0], "not \\[id, status, body\\]"),
        ("reply", "not \\[id, status, body\\]"),
        (["1", 0, None], "not a number"),
        ([1, None, None], "not a number"),
        ([1, -1, None], "not a number"),
        ([0, 0, None], "the id 0, which no request"),
        ([2, 0, None], "the id 2, which no request"),
        ([2, int(Status.UNAVAILABLE), None], "the id 2, which no request"),
        ([-1, 0, None], "the id -1, which no request"),
    ],
)
def test_a_malformed_reply_ends_the_connection_with_a_reason(item: object, reason: str) -> None:
    client, _ = open_client_pair()
    assert client.request(Op.GET, _BODY)[0] == 1
    with pytest.raises(ProtocolError, match=reason):
        client.receive_data(pack_frame(encode(item)))
    assert client.state is State.CLOSED
    with pytest.raises(ProtocolError, match="closed"):
        client.receive_data(b"")


def test_a_second_reply_to_one_request_ends_the_connection() -> None:
    client, server = open_client_pair()
    request_id, _ = client.request(Op.GET, _BODY)
    reply = server.reply(request_id, 0, None)
    assert client.receive_data(reply) == [Reply(request_id, 0, None)]
    with pytest.raises(ProtocolError, match="no request waits"):
        client.receive_data(reply)


def test_an_error_reply_says_which_error() -> None:
    client, server = open_client_pair()
    request_id, _ = client.request(Op.PUT, _BODY)
    error = ConditionFailed("it is at 7", hint="read it again", detail={"revision": 7})
    (event,) = client.receive_data(server.reply(request_id, error.status, to_wire(error)))
    assert isinstance(event, Reply)
    again = event.error()
    assert isinstance(again, ConditionFailed)
    assert (str(again), again.detail) == ("it is at 7 (read it again)", {"revision": 7})
    assert again.outcome is Outcome.NOT_APPLIED
    assert Reply(1, 0, None).error() is None


def test_a_goodbye_comes_behind_the_replies_that_were_sent_before_it() -> None:
    client, server = open_client_pair()
    request_id, _ = client.request(Op.GET, _BODY)
    another_id, _ = client.request(Op.GET, _BODY)
    data = server.reply(request_id, 0, None)
    too_late = server.reply(another_id, 0, None)
    data += server.goodbye(Unavailable("stopping")) + too_late
    reply, goodbye = client.receive_data(data)
    assert reply == Reply(request_id, 0, None)
    assert isinstance(goodbye, Goodbye)
    assert isinstance(goodbye.error, Unavailable)
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)


def test_a_refused_client_learns_why() -> None:
    client, server = Connection.client(CLIENT_HELLO), Connection.server()
    server.receive_data(client.greeting())
    (event,) = client.receive_data(server.refuse(Unauthenticated("no such token")))
    assert isinstance(event, Goodbye)
    assert isinstance(event.error, Unauthenticated)
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)


def test_a_peer_with_another_token_is_refused_and_learns_why() -> None:
    # The acceptor cannot be fooled by a dialer that skips its own check.
    acceptor = judged_peer_pair()[1]
    with pytest.raises(Unauthenticated) as caught:
        acceptor.receive_data(pack_frame(encode([bytes(32)])))
    dialer, _, welcome = judged_peer_pair()
    dialer.receive_data(welcome)
    (event,) = dialer.receive_data(acceptor.goodbye(caught.value))
    assert isinstance(event, Goodbye)
    assert isinstance(event.error, Unauthenticated)


def test_a_dialer_does_not_prove_itself_to_a_foreign_acceptor() -> None:
    dialer, _, welcome = judged_peer_pair(acceptor_key=derive_peer_key(b"other"))
    with pytest.raises(Foreign):
        dialer.receive_data(welcome)
    assert dialer.state is State.CLOSED


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n", b"\x00KRITA\x02\n", b"\x16\x03\x01"])
def test_another_protocol_is_refused_at_its_first_wrong_byte(greeting: bytes) -> None:
    with pytest.raises(ProtocolError, match="magic"):
        Connection.server().receive_data(greeting)


def test_a_hello_over_the_limit_is_refused_before_it_arrives() -> None:
    with pytest.raises(FrameError):
        Connection.server().receive_data(MAGIC + (FRAME_BYTES_MAX_HELLO + 1).to_bytes(4))


@pytest.mark.parametrize("later", [False, True])
def test_a_client_that_does_not_wait_for_its_welcome_is_refused(later: bool) -> None:
    client, server = Connection.client(CLIENT_HELLO), Connection.server()
    request = pack_frame(encode([1, Op.GET, _BODY]))
    first, second = (client.greeting(), request) if later else (client.greeting() + request, b"")
    with pytest.raises(ProtocolError, match="did not wait"):  # noqa: PT012
        server.receive_data(first)
        server.receive_data(second)
    (event,) = client.receive_data(server.goodbye(ProtocolError("wait")))
    assert isinstance(event, Goodbye)


def test_a_request_that_the_server_would_refuse_is_not_sent() -> None:
    client, _ = open_client_pair()
    with pytest.raises(TooLarge) as caught:
        client.request(Op.PUT, bytes(FRAME_BYTES_MAX + 1))
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert client.in_flight == 0
    assert client.request(Op.GET, _BODY)[0] == 1


def test_what_just_fits_into_a_frame_is_sent_both_ways() -> None:
    client, server = open_client_pair()
    fits = bytes(2 * FRAME_BYTES_MAX - len(encode([1, int(Op.PUT), bytes(FRAME_BYTES_MAX)])))
    request_id, data = client.request(Op.PUT, fits)
    assert server.receive_data(data) == [Request(request_id, Op.PUT, fits, None, 0)]
    fits = bytes(2 * FRAME_BYTES_MAX - len(encode([1, 0, bytes(FRAME_BYTES_MAX)])))
    assert client.receive_data(server.reply(1, 0, fits)) == [Reply(1, 0, fits)]
    client.request(Op.GET, _BODY)
    (event,) = client.receive_data(server.reply(2, 0, fits + b"x"))
    assert isinstance(event, Reply)
    assert event.status == Status.TOO_LARGE


def test_an_answer_that_is_too_large_becomes_an_error() -> None:
    client, server = open_client_pair()
    request_id, _ = client.request(Op.GET, _BODY)
    (event,) = client.receive_data(server.reply(request_id, 0, bytes(FRAME_BYTES_MAX)))
    assert isinstance(event, Reply)
    assert event.status == Status.TOO_LARGE
    error = event.error()
    assert isinstance(error, TooLarge)
    assert error.outcome is Outcome.UNKNOWN


@given(st.lists(st.binary(max_size=80), max_size=5), st.booleans())
def test_arbitrary_bytes_raise_nothing_but_krita_errors(pieces: list[bytes], framed: bool) -> None:
    for end in (Connection.client(Hello()), Connection.server(), *open_client_pair()):
        with contextlib.suppress(KritaError):
            for piece in pieces:
                end.receive_data(pack_frame(piece) if framed else piece)


@given(st.data())
def test_a_mutated_stream_raises_nothing_but_krita_errors(data: st.DataObject) -> None:
    client, server = open_client_pair()
    stream = bytearray(b"".join(client.request(Op.GET, _BODY, 5)[1] for _ in range(4)))
    for _ in range(data.draw(st.integers(1, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(KritaError):
        server.receive_data(bytes(stream))


def test_connections_say_where_they_stand() -> None:
    client, server = open_client_pair()
    client.request(Op.GET, _BODY)
    assert repr(client) == (
        "<Connection client open in_flight=1 next_id=2 <FrameBuffer holds 0, wants 4 bytes>>"
    )
    assert repr(server) == "<ServerConnection client open <FrameBuffer holds 0, wants 4 bytes>>"
    server.goodbye(Busy("full"))
    assert "closed" in repr(server)
