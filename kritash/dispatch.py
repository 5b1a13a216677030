"""One command from words to exit code: parse, ask, act, show. For the one-shot,
the script and the prompt alike, so that all three behave the same."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from krita.errors import KritaError
from kritash.commands import COMMANDS, COMMON_OPTIONS
from kritash.consent import NOT_DONE, may_act
from kritash.context import Context
from kritash.exits import Exit
from kritash.grammar import Invocation, Option
from kritash.help import help_reply
from kritash.output import Output
from kritash.parser import find_command, parse
from kritash.reply import Reply
from kritash.words import ParseError, Word, split


@attrs.frozen
class Ended:
    """How a command ended; ``leave``: it was the last."""

    code: int
    leave: bool = False


def run_line(context: Context, output: Output, line: str) -> Ended:
    """Runs one line; an empty one does nothing. Errors are shown, not raised."""
    output.json_now = False
    try:
        words = split(line)
    except ParseError as error:
        return Ended(output.complain_of_line(error, line))
    return run_words(context, output, words, line) if words else Ended(Exit.DONE)


def run_words(
    context: Context,
    output: Output,
    words: Sequence[Word],
    line: str = "",
    options: Sequence[Option] = COMMON_OPTIONS,
) -> Ended:
    """Runs the command that the words are. Errors are shown, not raised, but
    for OSError on stdout and KeyboardInterrupt."""
    output.json_now = wants(words, b"--json")
    try:
        if wants(words, b"--help", b"-h"):
            reply = help_of(words)
        else:
            reply = act(context, parse(words, COMMANDS, options))
    except ParseError as error:
        return Ended(output.complain_of_line(error, line))
    except KritaError as error:
        return Ended(output.complain(error))
    output.progress_done()
    output.show(reply)
    return Ended(reply.code, reply.leave)


def act(context: Context, invocation: Invocation) -> Reply:
    """Asks where the table says so, then runs the action.

    Raises ParseError (nobody to ask, unreadable value) and KritaError.
    """
    command = invocation.command
    if command.confirm:
        question = command.confirm.format_map(dict(invocation.arguments))
        if not may_act(context, invocation, question):
            return NOT_DONE
    return command.action(context, invocation)


def wants(words: Sequence[Word], *switches: bytes) -> bool:
    """Whether one of the switches stands among the options: behind ``--`` there are none."""
    for word in words:
        if word.quoted:
            continue
        if word.data == b"--":
            return False
        if word.data in switches:
            return True
    return False


def help_of(words: Sequence[Word]) -> Reply:
    """Help on the command that these words begin. Raises ParseError."""
    named = [word for word in words if word.quoted or not word.data.startswith(b"-")]
    if not named:
        return help_reply([])
    try:
        command, _ = find_command(named, COMMANDS)
    except ParseError:
        return help_reply([named[0].text])
    return help_reply(command.path)
