"""Whether somebody who says to be a node of this cluster is that node.

The handshake has settled that both know the same admin token (krita/handshake.py)
and the server that the cluster ids agree. Left is whether the disk behind the name
is the one that the cluster knows, and as new as it was (design 4; raft.md 4.4).
"""

from __future__ import annotations

from krita.errors import Foreign
from krita.handshake import Identity
from kritad.cluster.view import MetaView


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
            hint="a disk restored from an old copy may have forgotten its votes;"
            " join it as a new node, with an empty directory",
        )
