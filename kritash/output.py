"""Where replies, errors and progress go: stdout and stderr, and in which dress.

stdout carries results and nothing else; errors, questions and progress go to
stderr. The dress is chosen once by what stdout is: a terminal gets tables, a
pipe plain lines; ``--json`` overrides both.
"""

from __future__ import annotations

import os
import traceback
from typing import TextIO

import attrs

from krita.errors import KritaError, Outcome
from kritash.cells import visible
from kritash.exits import Exit, exit_of
from kritash.interruption import NothingSent
from kritash.render import render_json, render_plain, render_terminal, terminal_text
from kritash.reply import Reply, View
from kritash.words import ParseError

_OUTCOMES = {
    Outcome.NOT_APPLIED: "not applied",
    Outcome.APPLIED: "applied; something failed afterwards",
    Outcome.UNKNOWN: "unknown: it may have been applied; read before you write again",
}


@attrs.define
class Output:
    """The two streams. ``separate``: several commands share stdout, so a raw
    value is followed by a newline."""

    stdout: TextIO
    stderr: TextIO
    json: bool = False
    separate: bool = False
    json_now: bool = False  # asked for by the command that runs now
    _line_shown: bool = False
    _line_last: str = ""

    @property
    def terminal(self) -> bool:
        """Whether stdout is one."""
        return self.stdout.isatty()

    @property
    def as_json(self) -> bool:
        """Whether results and errors are JSON."""
        return self.json or self.json_now

    def show(self, reply: Reply) -> None:
        """Prints a reply. Raises OSError (BrokenPipeError) as stdout does."""
        if reply.view is View.NOTHING:
            return
        if self.as_json:
            self._write(render_json(reply.document, self.terminal).encode())
            return
        if reply.view is View.VALUE and reply.text:
            self.note(reply.text)  # on stdout it could be taken for the value
        if not self.terminal:
            self._write(self._plain(reply))
        else:
            self._draw(reply)

    def _plain(self, reply: Reply) -> bytes:
        rendered = render_plain(reply)
        is_value = reply.view is View.VALUE and reply.code is Exit.DONE
        return rendered + b"\n" if is_value and self.separate else rendered

    def _draw(self, reply: Reply) -> None:
        renderable = render_terminal(reply)
        if renderable is None:
            self._write(terminal_text(reply).encode("utf-8", "backslashreplace"))
            return
        from kritash.draw import console_on

        console_on(self.stdout).print(renderable)
        self.stdout.flush()

    def preview(self, reply: Reply) -> None:
        """Shows a reply on stderr, for somebody who is about to be asked. Not where --json
        is to be read by a program: it would stand in front of the error that nobody was."""
        if self.as_json and not self.stderr.isatty():
            return
        self.progress_done()
        renderable = render_terminal(reply) if self.stderr.isatty() else None
        if renderable is None:
            self.stderr.write(render_plain(reply).decode("utf-8", "replace"))
        else:
            from kritash.draw import console_on

            console_on(self.stderr).print(renderable)
        self.stderr.flush()

    def result(self, text: str) -> None:
        """A line of the result that somebody needs before the rest is there; not with
        --json, which is one document at the end."""
        if not self.as_json:
            self.progress_done()
            self._write(f"{visible(text)}\n".encode("utf-8", "backslashreplace"))

    def part(self, reply: Reply) -> None:
        """A piece of a long result, as a reply would be shown; not with --json."""
        if self.as_json:
            return
        self.progress_done()
        if self.terminal:
            self._draw(reply)
        else:
            self._write(render_plain(reply))

    def data(self, text: str) -> None:
        """A piece of a long result, as it is. Raises OSError as stdout does."""
        self.progress_done()
        self._write(text.encode("utf-8"))

    def _write(self, data: bytes) -> None:
        self.stdout.flush()
        self.stdout.buffer.write(data)
        self.stdout.buffer.flush()

    def complain(self, error: KritaError) -> Exit:
        """Says what failed, what to do, and what became of the request; returns
        the exit code for it."""
        code = exit_of(error)
        if self.as_json:
            self._complain_json(
                type(error).__name__, error.message, error.hint, error.outcome, code, error.detail
            )
            return code
        lines = [self._label("error") + visible(error.message)]
        if error.hint:
            lines.append(f"  hint: {visible(error.hint)}")
        lines.append(f"  outcome: {_OUTCOMES[error.outcome]}")
        self.note("\n".join(lines))
        return code

    def complain_of_line(self, error: ParseError, line: str) -> Exit:
        """The same for a line that makes no sense, with a mark under the place."""
        if self.as_json:
            self._complain_json(
                "ParseError", error.message, error.hint, Outcome.NOT_APPLIED, Exit.USAGE
            )
            return Exit.USAGE
        lines = [self._label("error") + visible(error.message)]
        if error.column is not None and line:
            shown = line.rstrip("\n").replace("\t", " ")
            lines += [f"  {visible(shown)}", "  " + " " * error.column + "^"]
        if error.hint:
            lines.append(f"  {visible(error.hint)}")
        self.note("\n".join(lines))
        return Exit.USAGE

    def interrupted(self, interrupt: KeyboardInterrupt) -> Exit:
        """Says that Ctrl-C ended it, and what became of the request; returns the exit code."""
        outcome, after = Outcome.UNKNOWN, "if a write was on its way, its outcome is unknown"
        if isinstance(interrupt, NothingSent):
            after = interrupt.done
            outcome = Outcome.APPLIED if after else Outcome.NOT_APPLIED
        if self.as_json:
            self._complain_json("Interrupted", "interrupted", after, outcome, Exit.INTERRUPTED)
        else:
            self.note(f"interrupted; {after}" if after else "interrupted")
        return Exit.INTERRUPTED

    def fail(self, name: str, message: str, code: Exit) -> None:
        """Says what failed here, and not in the cluster: what became of the request is not
        known any more."""
        if self.as_json:
            self._complain_json(name, message, "", Outcome.UNKNOWN, code)
        else:
            self.note(f"error: {message}")

    def crashed(self, error: Exception) -> Exit:
        """Shows a bug of ours whole, for whoever reports it; returns the exit code for it."""
        trace = "".join(traceback.format_exception(error))
        if self.as_json:
            self._complain_json(
                type(error).__name__, str(error), "a bug of kritash: report it with the trace",
                Outcome.UNKNOWN, Exit.BUG, {"trace": trace},
            )  # fmt: skip
        else:
            self.note(trace.rstrip("\n"))
        return Exit.BUG

    def _complain_json(
        self,
        name: str,
        message: str,
        hint: str,
        outcome: Outcome,
        code: Exit,
        detail: dict[str, object] | None = None,
    ) -> None:
        document: dict[str, object] = {
            "status": "error",
            "error": name,
            "message": message,
            "hint": hint,
            "outcome": outcome.name.lower(),
            "exit_code": int(code),
        }
        if detail:
            document["detail"] = detail
        self.note(render_json(document, False).rstrip("\n"))

    def _label(self, word: str) -> str:
        if self.stderr.isatty() and not os.environ.get("NO_COLOR"):
            return f"\x1b[1;31m{word}:\x1b[0m "
        return f"{word}: "

    def note(self, text: str) -> None:
        """A remark for people, on stderr."""
        self.progress_done()
        self.stderr.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
        self.stderr.flush()

    def progress(self, line: str, share: float | None = None, pace: str = "") -> None:
        """Shows one line in place of the one before, with a bar for a share and the pace
        behind it. In a pipe below it, if it is another, without both (and with --json not
        at all)."""
        if self.stderr.isatty():
            bar = "" if share is None else f"{self._bar(share)} "
            room = os.get_terminal_size(self.stderr.fileno()).columns - (27 if bar else 2)
            self.stderr.write(f"\r\x1b[K{bar}{visible(line + pace)[: max(20, room)]}")
            self._line_shown = True
        elif not self.as_json and line != self._line_last:
            self.stderr.write(f"{visible(line)}\n")
            self._line_last = line
        self.stderr.flush()

    def _bar(self, share: float) -> str:
        from kritash.draw import bar_line

        return bar_line(self.stderr, share)

    def progress_done(self) -> None:
        """Removes the progress line."""
        if self._line_shown:
            self.stderr.write("\r\x1b[K")
            self.stderr.flush()
            self._line_shown = False
