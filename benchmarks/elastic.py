"""What clients notice while the cluster changes, and how long the changes take.

    python -m benchmarks.elastic [--runs 1] [--bytes N] [--heal-bytes N] [--json]

A round starts three nodes, fills them, and then
1. measures what they take: puts and gets of 1 KiB, evenly, as fast as they are
   answered. From then on clients ask for a share of that (``--share``), however
   long the answers take (benchmarks/steady_load.py). At all of it, the processors have
   nothing left for anything else, and any work would be taken from the clients;
2. starts a fourth node: what the clients saw before, while it got its share of the
   copies and leaders, and after; what was sent in snapshots against what had to be;
3. splits the biggest shard: the longest that any request waited;
4. stops the clients, kills the node that leads most, for good, and waits until it
   is declared dead, and then until every shard has all its copies on the others.

All settings but ``dead_after_s`` and a token are the defaults, unless ``--set`` says
more. Standard output is for the
result, progress goes to standard error. Exit status 0; 1 when the benchmark could
not run. Requests that failed are counted: they are figures too.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attrs import define, field, frozen

import krita
from benchmarks.cluster_status import (
    Document,
    biggest,
    bytes_on,
    copies,
    data_bytes,
    is_dead,
    is_even,
    is_split,
    is_whole,
    reasons,
)
from benchmarks.command import carry_out, make_parser
from benchmarks.elastic_report import MIB, Heal, Join, Result, Round, Split
from benchmarks.failover import busiest, index_of
from benchmarks.krita_cluster import (
    VALUES,
    KritaCluster,
    batches,
    make_values,
    metric,
    metrics_of,
    put_all,
    status_of,
)
from benchmarks.processes import BenchmarkError, Process, wait_until
from benchmarks.steady_load import LoadProcess, Recording

NODES = 3
VALUE_BYTES = 1024
KEYS_MAX = 100_000
# What else is stored comes in larger pieces: they take half as long to put.
BALLAST_BYTES = 4096
BALLAST_BATCH = 500
SENT_METRIC = "krita_snapshot_bytes_sent_total"

MAXIMUM_S = 6.0
WARM_UP_S = 1.0  # of each load, not counted
SPLIT_TAIL_S = 2.0  # how long after a split its effects on clients are looked for
POLL_S = 0.25
TELL_S = 2.0
# A change is taken to be stuck after this, and a second for each of these.
PATIENCE_S = 90.0
BYTES_PER_S_MIN = 1 << 20


@frozen
class Options:
    """What is measured."""

    stored_bytes: int  # of values, in three nodes
    heal_bytes: int  # before a node is killed, if that is more
    share: float  # of the maximum, that the clients ask for
    in_flight: int  # while the maximum is measured
    window_s: float  # before, and after
    dead_after_s: int
    settings: tuple[str, ...] = ()  # other ones of every node, NAME=VALUE


def ideal_join_bytes(stored_bytes: int, replication_factor: int, nodes: int) -> float:
    """An even share of all copies, for the newest of so many nodes."""
    return stored_bytes * min(replication_factor, nodes) / nodes


def plan_fill(stored_bytes: int) -> tuple[int, int]:
    """How many keys of the clients' and how many pieces of ballast make up so many bytes."""
    keys = max(min(stored_bytes // VALUE_BYTES, KEYS_MAX), 1)
    return keys, max(stored_bytes - keys * VALUE_BYTES, 0) // BALLAST_BYTES


@define(eq=False)
class Trial:
    """One round: a cluster, and what happens to it."""

    directory: Path
    options: Options
    cluster: KritaCluster
    token: str = field(repr=False)
    load: LoadProcess | None = None
    ballast: int = 0  # pieces stored
    killed: list[Process] = field(factory=list)  # for good

    @classmethod
    def create(cls, directory: Path, options: Options) -> Trial:
        """Nothing is started yet. The directory must not exist."""
        directory.mkdir()
        # A split is administration, and that asks for a token.
        token = secrets.token_hex(32)
        token_file = directory / "token"
        token_file.touch(0o600)
        token_file.write_text(token)
        settings = [f"--dead_after_s={options.dead_after_s}", f"--admin_token_file={token_file}"]
        settings += [f"--{setting}" for setting in options.settings]
        cluster = KritaCluster.create(directory / "krita", NODES, settings)
        return cls(directory, options, cluster, token)

    def run(self) -> Round:
        """Raises BenchmarkError, KritaError. Whatever happens, no process is left."""
        try:
            tell("starting three nodes")
            self.cluster.start()
            keys = self._fill()
            maximum = self._measure_maximum(keys)
            rate = self.options.share * maximum
            tell(f"they take {maximum:,.0f} requests/s; clients ask for {rate:,.0f} now")
            with self.cluster.client(self.token) as client:
                self.load = self._start_load("steady", keys, rate)
                time.sleep(WARM_UP_S)
                join, split = self._join(client), self._split(client)
                recording = self.load.stop()
                self.load = None
                # Before anything else happens: what takes minutes must not fail first.
                joined, halved = join(recording), split(recording)
                self._prepare_heal(client)
                healed = self._heal(client)
            self.cluster.stop()
        finally:
            if self.load:
                self.load.process.kill()
            self.cluster.kill()
        return Round(maximum, rate, joined, halved, healed)

    # Data and clients

    def _fill(self) -> int:
        """The number of keys that the clients use."""
        keys, pieces = plan_fill(self.options.stored_bytes)
        tell(f"filling {self.options.stored_bytes / MIB:,.0f} MiB")
        self.cluster.fill(keys, VALUE_BYTES)
        self._add_ballast(pieces)
        return keys

    def _add_ballast(self, pieces: int) -> None:
        values = make_values(BALLAST_BYTES)
        numbers = range(self.ballast, self.ballast + pieces)
        with self.cluster.client() as client:
            for some in batches(numbers, BALLAST_BATCH):
                put_all(client, [(b"ballast:%08d" % n, values[n % VALUES]) for n in some])
        self.ballast += pieces

    def _start_load(self, name: str, keys: int, rate_per_s: float, *options: str) -> LoadProcess:
        numbers = (f"--rate={rate_per_s}", f"--keys={keys}", f"--value-bytes={VALUE_BYTES}")
        addresses = self.cluster.addresses[:NODES]
        return LoadProcess.start(self.directory, name, addresses, *numbers, *options)

    def _measure_maximum(self, keys: int) -> float:
        """Requests a second of clients that never pause."""
        seconds = WARM_UP_S + MAXIMUM_S
        options = (f"--in-flight={self.options.in_flight}", f"--seconds={seconds}")
        self.load = self._start_load("maximum", keys, 0.0, *options)
        recording = self.load.finish(seconds + PATIENCE_S)
        self.load = None
        start_s, end_s = recording.span()
        return recording.measure(start_s + WARM_UP_S, end_s).throughput_per_s

    # Changes

    def _join(self, client: krita.Client) -> Callable[[Recording], Join]:
        """The returned function makes the figures, once the clients have stopped."""
        before_s = time.monotonic()
        time.sleep(self.options.window_s)
        status = status_of(client)
        stored = data_bytes(status)
        ideal = ideal_join_bytes(stored, status["replication_factor"], NODES + 1)
        sent_before = self._sent_bytes()
        node = self.cluster.add_node()
        start_s = time.monotonic()
        node.start()
        self._watch(client, "a fourth node joins", partial(is_even, nodes=NODES + 1))
        end_s = time.monotonic()
        sent = self._sent_bytes() - sent_before
        time.sleep(self.options.window_s)
        after_s = time.monotonic()

        def figures(recording: Recording) -> Join:
            tell("what clients saw while it joined")
            for second, row in enumerate(recording.by_second(start_s, end_s), 1):
                tell(
                    "second {:>3}: {:>7,} due, p99 {:>6,.0f} ms, longest {:>6,.0f} ms".format(
                        second, *row
                    )
                )
            return Join(
                recording.measure(before_s, start_s),
                recording.measure(start_s, end_s),
                recording.measure(end_s, after_s),
                end_s - start_s,
                stored,
                sent,
                ideal,
            )

        return figures

    def _split(self, client: krita.Client) -> Callable[[Recording], Split]:
        """As ``_join``."""
        found = biggest(status_of(client))
        shard = found["shard"]
        start_s = time.monotonic()
        (shard_new, *_) = client.call("shard_split", shard)
        halves = (shard, shard_new)
        self._watch(client, f"shard {shard} is split", partial(is_split, halves=halves))
        seconds = time.monotonic() - start_s
        time.sleep(SPLIT_TAIL_S)
        end_s = time.monotonic()

        def figures(recording: Recording) -> Split:
            return Split(
                shard,
                found["bytes"],
                seconds,
                recording.measure(start_s, end_s),
                recording.measure(2 * start_s - end_s, start_s),
            )

        return figures

    def _prepare_heal(self, client: krita.Client) -> None:
        """More data, if it is to be more; the copies of the new shard evenly spread."""
        more = self.options.heal_bytes - data_bytes(status_of(client))
        if more > 0:
            tell(f"filling another {more / MIB:,.0f} MiB")
            self._add_ballast(more // BALLAST_BYTES)
        self._watch(client, "the copies are evened out", partial(is_even, nodes=NODES + 1))

    def _heal(self, client: krita.Client) -> Heal:
        status = status_of(client)
        victim = busiest(status)
        rest = [row["node"] for row in status["nodes"] if row["node"] != victim]
        process = self.cluster.nodes[index_of(self.cluster, status, victim)]
        self.killed.append(process)
        sent_before = self._sent_bytes()
        killed_s = time.monotonic()
        process.kill()
        self._watch(client, f"node {victim} was killed", partial(is_dead, node=victim))
        dead_s = time.monotonic()
        self._watch(client, f"node {victim} is dead", partial(is_whole, nodes=rest))
        healed_s = time.monotonic()
        return Heal(
            data_bytes(status),
            bytes_on(status, victim),
            self._sent_bytes() - sent_before,
            dead_s - killed_s,
            healed_s - dead_s,
        )

    # Looking

    def _living(self) -> list[Process]:
        """Whoever has to run for this to go on."""
        nodes = [node for node in self.cluster.nodes if node not in self.killed]
        return [*nodes, *([self.load.process] if self.load else [])]

    def _sent_bytes(self) -> int:
        """In snapshots, by all living nodes since they started. Raises BenchmarkError."""
        pairs = zip(self.cluster.nodes, self.cluster.ports, strict=True)
        ports = [port for node, port in pairs if node not in self.killed]
        return sum(int(metric(metrics_of(port), SENT_METRIC)) for port in ports)

    def _watch(self, client: krita.Client, what: str, done: Callable[[Document], bool]) -> None:
        """Wait, and tell how it goes. Raises BenchmarkError when it takes too long."""
        told_s = start_s = time.monotonic()
        status: Document = {}

        def look() -> bool:
            nonlocal told_s, status
            status = status_of(client)
            now_s = time.monotonic()
            if now_s >= told_s + TELL_S:
                told_s = now_s
                held = ", ".join(f"{count} at node {n}" for n, count in copies(status).items())
                tell(f"{what}: {now_s - start_s:.0f} s, copies: {held}")
            return done(status)

        tell(what)
        largest = max(self.options.stored_bytes, self.options.heal_bytes)
        timeout_s = PATIENCE_S + largest / BYTES_PER_S_MIN
        try:
            wait_until(what, look, self._living(), timeout_s, POLL_S)
        except BenchmarkError as error:
            raise BenchmarkError(f"{error}\n{reasons(status)}") from error


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(directory: Path, runs: int, options: Options) -> Result:
    """Raises BenchmarkError, KritaError. Whatever happens, no process is left."""
    rounds = []
    for number in range(1, runs + 1):
        tell(f"round {number} of {runs}")
        # Nothing is kept for the next: three nodes join each other afresh.
        with tempfile.TemporaryDirectory(dir=directory) as at:
            rounds.append(Trial.create(Path(at) / "round", options).run())
    return Result(options.share, options.in_flight, options.dead_after_s, tuple(rounds))


def main() -> int:
    parser = make_parser("elastic", __doc__)
    parser.add_argument("--runs", type=int, default=1, help="how many rounds, some 3 minutes each")
    parser.add_argument("--bytes", type=int, default=256 * MIB, help="stored in three nodes")
    parser.add_argument("--heal-bytes", type=int, default=0, help="stored before the kill, if more")
    parser.add_argument("--share", type=float, default=0.6, help="of the maximum, asked for")
    parser.add_argument("--in-flight", type=int, default=256, help="while that is measured")
    parser.add_argument("--window", type=float, default=10.0, help="seconds before and after")
    parser.add_argument("--dead-after", type=int, default=3, help="seconds of silence")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE, of every node")
    given = parser.parse_args()
    options = Options(
        given.bytes,
        given.heal_bytes,
        given.share,
        given.in_flight,
        given.window,
        given.dead_after,
        tuple(given.set),
    )
    return carry_out("elastic", given, lambda at, _: run(at, given.runs, options))


if __name__ == "__main__":
    sys.exit(main())
