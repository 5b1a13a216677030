"""The hello of a connection: who is there, in which version, and may they.

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
nonces as arguments. ``krita.connection`` puts frames around them.
"""

from __future__ import annotations

import enum
import hashlib
import hmac

import attrs

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
from krita.limits import FRAME_BYTES_MAX_PEER

# No HTTP method begins with a nought byte: the first byte tells the protocols apart.
MAGIC = b"\x00KRITA\x01\n"

VERSION_MIN = 1
VERSION_MAX = 1

NONCE_BYTES = 16
UUID_BYTES = 16
_LANE_BYTES_MAX = 32
_ADDRESS_BYTES_MAX = 300
_TOKEN_BYTES_MAX = 1024
# Boots that a peer says at most; each has one nonce.
BOOT_NONCES_MAX = 16
_KEY_HINT = "the two nodes were started with different admin tokens (KRITA_ADMIN_TOKEN)"


class Role(enum.IntEnum):
    """What a connection is for. Never renumber."""

    CLIENT = 0
    PEER = 1


@attrs.frozen
class Identity:
    """Who a node is. Sent by both sides of a peer connection and to every client."""

    cluster_id: bytes  # 16 bytes; empty while joining
    node: int  # 0 while joining
    store_uuid: bytes  # 16 bytes: which data directory
    boot_counter: int  # how often that directory has been opened
    address: str  # "host:port" where others reach it
    # Of its newest boots, one each, the newest last. Not part of the identity as it is
    # sent: a peer's hello has them beside it. () when they are not known.
    boot_nonces: tuple[bytes, ...] = attrs.field(default=(), repr=False)

    def to_wire(self) -> list[object]:
        return [self.cluster_id, self.node, self.store_uuid, self.boot_counter, self.address]

    @classmethod
    def from_wire(cls, item: object) -> Identity:
        """Raises ProtocolError."""
        match item:
            case [bytes(cluster_id), int(node), bytes(store), int(boot), str(address), *_] if (
                len(cluster_id) in (0, UUID_BYTES)
                and len(store) == UUID_BYTES
                and node >= 0
                and boot >= 0
                and len(address) <= _ADDRESS_BYTES_MAX
            ):
                return cls(cluster_id, node, store, boot, address)
        raise ProtocolError(
            "an identity is [cluster_id, node, store_uuid, boot_counter, address]",
        )

    def __str__(self) -> str:
        return (
            f"node {self.node} of cluster {self.cluster_id.hex() or 'none'} at {self.address}"
            f" (store {self.store_uuid.hex()}, boot {self.boot_counter})"
        )


@attrs.frozen
class Hello:
    """What the dialer says first."""

    version_min: int = VERSION_MIN
    version_max: int = VERSION_MAX
    features: int = 0  # bit set; none is defined yet
    role: Role = Role.CLIENT
    lane: str = ""  # peers: which of their connections this is
    identity: Identity | None = None  # peers
    token: bytes | None = attrs.field(default=None, repr=False)  # clients
    nonce: bytes | None = None  # peers

    def to_wire(self) -> list[object]:
        identity = None if self.identity is None else self.identity.to_wire()
        wire: list[object] = [
            self.version_min, self.version_max, self.features, int(self.role), self.lane,
            identity, self.token, self.nonce,
        ]  # fmt: skip
        if self.identity is not None and self.identity.boot_nonces:
            wire.append(list(self.identity.boot_nonces))
        return wire

    @classmethod
    def from_wire(cls, item: object) -> Hello:
        """Raises ProtocolError when malformed, Unsupported for a role we do not know."""
        match item:
            case [
                int(low), int(high), int(features), int(role), str(lane),
                list() | None as identity, bytes() | None as token, bytes() | None as nonce, *more,
            ] if (
                1 <= low <= high
                and features >= 0
                and len(lane) <= _LANE_BYTES_MAX
                and len(token or b"") <= _TOKEN_BYTES_MAX
            ):  # fmt: skip
                pass
            case _:
                raise ProtocolError("the hello is malformed")
        if role not in Role._value2member_map_:
            raise Unsupported(f"role {role} of a connection is not known here")
        if role == Role.PEER and (identity is None or nonce is None or len(nonce) != NONCE_BYTES):
            raise ProtocolError("a peer's hello lacks its identity or its nonce")
        who = None
        if identity is not None:
            boot_nonces = _read_boot_nonces(more[0] if more else None)
            who = attrs.evolve(Identity.from_wire(identity), boot_nonces=boot_nonces)
        return cls(low, high, features, Role(role), lane, who, token, nonce)


def _read_boot_nonces(item: object) -> tuple[bytes, ...]:
    """Raises ProtocolError."""
    items = item if isinstance(item, list) else [] if item is None else [None]
    nonces = [each for each in items if isinstance(each, bytes) and len(each) == NONCE_BYTES]
    if len(nonces) != len(items) or len(nonces) > BOOT_NONCES_MAX:
        raise ProtocolError(
            f"boot_nonces are at most {BOOT_NONCES_MAX} times {NONCE_BYTES} bytes, or null"
        )
    return tuple(nonces)


@attrs.frozen
class Welcome:
    """What the acceptor answers when it lets the dialer in, or (peers) nearly so."""

    version: int
    features: int
    identity: Identity
    frame_bytes_max: int  # of either direction from here on
    nonce: bytes | None = None  # peers
    proof: bytes | None = attrs.field(default=None, repr=False)  # peers

    def to_wire(self) -> list[object]:
        return [
            0, self.version, self.features, self.identity.to_wire(), self.nonce, self.proof,
            self.frame_bytes_max,
        ]  # fmt: skip

    @classmethod
    def from_wire(cls, item: object) -> Welcome:
        """Raises ProtocolError when malformed."""
        match item:
            case [
                0, int(version), int(features), list(identity),
                bytes() | None as nonce, bytes() | None as proof, int(frame_bytes_max), *_,
            ] if features >= 0 and frame_bytes_max > 0:  # fmt: skip
                return cls(
                    version, features, Identity.from_wire(identity),
                    min(frame_bytes_max, FRAME_BYTES_MAX_PEER), nonce, proof,
                )  # fmt: skip
        raise ProtocolError("the welcome is malformed")


def refusal_to_wire(error: KritaError) -> list[object]:
    """How a handshake ends badly: ``[status, message, hint, outcome, detail]``."""
    return [int(error.status), *to_wire(error)]


def refusal_from_wire(item: object) -> KritaError | None:
    """The error if the item is a refusal, else None."""
    match item:
        case [int(status), *body] if status:
            return from_wire(status, body)
    return None


def choose_version(hello: Hello) -> int:
    """The highest version that both speak. Raises Unsupported."""
    version = min(hello.version_max, VERSION_MAX)
    if version < max(hello.version_min, VERSION_MIN):
        raise Unsupported(
            f"the other side speaks protocol versions {hello.version_min} to {hello.version_max},"
            f" this one {VERSION_MIN} to {VERSION_MAX}",
            hint="upgrade the older of the two; neighbouring releases understand each other",
        )
    return version


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

        Raises ProtocolError, Unsupported for a version we never offered, or Foreign
        when the acceptor does not prove that it belongs to our cluster.
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
        features: int = 0,
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
        # Only what both know may be used.
        common = features & self.hello.features
        welcome = Welcome(self.version, common, identity, frame_bytes_max, nonce, proof)
        self._welcome_payload = encode(welcome.to_wire())
        return self._welcome_payload
