"""``shard``: the parts of the ring, where they are, and moving and splitting them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from krita.ring import token
from kritash.answers import ask, shard_list
from kritash.grammar import Argument, Command, Kind
from kritash.nouns.common import ADMINISTRATION, KEY, SHARD, WAIT, WAIT_S
from kritash.reply import Reply, View, sentence
from kritash.words import ParseError

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation


def show_list(context: Context, _: Invocation) -> Reply:
    """The shards of the cluster with their replicas."""
    return Reply(View.SHARDS, shard_list(context))


def show(context: Context, invocation: Invocation) -> Reply:
    """One shard in full. Raises ParseError when there is no such shard."""
    from kritash.documents import rows, whole
    from kritash.shard_detail import shard_document

    number = invocation.integer("SHARD")
    row = next((r for r in rows(shard_list(context)) if whole(r, "shard") == number), None)
    if row is None:
        raise ParseError(f"there is no shard {number}", hint="'shard list' has them all")
    documents = _node_documents(context)
    return Reply(View.SHARD, shard_document(row, documents, ask(context, "move_list")))


def _node_documents(context: Context) -> dict[int, object]:
    """node -> its node_status document, of those that answer."""
    from kritash.checkup import node_documents
    from kritash.documents import Node, rows

    return node_documents(context, list(map(Node.of, rows(ask(context, "node_list")))))


def show_map(context: Context, invocation: Invocation) -> Reply:
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


def transfer(context: Context, invocation: Invocation) -> Reply:
    """Hands a shard's leadership over."""
    shard, node = invocation.integer("SHARD"), invocation.integer("NODE")
    leader = ask(context, "leader_transfer", shard, node)
    document = {"shard": shard, "leader": leader}
    return sentence(document, "ok", f"shard {shard} is led by node {leader}")


def move(context: Context, invocation: Invocation) -> Reply:
    """Has a shard's replica moved from one node to another."""
    from kritash.waiting import begun, look_at_move

    shard = invocation.integer("SHARD")
    source, target = invocation.integer("FROM"), invocation.integer("TO")
    version = ask(context, "shard_move", shard, source, target)
    return begun(
        context,
        invocation,
        {"shard": shard, "from": source, "to": target, "version": version},
        f"shard {shard} moves from node {source} to node {target}; kritash move list shows how far",
        lambda: look_at_move(context, shard, source, target),
    )


def split(context: Context, invocation: Invocation) -> Reply:
    """Has a shard cut in two."""
    from kritash.waiting import begun, look_at_split

    shard = invocation.integer("SHARD")
    shard_new = ask(context, "shard_split", shard)
    return begun(
        context,
        invocation,
        {"shard": shard, "shard_new": shard_new},
        f"shard {shard} is being split; the other half is shard {shard_new}",
        lambda: look_at_split(context, shard, shard_new if isinstance(shard_new, int) else 0),
    )


COMMANDS: tuple[Command, ...] = (
    Command(("shard", "list"), "the shards: arc, leader, replicas and their lag, keys, bytes",
            show_list,
            details="A replica reads `2 +17`: on node 2, 17 log entries behind the leader."),
    Command(
        ("shard", "show"), "one shard: arc, sizes, replicas, and what is under way with it", show,
        arguments=(SHARD,),
        details="Replicas that are wanted and not there yet, and those that are to go, are marked.",
        example="shard show 3",
    ),
    Command(("shard", "map"), "which shard and leader a key belongs to", show_map,
            arguments=(KEY,), example="shard map user:1"),
    Command(
        ("shard", "transfer"), "hand a shard's leadership to another node", transfer,
        arguments=(SHARD, Argument("NODE", Kind.NODE, "the node that shall lead it")),
        confirm="Hand the leadership of shard {SHARD} to node {NODE}?",
        details=ADMINISTRATION,
        example="shard transfer 3 2 --yes",
    ),
    Command(
        ("shard", "move"), "move a shard's replica from one node to another", move,
        arguments=(SHARD, Argument("FROM", Kind.NODE, "the node that has one"),
                   Argument("TO", Kind.NODE, "the node that shall have it")),
        options=(WAIT, WAIT_S),
        confirm="Move the replica of shard {SHARD} from node {FROM} to node {TO}?",
        details="The new copy is complete before the old one goes. The cluster may move replicas\n"
        f"again later, to balance; `move pause SHARD` keeps one where it is.\n{ADMINISTRATION}",
        example="shard move 3 1 4 --wait",
    ),
    Command(
        ("shard", "split"), "cut a shard in two, in place", split,
        arguments=(SHARD,), options=(WAIT, WAIT_S),
        confirm="Split shard {SHARD} in two? It cannot be undone.",
        details="Both halves stay on the same nodes, and keys are served all the time. Shards\n"
        f"over shard_bytes_max are split without being asked.\n{ADMINISTRATION}",
        example="shard split 3 --wait",
    ),
)  # fmt: skip
