"""The schemas of raft.db and data.db, and how a file gets from one version to the next.

``PRAGMA user_version`` says which version a file has, ``application_id`` whose
file it is. A file that is up to date costs two PRAGMAs; sqlite_utils (144 ms to
import) is loaded only when there is something to make or change.

A step is never edited once released: add another. Each runs in one transaction
together with its new ``user_version``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from kritad.storage.database import failure
from kritad.storage.digests import NO_SEAL, seal
from kritad.storage.errors import FormatUnknown
from kritad.storage.places import INNER_PREFIX

if TYPE_CHECKING:
    from sqlite_utils import Database


def _raft_1(db: Database) -> None:
    """See raft_db.py for what the tables mean."""
    db.table("store").create(
        {
            "id": int, "cluster_id": bytes, "node_id": int,
            "store_uuid": bytes, "boot_counter": int, "seal": int,
        },
        pk="id", not_null={"cluster_id", "node_id", "store_uuid", "boot_counter", "seal"},
        strict=True,
    )  # fmt: skip
    for name in ("replica", "tombstone"):
        db.table(name).create(
            {"shard": int, "replica": int, "seal": int},
            pk="shard", not_null={"replica", "seal"}, strict=True,
        )  # fmt: skip
    db.table("hard").create(
        {"shard": int, "term": int, "vote": int, "commit_index": int, "last_index": int,
         "seal": int},
        pk="shard", not_null={"term", "vote", "commit_index", "last_index", "seal"}, strict=True,
    )  # fmt: skip
    db.table("first").create(
        {"shard": int, "log_index": int, "term": int, "configuration": bytes, "generation": int,
         "seal": int},
        pk="shard", not_null={"log_index", "term", "configuration", "generation", "seal"},
        strict=True,
    )  # fmt: skip
    db.table("log").create(
        {"id": int, "shard": int, "first_index": int, "last_index": int, "records": bytes},
        pk="id", not_null={"shard", "first_index", "last_index", "records"}, strict=True,
    )  # fmt: skip


def _raft_2(db: Database) -> None:
    """The nonces of the store's boots (catalog.py), and what was given up by recoveries."""
    db.conn.execute("ALTER TABLE store ADD COLUMN nonces BLOB NOT NULL DEFAULT x''")
    db.table("recovery").create(
        {"id": int, "record": bytes, "seal": int},
        pk="id", not_null={"record", "seal"}, strict=True,
    )  # fmt: skip


# What one replica has applied; and what it will have once a snapshot is received.
_APPLIED = {
    "shard": int, "replica": int, "generation": int, "log_index": int, "term": int,
    "clock_ms": int, "state_hash": int, "configuration": bytes, "seal": int,
}  # fmt: skip


def _data_1(db: Database) -> None:
    """See data_db.py for what the tables mean."""
    db.table("generation").create({"id": int}, pk="id", strict=True)
    db.table("kv").create(
        {"id": int, "generation": int, "key": bytes, "revision": int, "value": bytes,
         "content_type": str, "digest": int},
        pk="id", not_null={"generation", "key", "revision", "value", "digest"}, strict=True,
    )  # fmt: skip
    db.table("kv").create_index(["generation", "key"], index_name="kv_key", unique=True)
    db.table("sessions").create(
        {"generation": int, "id": int, "blob": bytes, "digest": int},
        pk=("generation", "id"), not_null={"blob", "digest"}, strict=True,
    )  # fmt: skip
    db.table("applied").create(_APPLIED, pk="shard", not_null=set(_APPLIED), strict=True)
    receiving = _APPLIED | {
        "transfer": bytes, "next_chunk": int, "row_count": int, "digest_sum": int, "complete": int,
    }  # fmt: skip
    db.table("receiving").create(receiving, pk="shard", not_null=set(receiving), strict=True)


def _data_2(db: Database) -> None:
    """A shard's arc of the ring, what is in it, and rows that two shards share (data_db.py).

    What is in the arcs is counted when they are opened: a file of version 1 does not say
    which they are.
    """
    # As much of a snapshot as was not counted while it came in is fetched again.
    db.execute("DELETE FROM receiving WHERE complete=0")
    for table in ("applied", "receiving"):
        fields = list(_APPLIED)[:-1]
        known = db.execute(f"SELECT {','.join(fields)}, seal FROM {table}").fetchall()
        for column in ("rows_in", "hash_lo", "hash_hi"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
        for column in ("cells", "lineage"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} BLOB NOT NULL DEFAULT x''")
        for *values, crc in known:
            new = (*values, values[2], 0, 0, b"", b"")
            # What was damaged stays damaged.
            good = seal(*new) if seal(*values) == crc else NO_SEAL
            db.execute(
                f"UPDATE {table} SET rows_in=generation, seal=? WHERE shard=?", (good, values[0])
            )
    db.table("orphans").create(
        {"generation": int, "after": bytes}, pk="generation", not_null={"after"}, strict=True
    )


def _data_3(db: Database) -> None:
    """Rows that end by themselves, at a deadline or with a lease; most do not, so the
    indexes by which they are found when a shard is opened have nothing of the others.

    And rows of the store's own (places.py): their keys were anybody's before.
    """
    for (generation,) in db.execute("SELECT id FROM generation").fetchall():
        query = "SELECT key FROM kv WHERE generation=? AND key>=? LIMIT 1"
        found = db.execute(query, (generation, INNER_PREFIX)).fetchone()
        if found is not None:
            raise FormatUnknown(
                f"it has the key {found[0]!r:.80}, and keys that begin with the byte 0xFF are the"
                " store's own by now",
                "start the kritad that wrote it, and give such keys another name",
            )
    for column in ("expires_ms", "lease"):
        db.execute(f"ALTER TABLE kv ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
        db.execute(f"CREATE INDEX kv_{column} ON kv (generation) WHERE {column}>0")


def _data_4(db: Database) -> None:
    """What ends at a deadline is found by it, and no row of the table is read for that."""
    db.execute("DROP INDEX kv_expires_ms")
    db.execute("CREATE INDEX kv_ends ON kv (generation, expires_ms, key) WHERE expires_ms>0")


@attrs.frozen
class Schema:
    """One kind of file: its mark, and the step that leads to each version."""

    name: str
    application_id: int
    steps: tuple[Callable[[Database], None], ...]

    @property
    def version(self) -> int:
        """The version that this program reads and writes."""
        return len(self.steps)


RAFT = Schema("raft.db", int.from_bytes(b"KrtR", "big"), (_raft_1, _raft_2))
DATA = Schema("data.db", int.from_bytes(b"KrtD", "big"), (_data_1, _data_2, _data_3, _data_4))


def migrate(connection: sqlite3.Connection, path: Path, schema: Schema) -> int:
    """Bring the file up to ``schema.version``; returns the number of steps done.

    Raises FormatUnknown for a file of a newer kritad or of another program, and
    StoreFailed or Corrupt when SQLite refuses.
    """
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        mark: int = connection.execute("PRAGMA application_id").fetchone()[0]
        empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
        if mark != schema.application_id and not (mark == 0 and version == 0 and empty):
            raise FormatUnknown(
                f"{path} is not a Krita {schema.name}", "does --data_dir name the right directory?"
            )
        if version > schema.version:
            raise FormatUnknown(
                f"{path} has format {version}; this kritad knows formats up to {schema.version}",
                "start the newer kritad that wrote it",
            )
        if version < schema.version:
            _run(connection, schema, version)
    except sqlite3.Error as error:
        raise failure(path, "prepare", error) from error
    return schema.version - version


def _run(connection: sqlite3.Connection, schema: Schema, version: int) -> None:
    from sqlite_utils import Database  # late: 144 ms

    db = Database(connection, execute_plugins=False)
    for number, step in enumerate(schema.steps[version:], start=version + 1):
        with db.atomic():
            step(db)
            # Both live in the file's first page and are part of the transaction.
            connection.execute(f"PRAGMA application_id={schema.application_id}")
            connection.execute(f"PRAGMA user_version={number}")
