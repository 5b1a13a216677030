"""Planted bugs: a majority is lost, and one node goes on."""

from __future__ import annotations

from kritad.cluster import meta_recovery
from kritad.cluster.meta_recovery import FoundShard
from kritad.cluster.model import ShardRecord
from kritad.cluster.tables import Tables
from kritad.cluster.view import Records
from kritad.host.replica import Replica
from kritad.host.request import Request
from tests.simulator.mutants.mutant import Mutant

_recovered = meta_recovery.recovered


def _go_on_from_the_records(
    records: Records, values: list[object], index: int
) -> tuple[int, object]:
    """The next numbers are those behind the ones that the survivor's records know."""
    before = Tables(records, index).cluster
    done = _recovered(records, values, index)
    Tables(records, index).write(cluster=before)
    return done


def _take_nothing_up(_after: dict[int, ShardRecord], _each: FoundShard) -> None:
    """What the meta shard does not know of is on no map."""


def _take_nothing_back(
    _after: dict[int, ShardRecord], _record: ShardRecord, _arc: tuple[int, int], _there: set[int]
) -> None:
    """What the meta shard knows of is on the map, whether any disk has it or not."""


def _wait_ahead(replica: Replica, request: Request) -> None:
    """Whoever watches from a place that the log has not reached waits until it does."""
    replica.poll(request, 0.0)


MUTANTS = (
    Mutant(
        name="recovery-gives-numbers-out-again",
        rule="a recovery steps over what its lost entries may have given out",
        source="cluster/meta_recovery.py",
        hint="numbers: a split that the survivor's meta shard has not heard of, and another one",
        patches=((meta_recovery, "recovered", _go_on_from_the_records),),
    ),
    Mutant(
        name="recovery-loses-a-half",
        rule="a shard that is on a survivor's disk is on the map",
        source="cluster/meta_recovery.py",
        hint="kept, liveness: a split that the survivor's meta shard has not heard of",
        patches=((meta_recovery, "_take_up", _take_nothing_up),),
    ),
    Mutant(
        name="recovery-waits-for-a-half",
        rule="a shard that is on no survivor's disk is of the one that it was to be cut from",
        source="cluster/meta_recovery.py",
        hint="kept, liveness: a split that the survivor's log lacks",
        patches=((meta_recovery, "_take_back", _take_nothing_back),),
    ),
    Mutant(
        name="place-ahead-of-the-log-waits",
        rule="a watch from a place that the log never had is told so",
        source="host/replica.py",
        hint="watch: a recovery, and a place that was told before",
        patches=((Replica, "_poll_confirmed", _wait_ahead),),
    ),
)
