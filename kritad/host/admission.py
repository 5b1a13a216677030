"""Whether somebody who says to be a node of this cluster is that node.

The handshake has settled that both know the same admin token (krita/handshake.py)
and the server that the cluster ids agree. Left is whether the disk behind the name
is the one that the cluster knows, as new as it was, and started only once (design 4;
raft.md 4.4).

Rules:
* A store counts its boots and draws a nonce at each. The cluster knows the newest
  announced one. A disk that counts less, or that has drawn another nonce at the very
  boot that is known, has been set back: it may have forgotten votes. The nonces also
  find a copy out that was started as often as its original, and so at its first start. A
  disk that is set back to a moment of its newest boot is not found out here: it counts on like
  one that crashed. Its replicas may find it out (raft/follower.py: on_heartbeat).
* A view may be older than what it judges. A boot that is older than all whose nonces
  were sent therefore proves nothing: the cluster has acknowledged a newer one since.
* Whoever comes as a node that runs already is kept waiting until that one was dialled
  anew: if it answers, the other is a copy and is told so; if it does not, the
  connection to it was what was left of the life before (``Twins``).
* Who was given up by a recovery never comes back (kritad/recover.py). Who was removed is
  turned away as well, once nobody counts on it (departure.py).

Pure but for what ``Twins`` remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs

from krita.errors import Foreign, Unavailable
from krita.hello import Identity
from kritad.cluster.model import NodeRecord, NodeState
from kritad.cluster.view import MetaView
from kritad.host.departure import JOIN_AS_NEW

_ROLLED_BACK = (
    "a disk restored from an old copy may have forgotten its votes;"
    " join it as a new node, with an empty directory"
)


def check_member(view: MetaView, identity: Identity) -> None:
    """Raises Foreign for a known node on another disk, or on an old copy of its own.
    A node that the view does not know may be new, and the view old."""
    known = view.nodes.get(identity.node)
    if known is None:
        return
    if known.store_uuid != identity.store_uuid:
        raise Foreign(
            f"node {identity.node} is known with store {known.store_uuid.hex()},"
            f" you have {identity.store_uuid.hex()}",
            hint="a wiped or exchanged disk joins as a new node, with an empty directory",
        )
    if identity.boot_counter < known.boot_counter:
        raise Foreign(
            f"node {identity.node} was seen at boot {known.boot_counter}, you are at"
            f" {identity.boot_counter}: your disk was rolled back",
            hint=_ROLLED_BACK,
        )
    if _drew_another_nonce(known, identity):
        raise Foreign(
            f"node {identity.node} was seen at boot {known.boot_counter} with another nonce than"
            " you drew at that boot: your disk was rolled back, or is a copy of its disk",
            hint=_ROLLED_BACK,
        )


def _drew_another_nonce(known: NodeRecord, identity: Identity) -> bool:
    """Whether the known boot is one of those whose nonces were sent, with another one."""
    nonces = identity.boot_nonces
    back = identity.boot_counter - known.boot_counter  # boots since the known one
    return bool(known.nonce) and back < len(nonces) and nonces[-1 - back] != known.nonce


def check_kept(given_up: Collection[int], identity: Identity) -> None:
    """Raises Foreign for a node that a recovery has gone on without."""
    if identity.node in given_up:
        raise Foreign(
            f"node {identity.node} was given up when this cluster was recovered without it:"
            " what its disk has may contradict what was written since",
            hint="keep the directory if you miss something; " + JOIN_AS_NEW,
        )


def same_place(view: MetaView, address: str, reachable: Collection[int], node: int) -> list[int]:
    """The members that were last seen at ``address``, where ``node`` is now, and do not
    answer: most likely their directories are gone."""
    return [
        number
        for number, known in sorted(view.nodes.items())
        if known.address == address
        and number not in {node, *reachable}
        and known.state is not NodeState.LEFT
    ]


def lost_advice(lost: Collection[int], address: str) -> str:
    """What to tell an operator whose new node is at ``address``, where ``lost`` were."""
    numbers = ", ".join(str(node) for node in lost)
    commands = " and ".join(f"kritash node remove {node} --yes" for node in lost)
    return (
        f"node {numbers} was at {address} before, and remains a member that nobody reaches;"
        f" if its directory is lost for good: {commands}"
    )


@attrs.define
class Twins:
    """Who has come under the name of a node that seems to run, and is kept waiting while
    that one is dialled: node -> (the newcomer's boot, attempts to dial when it came)."""

    _waiting: dict[int, tuple[int, int]] = attrs.field(factory=dict)

    def judge(
        self,
        newcomer: Identity,
        running: Identity | None,
        attempts: int,
        redial: Callable[[], None],
    ) -> None:
        """Let the newcomer in, or raise: Foreign for a copy, Unavailable while it is not
        known what it is; it tries again then.

        ``running`` is who answered when this node's address was last dialled, None if that
        connection has ended; ``attempts`` is how often it was dialled, with or without
        success. ``redial`` ends the connection, so that it is dialled again.
        """
        node, boot = newcomer.node, newcomer.boot_counter
        came = self._waiting.get(node)
        if came == (boot, attempts):
            raise self._wait(newcomer)
        self._waiting.pop(node, None)
        if running is None or _is_same_start(running, newcomer):
            return
        if came is not None and came[0] == boot:
            raise Foreign(
                f"node {node} is already running at {running.address}"
                f" (boot {running.boot_counter}), you are at {newcomer.address} (boot {boot})",
                hint="never start a copy of a data directory beside its original:"
                " give this kritad an empty directory and --join_ip",
            )
        self._waiting[node] = boot, attempts
        redial()
        raise self._wait(newcomer)

    @staticmethod
    def _wait(newcomer: Identity) -> Unavailable:
        return Unavailable(
            f"node {newcomer.node} seems to be running already; finding out",
            hint="after a quick restart this passes by itself",
        )


def _is_same_start(running: Identity, newcomer: Identity) -> bool:
    return (running.store_uuid, running.boot_counter) == (
        newcomer.store_uuid,
        newcomer.boot_counter,
    )
