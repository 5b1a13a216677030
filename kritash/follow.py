"""Following what the cluster does until it is done.

What is asked of a cluster (drain a node, split a shard) is decided at once and done
later, by the cluster itself: whoever waits only looks. So nothing is lost when the
waiting ends early, and a look that fails is repeated: the node that was asked may
be the very one that is going.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from krita.errors import KritaError, Status
from kritash.exits import Exit

if TYPE_CHECKING:
    from kritash.context import Context

PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 1.0
# How long the cluster may fail to answer before that is the answer.
SILENCE_S_MAX = 60.0
# What another try does not change.
_FINAL = (Status.UNAUTHENTICATED, Status.FORBIDDEN, Status.FOREIGN, Status.UNSUPPORTED)


@attrs.frozen
class Progress:
    """How far something is. ``pace``, behind the text, is what differs at each look;
    ``document``: the same for programs."""

    done: bool
    text: str
    share: float | None = None  # 0 to 1
    pace: str = ""
    document: dict[str, object] = attrs.field(factory=dict)


@attrs.frozen
class Followed:
    """How the waiting ended; ``progress`` is None if nothing was ever seen."""

    code: Exit
    progress: Progress | None


def follow(
    context: Context, look: Callable[[], Progress], patience_s: float | None = None
) -> Followed:
    """Looks until it is done: DONE. NO when ``patience_s`` is over, INTERRUPTED at Ctrl-C.

    Each look but the last is shown as progress. Raises KritaError when the cluster has not
    answered for SILENCE_S_MAX, or does not let us look.
    """
    began_s = heard_s = context.clock()
    pause_s = PAUSE_S_FIRST
    seen: Progress | None = None
    try:
        while True:
            try:
                now = look()
            except KritaError as error:
                if error.status in _FINAL or context.clock() - heard_s > SILENCE_S_MAX:
                    raise
                context.display.progress(f"no answer: {error.message}")
            else:
                heard_s = context.clock()
                seen = now
                if now.done:
                    return Followed(Exit.DONE, seen)
                context.display.progress(now.text, now.share, now.pace)
            if patience_s is not None and context.clock() - began_s >= patience_s:
                return Followed(Exit.NO, seen)
            context.pause(pause_s)
            pause_s = min(PAUSE_S_MAX, pause_s * 1.5)
    except KeyboardInterrupt:
        return Followed(Exit.INTERRUPTED, seen)
    finally:
        context.display.progress_done()
