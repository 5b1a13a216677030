"""The shell's own commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kritash.grammar import Argument, Command, Kind
from kritash.reply import Reply, View

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation


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


COMMANDS: tuple[Command, ...] = (
    Command(("help",), "this list, or all about one command", show_help, aliases=("?",),
            arguments=(Argument("COMMAND", Kind.COMMAND, "a command's name", optional=True,
                                rest=True),),
            example="help key put"),
    Command(("exit",), "leave (so does Ctrl-D)", leave, aliases=("quit",)),
)  # fmt: skip
