"""Clients of a real cluster whose every operation is kept, to be judged afterwards.

The history is the simulator's, and so are its judges: the checkers do not care whether
time was virtual. Each client is a thread with a ``krita.Client`` of its own; several
share each key, so that their operations meet.
"""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType

from krita import Client, KritaError, Outcome
from krita.ring import ShardMap
from tests.simulator.history import Fate, History, Kind, Operation
from tests.simulator.linearizability import check_linearizability
from tests.simulator.witness import check_final, check_witness
from tests.system.node import wait_until

FINAL_READER = -1
# Operations that a client does in a second, at most: a history of minutes is judged too.
_PAUSE_S = 0.004


class Recorder:
    """``clients`` threads over ``keys`` keys for the length of a ``with`` block."""

    def __init__(
        self, addresses: str, *, clients: int = 4, keys: int = 24, timeout_ms: float = 5000.0
    ) -> None:
        self.history = History()
        self.keys = [b"shared:%d" % number for number in range(keys)]
        self.acknowledged = 0
        self.errors: list[KritaError] = []
        self.slowest_s = 0.0
        self._addresses = addresses
        self._timeout_ms = timeout_ms
        self._lock = threading.Lock()  # the history's, and the counters'
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._bug: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(1, clients + 1)
        ]

    def __enter__(self) -> Recorder:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._bug is not None:
            raise self._bug

    def wait_more(self, count: int) -> None:
        """Until so many more operations have been answered."""
        goal = self.acknowledged + count
        wait_until(f"{count} more operations are answered", lambda: self.acknowledged >= goal)

    def judge(self) -> list[str]:
        """Read every key, then what is wrong with the history; nothing, one hopes."""
        with Client(self._addresses, timeout_ms=20_000) as client:
            final = {key: self._final(client, key) for key in self.keys}
            ring = client.shard_map()
        self._sort_into(ring)
        operations = self.history.operations
        problems = check_witness(operations) + check_final(operations, final)
        return problems + check_linearizability(operations)

    def _sort_into(self, ring: ShardMap) -> None:
        """Keys that are in one shard in the end were together all the time, whatever was
        split off in between: they share the order of one log."""
        for operation in self.history.operations:
            operation.shard = ring.shard_of(operation.key).shard

    def _final(self, client: Client, key: bytes) -> tuple[bytes | None, int]:
        found = client.get(key)
        return (None, 0) if found is None else (found.data, found.revision)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        try:
            with Client(self._addresses, timeout_ms=self._timeout_ms) as client:
                turn = 0
                while not self._stop.wait(_PAUSE_S):
                    turn += 1
                    self._one(client, number, turn, chance)
        except BaseException as bug:  # kept for ``__exit__``, which raises it in the test
            self._bug = bug

    def _one(self, client: Client, number: int, turn: int, chance: random.Random) -> None:
        key = chance.choice(self.keys)
        kind = chance.choices((Kind.GET, Kind.PUT, Kind.DELETE), (5, 4, 1))[0]
        value = b"%d:%d" % (number, turn) if kind == Kind.PUT else None
        with self._lock:
            operation = self.history.begin(self._now_us(), number, kind, 0, key, value)
        began = time.monotonic()
        try:
            self._ask(client, operation)
        except KritaError as error:
            applied = error.outcome is not Outcome.NOT_APPLIED and kind != Kind.GET
            with self._lock:
                self.errors.append(error)
                end = self.history.gave_up if applied else self.history.failed
                end(operation, self._now_us())
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _ask(self, client: Client, operation: Operation) -> None:
        """Do it and note the answer. Raises KritaError."""
        key = operation.key
        if operation.kind == Kind.GET:
            value, revision, _, index, _ = client.call("get", key, 0)
            with self._lock:
                self.history.read(operation, self._now_us(), value, revision, index)
        else:
            if operation.kind == Kind.PUT:
                assert operation.value is not None
                put = client.put(key, operation.value)
                revision, existed = put.revision, put.existed
            else:
                gone = client.delete(key)
                revision, existed = gone.revision, gone.existed
            with self._lock:
                self.history.wrote(operation, self._now_us(), revision, existed)
        assert operation.fate is Fate.OK
        self.acknowledged += 1

    def _now_us(self) -> int:
        return int((time.monotonic() - self._began) * 1e6)
