"""Beginning a cluster and joining one, with a crash in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.address import AddressError
from krita.codec import decode_body, encode_body
from krita.errors import ProtocolError
from krita.operations import Op
from kritad.host.bootstrap import (
    META_SHARD,
    Membership,
    accept_membership,
    announce_body,
    begin_cluster,
    fresh_applied,
    load_boot,
    next_boot,
    parse_join,
    parse_membership,
    store_of,
)
from kritad.raft.types import Configuration, Save, SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.errors import Corrupt
from kritad.storage.extent import WHOLE_RING
from kritad.storage.raft_db import RaftDatabase, ReplicaRow

JOINED = Membership(b"c" * 16, 4, 33, ((1, "a:1"),))


@pytest.fixture
def raft_db(tmp_path: Path) -> Iterator[RaftDatabase]:
    database = RaftDatabase.open(tmp_path / "raft.db")
    yield database
    database.close()


class Crash(Exception):
    """The node ends here."""


def test_a_store_keeps_the_uuid_it_was_given_first(raft_db: RaftDatabase) -> None:
    assert store_of(raft_db) == store_of(raft_db)


def test_a_new_cluster_is_the_first_node_with_the_first_meta_replica(raft_db: RaftDatabase) -> None:
    cluster_id = begin_cluster(raft_db, store_of(raft_db))
    identity = raft_db.identity()
    assert identity is not None
    assert (identity.cluster_id, identity.node_id) == (cluster_id, 1)
    assert raft_db.load(META_SHARD, 0).snapshot.configuration.voters == {1}


def test_a_joiner_gets_an_empty_meta_replica(raft_db: RaftDatabase) -> None:
    accept_membership(raft_db, store_of(raft_db), JOINED)
    assert raft_db.replicas() == [ReplicaRow(META_SHARD, 33)]
    assert raft_db.load(META_SHARD, 0).snapshot.configuration.voters == frozenset()


@pytest.mark.parametrize("method", ["create_replica", "initialise"])
@pytest.mark.parametrize("way", ["begin", "join"])
def test_a_crash_while_becoming_a_node_leaves_a_store_that_becomes_one_next_time(
    raft_db: RaftDatabase, monkeypatch: pytest.MonkeyPatch, method: str, way: str
) -> None:
    store_uuid = store_of(raft_db)

    def become() -> None:
        if way == "begin":
            begin_cluster(raft_db, store_uuid)
        else:
            accept_membership(raft_db, store_uuid, JOINED)

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(raft_db, method, crash)
        with pytest.raises(Crash):
            become()
    known = raft_db.identity()
    assert known is not None
    assert known.node_id == 0, "it has a number and no meta replica: it would never start"
    become()
    known = raft_db.identity()
    assert known is not None
    assert known.node_id > 0
    assert len(raft_db.replicas()) == 1


def test_who_gave_up_founding_may_still_join(
    raft_db: RaftDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_uuid = store_of(raft_db)

    def crash(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(raft_db, "initialise", crash)
        with pytest.raises(Crash):
            begin_cluster(raft_db, store_uuid)
    accept_membership(raft_db, store_uuid, JOINED)
    assert raft_db.replicas() == [ReplicaRow(META_SHARD, 33)]


def test_an_answer_to_a_join_is_read() -> None:
    reply = [b"c" * 16, 4, 33, [[1, "a:1", "more"]], "more"]
    assert parse_membership(reply) == JOINED


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        [b"c" * 16, 4, 33],
        [b"c", 4, 33, []],
        [b"c" * 16, 0, 33, []],
        [b"c" * 16, 4, 0, []],
        [b"c" * 16, 4, 33, [1]],
        [b"c" * 16, 4, 33, [["one", "a:1"]]],
        [b"c" * 16, 4, 33, [[1]]],
    ],
)
def test_a_malformed_answer_to_a_join_is_a_protocol_error(reply: object) -> None:
    with pytest.raises(ProtocolError):
        parse_membership(reply)


def test_a_join_names_store_address_and_zone() -> None:
    body = encode_body(Op.NODE_JOIN, b"s" * 16, "n9:8080", "zone")
    assert parse_join(body) == (b"s" * 16, "n9:8080", "zone")


def test_an_address_that_nobody_could_dial_is_refused_before_it_is_in_a_log() -> None:
    with pytest.raises(AddressError):
        parse_join(encode_body(Op.NODE_JOIN, b"s" * 16, "no address", ""))


@pytest.mark.parametrize("fields", [(), (b"short", "n:1", ""), (b"s" * 16, 7, "")])
def test_a_malformed_join_is_a_protocol_error(fields: tuple[object, ...]) -> None:
    with pytest.raises(ProtocolError):
        parse_join(encode_body(Op.NODE_JOIN, *fields))


def test_a_log_that_begins_behind_a_snapshot_nobody_has_is_damage(
    tmp_path: Path, raft_db: RaftDatabase
) -> None:
    data_db = DataDatabase.open(tmp_path / "data.db")
    raft_db.create_replica(1, 7, None)
    raft_db.save([(1, Save(1, snapshot=SnapshotMeta(50, 2, generation=9)))])
    applied = fresh_applied(data_db, 1, 7, Configuration(), WHOLE_RING)
    with pytest.raises(Corrupt, match=r"data\.db does not have"):
        load_boot(raft_db, data_db, applied)
    data_db.close()


def test_a_start_counts_a_boot_and_draws_a_nonce_for_it(raft_db: RaftDatabase) -> None:
    begin_cluster(raft_db, store_of(raft_db))
    first, second = next_boot(raft_db, "n1:1"), next_boot(raft_db, "n1:2")
    assert (first.boot_counter, second.boot_counter) == (1, 2)
    assert second.boot_nonces[:1] == first.boot_nonces
    assert len(set(second.boot_nonces)) == 2
    values = decode_body(Op.NODE_ANNOUNCE, announce_body(second))
    assert values[2:] == [2, "n1:2", second.boot_nonces[1], [second.boot_nonces[0]]]
