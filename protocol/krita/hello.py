"""What both sides of a connection say first: who they are, and what they speak.

``Hello`` is the dialer's, ``Welcome`` the acceptor's answer; handshake.py has the order in
which they come and the proofs of nodes.

Rules:
* The acceptor chooses the highest protocol version that both speak.
* Of the features those count that both know. A node needs all of ``FEATURES_NEEDED`` from
  another: two releases that read each other's log entries differently must never replicate
  one shard, since each of them would take its own reading for what was agreed on.
"""

from __future__ import annotations

import enum

import attrs

from krita.errors import ProtocolError, Unsupported
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
_ELEMENTS = 9  # of a hello; what is missing at its end is null
# Boots that a peer says at most; each has one nonce.
BOOT_NONCES_MAX = 16


class Role(enum.IntEnum):
    """What a connection is for. Never renumber."""

    CLIENT = 0
    PEER = 1


class Feature(enum.IntFlag):
    """What one side understands beyond version 1 of the protocol. Never renumber."""

    ENTRIES_2 = 1  # of nodes: in logs and snapshots, all that keys can do since 0.3


FEATURES = int(Feature.ENTRIES_2)  # what this release understands
FEATURES_NEEDED = int(Feature.ENTRIES_2)  # what it needs of another node


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
    features: int = 0  # see Feature; clients need none
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
        whole = [*item, *[None] * _ELEMENTS][:_ELEMENTS] if isinstance(item, list) else item
        match whole:
            case [
                int(low), int(high), int(features), int(role), str(lane),
                list() | None as identity, bytes() | None as token, bytes() | None as nonce, boots,
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
            boot_nonces = _read_boot_nonces(boots)
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


def check_features(features: int) -> None:
    """Whether another node has all that it must have. Raises Unsupported."""
    if features & FEATURES_NEEDED != FEATURES_NEEDED:
        raise Unsupported(
            "the other node runs a release of Krita that does not understand what this one"
            f" writes to logs (it has the features {features:#x}, needed are {FEATURES_NEEDED:#x})",
            hint="stop all nodes, install the same release on each, then start them",
        )
