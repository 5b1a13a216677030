"""Cutting logs in slices, and letting replicas go only on proof."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from krita.operations import Op
from kritad.cluster.model import ReplicaRecord, Report, ReportedReplica, ShardRecord
from kritad.cluster.view import MetaView
from kritad.host.replica import Replica
from kritad.host.upkeep import Upkeep, is_left, was_let_go
from kritad.raft.messages import Append, Heartbeat
from kritad.raft.types import (
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Role,
    Save,
    SnapshotMeta,
)
from kritad.storage import raft_db as raft_db_module
from kritad.storage.errors import StoreFailed, Tombstoned
from tests.cluster.records import bootstrapped, report_all
from tests.host.lone import SHARD, LoneNode

OTHERS = (ReplicaRecord(2, 2), ReplicaRecord(3, 3))
OWN = ReplicaRecord(1, 1)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    lone = LoneNode(tmp_path)
    yield lone
    lone.close()


def view(
    wanted: tuple[ReplicaRecord, ...],
    reported: tuple[int, ...],
    version: int,
    given_out: int = 3,
    term: int = 0,
) -> MetaView:
    report = Report(version, term, tuple(ReportedReplica(r, r, True) for r in reported))
    record = ShardRecord(SHARD, 0, 1 << 32, 1, 2, wanted, report)
    return MetaView(b"c" * 16, 3, 9, {}, {SHARD: record}, replica_next=given_out + 1)


def test_a_replica_goes_when_a_newer_configuration_lacks_it(node: LoneNode) -> None:
    assert was_let_go(view(OTHERS, (2, 3), 5), node.replica)


@pytest.mark.parametrize(
    ("wanted", "reported", "version"),
    [
        pytest.param((OWN, *OTHERS), (2, 3), 5, id="it is wanted"),
        pytest.param(OTHERS, (1, 2, 3), 5, id="it is still in the configuration"),
        pytest.param(OTHERS, (2, 3), 0, id="the report is older than what it knows"),
        pytest.param(OTHERS, (), 0, id="nobody has reported"),
    ],
)
def test_a_replica_stays_without_proof(
    node: LoneNode, wanted: tuple[ReplicaRecord, ...], reported: tuple[int, ...], version: int
) -> None:
    assert not was_let_go(view(wanted, reported, version), node.replica)


def test_a_replica_whose_membership_was_overwritten_goes(node: LoneNode) -> None:
    """Seed 450641: the leader that made it a learner lost its leadership before anybody else
    had that entry, and the next one has made another a learner, by a newer wish: on the
    same node, where the first stood in its way for ever."""
    known = node.raft.configuration
    assert node.replica.id in known.members
    assert was_let_go(view(OTHERS, (2, 3), known.version), node.replica)


def test_a_replica_whose_membership_no_later_leader_has_goes(node: LoneNode) -> None:
    """Seed 510458: as before, but nothing has changed in the configuration since. What was
    reported is older than what the replica was told, by a leader that would have it."""
    index = node.raft.log.configuration_index
    told_term, version = node.raft.log.term(index), node.raft.configuration.version
    assert was_let_go(view(OTHERS, (2, 3), version - 1, term=told_term + 1), node.replica)
    assert not was_let_go(view(OTHERS, (2, 3), version - 1, term=told_term), node.replica)


@pytest.mark.parametrize("entries", [0, 1])
def test_a_replica_that_knows_of_no_membership_goes_when_the_wish_for_it_was_taken_back(
    node: LoneNode, entries: int
) -> None:
    """Seeds 147 and 2137: a move was cancelled before the new replica had got as far as the
    entry that made it a member. It stayed, and kept the replica of every later move onto
    the node, and of what was split off meanwhile, from being made."""
    node.raft.log.configurations = [(0, Configuration())]
    told = [Entry(1, 1, EntryKind.COMMAND, b"x")][:entries]
    node.raft.step(Append(SHARD, 2, 1, 1, 0, 0, 0, 0, told))
    assert was_let_go(view(OTHERS, (2, 3), 5), node.replica)
    assert not was_let_go(view((OWN, *OTHERS), (2, 3), 5), node.replica), "it is wanted"
    assert not was_let_go(view(OTHERS, (1, 2, 3), 5), node.replica), "born of a split"
    # After a restart the meta shard's log is lived again: the wish may be yet to come.
    assert not was_let_go(view(OTHERS, (2, 3), 5, given_out=0), node.replica)


def test_a_replica_of_a_shard_that_the_view_does_not_know_stays(node: LoneNode) -> None:
    assert not was_let_go(MetaView(), node.replica)


def test_a_replica_of_a_shard_that_was_just_split_off_stays_when_the_meta_shard_hears_of_it(
    node: LoneNode,
) -> None:
    """What it hears is the configuration that the replica was born with."""
    assert node.raft.configuration.version == 1
    assert not was_let_go(view((OWN, *OTHERS), (1, 2, 3), 1), node.replica)
    assert not was_let_go(view(OTHERS, (1, 2, 3), 1), node.replica)


def test_a_voter_of_a_shard_that_was_split_off_stays_whatever_its_parents_term_was(
    node: LoneNode,
) -> None:
    """It was made a voter later, in term 2, by a leader whom the meta shard does not hear;
    the parent was led anew more often than that before its split was told, and people
    have taken the move back."""
    records = bootstrapped(shards=1)
    report_all(records)
    records.call(Op.SHARD_SPLIT, 1)
    records.call(Op.META_SPLIT_DONE, 1, 2, 1 << 20, 2, 1, 5)
    view = records.view
    assert node.replica.id not in {wanted.replica for wanted in view.shards[2].replicas}
    view = attrs.evolve(view, shards={SHARD: attrs.evolve(view.shards[2], shard=SHARD)})
    conf = attrs.evolve(node.raft.configuration, version=4)
    node.raft.log.configurations = [(0, conf)]
    assert not was_let_go(view, node.replica)


def test_one_that_has_a_successor_is_left_when_it_does_not_vote_or_hears_no_leader(
    node: LoneNode,
) -> None:
    alone = node.raft.configuration
    node.raft.log.configurations = [(0, attrs.evolve(alone, voters=frozenset({1, 2, 3})))]
    told = Heartbeat(SHARD, 2, 9, 1, 0, 0)  # to replica 9, its successor
    assert not is_left(node.replica, told), "the next leader may be about to be elected"
    node.raft.role = Role.PRE_CANDIDATE
    assert is_left(node.replica, told)
    added = Append(SHARD, 2, 9, 1, 0, 0, 0, 0, [])
    assert not is_left(node.replica, added), "the successor is added first"
    node.raft.term = 2
    assert not is_left(node.replica, told), "it would not listen to its own"
    node.raft.role = Role.FOLLOWER
    learns = attrs.evolve(alone, voters=frozenset({2, 3}), learners=frozenset({1}))
    node.raft.log.configurations = [(0, learns)]
    assert is_left(node.replica, added)


def upkeep(node: LoneNode) -> tuple[Upkeep, dict[int, Replica], list[BaseException]]:
    replicas = dict(node.replicas)
    failures: list[BaseException] = []
    made = Upkeep(node.raft_db, node.data_db, node.log, node.data, replicas, failures.append)
    return made, replicas, failures


def test_a_removed_replica_leaves_a_tombstone_and_nothing_else(node: LoneNode) -> None:
    keeper, _, failures = upkeep(node)
    node.data_db.flush([node.replica.state.freeze()])
    then: list[str] = []
    keeper.remove(node.replica.shard, node.replica.id, lambda: then.append("gone"))
    assert keeper.leaving == {SHARD}
    node.log.run_all()
    assert node.raft_db.replicas() == []
    node.data.run_all()
    assert node.data_db.applied() == {}
    assert (then, keeper.leaving, failures) == (["gone"], set(), [])
    with pytest.raises(Tombstoned):
        node.raft_db.create_replica(SHARD, 1, None)


def test_a_removal_waits_for_the_saves_that_were_submitted_before(node: LoneNode) -> None:
    keeper, _, failures = upkeep(node)
    entries = [Entry(1, 1, EntryKind.NOOP, b"")]
    node.step(Append(SHARD, 2, 1, 1, 0, 0, 0, 0, entries))
    node.drive.turn()  # a save is on its way
    keeper.remove(node.replica.shard, node.replica.id, lambda: None)
    node.log.run_all()
    assert node.world.failures == []
    assert failures == []


def test_a_disk_that_fails_a_removal_ends_the_node(node: LoneNode) -> None:
    keeper, _, failures = upkeep(node)
    node.log.fails_with = StoreFailed("I/O error")
    keeper.remove(node.replica.shard, node.replica.id, lambda: pytest.fail("it is not gone"))
    node.log.run_all()
    assert len(failures) == 1


def long_log(node: LoneNode, rows: int) -> None:
    """A log of so many rows, applied and durable."""
    entries = [Entry(index, 1, EntryKind.NOOP, b"") for index in range(1, rows + 1)]
    for entry in entries:
        node.raft_db.save([(SHARD, Save(entry.index, HardState(term=1), entries=[entry]))])
    node.step(Append(SHARD, 2, 1, 1, 0, 0, rows, 0, entries))
    raft = node.raft
    ready = raft.ready()
    assert ready is not None
    assert ready.save is not None
    raft.saved(ready.save.sequence)
    again = raft.ready()
    assert again is not None
    node.replica.apply(again.committed)


def cut(keeper: Upkeep, node: LoneNode, index: int) -> SnapshotMeta:
    """Have the log begin behind ``index``: in its core at once, on the disk by and by."""
    meta = node.raft.snapshot_at(index)
    node.raft.compact(index)
    keeper.cut([(node.replica, meta)])
    return meta


def test_a_long_log_is_cut_in_slices_with_room_for_saves_between(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft_db_module, "COMPACT_ROWS_MAX", 4)
    long_log(node, 20)
    keeper, _, failures = upkeep(node)
    cut(keeper, node, 18)
    slices = 0
    while node.log.jobs:
        assert len(node.log.jobs) == 1, "the next slice is submitted only when one is done"
        node.log.run_one()
        slices += 1
    assert slices > 3
    assert failures == []
    assert node.raft_db.load(SHARD, 18).snapshot.index == 18


def test_what_cuts_have_written_is_not_left_to_the_next_save(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft_db_module, "COMPACT_ROWS_MAX", 4)
    long_log(node, 40)
    keeper, _, failures = upkeep(node)
    monkeypatch.setattr(raft_db_module, "CHECKPOINT_PAGES", 10)
    node.raft_db.maybe_checkpoint()
    assert not node.raft_db.checkpoint_due
    cut(keeper, node, 38)
    was_due = 0
    while node.log.jobs:
        node.log.run_one()
        was_due += node.raft_db.checkpoint_due
    assert was_due > 1
    assert failures == []
    assert not node.raft_db.checkpoint_due


def test_a_cut_gives_way_to_a_newer_one(node: LoneNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raft_db_module, "COMPACT_ROWS_MAX", 4)
    long_log(node, 20)
    keeper, _, failures = upkeep(node)
    for index in (10, 18):
        cut(keeper, node, index)
    node.log.run_all()
    assert failures == []
    assert node.raft_db.load(SHARD, 18).snapshot.index == 18


def test_a_cut_of_a_replica_that_has_left_ends(
    node: LoneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raft_db_module, "COMPACT_ROWS_MAX", 4)
    long_log(node, 20)
    keeper, replicas, failures = upkeep(node)
    meta = cut(keeper, node, 18)
    del replicas[SHARD]
    keeper.remove(node.replica.shard, node.replica.id, lambda: None)
    node.log.run_all()
    node.data.run_all()
    assert failures == []
    assert attrs.asdict(meta)["index"] == 18
