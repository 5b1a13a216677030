"""kritash from its argv: one command, a script of lines, or the prompt.

Exit codes, which ``--help`` prints too (``exits.py`` has their reasons):

====  =====================================================================
0     done
1     the answer is "no": the key is absent, a condition did not hold, the lock
      is held by another, the lease has ended, the cluster is not healthy, what
      was waited for is not done
2     wrong usage, or a confirmation was needed and nobody could be asked
3     could not connect, or what answered is no node; not applied
4     who you are was not accepted, or you may not do this
5     no leader, no quorum, no room or no time; surely not applied
6     what is there does not allow it, or something else changed in between;
      not applied
7     the outcome is unknown: sent, and the answer was lost
8     `lock run`: the lock was lost while the program ran
9     the answer could not be written
70    kritash has a bug
130   Ctrl-C
141   of several lines: whoever read the output ended before all had been run
====  =====================================================================

Several lines (``-e``, or stdin) stop at the first that ends with another code
than 0, like ``set -e`` in a shell: what follows usually relies on what came
before. ``--keep-going`` runs them all; the first such code is the exit code.

A start must be quick, for scripts start many: prompt_toolkit (250 ms) is
imported for the prompt alone, rich (70 ms) when a table is drawn, argparse not
at all, for the table of options parses itself.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from krita import __version__
from krita.errors import BadRequest
from kritash.commands import GLOBAL_OPTIONS
from kritash.context import Context
from kritash.dispatch import Ended, help_of, run_line, run_words, wants
from kritash.exits import Exit
from kritash.help import program_help
from kritash.interruption import NothingSent, nothing_sent, patient
from kritash.output import Output
from kritash.parser import parse_options
from kritash.settings import SettingsError, load_settings
from kritash.words import ParseError, Word, words_of


def main(argv: Sequence[str] | None = None) -> int:
    """Runs kritash; returns its exit code."""
    # A value is bytes to us; a console that cannot show one must not stop us.
    sys.stdin = sys.stdin or _nothing()
    stdout, stderr = (_opened(stream) for stream in (sys.stdout, sys.stderr))
    output = Output(stdout, stderr)
    try:
        return run(sys.argv[1:] if argv is None else argv, output)
    except KeyboardInterrupt as interrupt:
        return output.interrupted(interrupt)
    except BrokenPipeError:
        _write_nowhere(stdout)
        return Exit.DONE  # whoever read us has enough (`| head`)
    except OSError as error:
        _write_nowhere(stdout)
        where = f"{error.filename}: " if error.filename else ""
        output.fail(
            "OSError", f"the answer cannot be written: {where}{error.strerror}", Exit.OUTPUT
        )
        return Exit.OUTPUT
    except Exception as error:  # Python's own code for it would say that the answer is "no"
        return output.crashed(error)


def _nothing() -> TextIO:
    """What stands for a stdin that the shell has closed (``<&-``)."""
    return open(os.devnull, encoding="utf-8")


def _opened(stream: TextIO | None) -> TextIO:
    """A stream that can be written to; Python has none where the shell closed it (``>&-``)."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream


def _write_nowhere(stdout: TextIO) -> None:
    """Python would complain again when it flushes stdout at the exit, so give it something
    that takes all."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def run(argv: Sequence[str], output: Output) -> int:
    """The same with the streams given; lets KeyboardInterrupt and
    BrokenPipeError through."""
    words = words_of(argv)
    output.json = wants(words, b"--json")  # for what is wrong with the words themselves, too
    try:
        options, rest = parse_options(words, GLOBAL_OPTIONS)
        output.json = bool(options["json"])
        if options["version"]:
            output.stdout.write(f"kritash {__version__}\n")
            return Exit.DONE
        if options["help"]:
            output.stdout.write((program_help() if not rest else help_of(rest).text) + "\n")
            return Exit.DONE
        context = _open_context(options, rest, output)
    except ParseError as error:
        return output.complain_of_line(error, "")
    except SettingsError as error:
        return output.complain(BadRequest(str(error)))
    try:
        return _run_mode(context, output, options, rest)
    except NothingSent:
        raise
    except KeyboardInterrupt as interrupt:
        if context.connected:
            raise
        raise NothingSent from interrupt
    finally:
        context.close()


def _open_context(options: dict[str, object], rest: Sequence[Word], output: Output) -> Context:
    lines = options["execute"]
    if lines and rest:
        raise ParseError("give a command, or lines with -e, not both")
    settings = load_settings(options, os.environ)
    context = Context(settings, output, assume_yes=bool(options["yes"]))
    if rest or lines:
        context.stdin = patient(sys.stdin.buffer)
    if sys.stdin.isatty() and sys.stderr.isatty():
        context.ask = ask_terminal
    return context


def _run_mode(
    context: Context, output: Output, options: dict[str, object], rest: Sequence[Word]
) -> int:
    if rest:
        return run_words(context, output, rest, options=GLOBAL_OPTIONS).code
    lines = options["execute"]
    keep_going = bool(options["keep-going"])
    if isinstance(lines, list):
        output.separate = len(lines) > 1
        return _run_script(context, output, lines, keep_going)
    if sys.stdin.isatty() and sys.stdout.isatty():
        from kritash.repl import run_repl

        return run_repl(context, output)
    output.separate = True
    return _run_script(context, output, _stdin_lines(), keep_going)


def _run_script(context: Context, output: Output, lines: Iterable[str], keep_going: bool) -> int:
    """Runs lines one after the other; see the module's docstring."""
    first_failure: int = Exit.DONE
    try:
        for line in lines:
            ended: Ended = run_line(context, output, line)
            first_failure = first_failure or ended.code
            if ended.leave or (ended.code != Exit.DONE and not keep_going):
                break
    except BrokenPipeError:
        _write_nowhere(output.stdout)
        return first_failure or Exit.CUT
    return first_failure


def _stdin_lines() -> Iterable[str]:
    """Line by line as they come, so that a program can converse with us."""
    for line in patient(sys.stdin.buffer):
        yield line.decode("utf-8", "surrogateescape")


def ask_terminal(question: str) -> bool:
    """A yes-or-no question at the terminal; only y or yes is one."""
    with nothing_sent():
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")
