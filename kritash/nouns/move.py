"""``move``: replicas on their way, and stopping them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from kritash.answers import ask
from kritash.grammar import Command
from kritash.nouns.common import ADMINISTRATION, SHARD
from kritash.reply import Reply, View, sentence

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

ALL = 0  # the shard number that means all of them


def show_list(context: Context, _: Invocation) -> Reply:
    """What moves now."""
    return Reply(View.MOVES, ask(context, "move_list"))


def pause(context: Context, invocation: Invocation) -> Reply:
    """Stops the moves of one shard, or all."""
    return _hold(context, invocation, held=True)


def resume(context: Context, invocation: Invocation) -> Reply:
    """Lets them go on."""
    return _hold(context, invocation, held=False)


def _hold(context: Context, invocation: Invocation, held: bool) -> Reply:
    shard = invocation.arguments["SHARD"]
    context.client.call("shard_hold", ALL if shard is None else shard, held)
    which = "all moves" if shard is None else f"the moves of shard {shard}"
    said = f"{which} are paused" if held else f"{which} may go on"
    if not held and shard is None:
        said += ", but for those of shards that are held by themselves"
    return sentence({"shard": shard, "held": held}, "ok", said)


def cancel(context: Context, invocation: Invocation) -> Reply:
    """Takes a move back, and holds the shard."""
    shard = invocation.integer("SHARD")
    version = ask(context, "move_cancel", shard)
    document = {"shard": shard, "version": version, "held": True}
    said = f"shard {shard} stays where it was, and is held; kritash move resume {shard} frees it"
    return sentence(document, "ok", said)


_OPTIONAL_SHARD = attrs.evolve(SHARD, summary="the shard's number; otherwise all", optional=True)

COMMANDS: tuple[Command, ...] = (
    Command(("move", "list"), "the replicas on their way: step, progress, rate, time left",
            show_list,
            details="A new copy is made (copying) before the old one is given up (joint,\n"
            "removing). At most two shards at a time move onto a node, and two off it."),
    Command(
        ("move", "pause"), "stop the moves of a shard, or all", pause,
        arguments=(_OPTIONAL_SHARD,),
        details="Nothing is lost: what has been copied stays. While moves are paused lost copies\n"
        "are not made anew. Administration: needs KRITA_ADMIN_TOKEN or --token-file.",
        example="move pause",
    ),
    Command(
        ("move", "resume"), "let the moves of a shard, or all, go on", resume,
        arguments=(_OPTIONAL_SHARD,),
        details="Administration: needs KRITA_ADMIN_TOKEN or --token-file.",
        example="move resume 3",
    ),
    Command(
        ("move", "cancel"), "take a shard's move back", cancel, arguments=(SHARD,),
        confirm="Take back the move of shard {SHARD}, and hold the shard where it is?",
        details=f"The copies that vote stay, the one that was being made goes.\n{ADMINISTRATION}",
        example="move cancel 3",
    ),
)  # fmt: skip
