"""What arrives on all of a node's sockets, for one task instead of one task each.

A task that waits for a socket by itself costs a busy node 15 to 25 µs each time
something arrives: the system call by which trio arms the socket anew, the scheduling
of the task, and the way back down through its coroutines. Here a socket is armed once,
for as long as somebody is there to take what it brings; one task waits for all of
them, and calls whoever takes. The figures are in docs/decisions.md.

Rules:
* A round gives every socket that has something one receive of ``RECEIVE_BYTES`` at
  most, and goes through the scheduler before the next: nobody who sends much keeps
  others waiting.
* Whatever taking raises is raised in the task that waits for the socket, and in no
  other's way.
* A socket that brings something while nobody waits for it is disarmed, so that TCP makes
  the other side wait, and armed again by whoever comes for it.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable

import attrs
import trio
from trio.lowlevel import Abort, RaiseCancelT, reschedule, wait_task_rescheduled

RECEIVE_BYTES = 64 << 10

# Events of one round; the next follows at once.
_EVENTS_MAX = 256

# Takes what has arrived, which is not nothing; whether it wants to go on without its task.
Take = Callable[[bytes], bool]


@attrs.define(eq=False)
class _Waiting:
    """A task that waits until ``take`` has had enough, and what it is then given."""

    socket: socket.socket
    take: Take
    task: trio.lowlevel.Task
    data: bytes = b""
    error: BaseException | None = None


class Poller:
    """See the module's docstring. One for each run of trio; ``Poller.present()``."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        # By number. Kept alive here, so that no other socket gets its number unnoticed.
        self._armed: dict[int, socket.socket] = {}
        self._waiting: dict[int, _Waiting] = {}

    def __repr__(self) -> str:
        return f"<Poller {len(self._armed)} sockets armed, {len(self._waiting)} waited for>"

    @staticmethod
    def present() -> Poller:
        """The present run's; its task is started with the first that asks."""
        try:
            return _present.get()
        except LookupError:
            poller = Poller()
            _present.set(poller)
            trio.lowlevel.spawn_system_task(poller._run)
            return poller

    async def attend(self, source: socket.socket, take: Take) -> bytes:
        """See ``Stream.receive_each``. One task at a time for each socket."""
        number = source.fileno()
        if number < 0:
            raise trio.ClosedResourceError
        assert number not in self._waiting, f"two tasks wait for {source}"
        if number not in self._armed:
            self._epoll.register(number, select.EPOLLIN)
            self._armed[number] = source
        waiting = _Waiting(source, take, trio.lowlevel.current_task())
        self._waiting[number] = waiting

        def abort(_: RaiseCancelT) -> Abort:
            del self._waiting[number]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
        if waiting.error is not None:
            raise waiting.error
        return waiting.data

    def forget(self, source: socket.socket) -> None:
        """The socket is about to be closed; who waits for it gets ClosedResourceError."""
        number = source.fileno()
        if self._armed.pop(number, None) is not None:
            with contextlib.suppress(ValueError, OSError):  # the run may be over
                self._epoll.unregister(number)
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.error = trio.ClosedResourceError()
            reschedule(waiting.task)

    async def _run(self) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll)
                for number, _ in self._epoll.poll(0, _EVENTS_MAX):
                    self._arrived(number)
        finally:
            self._epoll.close()

    def _arrived(self, number: int) -> None:
        """Something can be had from a socket: bytes, its end, or an error."""
        waiting = self._waiting.get(number)
        if waiting is None:
            if self._armed.pop(number, None) is not None:  # else it was closed in this round
                self._epoll.unregister(number)
            return
        try:
            waiting.data = data = waiting.socket.recv(RECEIVE_BYTES)
            if data and waiting.take(data):
                return
        except BlockingIOError:
            return  # epoll may wake without cause
        except BaseException as error:  # the task's to deal with, whatever it is
            waiting.error = error
        # What was taken may have ended the wait, by cancelling the task or closing the socket.
        if self._waiting.get(number) is waiting:
            del self._waiting[number]
            reschedule(waiting.task)


_present: trio.lowlevel.RunVar[Poller] = trio.lowlevel.RunVar("poller")
