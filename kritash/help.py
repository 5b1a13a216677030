"""Help texts, made from the table of commands and the table of exit codes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kritash.commands import COMMANDS, COMMON_OPTIONS, GLOBAL_OPTIONS
from kritash.exits import MEANINGS
from kritash.grammar import Command, Option
from kritash.parser import find_command, nearest
from kritash.reply import Reply, View
from kritash.words import ParseError, words_of

_INTRODUCTION = """\
usage: kritash [options] [command …]

With a command: runs it. Without, at a terminal: a prompt. Without, in a pipe:
runs each line of stdin, and stops at the first that fails (--keep-going: does
not). At a terminal results are tables; in a pipe plain lines with tabs, values
byte for byte; with --json one document for each command."""

_QUOTING = """\
On a line, 'single quotes' take everything literally; "double quotes" and bare
words know \\n \\t \\r \\0 \\\\ \\' \\" and \\xHH, so that any bytes can be typed. # begins
a comment. A line that begins with a blank is not kept in the history."""


def program_help() -> str:
    """What ``kritash --help`` prints."""
    codes = [f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()]
    parts = [
        _INTRODUCTION,
        "Options:\n" + _option_lines(GLOBAL_OPTIONS),
        "Commands:\n" + _command_lines(),
        _QUOTING,
        "Exit codes:\n" + "\n".join(codes),
    ]
    return "\n\n".join(parts)


def command_help(command: Command) -> str:
    """What ``help COMMAND`` prints."""
    parts = [f"{command.usage}\n  {command.summary}"]
    if command.aliases:
        parts[0] += f"\n  short: {', '.join(command.aliases)}"
    if command.arguments:
        rows = [(argument.name, argument.summary) for argument in command.arguments]
        parts.append(_columns(rows))
    if command.options:
        parts.append(_option_lines(command.options))
    if command.details:
        parts.append(command.details)
    if command.example:
        parts.append(f"Example: {command.example}")
    return "\n\n".join(parts)


def help_reply(topic: Sequence[str]) -> Reply:
    """Help on all commands, on those with one first word, or on one.

    Raises ParseError for a topic that is none, with the nearest command.
    """
    if not topic:
        text = f"{_command_lines()}\n\n{_QUOTING}\n\nhelp COMMAND says all about one of them."
        return Reply(View.TEXT, [_document(command) for command in COMMANDS], text)
    group = [command for command in COMMANDS if command.path[0] == topic[0]]
    if len(topic) == 1 and len(group) > 1:
        chosen = group
    else:
        try:
            chosen = [find_command(words_of(topic), COMMANDS)[0]]
        except ParseError as error:
            names = {command.name for command in COMMANDS}
            hint = error.hint or nearest(" ".join(topic), names)
            raise ParseError(f"no help on {' '.join(topic)!r}", hint=hint) from error
    text = "\n\n".join(command_help(command) for command in chosen)
    return Reply(View.TEXT, [_document(command) for command in chosen], text)


def _document(command: Command) -> dict[str, object]:
    return {
        "command": command.name,
        "short": list(command.aliases),
        "usage": command.usage,
        "summary": command.summary,
        "options": [f"--{option.name}" for option in (*command.options, *COMMON_OPTIONS)],
    }


def _command_lines() -> str:
    rows = []
    for command in COMMANDS:
        words = [argument.name for argument in command.arguments if not argument.optional]
        short = f" ({', '.join(command.aliases)})" if command.aliases else ""
        rows.append((" ".join([command.name, *words]), command.summary + short))
    return _columns(rows)


def _option_lines(options: Sequence[Option]) -> str:
    rows = []
    for option in options:
        name = f"-{option.short}, --{option.name}" if option.short else f"--{option.name}"
        default = f" (default {option.default})" if option.default is not None else ""
        rows.append((f"{name} {option.metavar}".rstrip(), option.summary + default))
    return _columns(rows)


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)
