"""One node's life: open, become somebody, serve, stop.

Order of starting: the port is bound first (a port that is taken must not touch
the data), then the directory is locked and opened, then the node finds out who
it is (bootstrap, join or restart), then it listens. A joining node answers
nobody before the cluster has given it its identity.

Order of stopping (SIGTERM, SIGINT): no new requests; leaders are handed over;
what is in memory is flushed; the files are closed. A second signal, or a disk
that hangs, cuts it short: nothing that was acknowledged depends on a clean stop.

Exit status: 0 stopped as asked; 1 failed while running; 78 a data directory or
setting that no restart will mend, raft.db or data.db being damaged as a whole among them.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import attrs
import trio

from krita.errors import Foreign, KritaError, Unauthenticated, Unsupported
from krita.hello import Identity
from kritad import __version__, collector
from kritad.access import Access
from kritad.arrival import arrive, identify
from kritad.config import Config, ConfigError
from kritad.gauges import register_gauges
from kritad.host import loop
from kritad.host.bootstrap import log_lost, refuse_without_log
from kritad.host.host import Host
from kritad.host.opening import HostSettings
from kritad.host.snapshots import SnapshotReceiver, SnapshotSender
from kritad.host.surroundings import MACHINE, Surroundings
from kritad.host.transport import Transport
from kritad.host.writer import Workers
from kritad.metrics import Metrics
from kritad.notify import notify
from kritad.recover import record_line
from kritad.server.limits import ServerLimits, fit_descriptors
from kritad.server.listener import Server, bind
from kritad.service import Service
from kritad.storage.data_db import DataDatabase
from kritad.storage.database import version_warnings
from kritad.storage.directory import DataDirectory
from kritad.storage.errors import Corrupt, DirectoryRefused, FormatUnknown, StorageError
from kritad.storage.raft_db import RaftDatabase
from kritad.storage.space import DiskReserve
from kritad.stream import Listening

log = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILURE, EXIT_CONFIG = 0, 1, 78

_HAND_OVER_TIMEOUT_S = 3.0
_DRAIN_TIMEOUT_S = 1.0
_FLUSH_TIMEOUT_S = 10.0


def run(config: Config) -> int:
    """Run a node until it is stopped; returns the exit status."""
    collector.install()
    try:
        return trio.run(_main, config)
    except Exception as error:  # explained, or raised again as the bug that it is
        causes = _leaves(error)
        if not all(isinstance(cause, _EXPLAINED) for cause in causes):
            raise
        for cause in causes:
            log.critical("%s", _explanation(cause))
        hopeless = any(isinstance(cause, _HOPELESS) or _is_ruin(cause) for cause in causes)
        return EXIT_CONFIG if hopeless else EXIT_FAILURE


# What no restart will mend, and what one may.
_HOPELESS = (
    DirectoryRefused, FormatUnknown, ConfigError, Foreign, Unauthenticated, Unsupported,
)  # fmt: skip
_EXPLAINED = (*_HOPELESS, OSError, KritaError, StorageError)


def _is_ruin(error: BaseException) -> bool:
    """Whether a file turned out on opening to be damaged as a whole. Damage to one
    replica stops that one only, and is never raised to here."""
    return isinstance(error, Corrupt) and error.shard is None


def _explanation(error: BaseException) -> str:
    """An error in words for the log. An OSError's own begin with its number in brackets."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    return str(error)


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaves(part)]


@attrs.define
class Stores:
    """The open data directory."""

    directory: DataDirectory
    raft_db: RaftDatabase
    data_db: DataDatabase


@contextmanager
def open_stores(path: Path) -> Iterator[Stores]:
    """Lock and open a data directory; closes it behind the block. Raises StorageError,
    DirectoryRefused for one that has lost its raft.db among them.

    data.db is opened first and asked before raft.db is touched: SQLite deletes the WAL of
    a file that is empty, and with it what could still be put together.
    """
    with (
        closing(DataDirectory(path)) as directory,
        closing(DataDatabase.open(directory.data_path)) as data_db,
    ):
        if not directory.has_log() and data_db.inhabited():
            raise log_lost(directory.raft_path)
        with closing(RaftDatabase.open(directory.raft_path)) as raft_db:
            refuse_without_log(raft_db, data_db)
            yield Stores(directory, raft_db, data_db)


async def _main(config: Config) -> int:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        listening = bind(config.listen_ip, config.port)
        for warning in version_warnings():
            log.info("%s", warning)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(collector.collect_seldom)
            status = await live(config, listening, signals, MACHINE)
            nursery.cancel_scope.cancel()
        return status


async def live(
    config: Config,
    listening: Sequence[Listening],
    signals: AsyncIterator[int],
    surroundings: Surroundings,
) -> int:
    """One node's life in these surroundings, from the opening of its data directory
    to a signal or a failure; returns the exit status. Takes over ``listening``.

    Raises what of the data directory, the settings or the cluster forbids a start.
    """
    with open_stores(config.data_dir) as stores:
        return await _Node(config, stores, surroundings).live(listening, signals)


class _Node:
    """What one run of the daemon needs; made after the directory was opened."""

    def __init__(self, config: Config, stores: Stores, surroundings: Surroundings) -> None:
        self.config = config
        self.stores = stores
        self.surroundings = surroundings
        self.clock = surroundings.clock
        self.access = Access(config.admin_token)
        self.metrics = Metrics()
        self.fsync = self.metrics.histogram(
            "krita_wal_fsync_seconds", "Time to make one batch of all shards durable"
        )
        self.entries_saved = self.metrics.counter(
            "krita_log_entries_saved_total", "Log entries made durable"
        )
        self.wake = loop.Wake()
        self.failed = trio.Event()

    async def live(self, listening: Sequence[Listening], signals: AsyncIterator[int]) -> int:
        """Until a signal or a failure; returns the exit status."""
        identity = await self._identify_or_stop(signals)
        if identity is None:
            return EXIT_OK
        log.info("kritad %s is %s", __version__, identity)
        for record in self.stores.raft_db.recoveries():
            log.warning("%s", record_line(record))
        async with self._workers() as workers, trio.open_nursery() as nursery:
            host = self._make_host(identity, workers)
            service = self._make_service(host, nursery)
            nursery.start_soon(host.transport.run)
            host.open_replicas()
            reserve = DiskReserve(self.config.data_dir, self.config.disk_reserve_bytes)
            loop.look_at_space(host, reserve)
            nursery.start_soon(self._drive, host, self._make_sender(host, nursery))
            nursery.start_soon(loop.pass_time, host, self.clock, self.config.raft_tick_ms)
            nursery.start_soon(loop.keep_shape, host)
            nursery.start_soon(loop.watch_space, host, reserve)
            server = Server(service, self.access, listening, self._limits())
            nursery.start_soon(server.run)
            nursery.start_soon(arrive, host, service, self.config)
            await self._wait_for_end(signals)
            await self._stop_or_be_hurried(host, service, server, signals)
            nursery.cancel_scope.cancel()
        if host.failure is None:
            return EXIT_OK
        return EXIT_CONFIG if isinstance(host.failure, _HOPELESS) else EXIT_FAILURE

    async def _drive(self, host: Host, sender: SnapshotSender) -> None:
        await loop.drive(host, self.wake, sender)
        self.failed.set()

    async def _identify_or_stop(self, signals: AsyncIterator[int]) -> Identity | None:
        """Who we are, which may wait for a node to join for long; None when a signal
        has ended that."""
        identity: Identity | None = None
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await self._wait_for_end(signals)
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            identity = await identify(
                self.stores.raft_db, self.config, self.access.peer_key, self.surroundings
            )
            nursery.cancel_scope.cancel()
        return identity

    @asynccontextmanager
    async def _workers(self) -> AsyncIterator[Workers]:
        log_worker = self.surroundings.start_worker("krita-log")
        data_worker = self.surroundings.start_worker("krita-data")
        try:
            yield Workers(log_worker, data_worker)
        finally:
            for worker in (log_worker, data_worker):
                if not worker.close(_FLUSH_TIMEOUT_S):
                    # To close the files would wait for the same disk.
                    log.critical("the disk hangs: ending without it")
                    self.surroundings.end(EXIT_FAILURE)

    def _make_host(self, identity: Identity, workers: Workers) -> Host:
        config = self.config
        settings = HostSettings(
            tick_ms=config.raft_tick_ms,
            heartbeat_ms=config.raft_heartbeat_ms,
            election_ms=config.raft_election_ms,
            cache_bytes=config.cache_bytes,
            memtable_bytes=config.memtable_bytes,
            log_tail_bytes=config.log_tail_bytes,
            value_bytes_max=config.value_bytes_max,
            dead_after_ms=config.dead_after_s * 1000.0,
            scrub_pass_ms=config.scrub_pass_h * 3_600_000.0,
            shard_bytes_max=config.shard_bytes_max,
            move_bytes_per_s=config.move_bytes_per_s,
            leader_zones=config.leader_zones_listed,
            leaders_follow_requests_per_s=config.leaders_follow_requests_per_s,
        )
        transport = Transport(
            identity,
            self.access.peer_key,
            self.clock,
            silence_max_ms=2 * config.raft_election_ms,
            surroundings=self.surroundings,
        )
        return Host(
            settings,
            identity,
            self.stores.raft_db,
            self.stores.data_db,
            workers,
            transport,
            self.clock,
            seed=int.from_bytes(identity.boot_nonces[-1], "big"),
            wake=self.wake.set,
            observe_save=self._observe_save,
        )

    def _observe_save(self, seconds: float, entries: int) -> None:
        self.fsync.observe(seconds)
        self.entries_saved.add(entries)

    def _make_service(self, host: Host, nursery: trio.Nursery) -> Service:
        receiver = SnapshotReceiver(host, self.stores.data_db)
        service = Service(
            host,
            self.access,
            self.metrics,
            nursery,
            receiver=receiver,
            value_bytes_max=self.config.value_bytes_max,
            scan_rows_max=self.config.scan_rows_max,
            txn_operations_max=self.config.txn_operations_max,
            request_timeout_ms=self.config.request_timeout_ms,
        )
        register_gauges(self.metrics, host)
        return service

    def _make_sender(self, host: Host, nursery: trio.Nursery) -> SnapshotSender:
        return SnapshotSender(host, self.stores.data_db, nursery, self.surroundings)

    def _limits(self) -> ServerLimits:
        config = self.config
        return fit_descriptors(
            ServerLimits(
                value_bytes_max=config.value_bytes_max,
                connections_max=config.connections_max,
                watches_max=config.watches_max,
                bulk_max=config.bulk_max,
            )
        )

    async def _wait_for_end(self, signals: AsyncIterator[int]) -> None:
        """Until SIGTERM or SIGINT, or until the host has failed."""
        async with trio.open_nursery() as nursery:

            async def watch_failure() -> None:
                await self.failed.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch_failure)
            async for number in signals:
                if number == signal.SIGHUP:
                    log.info("SIGHUP: nothing of this version's settings changes at run time")
                    continue
                log.info("%s: stopping", signal.Signals(number).name)
                nursery.cancel_scope.cancel()
                break

    async def _stop_or_be_hurried(
        self, host: Host, service: Service, server: Server, signals: AsyncIterator[int]
    ) -> None:
        """A second signal means *now*: whoever sends it has waited for long enough."""
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                async for number in signals:
                    if number != signal.SIGHUP:
                        log.warning("%s again: ending at once", signal.Signals(number).name)
                        nursery.cancel_scope.cancel()

            nursery.start_soon(hear)
            await self._stop(host, service, server)
            nursery.cancel_scope.cancel()

    async def _stop(self, host: Host, service: Service, server: Server) -> None:
        """Hand over, flush; bounded in time, and pointless after a failure."""
        notify("STOPPING=1")
        service.stopping = True
        if host.failure is not None:
            return
        host.leadership.stopping = True
        host.tell_leaders()
        with trio.move_on_after(_HAND_OVER_TIMEOUT_S):
            while host.leadership.hand_over():  # noqa: ASYNC110 - of many shards, asked again until done
                await trio.sleep(0.02)
        await server.drain(_DRAIN_TIMEOUT_S)
        flushed = trio.Event()
        with trio.move_on_after(_FLUSH_TIMEOUT_S):
            host.flusher.when_flushed(flushed.set)
            await flushed.wait()
        log.info("stopped")
