"""``node``: who is in the cluster, and what is intended with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from kritash.answers import ask, node_list
from kritash.consent import NOT_DONE, has_consent, may_act
from kritash.exits import Exit
from kritash.grammar import Argument, Command, Kind, Option
from kritash.nouns.common import ADMINISTRATION, NODE, PLAN, WAIT, WAIT_S
from kritash.reply import Reply, View, sentence

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

UP, DRAINING, LEFT, REMOVING = 0, 1, 3, 4  # as node_set takes and answers them
_STATES: dict[object, object] = {
    UP: "up",
    DRAINING: "draining",
    LEFT: "left",
    REMOVING: "removing",
}


def show_list(context: Context, _: Invocation) -> Reply:
    """The nodes of the cluster."""
    return Reply(View.NODES, node_list(context))


@attrs.frozen
class Change:
    """What a command wants with a node, and how it is said."""

    state: int
    question: str
    said: str  # once it is decided


_CHANGES = {
    "drain": Change(
        DRAINING,
        "Drain node {node}: move its leaders and replicas to other nodes?",
        "node {node} is being drained; kritash move list shows how far it is",
    ),
    "remove": Change(
        REMOVING,
        "Remove node {node} from the cluster for good?",
        "node {node} is being removed; it leaves when others have its replicas",
    ),
    "replace": Change(
        REMOVING,
        "Put node {successor} in the place of node {node}, and remove that for good?",
        "node {node} is being replaced by node {successor}; it leaves when that is done",
    ),
}


def set_intent(context: Context, invocation: Invocation) -> Reply:
    """Drain, remove or replace: with --plan only says what that would do; code NO for what
    would be refused."""
    change = _CHANGES[invocation.command.path[1]]
    replaces = invocation.command.path[1] == "replace"
    node = invocation.integer("OLD" if replaces else "NODE")
    successor = invocation.integer("NEW") if replaces else None
    if invocation.flag("plan") or not has_consent(context, invocation):
        plan = _plan_of(ask(context, "node_plan", node, change.state, successor))
        if invocation.flag("plan"):
            return plan
        context.display.preview(plan)
        question = change.question.format(node=node, successor=successor)
        if not may_act(context, invocation, question):
            return NOT_DONE
    state = ask(context, "node_set", node, change.state, successor)
    document: dict[str, object] = {
        "node": node, "state": _STATES.get(state, state), "successor": successor,
    }  # fmt: skip
    if state == LEFT:  # it held nothing, or this is said once more
        return sentence(document | {"done": True}, "ok", f"node {node} has left the cluster")
    from kritash.waiting import begun, look_at_emptying

    return begun(
        context,
        invocation,
        document,
        change.said.format(node=node, successor=successor),
        lambda: look_at_emptying(context, node, leave=change.state == REMOVING),
    )


def _plan_of(document: object) -> Reply:
    from kritash.plan import Plan

    return Reply(View.PLAN, document, code=Exit.NO if Plan.of(document).refusals else Exit.DONE)


def recommission(context: Context, invocation: Invocation) -> Reply:
    """Takes back a drain, or a removal that is not done yet."""
    from kritash.documents import Node, rows

    node = invocation.integer("NODE")
    before = next((n for n in map(Node.of, rows(node_list(context))) if n.node == node), None)
    state = ask(context, "node_set", node, UP, None)
    document = {"node": node, "state": _STATES.get(state, state)}
    if before is not None and before.state == "up":
        return sentence(
            document, "ok", f"node {node} was up already: there is nothing to take back"
        )
    return sentence(document, "ok", f"node {node} is up again, and gets its share of the replicas")


def set_zone(context: Context, invocation: Invocation) -> Reply:
    """Names the zone of a node."""
    node, zone = invocation.integer("NODE"), invocation.arguments["ZONE"]
    assert isinstance(zone, str)
    context.client.call("node_label", node, zone, None)
    said = f"node {node} is in zone {zone!r}" if zone else f"node {node} has no zone"
    return sentence({"node": node, "zone": zone}, "ok", said)


def set_weight(context: Context, invocation: Invocation) -> Reply:
    """Says how much of the data a node is to have, compared with others."""
    node, weight = invocation.integer("NODE"), invocation.integer("WEIGHT")
    context.client.call("node_label", node, None, weight)
    return sentence({"node": node, "weight": weight}, "ok", f"node {node} has weight {weight}")


_WISHES = ("zone", "port", "data-dir", "listen-ip")  # options, in the order of Wishes


def add(context: Context, invocation: Invocation) -> Reply:
    """How to start a node that joins this cluster; with --wait until it has its share."""
    from kritash.documents import Node, rows
    from kritash.follow import follow
    from kritash.joining import Wishes, command_for, remarks_on
    from kritash.waiting import ended, look_at_arrival

    nodes = [Node.of(row) for row in rows(node_list(context))]
    options = invocation.options
    given = ["" if options[name] is None else str(options[name]) for name in _WISHES]
    wishes = Wishes(*given)
    command = command_for(nodes, wishes)
    remarks = remarks_on(command, has_token=context.settings.token is not None)
    document: dict[str, object] = {
        "command": command.words, "line": command.line, "remarks": remarks,
    }  # fmt: skip
    patience_s = options["wait-s"]
    waits = invocation.flag("wait") or patience_s is not None
    if not context.display.as_json:
        for remark in remarks:
            context.display.note(remark)
    if not waits:
        return sentence(document, command.line)
    context.display.result(command.line)
    look = look_at_arrival(context, frozenset(node.node for node in nodes))
    seconds = float(patience_s) if isinstance(patience_s, (int, float)) else None
    return ended(document, follow(context, look, seconds))


_GOING = (PLAN, WAIT, WAIT_S)

COMMANDS: tuple[Command, ...] = (
    Command(("node", "list"), "the nodes: zone, weight, state, leaders, replicas, bytes",
            show_list, details="A node that is silent is waited for; one that is dead was given "
            "up, and its replicas\nare made anew elsewhere. A drained one is safe to stop."),
    Command(
        ("node", "add"), "how to start a node that joins this cluster", add,
        options=(Option("zone", "its failure zone", "ZONE", Kind.ZONE),
                 Option("port", "its port, if not that of the others", "PORT", Kind.COUNT),
                 Option("data-dir", "the new, empty directory of its data", "DIR"),
                 Option("listen-ip", "the address of its machine to listen on", "IP"),
                 WAIT, WAIT_S),
        details="Prints the command line, to be run on the new node's machine, and changes\n"
        "nothing itself. With --wait it follows the node that joins next until it has its share.",
        example="node add --zone b --wait",
    ),
    Command(
        ("node", "drain"), "move everything off a node, so that it can be stopped", set_intent,
        arguments=(NODE,), options=_GOING,
        details=f"The node stays a member, and gets nothing new; it is not ready (/readyz) from\n"
        f"then on. `node recommission` takes it back.\n{ADMINISTRATION}",
        example="node drain 3 --plan",
    ),
    Command(
        ("node", "recommission"), "take a drain back, or a removal that is not done yet",
        recommission, arguments=(NODE,),
        details="Administration: needs KRITA_ADMIN_TOKEN or --token-file.",
        example="node recommission 3",
    ),
    Command(
        ("node", "remove"), "take a node out of the cluster for good", set_intent,
        arguments=(NODE,), options=_GOING,
        details="A living node is emptied first, as by drain; the replicas of a dead one are made\n"
        "anew on others. Then it has left, its kritad ends by itself with exit status 0, and\n"
        f"its directory may be deleted.\n{ADMINISTRATION}",
        example="node remove 3 --wait",
    ),
    Command(
        ("node", "replace"), "give one node's replicas to another, and remove it", set_intent,
        arguments=(Argument("OLD", Kind.NODE, "the node that goes"),
                   Argument("NEW", Kind.NODE, "the node that gets its replicas")),
        options=_GOING,
        details=f"As remove, but the replicas go to NEW, which has to be a member (see\n"
        f"`node add`).\n{ADMINISTRATION}",
        example="node replace 3 6 --wait",
    ),
    Command(
        ("node", "set-zone"), "say in which failure zone a node is", set_zone,
        arguments=(NODE, Argument("ZONE", Kind.ZONE, "its name; '' for none")),
        details="Copies of a key are kept in different zones, as long as there are enough.\n"
        "Administration: needs KRITA_ADMIN_TOKEN or --token-file.",
        example="node set-zone 3 rack-b",
    ),
    Command(
        ("node", "set-weight"), "say how much of the data a node is to have", set_weight,
        arguments=(NODE, Argument("WEIGHT", Kind.WEIGHT,
                                  "1 to 100; a node of weight 2 gets twice what one of 1 gets")),
        details="Administration: needs KRITA_ADMIN_TOKEN or --token-file.",
        example="node set-weight 3 2",
    ),
)  # fmt: skip
