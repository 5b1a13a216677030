"""Ctrl-C, told apart by whether a request was on its way.

Whoever is interrupted wants to know what became of a write. Where kritash only waited for
people, or for what it reads, there was none, and to say "unknown" would be a false alarm.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast


class NothingSent(KeyboardInterrupt):
    """Ctrl-C where nothing was on its way. ``done`` says what had been done before; ""
    for nothing."""

    def __init__(self, done: str = "") -> None:
        super().__init__(done)
        self.done = done


@contextmanager
def nothing_sent() -> Iterator[None]:
    """A block in which nothing is sent: Ctrl-C in it is NothingSent."""
    try:
        yield
    except NothingSent:
        raise
    except KeyboardInterrupt as interrupt:
        raise NothingSent from interrupt


class _Patient(io.RawIOBase):
    """Reads as the stream below does; Ctrl-C while it waits is NothingSent."""

    def __init__(self, below: io.BufferedIOBase) -> None:
        self._below = below

    def readable(self) -> bool:
        """See RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase."""
        with nothing_sent():
            return self._below.readinto1(buffer)


def patient(stream: BinaryIO) -> BinaryIO:
    """The same stream for whoever reads from people and from pipes. Gives what is there,
    and waits for no more of it, as the stream itself does."""
    return io.BufferedReader(_Patient(cast("io.BufferedIOBase", stream)))
