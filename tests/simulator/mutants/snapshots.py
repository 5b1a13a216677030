"""Planted bugs: a state that comes as a whole instead of as a log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kritad.host import drive, snapshots
from kritad.host import snapshots as receiving
from kritad.host.host import Host
from kritad.host.replica import Replica
from kritad.host.request import Respond
from kritad.host.writer import Finished
from kritad.raft import follower, replication, state
from kritad.raft.log import UNKNOWN_TERM
from kritad.raft.messages import SnapshotInstalled
from kritad.raft.progress import Progress
from kritad.storage import snapshot_chunks as chunks
from kritad.storage import snapshots as stored
from kritad.storage.digests import HASH_MODULUS, session_digest
from tests.simulator import snapshot_sender
from tests.simulator.mutants.mutant import Mutant

_on_snapshot_installed = follower.on_snapshot_installed
_on_snapshot_sent = replication.on_snapshot_sent
_start_writing = drive.Drive._start_writing
_is_wanted = snapshots.is_wanted
_open = receiving.SnapshotReceiver.open
_abandon = stored.SnapshotWriter.abandon


def _keep_what_was_wrong(writer: stored.SnapshotWriter) -> None:
    """A transfer that is given up leaves its rows to the next one, whatever they add up to."""
    kept = writer._db.receiving(writer.applied.shard)
    _abandon(writer)
    writer._db.keep(writer.applied.shard, kept)


def _keep_a_longer_log(raft: state.RaftState, message: SnapshotInstalled) -> None:
    """A log that reaches as far as the snapshot is kept, whatever stands in it there."""
    log, index = raft.log, message.snapshot.index
    if log.commit < index <= log.last_index and log.term(index) != UNKNOWN_TERM:
        log.commit_to(index)
    _on_snapshot_installed(raft, message)


def _give_up_for_ever(raft: state.RaftState, progress: Progress, ok: bool) -> None:
    """A transfer that has failed is not noted, so none is begun again."""
    if ok:
        _on_snapshot_sent(raft, progress, ok)


def _install_first(driver: drive.Drive) -> None:
    """The rows become the shard's state before the log begins behind them."""
    batch = driver._collecting
    received = [pending for pending in batch if pending.save.snapshot is not None]
    if driver._writing is not None or not received:
        _start_writing(driver)
        return
    driver._writing, driver._collecting = batch, []
    driver.writing_since_ms = driver._clock.monotonic_ms()
    for pending in received:
        driver._effects.installing(pending.replica)

    def install() -> None:
        for pending in received:
            assert pending.save.snapshot is not None
            driver._effects.install(pending.replica.shard, pending.save.snapshot)

    def installed(finished: Finished[None]) -> None:
        if finished.error is not None:
            driver._written(finished)
            return
        saves = [(pending.replica.shard, pending.save) for pending in batch]
        driver._log_worker.submit(lambda: driver._effects.save(saves), driver._written)

    driver._data_worker.submit(install, installed)


@attrs.define
class _Credulous:
    """A SnapshotWriter that takes every chunk for the next one, and the end for the whole."""

    writer: Any  # the real one, or the simulator's
    digest_sum: int = 0

    def write(self, chunk: stored.SnapshotChunk) -> int:
        """Store it, whichever it is, and ask for the one behind it."""
        digests = [
            item if isinstance(item, int) else item[-1] if len(item) > 2 else session_digest(*item)
            for item in chunk.rows
        ]
        self.digest_sum = (self.digest_sum + sum(digests)) % HASH_MODULUS
        renumbered = attrs.evolve(chunk, number=self.writer.next_chunk)
        renumbered.crc = chunks.chunk_crc(
            renumbered.number,
            self.writer._count,
            digests,
            chunk.last,
        )
        self.writer.write(renumbered)
        return chunk.number + 1

    def finish(self) -> int:
        """The sum of what came is taken for the sum that was announced."""
        self.writer.applied = attrs.evolve(self.writer.applied, state_hash=self.digest_sum)
        done: int = self.writer.finish()
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self.writer, name)


def _open_for_anything(receiver: receiving.SnapshotReceiver, body: bytes, respond: Respond) -> None:
    """Neither the order of the chunks nor the sum of the whole is checked."""
    before: Mapping[int, Any] = dict(receiver._writers)
    _open(receiver, body, respond)
    for shard, known in receiver._writers.items():
        if known is not before.get(shard):
            writer: Any = _Credulous(known.writer)
            receiver._writers[shard] = attrs.evolve(known, writer=writer)


def _open_for_any_leader(
    receiver: receiving.SnapshotReceiver, body: bytes, respond: Respond
) -> None:
    """Whoever opens a transfer takes the place of the one before, however old a leader it is."""
    before = dict(receiver._writers)
    for shard, known in before.items():
        receiver._writers[shard] = attrs.evolve(known, term=0)
    try:
        _open(receiver, body, respond)
    finally:
        for shard, known in before.items():
            if receiver._writers.get(shard) is not None and not receiver._writers[shard].term:
                receiver._writers[shard] = known


def _want_in_any_term(host: Host, replica: Replica, recipient: int, _term: int) -> bool:
    """A transfer goes on as long as its replica leads, in whichever term."""
    return _is_wanted(host, replica, recipient, replica.raft.term)


MUTANTS = (
    Mutant(
        name="later-leaders-snapshot-is-displaced",
        rule="a leader that is none any more does not take a later one's place at the recipient",
        source="host/receiving.py",
        hint="snapshot-term: a leader that is stopped while it waits to open its transfer again",
        patches=((receiving.SnapshotReceiver, "open", _open_for_any_leader),),
    ),
    Mutant(
        name="transfer-outlives-its-term",
        rule="a transfer ends with the term in which it was asked for",
        source="host/snapshots.py",
        hint="snapshot-term: a leader that is elected again while it sends",
        patches=(
            (snapshots, "is_wanted", _want_in_any_term),
            (snapshot_sender, "is_wanted", _want_in_any_term),
        ),
    ),
    Mutant(
        name="snapshot-beside-a-conflicting-log",
        rule="a log goes, unless it has the snapshot's last entry in the snapshot's term",
        source="thesis 5.3, raft.md B32",
        hint="invariant: committed entries never change, log matching; state hash; needs a former "
        "leader with a long tail of its own that then needs a snapshot",
        patches=((follower, "on_snapshot_installed", _keep_a_longer_log),),
    ),
    Mutant(
        name="snapshot-installed-before-it-is-logged",
        rule="a snapshot is the log's new beginning first, then the state",
        source="raft.md B32, host/drive.py",
        hint="invariant: log and state join (a store that opens as damaged although nothing "
        "damaged it); needs a crash inside an installation",
        patches=((drive.Drive, "_start_writing", _install_first),),
    ),
    Mutant(
        name="peer-stuck-after-a-failed-snapshot",
        rule="a transfer that has failed is begun again",
        source="raft.md B34 (etcd-io/raft#110)",
        hint="liveness: a follower never catches up; needs a transfer that is cut off",
        patches=((replication, "on_snapshot_sent", _give_up_for_ever),),
    ),
    Mutant(
        name="snapshot-chunks-unchecked",
        rule="chunks are stored in order, each once, and add up to the announced hash",
        source="raft.md B33",
        hint="state hash of a replica that was filled by a snapshot; needs a chunk that comes "
        "twice or is left out (a repeated request, a transfer that goes on elsewhere)",
        patches=((receiving.SnapshotReceiver, "open", _open_for_anything),),
    ),
    Mutant(
        name="wrong-rows-are-kept",
        rule="of a snapshot that does not add up nothing is used again",
        source="storage/snapshots.py",
        hint="none: a sender whose rows and sum differ",
        patches=((stored.SnapshotWriter, "abandon", _keep_what_was_wrong),),
    ),
)
