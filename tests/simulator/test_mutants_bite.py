"""Planted bugs that random lives seldom meet: each does, where it is looked for, what it says.

A mutant that nobody finds may be one that changes nothing. These are shown to change
something, with the product's own answer beside it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from krita.errors import BadRequest, Outcome, SessionExpired
from krita.hello import Identity
from kritad.cluster.model import NodeRecord
from kritad.cluster.view import MetaView
from kritad.host import belonging
from kritad.host.request import Request
from kritad.raft.log import Log
from kritad.raft.messages import Append, AppendReply, SnapshotInstalled
from kritad.raft.reads import ReadQueue
from kritad.raft.types import Boot, Configuration, Role, SnapshotMeta
from kritad.state.sessions import Sessions
from kritad.storage import snapshot_chunks as chunks
from kritad.storage import snapshots as stored
from kritad.storage.digests import row_digest
from tests.host.lone import LoneNode, Replies
from tests.raft.cluster import SHARD, Cluster, command
from tests.simulator.mutants.registry import planted
from tests.simulator.mutants.snapshots import _Credulous

NONE = ""  # the product as it is


def bug(name: str) -> contextlib.AbstractContextManager[object]:
    """That mutant planted, or nothing."""
    return planted(name) if name else contextlib.nullcontext()


def test_a_deadline_denies_a_write_that_is_appended() -> None:
    outcomes = []
    for mutant in ("deadline-denies", NONE):
        with bug(mutant):
            request = Request(1, b"", b"k", 1, replies := Replies(), 0.0, write=True, term=3)
            request.expire()
            outcomes.append(Outcome(replies.outcome))
    assert outcomes == [Outcome.NOT_APPLIED, Outcome.UNKNOWN]


@pytest.mark.parametrize("mutant", ["log-compared-by-length", "log-compared-by-parts"])
def test_a_longer_log_of_an_older_term_is_misjudged(mutant: str) -> None:
    log = Log(Boot(last_index=1, terms=[(1, 3)], entries=[command(1, 3)]), 1 << 20)
    old_and_long = log.is_up_to_date(5, 2)
    longer = Log(
        Boot(last_index=2, terms=[(1, 1)], entries=[command(1, 1), command(2, 1)]), 1 << 20
    )
    new_and_short = longer.is_up_to_date(1, 3)
    with planted(mutant):
        assert (log.is_up_to_date(5, 2), longer.is_up_to_date(1, 3)) != (
            old_and_long,
            new_and_short,
        )
    assert (old_and_long, new_and_short) == (False, True)


def test_a_session_forgets_what_was_not_acknowledged() -> None:
    def retry_of_two(mutant: str) -> object:
        sessions = Sessions()
        session = sessions.open(1, 1, 0)
        for sequence in (1, 2, 3):
            assert sessions.begin(session, sequence, 0, 1 + sequence, 0) is None
            sessions.finish(session, sequence, (0, [1 + sequence, 0]))
        with bug(mutant):
            sessions.begin(session, 4, 1, 5, 0)  # acknowledges 1
            try:
                return sessions.begin(session, 2, 1, 6, 0)
            except BadRequest:
                return "refused"

    assert retry_of_two(NONE) == (0, [3, 0])
    assert retry_of_two("reply-forgotten-too-early") is None
    assert retry_of_two("retries-are-executed-again") is None
    assert retry_of_two("session-acknowledges-one-more") == "refused"


def test_a_session_that_ended_comes_back() -> None:
    with pytest.raises(SessionExpired):
        Sessions().begin(7, 1, 0, 9, 0)
    with planted("unknown-session-is-made-anew"):
        assert Sessions().begin(7, 1, 0, 9, 0) is None


def test_one_half_of_a_joint_configuration_confirms_a_read() -> None:
    joint = Configuration(1, frozenset({1, 2, 4}), frozenset({1, 2, 3}) | {5, 6})
    echoes = {1: 1, 2: 1}
    for mutant, confirmed in (("joint-reads-confirmed-by-one-half", 1), (NONE, 0)):
        queue = ReadQueue()
        queue.add(1)
        queue.begin_round(9)
        with bug(mutant):
            assert len(queue.confirm(joint, lambda voter: echoes.get(voter, 0))) == confirmed


def test_a_conflicting_log_outlives_a_snapshot() -> None:
    for mutant, kept in (("snapshot-beside-a-conflicting-log", 5), (NONE, 3)):
        cluster = Cluster(3)
        old = [command(index, 1) for index in range(1, 6)]
        cluster[1].step(Append(SHARD, 2, 1, 1, 0, 0, 0, 0, old))
        cluster.pump(1)
        cluster.sync(1)
        snapshot = SnapshotMeta(3, 2, cluster[1].configuration, 7)
        with bug(mutant):
            cluster[1].step(SnapshotInstalled(SHARD, 2, 1, 2, snapshot))
        assert (cluster[1].commit, cluster[1].last_index) == (3, kept)


def test_an_acknowledgement_of_an_earlier_term_commits() -> None:
    for mutant, behind in (("counts-old-acknowledgements", 0), (NONE, 1)):
        cluster = Cluster(3)
        cluster.elect(2).transfer(1)
        cluster.settle(ticks=3)
        leader = cluster[1]
        assert leader.role is Role.LEADER
        cluster.isolate(1)
        index, term = leader.propose(b"x")
        cluster.pump(1)
        cluster.sync(1)
        with bug(mutant):
            leader.step(AppendReply(SHARD, 2, 1, term - 1, True, index, 0, 0, 0))
        assert leader.last_index - leader.commit == behind


def test_another_disk_is_admitted() -> None:
    view = MetaView(nodes={1: NodeRecord(1, b"s" * 16, "n1:1", "", 5)})
    for wrong in (
        Identity(b"c" * 16, 1, b"t" * 16, 9, ""),
        Identity(b"c" * 16, 1, b"s" * 16, 4, ""),
    ):
        with pytest.raises(Exception, match="node 1"):
            vars(belonging)["check_member"](view, wrong)
        with planted("wiped-disk-is-admitted"):
            vars(belonging)["check_member"](view, wrong)


def test_a_poisoned_replica_acknowledges(tmp_path: Path) -> None:
    for mutant, said in (("poisoned-replica-speaks", 1), (NONE, 0)):
        path = tmp_path / str(said)
        path.mkdir()
        node = LoneNode(path)
        node.step(Append(1, 2, 1, 1, 0, 0, 0, 0, [command(1, 1)]))
        node.drive.turn()
        node.raft.poison("damage")
        with bug(mutant):
            node.settle()
            node.drive.turn()
        assert len(node.world.named("send")) == said
        node.close()


class _Writer:
    """The part of a SnapshotWriter that counts."""

    def __init__(self) -> None:
        self.next_chunk = self._count = 0
        self.stored: list[int] = []

    def write(self, chunk: stored.SnapshotChunk) -> int:
        chunks.verify(chunk, self._count)
        if chunk.number == self.next_chunk:
            self.stored.append(chunk.number)
            self.next_chunk += 1
            self._count += len(chunk.rows)
        return self.next_chunk


def test_a_chunk_out_of_order_is_stored() -> None:
    digests = [row_digest(b"k", 3, b"v", None)]
    rows: list[list[object]] = [[b"k", 3, b"v", None, digests[0]]]
    late = stored.SnapshotChunk(2, rows, chunks.chunk_crc(2, 2, digests, True), True)
    with pytest.raises(stored.SnapshotRefused):
        _Writer().write(late)
    writer = _Writer()
    assert _Credulous(writer).write(late) == 3
    assert writer.stored == [0]
