"""Who is a member of the cluster, for a node that is spoken to; and whether it still is one.

Rules:
* Whoever connects has proved that it knows the cluster's key (krita/handshake.py). Here
  it is asked whether it is the node that it says it is (admission.py), and whether that
  node may still come.
* A node that people remove stops when nobody counts on it any more (departure.py). It may
  not hear its own last entry, so those who know tell it when it speaks to them.
* Whoever has left is dialled no more, once it votes in nothing. It finds out when it
  dials us.
* For a node that is not about to leave, to be refused is the end: the others are right,
  or it is in another cluster than it believes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

from krita.errors import Foreign
from krita.hello import Identity
from kritad.cluster.view import MetaView
from kritad.host.admission import check_kept, check_member
from kritad.host.bootstrap import META_SHARD
from kritad.host.departure import LEAVING, has_gone, may_leave, removed_from_cluster
from kritad.host.link import Expelled
from kritad.host.replica import Replica
from kritad.host.transport import Transport

log = logging.getLogger(__name__)


class Belonging:
    """See the module's docstring. ``view`` says what is known of the cluster now; that this
    node is refused for good goes to ``on_failure``."""

    def __init__(
        self,
        node: int,
        transport: Transport,
        replicas: Mapping[int, Replica],
        given_up: Collection[int],
        *,
        view: Callable[[], MetaView],
        on_failure: Callable[[BaseException], None],
        wake: Callable[[], None],
    ) -> None:
        self.removed = False  # from the cluster, as people wanted it: time to stop
        self.given_up = given_up  # nodes that may not come back
        self._node = node
        self._transport = transport
        self._replicas = replicas
        self._view = view
        self._on_failure = on_failure
        self._wake = wake

    def __repr__(self) -> str:
        return f"<Belonging of node {self._node}{', removed' if self.removed else ''}>"

    def admit(self, identity: Identity) -> None:
        """Check who says to be a member. Raises Foreign.

        A node that we did not know of is remembered with its address: a newcomer
        has to answer those who bring it the cluster's state before it has all of it.
        """
        if not identity.node:
            return  # it is about to ask for its membership
        check_kept(self.given_up, identity)
        check_member(self._view(), identity)
        self.check_stays(identity.node)
        self._transport.check_single(identity)
        if identity.node not in self._view().nodes:
            self._transport.learn(identity.node, identity.address)

    def check_stays(self, node: int) -> None:
        """Raises Foreign for a node that has left: it may not have heard its last entry."""
        if self._has_gone(node):
            raise removed_from_cluster(node)

    def look(self) -> None:
        """Stop if this node has left, forget others that have. Called at each tick; costs a
        look at the record of each."""
        for node in list(self._transport.peers):
            if self._has_gone(node):
                self._transport.forget(node)
        if may_leave(self._view(), self._node, self._replicas.get(META_SHARD)):
            self.leave()

    def addresses(self) -> dict[int, str]:
        """Where to find the nodes that we have to do with, as far as is known."""
        nodes = self._view().nodes
        return {node: nodes[node].address for node in nodes if not self._has_gone(node)}

    def refused(self, error: Foreign) -> None:
        """The others take us for no member of the cluster. For a node that is about to
        leave that is how it hears that it has left; for any other it is the end."""
        own = self._view().nodes.get(self._node)
        if own is None or own.state not in LEAVING or "removed" not in error.detail:
            self._on_failure(error)
        elif isinstance(error, Expelled):
            self.leave()
        # Else the meta shard has said so, to our announcement. It may need our vote until
        # it has let go of us: whoever has seen that tells us (``check_stays``).

    def leave(self) -> None:
        """This node is no member any more, and nobody counts on it."""
        if not self.removed:
            self.removed = True
            log.warning(
                "this node has been removed from the cluster; its data directory may be deleted"
            )
            self._wake()

    def _has_gone(self, node: int) -> bool:
        return has_gone(self._view(), node, self._replicas.get(META_SHARD))
