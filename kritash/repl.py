"""Read, run, repeat: the prompt's loop."""

from __future__ import annotations

import os

from kritash.context import Context
from kritash.dispatch import run_line
from kritash.exits import Exit
from kritash.output import Output
from kritash.prompt import Prompt
from kritash.settings import history_path, open_history

_WELCOME = "kritash, the shell of Krita: Tab completes, help explains, Ctrl-D leaves"


def run_repl(context: Context, output: Output) -> Exit:
    """Runs the prompt until ``exit`` or Ctrl-D. What fails was shown when it
    failed, so the end is always DONE."""
    output.note(_WELCOME)
    path = history_path(os.environ)
    history = open_history(path)
    if history is None:
        output.note(f"the history is not kept: {path} cannot be written")
    with Prompt(context.settings, context.recent, history) as prompt:
        while True:
            try:
                line = prompt.read()
            except KeyboardInterrupt:
                continue  # clears the line, as in other shells
            except EOFError:
                return Exit.DONE
            if _run_one(context, output, line):
                return Exit.DONE


def _run_one(context: Context, output: Output, line: str) -> bool:
    """Runs a line; True when it was the last."""
    try:
        return run_line(context, output, line).leave
    except KeyboardInterrupt as interrupt:
        # The client has given the request up and is ready for the next.
        output.interrupted(interrupt)
        return False
