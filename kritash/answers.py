"""Asking the cluster, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.errors import ProtocolError

if TYPE_CHECKING:
    from kritash.context import Context


def ask(context: Context, operation: str, *fields: object) -> object:
    """The first element of an operation's reply, which is all that most have.

    Raises KritaError.
    """
    reply = context.client.call(operation, *fields)
    if not reply:
        raise ProtocolError(f"the reply to {operation} is empty")
    return reply[0]


def cluster_status(context: Context) -> object:
    """The cluster_status document; completion learns its names. Raises KritaError."""
    status = ask(context, "cluster_status")
    if isinstance(status, dict):
        context.recent.saw_nodes(status.get("nodes"))
        context.recent.saw_shards(status.get("shards"))
    return status


def node_list(context: Context) -> object:
    """The node_list document; completion learns its names. Raises KritaError."""
    nodes = ask(context, "node_list")
    context.recent.saw_nodes(nodes)
    return nodes


def shard_list(context: Context) -> object:
    """The shard_list document; completion learns its names. Raises KritaError."""
    shards = ask(context, "shard_list")
    context.recent.saw_shards(shards)
    return shards
