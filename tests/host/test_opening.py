"""A replica that is opened: what its core is told of time, and what it waits for."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from kritad.host.opening import HostSettings, Opener, needs_arc
from kritad.raft.types import SnapshotMeta
from kritad.storage.extent import WHOLE_RING
from tests.host.cluster import SETTINGS, Cluster
from tests.host.lone import LoneNode, configuration


@pytest.mark.parametrize("tick_ms", [1, 7, 50, 199])
@pytest.mark.parametrize("election_ms", [401, 1000, 2999])
def test_an_election_in_ticks_is_never_shorter_than_in_milliseconds(
    tick_ms: int, election_ms: int, tmp_path: Path
) -> None:
    settings = attrs.evolve(SETTINGS, tick_ms=tick_ms, heartbeat_ms=200, election_ms=election_ms)
    (node,) = Cluster(tmp_path, shards=1, settings=settings).nodes
    told = node.replica(1).raft.config
    assert election_ms <= told.election_ticks * tick_ms < election_ms + tick_ms
    assert 200 - tick_ms < told.heartbeat_ticks * tick_ms <= 200
    assert told.heartbeat_ticks < told.election_ticks


def test_a_fresh_replica_is_opened_without_waiting_for_a_flush(tmp_path: Path) -> None:
    """It is done on the loop's thread, and a flush of much has the writer for half a second."""
    node = LoneNode(tmp_path)
    first = configuration(1)
    node.raft_db.create_replica(2, 1, SnapshotMeta(configuration=first))
    opener = Opener(HostSettings(), node.raft_db, node.data_db, 1, 1)
    with node.data_db._writing:  # whoever asks for the writer would wait for ever
        raft, state = opener.open(2, 1, None, WHOLE_RING)
    assert (raft.replica, state.index) == (1, 0)
    node.data_db.flush([state.freeze()])
    assert node.data_db.applied()[2].generation == state.table.generation
    node.close()


def test_what_an_earlier_replica_has_left_is_not_the_state_of_a_later_one(tmp_path: Path) -> None:
    """Its rows may still be there, and its log is gone: it would serve what it cannot know."""
    node = LoneNode(tmp_path)
    opener = Opener(HostSettings(), node.raft_db, node.data_db, 1, 1)
    node.raft_db.create_replica(2, 1, SnapshotMeta(configuration=configuration(1)))
    _, old = opener.open(2, 1, None, WHOLE_RING)
    node.data_db.flush([old.freeze()])
    left = node.data_db.applied()[2]
    node.raft_db.remove_replica(2, 1)
    node.raft_db.create_replica(2, 9, None)
    assert not needs_arc(2, 1, left)
    assert needs_arc(2, 9, left)
    _, new = opener.open(2, 9, left, WHOLE_RING)
    assert new.table.generation != old.table.generation
    node.close()
