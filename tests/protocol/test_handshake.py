"""krita.handshake: who gets in, and who cannot pretend to be somebody else."""

from __future__ import annotations

import hashlib
import hmac

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from krita import handshake, hello
from krita.codec import decode, encode
from krita.errors import (
    Busy,
    Foreign,
    ProtocolError,
    Unauthenticated,
    Unsupported,
)
from krita.handshake import (
    ClientHandshake,
    ServerHandshake,
    derive_peer_key,
    refusal_from_wire,
    refusal_to_wire,
)
from krita.hello import (
    BOOT_NONCES_MAX,
    FEATURES,
    Hello,
    Identity,
    Role,
    Welcome,
    choose_version,
)
from krita.limits import FRAME_BYTES_MAX_HELLO, FRAME_BYTES_MAX_PEER
from tests.protocol.pair import (
    ACCEPTOR,
    ACCEPTOR_NONCE,
    CLIENT_HELLO,
    DIALER,
    DIALER_NONCE,
    KEY,
    PEER_HELLO,
)

BOOTED_HELLO = attrs.evolve(
    PEER_HELLO, identity=attrs.evolve(DIALER, boot_nonces=(b"1" * 16, b"2" * 16))
)


def _welcomed(acceptor_key: bytes = KEY) -> tuple[ClientHandshake, ServerHandshake, bytes]:
    dialer, acceptor = ClientHandshake(PEER_HELLO, KEY), ServerHandshake()
    assert acceptor.receive(dialer.hello_payload) is None
    welcome = acceptor.accept(
        ACCEPTOR, FRAME_BYTES_MAX_PEER, peer_key=acceptor_key, nonce=ACCEPTOR_NONCE
    )
    return dialer, acceptor, welcome


def test_two_nodes_with_one_token_prove_themselves_to_each_other() -> None:
    dialer, acceptor, welcome = _welcomed()
    proof = dialer.receive(welcome)
    assert proof is not None
    assert not dialer.done
    done = acceptor.receive(proof)
    assert acceptor.done
    assert done == encode([0])
    assert dialer.receive(done) is None
    assert dialer.done
    assert dialer.welcome is not None
    assert dialer.welcome.identity == ACCEPTOR
    assert acceptor.hello == PEER_HELLO


def test_the_proofs_are_the_hmacs_that_the_specification_says() -> None:
    dialer, _, welcome = _welcomed()
    key = hmac.new(b"admin token of the tests", b"krita peer key v1", hashlib.sha256).digest()
    hello_hash = hashlib.sha256(dialer.hello_payload).digest()
    identity = encode([ACCEPTOR.cluster_id, 1, b"S" * 16, 3, "10.0.0.1:8080"])
    item = decode(welcome)
    assert isinstance(item, list)
    assert (
        item[5]
        == hmac.new(
            key,
            b"krita acceptor" + hello_hash + DIALER_NONCE + ACCEPTOR_NONCE + identity,
            hashlib.sha256,
        ).digest()
    )
    proof = dialer.receive(welcome)
    signed = b"krita dialer" + hello_hash + hashlib.sha256(welcome).digest()
    assert proof == encode([hmac.new(key, signed, hashlib.sha256).digest()])


def test_an_acceptor_with_another_admin_token_is_foreign() -> None:
    dialer, _, welcome = _welcomed(acceptor_key=derive_peer_key(b"other"))
    with pytest.raises(Foreign, match="KRITA_ADMIN_TOKEN"):
        dialer.receive(welcome)
    assert not dialer.done


def test_a_dialer_with_another_admin_token_is_not_authenticated() -> None:
    _, acceptor, welcome = _welcomed()
    stranger = handshake.dialer_proof(
        derive_peer_key(b"other"), encode(PEER_HELLO.to_wire()), welcome
    )
    with pytest.raises(Unauthenticated, match="KRITA_ADMIN_TOKEN"):
        acceptor.receive(encode([stranger]))
    assert not acceptor.done


def test_a_recorded_proof_is_of_no_use_on_another_connection() -> None:
    dialer, _, welcome = _welcomed()
    recorded = dialer.receive(welcome)
    assert recorded is not None
    acceptor = ServerHandshake()
    acceptor.receive(encode(PEER_HELLO.to_wire()))
    acceptor.accept(ACCEPTOR, FRAME_BYTES_MAX_PEER, peer_key=KEY, nonce=b"\x03" * 16)
    with pytest.raises(Unauthenticated):
        acceptor.receive(recorded)


def test_a_recorded_welcome_is_of_no_use_on_another_connection() -> None:
    _, _, recorded = _welcomed()
    dialer = ClientHandshake(attrs.evolve(PEER_HELLO, nonce=b"\x04" * 16), KEY)
    with pytest.raises(Foreign):
        dialer.receive(recorded)


def test_a_proof_sent_back_to_the_one_who_made_it_is_refused() -> None:
    dialer, acceptor, welcome = _welcomed()
    item = decode(welcome)
    assert isinstance(item, list)
    with pytest.raises(Unauthenticated):
        acceptor.receive(encode([item[5]]))
    del dialer


@given(st.data())
def test_any_bit_changed_on_the_way_is_noticed_by_one_of_the_two(data: st.DataObject) -> None:
    dialer, acceptor, welcome = _welcomed()
    changed = bytearray(welcome)
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        proof = dialer.receive(bytes(changed))
    except (ProtocolError, Foreign, Unsupported):
        return
    if proof is None:
        assert dialer.refusal is not None  # it reads as a refusal now
        return
    with pytest.raises(Unauthenticated):
        acceptor.receive(proof)


def test_a_client_needs_no_second_round() -> None:
    client, acceptor = ClientHandshake(CLIENT_HELLO), ServerHandshake()
    acceptor.receive(client.hello_payload)
    assert acceptor.hello == CLIENT_HELLO
    welcome = acceptor.accept(ACCEPTOR, 1 << 20)
    assert acceptor.done
    assert client.receive(welcome) is None
    assert client.done
    assert client.welcome == Welcome(1, 0, ACCEPTOR, 1 << 20)


def test_a_refusal_is_told_apart_from_what_we_find_ourselves() -> None:
    client = ClientHandshake(CLIENT_HELLO)
    refusal = refusal_to_wire(Busy("full", hint="later"))
    assert client.receive(encode(refusal)) is None
    assert isinstance(client.refusal, Busy)
    assert str(client.refusal) == "full (later)"
    assert not client.done
    assert refusal_from_wire([0]) is None


def test_a_peer_can_still_be_refused_after_its_proof() -> None:
    dialer, _, welcome = _welcomed()
    dialer.receive(welcome)
    dialer.receive(encode(refusal_to_wire(Unauthenticated("no"))))
    assert isinstance(dialer.refusal, Unauthenticated)
    assert not dialer.done


@pytest.mark.parametrize(
    ("low", "high", "chosen"), [(1, 1, 3), (1, 9, 5), (4, 9, 5), (2, 4, 4), (5, 5, 5)]
)
def test_the_highest_common_version_is_chosen(
    low: int, high: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hello, "VERSION_MIN", 2)
    monkeypatch.setattr(hello, "VERSION_MAX", 5)
    said = Hello(version_min=low, version_max=high)
    if high < 2:
        with pytest.raises(Unsupported, match="speaks protocol versions 1 to 1, this one 2 to 5"):
            choose_version(said)
    else:
        assert choose_version(said) == chosen


def test_a_dialer_that_is_too_new_is_refused() -> None:
    with pytest.raises(Unsupported):
        ServerHandshake().receive(encode(Hello(version_min=2, version_max=3).to_wire()))


def test_a_version_that_was_never_offered_is_not_accepted() -> None:
    client = ClientHandshake(CLIENT_HELLO)
    with pytest.raises(Unsupported, match="chose version 2"):
        client.receive(encode(Welcome(2, 0, ACCEPTOR, 1 << 20).to_wire()))


def test_only_features_that_both_know_are_agreed_on() -> None:
    client, acceptor = ClientHandshake(Hello(features=FEATURES | 0b100)), ServerHandshake()
    acceptor.receive(client.hello_payload)
    client.receive(acceptor.accept(ACCEPTOR, 1 << 20))
    assert client.welcome is not None
    assert client.welcome.features == FEATURES


def test_a_node_whose_release_reads_logs_otherwise_is_refused_by_both_sides() -> None:
    older = attrs.evolve(PEER_HELLO, features=0)
    with pytest.raises(Unsupported, match="does not understand what this one writes"):
        ServerHandshake().receive(encode(older.to_wire()))
    dialer = ClientHandshake(PEER_HELLO, KEY)
    nonce, proof = b"n" * 16, b"p" * 32
    with pytest.raises(Unsupported, match="features 0x0, needed are 0x1") as refused:
        dialer.receive(encode(Welcome(1, 0, ACCEPTOR, 1 << 20, nonce, proof).to_wire()))
    assert "install the same release on each" in refused.value.hint


def test_a_node_of_a_later_release_that_still_reads_our_logs_is_let_in() -> None:
    acceptor = ServerHandshake()
    acceptor.receive(encode(attrs.evolve(PEER_HELLO, features=FEATURES | 0b110).to_wire()))
    acceptor.accept(ACCEPTOR, 1 << 20, peer_key=KEY, nonce=b"n" * 16)


def test_a_client_needs_no_features() -> None:
    acceptor = ServerHandshake()
    acceptor.receive(encode(CLIENT_HELLO.to_wire()))
    acceptor.accept(ACCEPTOR, 1 << 20)
    assert acceptor.done


def test_a_claimed_frame_limit_is_not_believed_beyond_our_own() -> None:
    wire = Welcome(1, 0, ACCEPTOR, 1 << 40).to_wire()
    assert Welcome.from_wire(wire).frame_bytes_max == FRAME_BYTES_MAX_PEER


def test_values_survive_the_wire_and_unknown_elements_are_ignored() -> None:
    for said in (CLIENT_HELLO, PEER_HELLO):
        assert Hello.from_wire([*said.to_wire(), None, "new"]) == said
    assert Hello.from_wire([*BOOTED_HELLO.to_wire(), "new"]) == BOOTED_HELLO
    assert Identity.from_wire([*ACCEPTOR.to_wire(), "new"]) == ACCEPTOR
    assert Welcome.from_wire([*Welcome(1, 0, ACCEPTOR, 9).to_wire(), 1]) == Welcome(
        1, 0, ACCEPTOR, 9
    )


@pytest.mark.parametrize("said", [CLIENT_HELLO, attrs.evolve(CLIENT_HELLO, token=None)])
def test_what_is_missing_at_the_end_of_a_hello_is_null(said: Hello) -> None:
    wire = said.to_wire()
    while wire[-1] is None:
        wire.pop()
    assert len(wire) == (5 if said.token is None else 7)
    acceptor = ServerHandshake()
    acceptor.receive(encode(wire))
    assert acceptor.hello == said


def test_a_peer_s_hello_that_ends_too_soon_is_refused() -> None:
    with pytest.raises(ProtocolError, match="lacks its identity or its nonce"):
        Hello.from_wire(PEER_HELLO.to_wire()[:7])


_GOOD = BOOTED_HELLO.to_wire()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 0), (0, 2), (0, "1"), (1, 0), (2, -1), (2, None), (3, "peer"), (4, None), (4, "x" * 33),
        (5, None), (5, []), (5, [b"c" * 15, 1, b"s" * 16, 1, "a"]), (5, [b"", 1, b"s", 1, "a"]),
        (5, [b"", -1, b"s" * 16, 1, "a"]), (5, [b"", 1, b"s" * 16, 1, "a" * 301]),
        (6, "text"), (6, b"t" * 1025), (7, None), (7, b"short"),
        (8, "text"), (8, [b"short"]), (8, [b"n" * 16] * 17),
    ],
)  # fmt: skip
def test_a_malformed_hello_is_a_protocol_error(place: int, value: object) -> None:
    wire = [*_GOOD[:place], value, *_GOOD[place + 1 :]]
    with pytest.raises(ProtocolError):
        ServerHandshake().receive(encode(wire))


def test_a_role_of_the_future_is_unsupported_not_malformed() -> None:
    with pytest.raises(Unsupported, match="role 2"):
        Hello.from_wire([*_GOOD[:3], 2, *_GOOD[4:]])


@pytest.mark.parametrize("item", [None, [], [0], [0, 1, 0, None, None, None, 1], {"a": 1}])
def test_a_malformed_welcome_is_a_protocol_error(item: object) -> None:
    with pytest.raises(ProtocolError):
        ClientHandshake(CLIENT_HELLO).receive(encode(item))


@pytest.mark.parametrize(
    ("nonce", "proof"), [(None, None), (None, b"p" * 32), (b"n" * 15, b"p" * 32), (b"n" * 16, None)]
)
def test_a_welcome_without_a_nonce_and_a_proof_does_not_satisfy_a_peer(
    nonce: bytes | None, proof: bytes | None
) -> None:
    with pytest.raises(ProtocolError, match="lacks"):
        ClientHandshake(PEER_HELLO, KEY).receive(
            encode(Welcome(1, FEATURES, ACCEPTOR, 9, nonce, proof).to_wire())
        )


@pytest.mark.parametrize("item", [None, [], ["text"], {}, 0])
def test_what_does_not_answer_a_proof_is_not_taken_for_its_acceptance(item: object) -> None:
    dialer, _, welcome = _welcomed()
    dialer.receive(welcome)
    with pytest.raises(ProtocolError):
        dialer.receive(encode(item))
    assert not dialer.done


@pytest.mark.parametrize("item", [None, [], ["text"], 7])
def test_a_malformed_proof_is_a_protocol_error(item: object) -> None:
    _, acceptor, _ = _welcomed()
    with pytest.raises(ProtocolError):
        acceptor.receive(encode(item))


def test_secrets_do_not_show_in_a_repr() -> None:
    _, _, welcome = _welcomed()
    assert "secret" not in repr(CLIENT_HELLO)
    read = Welcome.from_wire(decode(welcome))
    assert read.proof is not None
    assert repr(read.proof) not in repr(read)


def test_the_largest_hello_and_welcome_fit_into_a_hello_frame() -> None:
    nonces = (b"n" * 16,) * BOOT_NONCES_MAX
    identity = Identity(b"c" * 16, (1 << 64) - 1, b"s" * 16, (1 << 64) - 1, "a" * 300, nonces)
    largest = Hello(1, 1, (1 << 64) - 1, Role.PEER, "x" * 32, identity, b"t" * 1024, b"n" * 16)
    welcome = Welcome(1, 0, identity, FRAME_BYTES_MAX_PEER, b"n" * 16, b"p" * 32)
    assert len(encode(largest.to_wire())) <= FRAME_BYTES_MAX_HELLO
    assert len(encode(welcome.to_wire())) <= FRAME_BYTES_MAX_HELLO


def test_a_missing_admin_token_gives_the_key_of_an_empty_one() -> None:
    assert derive_peer_key(None) == derive_peer_key(b"")
    assert derive_peer_key(b"a") != derive_peer_key(b"b")
    assert len(derive_peer_key(b"a")) == 32
