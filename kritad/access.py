"""Who is asking, and whether they may.

Rules (design: nobody gets in by default):
* A node that listens beyond loopback has KRITA_ADMIN_TOKEN (config.py refuses
  to start it otherwise).
* Data and status are open to whoever connects over the loopback interface; over
  any other, from the machine itself too, they need the token.
* Administration needs the token on every interface; a cluster that has none
  has no administration.
* Operations between nodes need a peer, and a peer has proved in the handshake
  that it holds the key derived from the token (krita/handshake.py).
* Log operations are what peers forward to a leader; no client sends them.

Tokens are compared in constant time and appear in no message.
"""

from __future__ import annotations

import hmac

import attrs

from krita.errors import Forbidden, Unauthenticated
from krita.handshake import derive_peer_key
from krita.operations import Access as Need
from krita.operations import Operation

ANONYMOUS, ADMIN, PEER = "anonymous", "admin", "peer"


@attrs.frozen
class Principal:
    """One side of one connection."""

    kind: str
    node: int = 0  # of a peer
    loopback: bool = False


# Whoever sends no token. Every HTTP request without one asks for its principal.
_LOCAL, _STRANGER = Principal(ANONYMOUS, loopback=True), Principal(ANONYMOUS)

# Every request asks for these, and each look-up of an enum's member takes 0.1 µs.
_FOR_PEERS, _IN_THE_LOG, _FOR_ADMINS = Need.PEER, Need.LOG, Need.ADMIN


class Access:
    """The cluster's only secret, and what it opens."""

    def __init__(self, admin_token: bytes | None) -> None:
        self._token = admin_token or None
        self.peer_key = derive_peer_key(self._token)

    def __repr__(self) -> str:
        return f"<Access {'with a' if self._token else 'without'} token>"

    def authenticate(self, token: bytes | None, remote_loopback: bool) -> Principal:
        """Who a client is. Raises Unauthenticated for a token that is not ours,
        and where there is none; no token makes an anonymous principal."""
        if token is None:
            return _LOCAL if remote_loopback else _STRANGER
        if self._token is None:
            raise Unauthenticated(
                "a token was sent, and this cluster has no admin token",
                hint="send none, or start every node with the same KRITA_ADMIN_TOKEN",
            )
        if not hmac.compare_digest(token, self._token):
            raise Unauthenticated(
                "the token is not this cluster's admin token",
                hint="use the KRITA_ADMIN_TOKEN that the nodes were started with",
            )
        return Principal(ADMIN, loopback=remote_loopback)

    def check(self, principal: Principal, operation: Operation) -> None:
        """Raises Unauthenticated or Forbidden unless ``principal`` may."""
        need = operation.access
        if principal.kind == PEER:
            return
        if need is _FOR_PEERS or need is _IN_THE_LOG:
            raise Forbidden(f"{operation.name} is for the cluster's own nodes")
        if principal.kind == ADMIN:
            return
        if need is _FOR_ADMINS:
            if self._token is None:
                raise Forbidden(
                    f"{operation.name} is administration, and this cluster has no admin token",
                    hint="start every node with the same KRITA_ADMIN_TOKEN",
                )
            raise Unauthenticated(
                f"{operation.name} is administration and needs the admin token",
                hint="set KRITA_ADMIN_TOKEN for kritash, or send Authorization: Bearer",
            )
        if not principal.loopback:
            raise Unauthenticated(
                f"{operation.name} needs a token unless it comes over the loopback interface",
                hint="set KRITA_ADMIN_TOKEN for kritash, or send Authorization: Bearer",
            )
