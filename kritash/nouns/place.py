"""``key explain``: where a key is, and why it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.errors import KritaError
from kritash.grammar import Command
from kritash.nouns.common import KEY
from kritash.reply import Reply, View

if TYPE_CHECKING:
    from krita.items import Explanation
    from kritash.context import Context
    from kritash.grammar import Invocation


def explain(context: Context, invocation: Invocation) -> Reply:
    """The key's place, its shard, and who has it. What only the nodes' status tells (roles,
    lags, zones) is left out when that cannot be had."""
    key = invocation.key()
    context.recent.saw_key(key)
    found = context.client.explain(key)
    return Reply(View.PLACE, place_document(found, _copies(context, found)))


def _copies(context: Context, found: Explanation) -> dict[int, dict[str, object]]:
    """node -> what is known of its copy."""
    from kritash.answers import node_list, shard_list
    from kritash.documents import Node, Shard, rows

    try:
        shards = map(Shard.of, rows(shard_list(context)))
        nodes = {node.node: node for node in map(Node.of, rows(node_list(context)))}
    except KritaError as error:
        context.display.note(f"roles and lags are not known: {error.message}")
        return {}
    shard = next((shard for shard in shards if shard.shard == found.shard), None)
    if shard is None:
        return {}
    return {
        replica.node: {
            "role": replica.role,
            "lag": replica.lag,
            "zone": nodes[replica.node].zone if replica.node in nodes else "",
        }
        for replica in shard.replicas
    }


def place_document(found: Explanation, copies: dict[int, dict[str, object]]) -> dict[str, object]:
    """Both together. Pure."""
    known = {node: {"address": address} for node, address in found.nodes.items()}
    replicas = [
        {"node": node, **known.get(node, {}), **copies.get(node, {})}
        for node in sorted(known.keys() | copies.keys())
    ]
    return {
        "key": found.key,
        "tag": found.tag,
        "place": found.place,
        "shard": found.shard,
        "leader": found.leader or None,  # no node has the number 0
        "address": found.address,
        "term": found.term,
        "replicas": replicas,
    }


COMMANDS: tuple[Command, ...] = (
    Command(
        ("key", "explain"), "where a key is: shard, leader, copies, how far behind they are",
        explain, aliases=("why",), arguments=(KEY,),
        details="A key's place on the ring follows from its tag: what stands in its first braces,\n"
        "or all of it. Keys with the same tag are of one group, and so in one shard, whose arc\n"
        "has that place. The leader answers for it; a copy's lag is how many entries of the log\n"
        "it is behind.",
        example="why user:1",
    ),
)  # fmt: skip
