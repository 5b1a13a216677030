"""The meta shard is a shard: its records live in the table, hash and flush."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.errors import Status
from krita.operations import Op
from kritad.cluster.meta import handlers
from kritad.cluster.view import MetaView
from kritad.state.records import Records
from tests.state.shard import Shard, open_shard

UUIDS = [b"%016d" % number for number in range(4)]


@pytest.fixture
def meta(tmp_path: Path) -> Iterator[Shard]:
    with open_shard(tmp_path / "data.db", 0, handlers()) as opened:
        yield opened


def bootstrap(meta: Shard, shards: int = 4) -> None:
    fields = (b"c" * 16, shards, 3, UUIDS[1], "one:8080", "")
    assert meta.call(Op.META_BOOTSTRAP, *fields).ok


def test_meta_operations_change_the_view_and_answer(meta: Shard) -> None:
    bootstrap(meta)
    assert meta.call(Op.META_NODE_ADD, UUIDS[2], "two:8080", "").body == [2, 6]
    view = MetaView.load(meta.state.records)
    assert (sorted(view.nodes), sorted(view.shards), view.version) == ([1, 2], [0, 1, 2, 3, 4], 2)


def test_the_cluster_s_records_survive_flush_and_crash(meta: Shard) -> None:
    bootstrap(meta)
    meta.flush()
    meta.call(Op.META_NODE_ADD, UUIDS[2], "two:8080", "")
    before, hash_before = MetaView.load(meta.state.records), meta.state.state_hash
    meta.crash()
    assert MetaView.load(meta.state.records) == before
    assert meta.state.state_hash == hash_before
    meta.flush()
    assert meta.scanned_hash() == hash_before


def test_a_refused_meta_operation_changes_no_record(meta: Shard) -> None:
    bootstrap(meta)
    before = meta.state.state_hash
    result = meta.call(Op.META_NODE_ANNOUNCE, 1, UUIDS[3], 1, "one:8080")
    assert result.status == Status.FOREIGN
    assert meta.state.state_hash == before


@pytest.mark.parametrize("op", [Op.PUT, Op.DELETE])
def test_the_meta_shard_takes_no_user_keys(meta: Shard, op: Op) -> None:
    assert meta.call(op, 0, 0, 0, b"cluster", b"x").status == Status.UNSUPPORTED


def test_a_data_shard_knows_no_meta_operations(tmp_path: Path) -> None:
    with open_shard(tmp_path / "other.db") as shard:
        assert shard.call(Op.META_NODE_ADD, UUIDS[1], "x:1", "").status == Status.UNSUPPORTED


def test_a_scan_gives_what_begins_with_the_prefix_and_nothing_else(meta: Shard) -> None:
    records: Records = meta.state.records
    for key in (b"a", b"node", b"node/", b"node/1", b"node/\xff\xff", b"node0", b"z"):
        records.put(key, b"v:" + key)
    found = records.scan(b"node/")
    assert found == [(key, b"v:" + key) for key in (b"node/", b"node/1", b"node/\xff\xff")]
    assert len(records.scan()) == 7


def test_a_scan_of_more_rows_than_one_batch_is_complete(meta: Shard) -> None:
    bootstrap(meta, shards=4096)
    assert len(MetaView.load(meta.state.records).shards) == 4097


def test_deleting_a_record_takes_it_out_of_the_hash(meta: Shard) -> None:
    records = meta.state.records
    before = meta.state.state_hash
    records.put(b"k", b"v")
    assert meta.state.state_hash != before
    records.delete(b"k")
    records.delete(b"never there")
    assert meta.state.state_hash == before
    assert records.get(b"k") is None
