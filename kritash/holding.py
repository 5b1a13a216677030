"""``lock run``: a lock that is held while a program runs.

Rules:

* What kritash cannot know it takes for lost: a lock that could not be renewed within its
  time, counted from before the last renewal that succeeded was sent, may be another's.
* Then the program gets SIGTERM, once. It is not killed: whatever it writes under
  ``--if-lock`` is refused anyway, and what it has to clean up only it knows.
* Ctrl-C reaches the program by the terminal; kritash goes on holding the lock until the
  program has ended. SIGTERM and SIGHUP, which reach kritash alone, are handed on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import attrs

from krita.errors import ConditionFailed, KritaError
from kritash.exits import Exit
from kritash.nouns.lock import lock_of, take
from kritash.reply import Reply, View
from kritash.words import ParseError

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

RENEWALS = 3  # within a ttl
HANDED_ON = (signal.SIGTERM, signal.SIGHUP)


@attrs.define
class Holding:
    """A lock that was taken. ``until_s``: by our clock, until when it surely is held."""

    context: Context
    key: bytes
    token: int
    ttl_ms: int
    until_s: float = 0.0

    @property
    def pause_s(self) -> float:
        """Between two renewals."""
        return self.ttl_ms / 1000 / RENEWALS

    def renew(self) -> bool:
        """Holds it for its whole time from now on; False: it is lost."""
        clock = self.context.clock
        began_s = clock()
        timeout_ms = max(1.0, 1000 * min(self.pause_s, self.until_s - began_s))
        try:
            self.context.client.touch(
                self.key, self.ttl_ms, if_revision=self.token, timeout_ms=timeout_ms
            )
        except ConditionFailed:
            return False
        except KritaError:
            return clock() < self.until_s
        self.until_s = began_s + self.ttl_ms / 1000
        return True

    def release(self) -> None:
        """Lets it go. If that fails, time does it."""
        with suppress(KritaError):
            self.context.client.delete(self.key, if_revision=self.token)


def run_holding(context: Context, invocation: Invocation) -> Reply:
    """Runs the program that the invocation names. Raises ParseError when there is no such
    program, KritaError when the lock cannot be had."""
    lock = lock_of(context, invocation)
    token = take(context, lock, invocation.count("wait"))
    holding = Holding(context, lock.key, token, lock.ttl_ms)
    # Nobody knows when, of all the time waited, the lock began; a renewal tells.
    holding.until_s = context.clock() + lock.ttl_ms / 1000
    try:
        if not holding.renew():
            return _lost(context)
        return _run(context, holding, invocation.words("COMMAND"))
    finally:
        holding.release()


def _run(context: Context, holding: Holding, command: list[str]) -> Reply:
    with _signals() as heard:
        try:
            program = subprocess.Popen(
                command, env=_environment(context, holding), stdin=_stdin(context)
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ParseError(f"cannot run {command[0]!r}: {reason}") from error
        heard.connect(program.send_signal)
        lost = False
        while True:
            try:
                status = program.wait(None if lost else holding.pause_s)
                break
            except subprocess.TimeoutExpired:
                lost = not holding.renew()
                if lost:
                    context.display.note("the lock is lost; the program is told to end")
                    program.terminate()
    if lost:
        return _lost(context)
    return Reply(View.NOTHING, code=status if status >= 0 else 128 - status)


def _stdin(context: Context) -> int | None:
    """What the program reads: what we would, but not the rest of a script."""
    is_script = context.stdin is None and not sys.stdin.isatty()
    return subprocess.DEVNULL if is_script else None


def _lost(context: Context) -> Reply:
    context.display.note("the lock was lost: somebody else may hold it")
    return Reply(View.NOTHING, code=Exit.LOST)


def _environment(context: Context, holding: Holding) -> dict[bytes, bytes]:
    """Ours, with the lock that is held and where the cluster is."""
    token = b"%d" % holding.token
    own = {
        b"KRITA_NODES": ",".join(context.settings.nodes).encode(),
        b"KRITA_LOCK_TOKEN": token,
    }
    if b"\0" not in holding.key:
        own[b"KRITA_LOCK"] = holding.key + b"@" + token
    return dict(os.environb) | own


@attrs.define
class Heard:
    """The signals that are for the program; one that comes before it has begun waits."""

    _early: list[int] = attrs.field(factory=list)
    _send: Callable[[int], None] | None = None

    def __call__(self, number: int, _frame: object) -> None:
        if self._send is None:
            self._early.append(number)
        else:
            self._send(number)

    def connect(self, send: Callable[[int], None]) -> None:
        """From now on they go there."""
        self._send = send
        for number in self._early:
            send(number)


@contextmanager
def _signals() -> Iterator[Heard]:
    """Signals are not for us within the block. What a program inherits is as it was: what
    we catch it has by default."""
    heard = Heard()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
        for number in HANDED_ON:
            before[number] = signal.signal(number, heard)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
