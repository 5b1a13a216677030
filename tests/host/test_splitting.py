"""What the leader of a shard proposes for its split, and when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from krita.codec import decode_body, encode_body
from krita.operations import Op
from krita.ring import RING_SIZE, token
from kritad.cluster.meta_splits import NO_CUT
from kritad.cluster.model import ReplicaRecord, Report, ReportedReplica, ShardRecord, Split
from kritad.cluster.model import SplitReplica as Half
from kritad.host.request import Request
from kritad.host.splitting import (
    cut_point,
    has_outgrown,
    propose_split,
    split_body,
    split_done_body,
)
from kritad.raft.messages import Append, AppendReply, Heartbeat
from kritad.raft.types import Configuration, Entry, EntryKind
from kritad.storage.extent import Extent
from tests.host.lone import SHARD, LoneNode, Replies

NEW = 9
HALVES = tuple(Half(replica, 10 + replica, replica) for replica in (1, 2, 3))
RECORD = ShardRecord(
    SHARD,
    0,
    RING_SIZE,
    1,
    2,
    tuple(ReplicaRecord(r, r) for r in (1, 2, 3)),
    Report(1, 1, tuple(ReportedReplica(r, r, True) for r in (1, 2, 3))),
    split=Split(NEW, HALVES),
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[LoneNode]:
    """A leader whose state has 40 keys."""
    lone = LoneNode(tmp_path)
    lone.lead()
    for number in range(40):
        body = encode_body(Op.PUT, 0, 0, 0, b"k%d" % number, b"v" * 100)
        lone.replica.propose(Request(Op.PUT, body, b"k", SHARD, Replies(), 1e12, write=True), 1)
    commit(lone)
    yield lone
    lone.close()


def commit(node: LoneNode) -> None:
    """Follower 2 has everything."""
    node.drive.mark(node.replica)
    node.settle()
    node.step(AppendReply(SHARD, 2, 1, node.raft.term, True, node.raft.last_index, 0, 0, 0))
    node.settle()


def proposed(node: LoneNode, record: ShardRecord = RECORD) -> bool:
    return propose_split(node.replica, record, 1000)


def test_the_entry_halves_the_bytes_and_names_every_replica_with_its_other_half(
    node: LoneNode,
) -> None:
    body = split_body(node.replica, RECORD)
    assert body is not None
    shard, shard_new, at, conf_version, halves = decode_body(Op.SPLIT, body)
    assert (shard, shard_new, conf_version) == (SHARD, NEW, 1)
    assert halves == [[1, 11, 1], [2, 12, 2], [3, 13, 3]]
    assert isinstance(at, int)
    before = sum(token(b"k%d" % number) < at for number in range(40))
    assert 15 <= before <= 25


def test_a_split_is_proposed_once_and_told_to_the_meta_shard_until_its_record_shows_it(
    node: LoneNode,
) -> None:
    assert split_done_body(node.replica, RECORD) is None
    assert proposed(node)
    assert not proposed(node), "it may be in the log already"
    commit(node)
    assert not proposed(node)
    cut = node.replica.state.splits
    assert cut is not None
    for _ in range(2):
        body = split_done_body(node.replica, RECORD)
        assert body is not None
        done = [SHARD, NEW, cut.at, 2, 1, node.raft.term]
        assert decode_body(Op.META_SPLIT_DONE, body) == done
    told = attrs.evolve(RECORD, split=None, hash_hi=cut.at)
    assert split_done_body(node.replica, told) is None
    assert not proposed(node, told)


def test_a_shard_of_one_piece_has_its_split_called_off(node: LoneNode) -> None:
    node.replica.state.extent.step = node.replica.state.extent.width
    extent = node.replica.state.extent
    for cells in (extent.cell_hashes, extent.cell_keys, extent.cell_bytes):
        del cells[1:]
    assert not proposed(node)
    body = split_done_body(node.replica, RECORD)
    assert body is not None
    assert decode_body(Op.META_SPLIT_DONE, body)[2] == NO_CUT
    assert split_done_body(node.replica, attrs.evolve(RECORD, split=None)) is None


def test_the_next_decision_is_another_split(node: LoneNode) -> None:
    proposed(node)
    commit(node)
    cut = node.replica.state.splits
    assert cut is not None
    halves = tuple(attrs.evolve(half, replica_new=20 + half.replica) for half in HALVES)
    again = attrs.evolve(RECORD, hash_hi=cut.at, split=Split(NEW + 1, halves))
    assert split_done_body(node.replica, again) is None
    assert proposed(node, again)
    commit(node)
    after = node.replica.state.splits
    assert after is not None
    assert (after.shard_new, after.version) == (NEW + 1, 3)
    assert [offspring.shard for offspring in node.world.split_off] == [NEW, NEW + 1]


def test_an_entry_that_was_refused_is_proposed_again(node: LoneNode) -> None:
    first = node.replica.state.extent.hash_lo + node.replica.state.extent.step
    body = encode_body(Op.SPLIT, SHARD, NEW, first, 77, [[1, 11, 1]])  # another configuration
    node.replica.propose(Request(Op.SPLIT, body, b"", SHARD, None, 0.0, write=True), 1)
    node.replica.split_proposed = node.raft.term, node.raft.last_index
    assert not proposed(node)
    commit(node)
    assert proposed(node)


def test_a_new_leader_waits_until_it_knows_what_the_last_one_has_left(node: LoneNode) -> None:
    """The split may be in its log, and not known to be committed."""
    proposed(node)
    node.drive.mark(node.replica)
    node.settle()
    node.step(Heartbeat(SHARD, 2, 1, node.raft.term + 1, 0, 0))
    node.settle()
    node.lead_again()
    node.replica.split_proposed = 0, 0  # as after a restart
    assert node.replica.state.splits is None
    assert not proposed(node)
    commit(node)
    assert node.replica.state.splits is not None
    assert not proposed(node)


def test_an_entry_that_another_leader_has_cut_off_is_proposed_again(node: LoneNode) -> None:
    term, last = node.raft.term, node.raft.last_index
    for _ in range(3):
        body = encode_body(Op.PUT, 0, 0, 0, b"k", b"v")
        node.replica.propose(Request(Op.PUT, body, b"k", SHARD, Replies(), 1e12, write=True), 1)
    assert proposed(node)
    node.drive.mark(node.replica)
    node.settle()
    theirs = [Entry(last + 1, term + 1, EntryKind.NOOP, b"")]
    node.step(Append(SHARD, 2, 1, term + 1, last, term, last + 1, 0, theirs))
    node.settle()
    node.lead_again()
    commit(node)
    assert node.replica.state.index == last + 2 < node.replica.split_proposed[1]
    assert proposed(node)


def test_who_does_not_lead_proposes_and_tells_nothing(node: LoneNode) -> None:
    proposed(node)
    commit(node)
    node.step(Heartbeat(SHARD, 2, 1, node.raft.term + 1, 0, 0))
    node.settle()
    assert split_done_body(node.replica, RECORD) is None
    assert not proposed(node, attrs.evolve(RECORD, split=Split(NEW + 1, HALVES)))


def test_during_a_hand_over_nothing_is_proposed(node: LoneNode) -> None:
    node.raft.transfer(2)
    assert split_body(node.replica, RECORD) is None


@pytest.mark.parametrize(
    "halves",
    [
        pytest.param(HALVES[:2], id="a member has no other half"),
        pytest.param((*HALVES, Half(4, 14, 4)), id="one is no member"),
        pytest.param((*HALVES[:2], Half(3, 13, 7)), id="one is on another node"),
    ],
)
def test_a_configuration_that_is_not_the_one_that_was_counted_is_not_cut(
    node: LoneNode, halves: tuple[Half, ...]
) -> None:
    assert not proposed(node, attrs.evolve(RECORD, split=Split(NEW, halves)))


@pytest.mark.parametrize(
    "changed",
    [
        Configuration(2, frozenset({1, 2, 3}), frozenset({1, 2}), nodes={1: 1, 2: 2, 3: 3}),
        Configuration(2, frozenset({1, 2}), learners=frozenset({3}), nodes={1: 1, 2: 2, 3: 3}),
    ],
    ids=["joint", "with a learner"],
)
def test_a_configuration_that_is_about_to_change_is_not_cut(
    node: LoneNode, changed: Configuration
) -> None:
    node.raft.log.configurations.append((1, changed))
    assert not proposed(node)


def extent_of(*sizes: int) -> Extent:
    extent = Extent(0, 10 * len(sizes), 10, len(sizes))
    for cell, size in enumerate(sizes):
        extent.count(cell, 1, 1 if size else 0, size)
    return extent


def test_a_shard_whose_bytes_are_all_in_one_cell_is_cut_in_the_middle() -> None:
    assert cut_point(extent_of(0, 0, 0, 50)) == 20
    assert cut_point(extent_of(50, 0)) == 10
    assert cut_point(extent_of(10, 10, 30, 50)) == 30


def test_a_single_cell_cannot_be_cut() -> None:
    assert cut_point(extent_of(50)) is None


def test_a_shard_asks_for_a_split_when_it_holds_more_than_it_should(node: LoneNode) -> None:
    record = attrs.evolve(RECORD, split=None)
    size = node.replica.state.extent.bytes
    assert has_outgrown(node.replica, record, size - 1)
    assert not has_outgrown(node.replica, record, size)
    assert not has_outgrown(node.replica, record, 0), "0 is no limit"


@pytest.mark.parametrize(
    "change",
    [
        {"split": Split(NEW, HALVES)},
        {"held": True},
        {"hash_hi": RING_SIZE // 2},
        {"replicas": RECORD.replicas[:2]},
    ],
    ids=["it has asked", "people hold it", "the last split is not told yet", "it moves"],
)
def test_a_shard_does_not_ask_for_a_split_that_would_be_refused(
    node: LoneNode, change: dict[str, Any]
) -> None:
    record = attrs.evolve(RECORD, **{"split": None, **change})
    assert not has_outgrown(node.replica, record, 1)


def test_a_shard_with_one_large_key_does_not_ask_for_a_split_that_would_not_help(
    tmp_path: Path,
) -> None:
    node = LoneNode(tmp_path)
    node.lead()
    body = encode_body(Op.PUT, 0, 0, 0, b"k", b"v" * 5000)
    node.replica.propose(Request(Op.PUT, body, b"k", SHARD, Replies(), 1e12, write=True), 1)
    commit(node)
    assert node.replica.state.extent.bytes > 1
    assert not has_outgrown(node.replica, attrs.evolve(RECORD, split=None), 1)
    node.close()
