"""The handshake of a connection: who is there, in which version, and may they.

Three messages in front of everything else, four between nodes:

    dialer                                   acceptor
    MAGIC, Hello                   ──►
                                   ◄──       Welcome, or a refusal
    Proof (peers only)             ──►
                                   ◄──       [0], or a refusal

A client authenticates with its token, which the acceptor's caller judges. Peers
prove to each other that they know the cluster's admin token, without sending
it: each signs with HMAC-SHA-256 both sides' fresh nonces, so that nothing heard
on an earlier connection is of use, and the two sign under different labels, so
that nothing of one direction serves in the other. The dialer signs the hash of
the whole exchange, so the acceptor notices any change made on the way.

What this does not give is protection of the bytes that follow: that is TLS's.

``ClientHandshake`` and ``ServerHandshake`` are pure: payloads in, payloads out,
nonces as arguments. hello.py has the messages; ``krita.connection`` puts frames
around them.
"""

from __future__ import annotations

import hashlib
import hmac

from krita.codec import decode, encode
from krita.errors import (
    Foreign,
    KritaError,
    ProtocolError,
    Unauthenticated,
    Unsupported,
    from_wire,
    to_wire,
)
from krita.hello import (
    FEATURES,
    NONCE_BYTES,
    Hello,
    Identity,
    Role,
    Welcome,
    check_features,
    choose_version,
)

_KEY_HINT = "the two nodes were started with different admin tokens (KRITA_ADMIN_TOKEN)"


def refusal_to_wire(error: KritaError) -> list[object]:
    """How a handshake ends badly: ``[status, message, hint, outcome, detail]``."""
    return [int(error.status), *to_wire(error)]


def refusal_from_wire(item: object) -> KritaError | None:
    """The error if the item is a refusal, else None."""
    match item:
        case [int(status), *body] if status:
            return from_wire(status, body)
    return None


def derive_peer_key(admin_token: bytes | None) -> bytes:
    """What peers prove to have, 32 bytes. Without a token it is no secret."""
    return hmac.digest(admin_token or b"", b"krita peer key v1", "sha256")


def acceptor_proof(
    peer_key: bytes, hello: bytes, hello_nonce: bytes, nonce: bytes, identity: Identity
) -> bytes:
    """The acceptor's HMAC over ``hello``, the payload as sent, both nonces and itself."""
    # Every part but the last has a fixed length: no two inputs read the same.
    signed = hashlib.sha256(hello).digest() + hello_nonce + nonce + encode(identity.to_wire())
    return hmac.digest(peer_key, b"krita acceptor" + signed, "sha256")


def dialer_proof(peer_key: bytes, hello: bytes, welcome: bytes) -> bytes:
    """The dialer's HMAC over both payloads as they were sent."""
    signed = hashlib.sha256(hello).digest() + hashlib.sha256(welcome).digest()
    return hmac.digest(peer_key, b"krita dialer" + signed, "sha256")


class ClientHandshake:
    """The dialer's side: ``hello_payload`` goes out, then every payload that
    comes goes through ``receive`` until ``done``, or until ``refusal`` is set."""

    def __init__(self, hello: Hello, peer_key: bytes | None = None) -> None:
        assert (hello.role == Role.PEER) == (peer_key is not None), "peers, and only peers, prove"
        self.hello = hello
        self.hello_payload = encode(hello.to_wire())
        self.welcome: Welcome | None = None
        self.refusal: KritaError | None = None
        self.done = False
        self._peer_key = peer_key

    def receive(self, payload: bytes) -> bytes | None:
        """The next payload to send, if any.

        Raises ProtocolError, Unsupported for a version we never offered or a node that
        cannot read our logs, or Foreign when the acceptor does not prove that it belongs
        to our cluster.
        """
        assert not self.done
        item = decode(payload)
        self.refusal = refusal_from_wire(item)
        if self.refusal is not None:
            return None
        if self.welcome is None:
            return self._receive_welcome(item, payload)
        if not isinstance(item, list) or item[:1] != [0]:
            raise ProtocolError("the answer to a peer's proof is malformed")
        self.done = True
        return None

    def _receive_welcome(self, item: object, payload: bytes) -> bytes | None:
        welcome = Welcome.from_wire(item)
        if not self.hello.version_min <= welcome.version <= self.hello.version_max:
            raise Unsupported(f"the other side chose version {welcome.version}, never offered")
        self.welcome = welcome
        if self._peer_key is None:
            self.done = True
            return None
        check_features(welcome.features)
        if welcome.nonce is None or len(welcome.nonce) != NONCE_BYTES or welcome.proof is None:
            raise ProtocolError("the welcome lacks the acceptor's nonce or proof")
        assert self.hello.nonce is not None
        expected = acceptor_proof(
            self._peer_key, self.hello_payload, self.hello.nonce, welcome.nonce, welcome.identity
        )
        if not hmac.compare_digest(expected, welcome.proof):
            raise Foreign(f"{welcome.identity} did not prove itself", hint=_KEY_HINT)
        return encode([dialer_proof(self._peer_key, self.hello_payload, payload)])


class ServerHandshake:
    """The acceptor's side: ``receive`` the hello, let the caller judge it,
    ``accept``, and for a peer ``receive`` again; ``done`` says when."""

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.version = 0
        self.done = False
        self._hello_payload = b""
        self._welcome_payload = b""
        self._peer_key: bytes | None = None

    def receive(self, payload: bytes) -> bytes | None:
        """The next payload to send: none for a hello, ``[0]`` for a good proof.

        Raises ProtocolError, Unsupported, or Unauthenticated for a wrong proof.
        """
        assert not self.done
        if self.hello is None:
            hello = Hello.from_wire(decode(payload))
            self.version = choose_version(hello)
            if hello.role is Role.PEER:
                check_features(hello.features)
            self.hello, self._hello_payload = hello, payload
            return None
        assert self._peer_key is not None, "a hello is accepted before more is received"
        match decode(payload):
            case [bytes(proof), *_]:
                expected = dialer_proof(self._peer_key, self._hello_payload, self._welcome_payload)
                if not hmac.compare_digest(expected, proof):
                    raise Unauthenticated(
                        f"{self.hello.identity} did not prove itself", hint=_KEY_HINT
                    )
            case _:
                raise ProtocolError("the peer's proof is malformed")
        self.done = True
        return encode([0])

    def accept(
        self,
        identity: Identity,
        frame_bytes_max: int,
        *,
        peer_key: bytes | None = None,
        nonce: bytes | None = None,
    ) -> bytes:
        """The welcome's payload. A peer needs ``peer_key`` and 16 fresh random bytes."""
        assert self.hello is not None
        assert not self._welcome_payload, "accepted twice"
        proof = None
        if self.hello.role == Role.PEER:
            assert peer_key is not None
            assert nonce is not None
            assert self.hello.nonce is not None
            assert len(nonce) == NONCE_BYTES
            proof = acceptor_proof(peer_key, self._hello_payload, self.hello.nonce, nonce, identity)
            self._peer_key = peer_key
        else:
            nonce = None
            self.done = True
        common = FEATURES & self.hello.features
        welcome = Welcome(self.version, common, identity, frame_bytes_max, nonce, proof)
        self._welcome_payload = encode(welcome.to_wire())
        return self._welcome_payload
