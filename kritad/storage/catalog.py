"""The small tables of raft.db, held in memory: identity, replicas, votes, log starts.

Rules:
* Every row has a seal (digests.py). Damage to one replica's row is noted in
  ``damaged`` and concerns that replica; damage to the identity or to the tables of
  replicas and tombstones concerns the node and is raised.
* The memory is changed ahead of the commit. A write that fails ends the life of
  the RaftDatabase, so nobody sees the difference.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.types import SnapshotMeta
from kritad.storage.database import execute_rows
from kritad.storage.digests import seal, seal_numbers
from kritad.storage.errors import Corrupt

REBUILD_NODE = (
    "entries this node has acknowledged may be gone, so it must not vote with what is left: "
    "move the data directory away and start with --join_ip; the cluster rebuilds its replicas"
)


@attrs.frozen
class Identity:
    """Who this store is. ``node_id`` 0 and an empty ``cluster_id``: not joined yet."""

    cluster_id: bytes
    node_id: int
    store_uuid: bytes
    boot_counter: int


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
        self.replicas: dict[int, int] = {}
        self.tombstones: dict[int, int] = {}  # the highest removed replica id
        self.tails: dict[int, Tail] = {}
        self.firsts: dict[int, SnapshotMeta] = {}  # where the log logically begins
        self.damaged: dict[int, str] = {}  # what was found when reading

    def __repr__(self) -> str:
        return f"<Catalog {self.identity} replicas={self.replicas} damaged={self.damaged}>"

    def read(self, connection: sqlite3.Connection, path: Path) -> None:
        """Fill the memory. Raises Corrupt(None) and sqlite3.Error."""
        for _, cluster_id, node_id, store_uuid, boots, crc in _rows(connection, "store"):
            if seal(cluster_id, node_id, store_uuid, boots) != crc:
                raise Corrupt(None, f"the identity in {path} is damaged", REBUILD_NODE)
            self.identity = Identity(cluster_id, node_id, store_uuid, boots)
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
        connection.execute("INSERT OR REPLACE INTO store VALUES (1,?,?,?,?,?)", (*row, seal(*row)))
        self.identity = identity

    def create_replica(
        self, connection: sqlite3.Connection, shard: int, replica: int, first: SnapshotMeta
    ) -> None:
        """Insert the rows of a new replica."""
        connection.execute(
            "INSERT INTO replica VALUES (?,?,?)", (shard, replica, seal(shard, replica))
        )
        self.replicas[shard] = replica
        self.tails[shard] = Tail(last_index=first.index)
        self.write_tails(connection, [shard])
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

    def write_tails(self, connection: sqlite3.Connection, shards: Iterable[int]) -> None:
        """Write ``tails`` of these shards, in one or two statements."""
        rows = []
        for shard in shards:
            tail = self.tails[shard]
            row = (shard, tail.term, tail.vote, tail.commit, tail.last_index)
            rows.append((*row, seal_numbers(*row)))
        execute_rows(connection, "INSERT OR REPLACE INTO hard", rows)

    def write_first(self, connection: sqlite3.Connection, shard: int, first: SnapshotMeta) -> None:
        """Let the log of ``shard`` begin behind ``first``."""
        blob = encode_configuration(first.configuration)
        row = (shard, first.index, first.term, blob, first.generation)
        connection.execute("INSERT OR REPLACE INTO first VALUES (?,?,?,?,?,?)", (*row, seal(*row)))
        self.firsts[shard] = first


def _rows(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
