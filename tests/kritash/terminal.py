"""A person at a terminal: a real pty, typing, and waiting for what appears."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from types import TracebackType

from tests.kritash.screen import COLUMNS, Screen
from tests.kritash.shell import environment

PATIENCE_S = 20.0
ENTER, TAB, CTRL_C, CTRL_D, CTRL_Z, UP = "\r", "\t", "\x03", "\x04", "\x1a", "\x1b[A"
# What a program asks to learn the cursor's row; without an answer it has no toolbar.
_WHERE_AM_I = b"\x1b[6n"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[=>()][0-9A-B]?|\r")


class Terminal:
    """kritash on a pty of 100 columns and 30 lines. ``text`` is what was printed
    since the last ``wait_for``, without control sequences; ``screen`` what is shown."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self.text = ""
        self.screen = Screen()
        self._raw = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, COLUMNS, 0, 0))
        variables = {"TERM": "xterm-256color"} | variables
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kritash", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**variables),
            start_new_session=True,
            # So that Ctrl-C is a signal for it, as in a real terminal.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str) -> str:
        """Waits until the text appears behind what was waited for before; returns
        what came up to its end. Fails with all that is there."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.text:
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{text!r} did not appear; there is:\n{self.text}")
        before, _, self.text = self.text.partition(text)
        return before + text

    def wait_to_see(self, text: str) -> None:
        """Waits until the text stands anywhere on the screen. For what is redrawn
        in place, of which only the changed characters are printed."""
        end = time.monotonic() + PATIENCE_S
        while text not in str(self.screen):
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{text!r} cannot be seen; there is:\n{self.screen}")

    def wait_for_exit(self) -> int:
        """The exit code; what is printed meanwhile is read, so that nothing blocks."""
        end = time.monotonic() + PATIENCE_S
        while self._read(max(0.0, end - time.monotonic())):
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, timeout_s: float) -> bool:
        """Reads what is there; False at the end or when nothing came in time."""
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # Linux: EIO once the other side has closed
            return False
        for _ in range(data.count(_WHERE_AM_I)):
            os.write(self._master, b"\x1b[1;1R")
        self._raw += data
        # An unfinished sequence or character at the end waits for the rest.
        whole = self._raw.decode("utf-8", "ignore")
        cut = whole.rfind("\x1b")
        if cut >= 0 and not _CONTROL.match(whole, cut):
            whole = whole[:cut]
        self._raw = self._raw[len(whole.encode()) :]
        self.screen.feed(whole)
        self.text += _CONTROL.sub("", whole)
        return bool(data)
