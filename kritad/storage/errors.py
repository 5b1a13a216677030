"""What can go wrong with a disk, told apart by what has to be done about it.

``Corrupt``           stored bytes are not what was written: the replica (or, with
                      ``shard`` None, all of this node's) is rebuilt from the others.
``StoreFailed``       the disk or SQLite refused: fatal for the store, never retried,
                      because SQLite goes on after a failed fsync as if it had
                      worked (raft.md B5). Stop answering, exit, start again.
``DirectoryRefused``  the data directory is not ours to use; nothing was touched.
``FormatUnknown``     the files were written by a newer kritad, or are not Krita's.
``Tombstoned``        a removed replica was asked for again; its id is dead for ever.
"""

from __future__ import annotations

# What is to be done about a damaged replica, for ``Corrupt`` that names one.
REBUILD_HINT = "the cluster makes this replica anew while most of the others are well"


class StorageError(Exception):
    """The root. ``message`` says what happened, ``hint`` what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Corrupt(StorageError):
    """Stored bytes are damaged; they are never taken for "missing" (raft.md B47).

    ``shard`` names the one replica that is damaged, None all replicas of the node.
    """

    def __init__(self, shard: int | None, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.args = (shard, message, hint)
        self.shard = shard


class StoreFailed(StorageError):
    """The disk or SQLite refused. The object that raised it refuses every further call."""


class DirectoryRefused(StorageError):
    """The data directory belongs to someone else, is open to others, is in use, or is where
    its files cannot be kept as they have to be."""


class FormatUnknown(StorageError):
    """A file of a newer kritad, one that is no Krita database at all, or one of an older
    kritad with something in it that cannot be brought over."""


class Tombstoned(StorageError):
    """This replica was removed from this node; neither it nor an older one comes back."""
