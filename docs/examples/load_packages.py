#!/usr/bin/env python3
"""Load Debian's package index into Krita: over 60,000 real records, name -> record.

    python docs/examples/load_packages.py --nodes 127.0.0.1:8080,127.0.0.1:8081,127.0.0.1:8082
    python docs/examples/load_packages.py --verify

The records come from ``apt-cache dumpavail``, or from any file of paragraphs that begin
with ``Package: NAME`` (``--file``; ``-`` is standard input). A key is the package's
name, behind ``--prefix``; its value is the paragraph, byte for byte. Of several
paragraphs with one name the last one counts.

Nodes may die while it loads. The client's sessions make each record's put happen once,
however often it is sent; a put that the client itself has given up on is repeated here
until ``--patience_s`` have passed without a single success, and since it sets the same
value, repeating it does no harm. When it says *loaded*, every record was acknowledged:
it is on the disks of a majority.

``--verify`` reads every record back through every node and compares the bytes, and with
``--own_copy`` also what each node's own replica holds, without asking the leader. It
loads nothing then.

Exit status: 0 all loaded, or all equal; 1 not so; 2 bad command line or input.
KRITA_ADMIN_TOKEN in the environment is used, if the cluster asks for a token.
``--json`` prints the counts and rates as one document on standard output; the progress
bar and everything else goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import anyio
from attrs import asdict, define, field, frozen
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from krita import BadRequest, Consistency, Forbidden, KritaError, TooLarge, Unauthenticated
from krita.aio import AsyncClient

DEFAULT_NODES = "127.0.0.1:8080,127.0.0.1:8081,127.0.0.1:8082"
DUMP = ("apt-cache", "dumpavail")
FIELD = b"Package: "

# Repeating these would only repeat the error.
HOPELESS = (BadRequest, TooLarge, Unauthenticated, Forbidden)
PROBLEMS_SHOWN = 10
PAUSE_S = 0.2  # after a put that failed, before it is repeated

Records = dict[str, bytes]


class InputError(Exception):
    """There is nothing to load, or it is no package index."""


def parse_records(data: bytes) -> Records:
    """The paragraphs of an index, by package name, each without its empty last line.

    Raises InputError for a paragraph that does not begin with its name.
    """
    records: Records = {}
    for paragraph in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        text = paragraph.strip(b"\n")
        if not text:
            continue
        first = text.partition(b"\n")[0]
        if not first.startswith(FIELD):
            raise InputError(f"a paragraph begins with {first[:60]!r}, not with {FIELD!r}")
        records[first.removeprefix(FIELD).strip().decode()] = text
    if not records:
        raise InputError("there are no records")
    return records


def read_records(path: str | None, limit: int | None) -> Records:
    """The records of a file, of standard input ("-"), or of apt. Raises InputError."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        elif path is not None:
            data = Path(path).read_bytes()
        else:
            data = subprocess.run(DUMP, capture_output=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise InputError(f"{' '.join(DUMP)} failed: {error.stderr.decode()}") from error
    except OSError as error:
        raise InputError(f"{error.strerror}: {error.filename}") from error
    records = parse_records(data)
    return records if limit is None else dict(list(records.items())[:limit])


@define
class Tally:
    """What has happened so far."""

    records: int
    done: int = 0
    retries: int = 0  # what the client could not do by itself
    slowest_s: float = 0.0
    wrong: list[str] = field(factory=list)  # in words

    def add(self, seconds: float) -> None:
        self.done += 1
        self.slowest_s = max(self.slowest_s, seconds)


@frozen
class Options:
    """The command line."""

    nodes: str
    file: str | None
    limit: int | None
    prefix: str
    in_flight: int
    timeout_ms: float
    patience_s: float
    verify: bool
    own_copy: bool
    token: str | None
    json: bool


class Loader:
    """Puts every record, whatever happens to the nodes meanwhile."""

    def __init__(self, client: AsyncClient, options: Options, tally: Tally) -> None:
        self._client = client
        self._options = options
        self._tally = tally
        self._succeeded = time.monotonic()  # when a put did last

    async def put(self, key: str, value: bytes) -> None:
        """Until it is acknowledged. Raises KritaError when nothing helps any more."""
        began = time.monotonic()
        while True:
            try:
                await self._client.put(key, value)
            except HOPELESS:
                raise
            except KritaError:
                self._tally.retries += 1
                if time.monotonic() - self._succeeded > self._options.patience_s:
                    raise
                await anyio.sleep(PAUSE_S)
            else:
                self._succeeded = time.monotonic()
                self._tally.add(self._succeeded - began)
                return


class Verifier:
    """Reads every record through one node."""

    def __init__(
        self, client: AsyncClient, node: str, consistency: Consistency, tally: Tally
    ) -> None:
        self._client = client
        self._node = node
        self._consistency = consistency
        self._tally = tally

    async def check(self, key: str, value: bytes) -> None:
        """Compare one record; what differs is noted, not raised."""
        began = time.monotonic()
        try:
            reply = await self._client.call("get", key, int(self._consistency), node=self._node)
        except KritaError as error:
            self._note(f"{key} from {self._node}: {error}")
            return
        found = reply[0]
        if found != value:
            size = "nothing" if found is None else f"{len(found)} bytes"
            self._note(f"{key} from {self._node}: {size} instead of {len(value)} bytes")
        self._tally.add(time.monotonic() - began)

    def _note(self, problem: str) -> None:
        self._tally.wrong.append(problem)


async def for_each(
    records: Mapping[str, bytes], work: Callable[[str, bytes], Awaitable[None]], in_flight: int
) -> None:
    """Do ``work`` for all records, ``in_flight`` at a time."""
    waiting: Iterator[tuple[str, bytes]] = iter(records.items())

    async def worker() -> None:
        for key, value in waiting:
            await work(key, value)

    async with anyio.create_task_group() as tasks:
        for _ in range(in_flight):
            tasks.start_soon(worker)


async def show(progress: Progress, task: TaskID, tally: Tally) -> None:
    """Move the bar until cancelled."""
    while True:
        progress.update(task, completed=tally.done, retries=tally.retries)
        await anyio.sleep(0.1)


async def with_progress(
    console: Console, title: str, tally: Tally, work: Callable[[], Awaitable[None]]
) -> float:
    """Do ``work`` behind a progress bar; the seconds that it took."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[retries]} retries"),
    )
    began = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=tally.records, retries=0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(show, progress, task, tally)
            await work()
            tasks.cancel_scope.cancel()
        progress.update(task, completed=tally.done, retries=tally.retries)
    return time.monotonic() - began


@frozen
class Step:
    """One step's figures, as --json prints them."""

    step: str
    records: int
    done: int
    retries: int
    bytes: int
    seconds: float
    records_per_s: float
    slowest_s: float
    wrong: list[str]


def step_of(title: str, tally: Tally, seconds: float, records: Records) -> Step:
    """What a step has come to."""
    return Step(
        title,
        tally.records,
        tally.done,
        tally.retries,
        sum(map(len, records.values())),
        round(seconds, 3),
        round(tally.done / seconds, 1),
        round(tally.slowest_s, 3),
        tally.wrong,
    )


async def load(options: Options, records: Records, console: Console) -> list[Step]:
    """Put everything. Raises KritaError."""
    tally = Tally(len(records))
    async with AsyncClient(
        options.nodes, timeout_ms=options.timeout_ms, token=options.token
    ) as client:
        loader = Loader(client, options, tally)
        work = partial(for_each, records, loader.put, options.in_flight)
        seconds = await with_progress(console, "loading", tally, work)
    return [step_of("load", tally, seconds, records)]


async def verify(options: Options, records: Records, console: Console) -> list[Step]:
    """Read everything back through every node."""
    done: list[Step] = []
    modes = [Consistency.LINEARIZABLE] + [Consistency.STALE] * options.own_copy
    async with AsyncClient(
        options.nodes, timeout_ms=options.timeout_ms, token=options.token
    ) as client:
        nodes = sorted((await client.shard_map()).nodes.values())
        for node in nodes:
            for mode in modes:
                tally = Tally(len(records))
                verifier = Verifier(client, node, mode, tally)
                what = "own copy of" if mode is Consistency.STALE else "through"
                title = f"verify {what} {node}"
                work = partial(for_each, records, verifier.check, options.in_flight)
                seconds = await with_progress(console, title, tally, work)
                done.append(step_of(title, tally, seconds, records))
    return done


def parse_options(arguments: list[str]) -> Options:
    """The command line, or exit with status 2."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog="The text at the top of this file says more.",
    )
    parser.add_argument("--nodes", default=DEFAULT_NODES, help="any of the cluster's nodes")
    parser.add_argument("--file", help="an index to load instead of apt's; - is standard input")
    parser.add_argument("--limit", type=int, help="only so many records")
    parser.add_argument("--prefix", default="", help="what every key begins with")
    parser.add_argument("--in_flight", type=int, default=256, help="requests at a time")
    parser.add_argument("--timeout_ms", type=float, default=10_000.0, help="of one request")
    parser.add_argument(
        "--patience_s", type=float, default=60.0, help="give up after so long without a success"
    )
    parser.add_argument("--verify", action="store_true", help="compare instead of loading")
    parser.add_argument(
        "--own_copy", action="store_true", help="with --verify: compare each node's replica too"
    )
    parser.add_argument(
        "--token",
        default=os.environ.get("KRITA_ADMIN_TOKEN"),
        help="the admin token, where the cluster asks for one; else KRITA_ADMIN_TOKEN's",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return Options(**vars(parser.parse_args(arguments)))


def tell(console: Console, options: Options, steps: list[Step]) -> None:
    """The figures, for people or for programs."""
    if options.json:
        print(json.dumps([asdict(step) for step in steps], indent=2))
        return
    for step in steps:
        console.print(
            f"{step.step}: {step.done} of {step.records} records, {step.bytes} bytes, "
            f"in {step.seconds} s ({step.records_per_s}/s), "
            f"{step.retries} retries, slowest {step.slowest_s} s"
        )


def causes(error: BaseException) -> Iterator[BaseException]:
    """What the tasks have died of."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from causes(part)
    else:
        yield error


def main() -> int:
    """The program; returns the exit status."""
    options = parse_options(sys.argv[1:])
    console = Console(stderr=True)
    try:
        records = read_records(options.file, options.limit)
    except InputError as error:
        console.print(f"load_packages: {error}", markup=False)
        return 2
    records = {options.prefix + name: text for name, text in records.items()}
    try:
        steps = anyio.run(verify if options.verify else load, options, records, console)
    except (KritaError, ExceptionGroup) as error:
        found = list(causes(error))
        if not all(isinstance(cause, KritaError) for cause in found):
            raise
        console.print(f"load_packages: {found[0]}", markup=False)
        return 1
    tell(console, options, steps)
    wrong = [problem for step in steps for problem in step.wrong]
    for problem in wrong[:PROBLEMS_SHOWN]:
        console.print(f"WRONG: {problem}", markup=False)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
