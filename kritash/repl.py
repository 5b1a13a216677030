"""Read, run, repeat: the prompt's loop."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kritash.context import Context
from kritash.dispatch import Ended, run_line
from kritash.exits import Exit
from kritash.output import Output
from kritash.prompt import Prompt
from kritash.settings import history_path, open_history
from kritash.units import count_text

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
            if _run_all(context, output, line.split("\n")):
                return Exit.DONE


def _run_all(context: Context, output: Output, lines: Sequence[str]) -> bool:
    """Runs the lines that were entered, of which there are several when they were pasted, up
    to the first that fails; True when one of them was to be the last."""
    for at, line in enumerate(lines, 1):
        ended = _run_one(context, output, line)
        if ended.leave:
            return True
        if ended.code != Exit.DONE:
            left = sum(bool(line.strip()) for line in lines[at:])
            if left:
                output.note(f"{count_text(left, 'line')} behind it not run")
            break
    return False


def _run_one(context: Context, output: Output, line: str) -> Ended:
    try:
        return run_line(context, output, line)
    except KeyboardInterrupt as interrupt:
        # The client has given the request up and is ready for the next.
        return Ended(output.interrupted(interrupt))
