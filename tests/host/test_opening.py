"""What a replica's core is told of time."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from tests.host.cluster import SETTINGS, Cluster


@pytest.mark.parametrize("tick_ms", [1, 7, 50, 199])
@pytest.mark.parametrize("election_ms", [401, 1000, 2999])
def test_an_election_in_ticks_is_never_shorter_than_in_milliseconds(
    tick_ms: int, election_ms: int, tmp_path: Path
) -> None:
    settings = attrs.evolve(SETTINGS, tick_ms=tick_ms, heartbeat_ms=200, election_ms=election_ms)
    (node,) = Cluster(tmp_path, shards=1, settings=settings).nodes
    told = node.replica(1).raft.config
    assert election_ms <= told.election_ticks * tick_ms < election_ms + tick_ms
    assert 1 <= told.heartbeat_ticks <= 200 // tick_ms
    assert told.heartbeat_ticks < told.election_ticks
