"""``kritash bench``: fill, measure, report.

Keys are chosen evenly at random, values are random bytes. A closed loop: when
the cluster is slow, less is asked of it, so a latency here is that of a client
that waits its turn, and not what a flood of independent users would see.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING

import attrs

from krita.errors import ProtocolError, Unavailable
from krita.ring import ShardMap
from krita.routing import Router
from krita.session import Session
from kritash.answers import ask
from kritash.bench_load import Load, Tally
from kritash.bench_report import Latency, Report, quantile
from kritash.bench_workload import GET, PUT, Work, Workload, in_session
from kritash.exits import Exit, exit_of
from kritash.reply import Reply, View
from kritash.words import ParseError

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

FILL_SECONDS_MAX = 600.0
# Below this many outstanding requests a session's window (krita.session) has room
# to spare even while one of its writes is being retried.
_SESSION_SHARE = 256
_GC_THRESHOLD = 100_000


@attrs.frozen
class BenchSettings:
    """The options of ``bench``, checked."""

    operation: str  # put, get or mixed
    connections: int
    in_flight: int
    keys: int
    value_size: int
    seconds: float
    seed: int
    prefix: bytes
    read_ratio: float
    sessions: bool
    fill: bool


def run_bench(context: Context, invocation: Invocation) -> Reply:
    """Runs the benchmark that the invocation asks for.

    Raises ParseError for options that do not fit together, KritaError when the
    cluster cannot be reached or a key cannot be written beforehand.
    """
    settings = read_settings(invocation)
    shard_map = context.client.shard_map()
    workload = Workload(
        settings.keys,
        settings.value_size,
        settings.prefix,
        lambda key: shard_map.shard_of(key).shard,
        settings.seed,
    )
    if settings.fill:
        _fill(context, settings, workload, shard_map)
    following = _following(settings, workload)
    if settings.sessions:
        following = _with_sessions(context, settings, shard_map, following)
    load = _open_load(context, settings, following, shard_map, settings.sessions)
    cpu_start = time.process_time()
    with rare_collections():
        seconds = load.run(settings.seconds, _progress(context, settings, load))
    cpu_seconds = time.process_time() - cpu_start
    context.display.progress_done()
    report = make_report(settings, load.tally, seconds, cpu_seconds, load.interrupted)
    return Reply(View.TEXT, report.to_document(), report.to_text(), _code(report, load.tally))


def read_settings(invocation: Invocation) -> BenchSettings:
    """Raises ParseError."""
    operation = invocation.command.path[1]
    prefix = str(invocation.options["prefix"]).encode("utf-8", "surrogateescape")
    if len(prefix) > 1024:
        raise ParseError("--prefix is longer than 1024 bytes")
    has_ratio = "read-ratio" in invocation.options
    ratio = invocation.number("read-ratio") if has_ratio else float(operation == "get")
    return BenchSettings(
        operation=operation,
        connections=invocation.integer("connections"),
        in_flight=invocation.integer("in-flight"),
        keys=invocation.integer("keys"),
        value_size=invocation.integer("value-size"),
        seconds=invocation.number("seconds"),
        seed=invocation.integer("seed"),
        prefix=prefix,
        read_ratio=ratio,
        sessions=invocation.flag("sessions"),
        fill=operation != "put" and not invocation.flag("no-fill"),
    )


@contextmanager
def rare_collections() -> Iterator[None]:
    """The load generator makes no cycles, so looking for them is a waste that
    shows as latency."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def _open_load(
    context: Context,
    settings: BenchSettings,
    following: Callable[[], Work | None],
    shard_map: ShardMap,
    repeatable: bool,
) -> Load:
    router = Router(list(context.settings.nodes), random.Random(settings.seed))
    router.learn_map(shard_map, time.perf_counter())
    token = context.settings.token
    return Load(
        router,
        following,
        settings.connections,
        settings.in_flight,
        token=token.encode() if token else None,
        timeout_s=context.settings.timeout_ms / 1000,
        repeatable=repeatable,
    )


def _following(settings: BenchSettings, workload: Workload) -> Callable[[], Work | None]:
    if settings.operation == "put":
        return workload.put
    return workload.get if settings.operation == "get" else workload.mixed(settings.read_ratio)


def _fill(
    context: Context, settings: BenchSettings, workload: Workload, shard_map: ShardMap
) -> None:
    """Writes every key once. Writing one twice does no harm, so all is retried."""
    context.display.progress(f"filling {settings.keys:,} keys")
    load = _open_load(context, settings, workload.fill(), shard_map, repeatable=True)
    load.run(
        FILL_SECONDS_MAX,
        lambda _: context.display.progress(
            f"filling {load.tally.done:,} of {settings.keys:,} keys"
        ),
    )
    context.display.progress_done()
    if load.interrupted:
        raise KeyboardInterrupt
    if load.tally.done < settings.keys:
        reason = load.tally.last_error
        because = f": {reason.message}" if reason is not None else ""
        raise Unavailable(
            f"only {load.tally.done:,} of {settings.keys:,} keys could be written{because}",
            hint="--no-fill measures reads of whatever is there",
        )


def _with_sessions(
    context: Context,
    settings: BenchSettings,
    shard_map: ShardMap,
    following: Callable[[], Work | None],
) -> Callable[[], Work | None]:
    """Gives every put a place in a session of its shard."""
    total = settings.connections * settings.in_flight
    lanes: dict[int, list[Session]] = {}
    for info in shard_map.shards:
        if info.shard:
            lanes[info.shard] = [
                _open_session(context, info.shard) for _ in range(total // _SESSION_SHARE + 1)
            ]
    turns = {shard: cycle(sessions) for shard, sessions in lanes.items()}

    def numbered() -> Work | None:
        work = following()
        if work is None or work[1] != PUT:
            return work
        for _ in lanes[work[0]]:
            session = next(turns[work[0]])
            if session.has_room:
                return in_session(work, session.take())
        return None  # every window waits for one slow write; asked again in a moment

    return numbered


def _open_session(context: Context, shard: int) -> Session:
    number = ask(context, "session_open", shard)
    if not isinstance(number, int):
        raise ProtocolError("a session's number is none")
    return Session(shard, number)


def _progress(context: Context, settings: BenchSettings, load: Load) -> Callable[[float], None]:
    """A line a second: how far, how fast, how slow, how wrong."""
    seen = {GET: 0, PUT: 0}
    last = 0.0

    def show(elapsed: float) -> None:
        nonlocal last
        fresh: list[float] = []
        for op, latencies in load.tally.latencies.items():
            fresh += latencies[seen[op] :]
            seen[op] = len(latencies)
        fresh.sort()
        p50, p99 = (1000 * quantile(fresh, share) if fresh else 0.0 for share in (0.5, 0.99))
        context.display.progress(
            f"{settings.operation}  {elapsed:.0f} of {settings.seconds:g} s  "
            f"{len(fresh) / (elapsed - last):,.0f}/s  p50 {p50:.1f} p99 {p99:.1f} ms  "
            f"errors {sum(load.tally.errors.values())}"
        )
        last = elapsed

    return show


def make_report(
    settings: BenchSettings, tally: Tally, seconds: float, cpu_seconds: float, interrupted: bool
) -> Report:
    """The report on a tally."""
    latencies: dict[str, Latency] = {}
    for name, op in (("get", GET), ("put", PUT)):
        found = Latency.of(tally.latencies[op])
        if found is not None:
            latencies[name] = found
    if len(latencies) > 1:
        both = Latency.of(tally.latencies[GET] + tally.latencies[PUT])
        assert both is not None
        latencies["all"] = both
    return Report(
        settings.operation,
        settings.connections,
        settings.in_flight,
        settings.keys,
        settings.value_size,
        seconds,
        cpu_seconds,
        latencies,
        dict(tally.errors),
        dict(tally.retries),
        interrupted,
        settings.prefix.decode("utf-8", "backslashreplace"),
        # What has failed may have been written.
        settings.fill or (settings.operation != "get" and bool(tally.done or tally.errors)),
    )


def _code(report: Report, tally: Tally) -> Exit:
    """DONE if anything succeeded; else what the last error deserves."""
    if report.interrupted:
        return Exit.INTERRUPTED
    if report.requests:
        return Exit.DONE
    return exit_of(tally.last_error) if tally.last_error is not None else Exit.UNAVAILABLE
