"""All stories, by name."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from tests.simulator.run import Outcome, Trace, live
from tests.simulator.stories.leaving import (
    ExpelledInIgnorance,
    MoveTakenBackUnheard,
    NodeLeftBehindAnOlderWish,
    VoterIsRemoved,
    VoterIsWantedNoMore,
)
from tests.simulator.stories.recovery import (
    HalfThatTheMetaShardLacks,
    HalfThatTheSurvivorLacks,
)
from tests.simulator.stories.room import (
    FlushAfterFlush,
    LeadsWhileMuchWaits,
    SnapshotForWhatWaits,
)
from tests.simulator.stories.scrubs import DamagedWhereNobodyReads
from tests.simulator.stories.snapshots import (
    DeposedWhileItSends,
    ElectedAgainWhileItSends,
    PowerCutWhileItSends,
)
from tests.simulator.stories.story import Story

STORIES: dict[str, type[Story]] = {
    story.__name__: story
    for story in (
        MoveTakenBackUnheard,
        NodeLeftBehindAnOlderWish,
        VoterIsRemoved,
        VoterIsWantedNoMore,
        ExpelledInIgnorance,
        DeposedWhileItSends,
        ElectedAgainWhileItSends,
        PowerCutWhileItSends,
        HalfThatTheMetaShardLacks,
        HalfThatTheSurvivorLacks,
        LeadsWhileMuchWaits,
        SnapshotForWhatWaits,
        FlushAfterFlush,
        DamagedWhereNobodyReads,
    )
}


def tell(
    name: str, planting: AbstractContextManager[object] | None = None, trace: Trace | None = None
) -> Outcome:
    """What becomes of a story, with a planted bug around it."""
    story = STORIES[name]
    with planting or nullcontext():
        return live(story.drawn(), trace, kind=story)
