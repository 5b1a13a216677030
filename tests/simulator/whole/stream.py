"""One end of a connection in memory; the ``Stream`` of kritad/stream.py.

It behaves as a TCP socket does where that can be seen from outside:

* A send takes no more than there is room for: what is not yet acknowledged, and what
  the other side has not read, fill a window.
* Closing with unread bytes resets the connection; closing otherwise finishes it.
* Whoever sends to an end that is no more is told so with a reset, if that gets through.
* An end whose bytes stay unacknowledged for too long breaks (``close_when_silent``);
  one that waits for bytes from a machine that died waits for ever.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from tests.simulator.whole.network import Network

_WINDOW_BYTES = 256 << 10
_RECEIVE_BYTES = 64 << 10
_PARTIAL_RECEIVE = 0.02  # how often a receive gives only some of what is there

_FIN, _RST = None, False  # besides bytes, what may be on its way
_Piece = bytes | None | bool


class MemoryStream:
    """See the module's docstring. ``local`` and ``remote`` are the two hosts."""

    def __init__(self, network: Network, local: str, remote: str) -> None:
        self.local = local
        self.remote = remote
        self.loopback = local == remote
        self.peer: MemoryStream | None = None
        self._network = network
        self._inbox = bytearray()
        self._ended = False  # the other side has finished
        self._finished = False  # we have
        self._closed = False
        self._broken: OSError | None = None
        self._flight: deque[tuple[float, _Piece]] = deque()
        self._held = False  # what is in flight waits for the link
        self._arrives_s = 0.0  # when the last piece in flight does
        self._unacked = 0
        self._progress_s = 0.0  # when something was acknowledged, or first sent
        self._silence_s = math.inf
        self._watching = False
        self._readable = trio.Event()
        self._writable = trio.Event()
        network.opened(self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "broken" if self._broken else "open"
        return f"<MemoryStream {self.local} to {self.remote}, {state}>"

    # --- what kritad calls -------------------------------------------------------------

    async def receive(self) -> bytes:
        if self._inbox or self._ended or self._broken or self._closed:
            await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError
            if self._inbox:
                return self._take()
            if self._broken is not None:
                raise self._broken
            if self._ended:
                return b""
            self._readable = trio.Event()
            await self._readable.wait()

    def send_now(self, data: bytes | memoryview) -> int:
        if self._closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        if self._broken is not None:
            raise self._broken
        if self._finished:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        assert self.peer is not None
        room = _WINDOW_BYTES - self._unacked - len(self.peer._inbox)
        piece = bytes(data[: max(0, room)])
        if piece:
            if not self._unacked:
                self._progress_s = trio.current_time()
            self._unacked += len(piece)
            self._post(piece)
            self._watch()
        return len(piece)

    async def send(self, data: bytes) -> None:
        sent = self.send_now(data)
        while sent < len(data):
            self._writable = trio.Event()
            await self._writable.wait()
            if self._closed:
                raise trio.ClosedResourceError
            sent += self.send_now(data[sent:])

    def close_when_silent(self, silence_ms: int) -> None:
        self._silence_s = silence_ms / 1000.0
        self._watch()

    def finish(self) -> None:
        if not self._finished and not self._closed and self._broken is None:
            self._finished = True
            self._post(_FIN)

    def close(self) -> None:
        if self._closed:
            return
        if self._inbox:
            self.abort()
            return
        self.finish()
        self._leave()

    # --- what happens to it ------------------------------------------------------------

    def reset(self) -> None:
        """The connection breaks: both ends learn of it, this one at once."""
        if self._broken is None and not self._closed:
            self._flight.clear()
            self._post(_RST)
            self._break(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def abort(self) -> None:
        """Close it with a reset."""
        self.reset()
        self._leave()

    def vanish(self) -> None:
        """The machine is gone: nothing is said any more, what was on its way is lost."""
        self._flight.clear()
        self._leave()

    def _leave(self) -> None:
        self._closed = True
        self._network.forget(self)
        self._wake()

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()

    def _break(self, error: OSError) -> None:
        if self._broken is None:
            self._broken = error
            self._wake()

    def _take(self) -> bytes:
        count = min(len(self._inbox), _RECEIVE_BYTES)
        if count > 1 and self._network.chance.random() < _PARTIAL_RECEIVE:
            count = self._network.chance.randrange(1, count)
        data = bytes(self._inbox[:count])
        del self._inbox[:count]
        assert self.peer is not None
        self.peer._writable.set()
        return data

    # --- the way there -----------------------------------------------------------------

    def _post(self, piece: _Piece) -> None:
        now = trio.current_time()
        due = now + self._network.delay_s(self.local, self.remote)
        self._arrives_s = due = max(due, self._arrives_s)
        self._flight.append((due, piece))
        self._network.at(due, self._advance)

    def _advance(self) -> None:
        """Everything arrives that is due, unless the link does not let it."""
        if self._held:
            return
        now = trio.current_time()
        while self._flight and self._flight[0][0] <= now:
            if not self._network.is_open(self.local, self.remote):
                self._held = True
                self._network.hold(self.local, self.remote, self._again)
                return
            _, piece = self._flight.popleft()
            assert self.peer is not None
            self.peer._arrive(piece)

    def _again(self) -> None:
        self._held = False
        self._advance()

    def _arrive(self, piece: _Piece) -> None:
        """Something has come from the other end."""
        sender = self.peer
        assert sender is not None
        self._network.digest.message(self.remote, self.local, piece)
        if piece is _RST:
            self._flight.clear()
            self._break(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
            return
        if self._closed or self._broken is not None:
            if piece is not _FIN:
                self._flight.clear()
                self._post(_RST)
            return
        if piece is _FIN:
            self._ended = True
        else:
            assert isinstance(piece, bytes)
            self._inbox += piece
            self._acknowledge(len(piece))
        self._readable.set()

    def _acknowledge(self, count: int) -> None:
        """Tell the other end; acknowledgements are cumulative and cost no time here."""
        sender = self.peer
        assert sender is not None
        if self._network.is_open(self.local, self.remote):
            sender._acknowledged(count)
        else:
            self._network.hold(self.local, self.remote, lambda: self._acknowledge(count))

    def _acknowledged(self, count: int) -> None:
        self._unacked -= count
        self._progress_s = trio.current_time()
        self._writable.set()

    # --- silence -----------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._watching and self._unacked and self._silence_s < math.inf:
            self._watching = True
            self._network.at(self._progress_s + self._silence_s, self._check_silence)

    def _check_silence(self) -> None:
        self._watching = False
        if self._closed or self._broken is not None:
            return
        if self._unacked and trio.current_time() >= self._progress_s + self._silence_s:
            self._flight.clear()
            self._post(_RST)
            self._break(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
        else:
            self._watch()
