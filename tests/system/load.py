"""Clients that write without pause while nodes die, and remember what they were told.

A writer's keys are its own, so what a key may hold afterwards is exactly known: the
value that was acknowledged last, or one that was tried after it and whose outcome
nobody knows. Anything else is a lost write, or a write that came back from the dead.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType

import attrs
import trio

from krita import Client, Consistency, KritaError, Outcome
from krita.aio import AsyncClient
from tests.system.node import wait_until

HOT_KEYS = 20  # of each writer; its other keys are written once
_READERS = 32


@attrs.define(eq=False)
class Key:
    """What is known of one key."""

    acknowledged: bytes | None = None
    in_doubt: set[bytes] = attrs.field(factory=set)  # tried after that, outcome unknown

    def may_hold(self, value: bytes | None) -> bool:
        return value == self.acknowledged or value in self.in_doubt


class Writer:
    """One thread with one client."""

    def __init__(self, name: str, addresses: str, timeout_ms: float) -> None:
        self.name = name
        self.keys: dict[str, Key] = {}
        self.acknowledged = 0
        self.errors: list[KritaError] = []
        self.slowest_s = 0.0
        self._addresses = addresses
        self._timeout_ms = timeout_ms
        self._random = random.Random(name)
        self._stop = threading.Event()
        self._bug: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; raises what it died of, if it did."""
        self._stop.set()
        self._thread.join()
        if self._bug is not None:
            raise self._bug

    def _run(self) -> None:
        try:
            with Client(self._addresses, timeout_ms=self._timeout_ms) as client:
                turn = 0
                while not self._stop.is_set():
                    self._write(client, turn)
                    turn += 1
        except BaseException as bug:  # kept for ``stop``, which raises it in the test
            self._bug = bug

    def _write(self, client: Client, turn: int) -> None:
        name = f"{self.name}:hot:{turn % HOT_KEYS}" if turn % 2 else f"{self.name}:{turn}"
        value = f"{name} {turn} ".encode() + self._random.randbytes(self._random.randrange(300))
        key = self.keys.setdefault(name, Key())
        began = time.monotonic()
        try:
            client.put(name, value)
        except KritaError as error:
            self.errors.append(error)
            if error.outcome is not Outcome.NOT_APPLIED:
                key.in_doubt.add(value)
        else:
            key.acknowledged = value
            key.in_doubt.clear()
            self.acknowledged += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)


class Writers:
    """Several writers for the length of a ``with`` block."""

    def __init__(self, addresses: str, count: int = 3, *, timeout_ms: float = 10_000.0) -> None:
        self._writers = [Writer(f"writer{n}", addresses, timeout_ms) for n in range(count)]

    def __enter__(self) -> Writers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in self._writers:
            writer.stop()

    @property
    def acknowledged(self) -> int:
        """How many writes were acknowledged so far."""
        return sum(writer.acknowledged for writer in self._writers)

    @property
    def errors(self) -> list[KritaError]:
        """What the clients could not hide."""
        return [error for writer in self._writers for error in writer.errors]

    @property
    def slowest_s(self) -> float:
        """How long the slowest write took."""
        return max(writer.slowest_s for writer in self._writers)

    @property
    def keys(self) -> dict[str, Key]:
        """What is known of every key; call it when the writers have stopped."""
        return {name: key for writer in self._writers for name, key in writer.keys.items()}

    def wait_more(self, count: int) -> None:
        """Until so many more writes are acknowledged."""
        goal = self.acknowledged + count
        wait_until(f"{count} more writes are acknowledged", lambda: self.acknowledged >= goal)


def read_all(
    address: str, names: Sequence[str], consistency: Consistency = Consistency.LINEARIZABLE
) -> dict[str, bytes | None]:
    """Every key's value as the node at ``address`` gives it."""
    found: dict[str, bytes | None] = {}
    waiting = iter(names)

    async def read(client: AsyncClient) -> None:
        for name in waiting:
            found[name] = (await client.call("get", name, int(consistency), node=address))[0]

    async def main() -> None:
        async with AsyncClient(address, timeout_ms=10_000) as client, trio.open_nursery() as tasks:
            for _ in range(_READERS):
                tasks.start_soon(read, client)

    trio.run(main)
    return found


def check_kept(keys: dict[str, Key], addresses: Iterable[str]) -> None:
    """Through every node, each key has what it may have, and from each node's own copy
    the same. The replicas have to have settled. Fails naming the first keys that differ."""
    names = list(keys)
    truth: dict[str, bytes | None] | None = None
    for address in addresses:
        for consistency in (Consistency.LINEARIZABLE, Consistency.STALE):
            found = read_all(address, names, consistency)
            bad = [name for name in names if not keys[name].may_hold(found[name])]
            assert not bad, (
                f"{len(bad)} of {len(names)} keys are wrong when read ({consistency.name}) "
                f"from {address}; the first, {bad[0]!r}, holds {found[bad[0]]!r}, "
                f"known is {keys[bad[0]]}"
            )
            truth = truth or found
            assert found == truth, f"{address} ({consistency.name}) differs from the node before"
