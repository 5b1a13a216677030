"""Clients that ask for a fixed number of requests a second, and note each one.

    python -m benchmarks.steady_load ADDRESS,… --rate 4000 --output FILE

A process of its own, started by ``benchmarks.elastic``: half puts, half gets, of
keys drawn evenly, through ``krita.aio``. It ends after ``--seconds`` or on SIGTERM,
and then writes what became of every request.

Rules:
* Request number n is due at n / rate, whether the ones before it are answered or
  not, and its latency counts from then. So a pause of the cluster's is seen by all
  who would have come meanwhile, not by those alone that were waiting already.
* At most ``--in-flight`` requests are outstanding. Those that are due beyond that
  are not dropped: they go out late, and the wait counts.
* With ``--rate 0`` a request goes out whenever one of the places is free: the
  closed loop that says what the cluster can take.
* The clock is CLOCK_MONOTONIC, which all processes of the machine share.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import signal
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, field, frozen

from benchmarks.krita_cluster import VALUES, key_of, make_values
from benchmarks.processes import BenchmarkError, Process
from krita import requests
from krita.aio import AsyncClient
from krita.call import Call
from krita.requests import Request
from kritash.bench_report import quantile

# What a person waits: beyond it, a request has failed.
TIMEOUT_MS = 5_000.0
# How often the open loop looks which requests are due. Each counts from when it was.
PACE_S = 0.001
# How long after SIGTERM the last answers may take: their timeout, and the writing.
END_TIMEOUT_S = 30.0
GC_THRESHOLD = 100_000

_ROW = struct.Struct("<dfB")  # due, seconds it took, whether it failed
_MAGIC = b"krita load\n"


@frozen
class Slice:
    """What clients saw in some span of time. Latencies are of the requests that were due
    in it, the throughput is of those that were answered in it."""

    seconds: float
    due: int
    throughput_per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float  # of all, also of those that failed
    errors: int

    def to_document(self) -> dict[str, float]:
        return {name: round(value, 3) for name, value in asdict(self).items()}


@define(eq=False)
class Recording:
    """Every request of a run: when it was due, how long it took, whether it failed."""

    due_s: array[float] = field(factory=lambda: array("d"))
    took_s: array[float] = field(factory=lambda: array("f"))
    failed: bytearray = field(factory=bytearray)

    def add(self, due_s: float, took_s: float, failed: bool) -> None:
        self.due_s.append(due_s)
        self.took_s.append(took_s)
        self.failed.append(failed)

    def measure(self, start_s: float, end_s: float) -> Slice:
        """Raises BenchmarkError when no request that was due in the span succeeded."""
        good: list[float] = []
        longest, due, errors, finished = 0.0, 0, 0, 0
        for at, took, failed in zip(self.due_s, self.took_s, self.failed, strict=True):
            if start_s <= at + took < end_s and not failed:
                finished += 1
            if start_s <= at < end_s:
                due += 1
                longest = max(longest, took)
                errors += failed
                if not failed:
                    good.append(took)
        if not good:
            raise BenchmarkError(f"of {due} requests in {end_s - start_s:.1f} s none succeeded")
        good.sort()
        p50, p99 = (1000 * quantile(good, share) for share in (0.5, 0.99))
        seconds = end_s - start_s
        return Slice(seconds, due, finished / seconds, p50, p99, 1000 * longest, errors)

    def by_second(self, start_s: float, end_s: float) -> list[tuple[int, float, float]]:
        """Of each second of the span, by when they were due: how many requests, their p99
        and the longest in ms, failed ones included. A second without any is all zeros."""
        seconds: list[list[float]] = [[] for _ in range(max(math.ceil(end_s - start_s), 0))]
        for at, took in zip(self.due_s, self.took_s, strict=True):
            if start_s <= at < end_s:
                seconds[int(at - start_s)].append(1000 * took)
        rows = []
        for latencies in seconds:
            latencies.sort()
            p99, longest = (quantile(latencies, q) if latencies else 0.0 for q in (0.99, 1.0))
            rows.append((len(latencies), p99, longest))
        return rows

    def span(self) -> tuple[float, float]:
        """From when the first request was due until the last one was."""
        return min(self.due_s), max(self.due_s)

    def save(self, path: Path) -> None:
        """All or nothing: a reader never sees half of it."""
        rows = zip(self.due_s, self.took_s, self.failed, strict=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(_MAGIC)
            file.writelines(_ROW.pack(*row) for row in rows)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Raises BenchmarkError when there is none, or it holds no request."""
        data = path.read_bytes() if path.exists() else b""
        rows = data.removeprefix(_MAGIC)
        if not data.startswith(_MAGIC) or not rows or len(rows) % _ROW.size:
            raise BenchmarkError(f"{path.name} is no recording of any request")
        recording = cls()
        for row in _ROW.iter_unpack(rows):
            recording.add(*row)
        return recording


@define(eq=False)
class LoadProcess:
    """The clients, from outside."""

    process: Process
    output: Path

    @classmethod
    def start(
        cls, directory: Path, name: str, addresses: Sequence[str], *options: str
    ) -> LoadProcess:
        """``options`` are those of this module's command line."""
        output = directory / f"{name}.load"
        module = "benchmarks.steady_load"
        command = (sys.executable, "-m", module, ",".join(addresses), f"--output={output}")
        load = cls(Process(name, (*command, *options), directory / f"{name}.log"), output)
        load.process.start()
        return load

    def finish(self, timeout_s: float) -> Recording:
        """Wait for it to end by itself. Raises BenchmarkError."""
        if not self.process.wait(timeout_s):
            raise BenchmarkError(f"{self.process.name} does not end")
        if not self.output.exists():
            raise BenchmarkError(f"{self.process.name} failed:\n{self.process.last_words()}")
        return Recording.load(self.output)

    def stop(self) -> Recording:
        """Ask for nothing more; returns when everything is answered. Raises BenchmarkError."""
        self.process.signal(signal.SIGTERM)
        return self.finish(END_TIMEOUT_S)


@define(eq=False)
class Loop:
    """The open loop; closed with rate 0. ``submit`` starts a request and calls back once
    it has finished, with whether it failed; perhaps before it returns."""

    submit: Callable[[Callable[[bool], None]], None]
    clock: Callable[[], float]
    rate_per_s: float
    in_flight_max: int
    started_s: float
    recording: Recording = field(factory=Recording)
    outstanding: int = 0
    _number: int = 0  # of the next request
    # Somebody waits for a place, or for the end.
    on_finished: Callable[[], None] = lambda: None

    def pump(self) -> None:
        """Submit what is due and has a place. No more than the places there were before:
        what fails at once must not keep its caller here for ever."""
        for _ in range(self.in_flight_max - self.outstanding):
            now = self.clock()
            due_s = self.started_s + self._number / self.rate_per_s if self.rate_per_s else now
            if due_s > now:
                return
            self._number += 1
            self.outstanding += 1
            self.submit(partial(self._finished, due_s))

    def _finished(self, due_s: float, failed: bool) -> None:
        self.outstanding -= 1
        self.recording.add(due_s, self.clock() - due_s, failed)
        self.on_finished()


def mixed(keys: int, value_bytes: int, seed: int) -> Iterator[Request[Any]]:
    """Puts and gets, evenly, for ever."""
    chance = random.Random(seed)
    values = make_values(value_bytes)
    while True:
        key = key_of(chance.randrange(keys))
        if chance.random() < 0.5:
            yield requests.get(key)
        else:
            yield requests.put(key, values[chance.randrange(VALUES)])


async def run(options: argparse.Namespace) -> Recording:
    """Until the seconds are over or SIGTERM comes, and all is answered."""
    work = mixed(options.keys, options.value_bytes, options.seed)
    async with AsyncClient(options.addresses.split(","), timeout_ms=TIMEOUT_MS) as client:
        await client.shard_map()

        def submit(finished: Callable[[bool], None]) -> None:
            def done(call: Call) -> None:
                finished(call.error is not None)

            client.submit(next(work), done)

        loop = Loop(submit, time.monotonic, options.rate, options.in_flight, time.monotonic())
        with trio.move_on_after(options.seconds) as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(_cancel_on_sigterm, scope)
                await _pump_forever(loop)
        await _drain(loop)
    return loop.recording


async def _pump_forever(loop: Loop) -> None:
    woken = trio.Event()
    loop.on_finished = lambda: woken.set()
    while True:
        loop.pump()
        if loop.rate_per_s:
            await trio.sleep(PACE_S)
        else:
            await woken.wait()
            woken = trio.Event()


async def _drain(loop: Loop) -> None:
    """Ask for nothing more; each request ends within its timeout."""
    while loop.outstanding:
        woken = trio.Event()
        loop.on_finished = woken.set
        await woken.wait()


async def _cancel_on_sigterm(
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


def main() -> int:
    parser = argparse.ArgumentParser(prog="steady_load", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("addresses", help="HOST:PORT, several separated by commas")
    parser.add_argument("--rate", type=float, required=True, help="requests/s; 0: a closed loop")
    parser.add_argument("--in-flight", type=int, default=1024, help="outstanding at most")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--value-bytes", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="at most")
    parser.add_argument("--output", type=Path, required=True, help="where every request is noted")
    options = parser.parse_args()
    # The collector would look through every outstanding call, and its pauses be taken for ours.
    gc.set_threshold(GC_THRESHOLD)
    trio.run(run, options).save(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
