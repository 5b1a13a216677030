"""Gathering what the doctor looks at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from krita.errors import KritaError, Status
from kritash.answers import cluster_status
from kritash.doctor import diagnose
from kritash.documents import Cluster
from kritash.finding import Finding

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.documents import Node

NODE_TIMEOUT_MS = 1_500.0
# What is wrong with whoever asks: the next node would say the same.
_OF_THE_ASKER = (Status.UNAUTHENTICATED, Status.FORBIDDEN, Status.FOREIGN)


def examine(context: Context) -> list[Finding]:
    """Asks around, and says what is wrong, most urgent first. A node that does not answer
    is left out; that it does not is a finding already. Raises KritaError when no node
    tells the cluster's status."""
    status = cluster_status(context)
    members = Cluster.of(status).members
    documents = node_documents(context, members)
    skews_ms = clock_skews_ms(context, sorted(documents))
    return diagnose(status, documents, skews_ms)


def node_documents(context: Context, nodes: Sequence[Node]) -> dict[int, object]:
    """node -> its node_status document, of those that answer soon. Raises Unauthenticated
    and the like, which the next node would answer as well."""
    found: dict[int, object] = {}
    for node in nodes:
        if node.left or node.dead or node.reachable is False:
            continue
        try:
            reply = context.client.call(
                "node_status", node=node.node, timeout_ms=_timeout_ms(context)
            )
        except KritaError as error:
            if error.status in _OF_THE_ASKER:
                raise
            continue
        if reply:
            found[node.node] = reply[0]
    return found


def clock_skews_ms(context: Context, nodes: Sequence[int]) -> dict[int, float]:
    """node -> by how much its wall clock is ahead of ours, as exact as half a round trip."""
    found: dict[int, float] = {}
    for node in nodes:
        try:
            context.client.ping(node, timeout_ms=_timeout_ms(context))  # connects
            before_ms = time.time() * 1000
            pong = context.client.ping(node, timeout_ms=_timeout_ms(context))
        except KritaError:
            continue  # it answered a moment ago; its silence is for the next look
        found[node] = pong.clock_ms - (before_ms + time.time() * 1000) / 2
    return found


def _timeout_ms(context: Context) -> float:
    return min(NODE_TIMEOUT_MS, context.settings.timeout_ms)
