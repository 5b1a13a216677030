"""The small tables of raft.db, held in memory: identity, replicas, votes, log starts.

Rules:
* A store draws a nonce at each boot and keeps those that the cluster may know as its
  newest: the last one that was acknowledged, and all since. A copy of the store that
  is started beside it, or after it, draws others, and so is told from the store itself
  at its first start, when its boot counter is still as high (host/admission.py).
* What a boot that nobody answered leaves is a nonce more. When there are NONCES_MAX, a
  further boot is the newest one again: to forget an old nonce would be to refuse a node
  that a cluster without a majority has left unanswered for long.
* Every row has a seal (digests.py). Damage to one replica's row is noted in
  ``damaged`` and concerns that replica; damage to the identity or to the tables of
  replicas and tombstones concerns the node and is raised.
* The memory is changed ahead of the commit. A write that fails ends the life of
  the RaftDatabase, so nobody sees the difference.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import attrs

from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.types import SnapshotMeta
from kritad.storage.digests import seal, seal_numbers
from kritad.storage.errors import Corrupt

REBUILD_NODE = (
    "entries this node has acknowledged may be gone, so it must not vote with what is left: "
    "move the data directory away and start with --join_ip; the cluster rebuilds its replicas"
)


NONCE_BYTES = 16
NONCES_MAX = 16


@attrs.frozen
class Identity:
    """Who this store is. ``node_id`` 0 and an empty ``cluster_id``: not joined yet."""

    cluster_id: bytes
    node_id: int
    store_uuid: bytes
    boot_counter: int
    # Of the newest boots, one each, the newest last; () before the first boot.
    nonces: tuple[bytes, ...] = ()

    def booted(self, nonce: bytes) -> Identity:
        """Who this store is from its next start on."""
        assert len(nonce) == NONCE_BYTES, nonce
        if len(self.nonces) >= NONCES_MAX:
            return self
        boots = self.boot_counter + 1
        return attrs.evolve(self, boot_counter=boots, nonces=(*self.nonces, nonce))


@attrs.define
class Tail:
    """A replica's row of ``hard``. ``last_index`` repeats where its log ends, so that
    rows lost from the end are noticed."""

    term: int = 0
    vote: int = 0
    commit: int = 0
    last_index: int = 0


class Catalog:
    """See the module's docstring. Everything is keyed by shard."""

    def __init__(self) -> None:
        self.identity: Identity | None = None
        self.recoveries: list[bytes] = []  # what each has done, the oldest first
        self.replicas: dict[int, int] = {}
        self.tombstones: dict[int, int] = {}  # the highest removed replica id
        self.tails: dict[int, Tail] = {}
        self.firsts: dict[int, SnapshotMeta] = {}  # where the log logically begins
        self.damaged: dict[int, str] = {}  # what was found when reading

    def __repr__(self) -> str:
        return f"<Catalog {self.identity} replicas={self.replicas} damaged={self.damaged}>"

    def read(self, connection: sqlite3.Connection, path: Path) -> None:
        """Fill the memory. Raises Corrupt(None) and sqlite3.Error."""
        for _, cluster_id, node_id, store_uuid, boots, crc, nonces in _rows(connection, "store"):
            if _seal_identity(cluster_id, node_id, store_uuid, boots, nonces) != crc:
                raise Corrupt(None, f"the identity in {path} is damaged", REBUILD_NODE)
            self.identity = Identity(cluster_id, node_id, store_uuid, boots, _parted(nonces))
        for _, record, crc in _rows(connection, "recovery"):
            if seal(record) != crc:
                raise Corrupt(None, f"the recovery record in {path} is damaged", REBUILD_NODE)
            self.recoveries.append(record)
        for table, known in (("replica", self.replicas), ("tombstone", self.tombstones)):
            for shard, replica, crc in _rows(connection, table):
                if seal(shard, replica) != crc:
                    raise Corrupt(None, f"table {table} of {path} is damaged", REBUILD_NODE)
                known[shard] = replica
        for shard, term, vote, commit, last, crc in _rows(connection, "hard"):
            self.tails[shard] = Tail(term, vote, commit, last)
            if seal(shard, term, vote, commit, last) != crc:
                self.damaged[shard] = "term and vote do not match their checksum"
        for shard, index, term, blob, generation, crc in _rows(connection, "first"):
            if seal(shard, index, term, blob, generation) != crc:
                self.damaged[shard] = "the log's start does not match its checksum"
            else:
                configuration = decode_configuration(blob)
                self.firsts[shard] = SnapshotMeta(index, term, configuration, generation)
        for shard in self.replicas:
            if shard not in self.tails or shard not in self.firsts:
                self.damaged.setdefault(shard, "its term, vote or log start is missing")

    # The rest runs inside a transaction of the writer.

    def write_identity(self, connection: sqlite3.Connection, identity: Identity) -> None:
        """Insert or replace the identity."""
        row = (
            identity.cluster_id, identity.node_id, identity.store_uuid, identity.boot_counter,
        )  # fmt: skip
        nonces = b"".join(identity.nonces)
        connection.execute(
            "INSERT OR REPLACE INTO store VALUES (1,?,?,?,?,?,?)",
            (*row, _seal_identity(*row, nonces), nonces),
        )
        self.identity = identity

    def write_recovery(self, connection: sqlite3.Connection, record: bytes) -> None:
        """Add what a recovery has done, for ever (raft_db.py: ``recover``)."""
        connection.execute(
            "INSERT INTO recovery (record, seal) VALUES (?,?)", (record, seal(record))
        )
        self.recoveries.append(record)

    def create_replica(
        self, connection: sqlite3.Connection, shard: int, replica: int, first: SnapshotMeta
    ) -> None:
        """Insert the rows of a new replica. One that begins behind an entry (a shard was
        split, host/births.py) knows of its term, and asks for votes in later ones only."""
        connection.execute(
            "INSERT INTO replica VALUES (?,?,?)", (shard, replica, seal(shard, replica))
        )
        self.replicas[shard] = replica
        self.tails[shard] = Tail(term=first.term, last_index=first.index)
        connection.execute(
            "INSERT OR REPLACE INTO hard VALUES (?,?,?,?,?,?)", (shard, *self.tail_row(shard))
        )
        self.write_first(connection, shard, first)

    def remove_replica(self, connection: sqlite3.Connection, shard: int) -> None:
        """Delete the rows of a replica."""
        for table in ("hard", "first", "replica"):
            connection.execute(f"DELETE FROM {table} WHERE shard=?", (shard,))
        self.replicas.pop(shard, None)
        self.tails.pop(shard, None)
        self.firsts.pop(shard, None)
        self.damaged.pop(shard, None)

    def write_tombstone(self, connection: sqlite3.Connection, shard: int, replica: int) -> None:
        """Declare ``replica`` and all older ones dead."""
        connection.execute(
            "INSERT OR REPLACE INTO tombstone VALUES (?,?,?)",
            (shard, replica, seal(shard, replica)),
        )
        self.tombstones[shard] = replica

    def tail_row(self, shard: int) -> tuple[int, ...]:
        """The row of ``hard`` behind the shard's number, as it is to be written now."""
        tail = self.tails[shard]
        row = (tail.term, tail.vote, tail.commit, tail.last_index)
        return *row, seal_numbers(shard, *row)

    def write_first(self, connection: sqlite3.Connection, shard: int, first: SnapshotMeta) -> None:
        """Let the log of ``shard`` begin behind ``first``."""
        blob = encode_configuration(first.configuration)
        row = (shard, first.index, first.term, blob, first.generation)
        connection.execute("INSERT OR REPLACE INTO first VALUES (?,?,?,?,?,?)", (*row, seal(*row)))
        self.firsts[shard] = first


def _seal_identity(
    cluster_id: bytes, node_id: int, store_uuid: bytes, boots: int, nonces: bytes
) -> int:
    """Of a row of ``store``. One without nonces has the seal it had before there were any."""
    if nonces == b"":
        return seal(cluster_id, node_id, store_uuid, boots)
    return seal(cluster_id, node_id, store_uuid, boots, nonces)


def _parted(nonces: bytes) -> tuple[bytes, ...]:
    return tuple(nonces[at : at + NONCE_BYTES] for at in range(0, len(nonces), NONCE_BYTES))


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
