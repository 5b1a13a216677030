"""What the commands do: one function for each, from Invocation to Reply.

Thin on purpose: a request, and the reply put into a document. Whatever
``krita`` raises passes through; ``dispatch`` presents it. Nothing here prints.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from krita.errors import ProtocolError
from krita.limits import VALUE_BYTES_MAX_CEILING
from krita.operations import Consistency
from krita.ring import token
from kritash.exits import Exit
from kritash.reply import Reply, View
from kritash.words import ParseError, Word

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation


def key_get(context: Context, invocation: Invocation) -> Reply:
    """The value of a key; code NO when it is absent."""
    key = invocation.key()
    context.recent.saw_key(key)
    stale = invocation.flag("stale")
    consistency = Consistency.STALE if stale else Consistency.LINEARIZABLE
    found = context.client.get(key, consistency=consistency)
    document: dict[str, object] = {
        "key": key,
        "value": None if found is None else found.data,
        "revision": 0 if found is None else found.revision,
        "content_type": None if found is None else found.content_type,
    }
    if stale and found is not None:
        document["staleness_ms"] = found.staleness_ms
    if found is None:
        return Reply(View.VALUE, document, "absent: there is no such key", Exit.NO)
    return Reply(View.VALUE, document)


def key_put(context: Context, invocation: Invocation) -> Reply:
    """Sets a key."""
    key = invocation.key()
    value = read_value(context, invocation)
    content_type = invocation.options["content-type"]
    assert content_type is None or isinstance(content_type, str)
    result = context.client.put(
        key, value, content_type=content_type, if_revision=_revision(invocation)
    )
    context.recent.saw_key(key)
    document = {"key": key, "revision": result.revision, "existed": result.existed}
    how = "replaced" if result.existed else "new"
    return Reply(View.SENTENCE, document, f"ok\trevision {result.revision}\t{how}")


def _revision(invocation: Invocation) -> int | None:
    revision = invocation.options["if-revision"]
    assert revision is None or isinstance(revision, int)
    return revision


def read_value(context: Context, invocation: Invocation) -> bytes:
    """The bytes that a VALUE argument stands for: itself, ``-``, or ``@file``.

    Raises ParseError when they cannot be read or no cluster would take them.
    """
    word = invocation.arguments["VALUE"]
    assert isinstance(word, Word)
    if word.quoted or invocation.flag("literal"):
        return word.data
    if word.data == b"-":
        if context.stdin is None:
            hint = "give it as an argument of kritash, or use @file"
            raise ParseError("'-' cannot read a value here", word.column, hint)
        value = context.stdin.read(VALUE_BYTES_MAX_CEILING + 1)
    elif word.data.startswith(b"@"):
        try:
            with open(word.data[1:], "rb") as file:
                value = file.read(VALUE_BYTES_MAX_CEILING + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            hint = "to store this text itself, quote it or add --literal"
            raise ParseError(
                f"cannot read {word.text[1:]!r}: {reason}", word.column, hint
            ) from error
    else:
        return word.data
    if len(value) > VALUE_BYTES_MAX_CEILING:
        message = (
            f"the value is longer than {VALUE_BYTES_MAX_CEILING} bytes, which no cluster takes"
        )
        raise ParseError(message, word.column)
    return value


def key_delete(context: Context, invocation: Invocation) -> Reply:
    """Removes a key; code NO when there was none."""
    key = invocation.key()
    result = context.client.delete(key, if_revision=_revision(invocation))
    document = {"key": key, "revision": result.revision, "existed": result.existed}
    if result.existed:
        return Reply(View.SENTENCE, document, f"ok\trevision {result.revision}\tdeleted")
    return Reply(View.SENTENCE, document, "absent: there was nothing to delete", Exit.NO)


def ping(context: Context, invocation: Invocation) -> Reply:
    """Who answers, and how fast (one round trip, without connecting)."""
    node = invocation.arguments["NODE"]
    assert node is None or isinstance(node, int)
    context.client.ping(node)  # connects
    start = time.perf_counter()
    pong = context.client.ping(node)
    took_ms = round((time.perf_counter() - start) * 1000, 2)
    document = {
        "node": pong.node,
        "cluster_id": pong.cluster_id,
        "version": pong.version,
        "took_ms": took_ms,
    }
    text = f"pong\tnode {pong.node}\tcluster {pong.cluster_id[:8]}\tkritad {pong.version}"
    return Reply(View.SENTENCE, document, f"{text}\t{took_ms} ms")


def ask(context: Context, operation: str, *fields: object) -> object:
    """The first element of an operation's reply, which is all that most have.

    Raises KritaError.
    """
    reply = context.client.call(operation, *fields)
    if not reply:
        raise ProtocolError(f"the reply to {operation} is empty")
    return reply[0]


def cluster_status(context: Context, _: Invocation) -> Reply:
    """Health, nodes and shards, gathered from all nodes by the one asked."""
    status = ask(context, "cluster_status")
    if isinstance(status, dict):
        context.recent.saw_nodes(status.get("nodes"))
        context.recent.saw_shards(status.get("shards"))
    return Reply(View.CLUSTER, status)


def node_list(context: Context, _: Invocation) -> Reply:
    """The nodes of the cluster."""
    nodes = ask(context, "node_list")
    context.recent.saw_nodes(nodes)
    return Reply(View.NODES, nodes)


def shard_list(context: Context, _: Invocation) -> Reply:
    """The shards of the cluster with their replicas."""
    shards = ask(context, "shard_list")
    context.recent.saw_shards(shards)
    return Reply(View.SHARDS, shards)


def shard_map(context: Context, invocation: Invocation) -> Reply:
    """Where a key lives."""
    key = invocation.key()
    context.recent.saw_key(key)
    ring = context.client.shard_map()
    shard = ring.shard_of(key)
    document: dict[str, object] = {
        "key": key,
        "token": token(key),
        "shard": shard.shard,
        "leader": shard.leader,
        "address": ring.nodes.get(shard.leader),
        "term": shard.term,
        "nodes": list(shard.nodes),
    }
    return Reply(View.PAIRS, document)


def shard_transfer(context: Context, invocation: Invocation) -> Reply:
    """Hands a shard's leadership over."""
    shard, node = invocation.integer("SHARD"), invocation.integer("NODE")
    leader = ask(context, "leader_transfer", shard, node)
    document = {"shard": shard, "leader": leader}
    return Reply(View.SENTENCE, document, f"ok\tshard {shard} is led by node {leader}")


def bench(context: Context, invocation: Invocation) -> Reply:
    """Generates load and measures it; code of the commonest error if all failed."""
    # Imported here: a plain get should not pay for the load generator.
    from kritash.bench import run_bench

    return run_bench(context, invocation)


def show_help(_: Context, invocation: Invocation) -> Reply:
    """Help on everything or on one command."""
    # Both ways would be a cycle: the table names this action.
    from kritash.help import help_reply

    words = invocation.arguments["COMMAND"]
    assert isinstance(words, list)
    return help_reply(words)


def leave(_: Context, __: Invocation) -> Reply:
    """Ends the prompt or the script."""
    return Reply(View.NOTHING, leave=True)
