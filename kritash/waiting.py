"""``--wait`` for the commands that have it: look, follow, and say how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kritash import progress
from kritash.answers import cluster_status
from kritash.documents import Cluster
from kritash.exits import Exit
from kritash.follow import Followed, Progress, follow
from kritash.reply import Reply, sentence

if TYPE_CHECKING:
    from kritash.context import Context
    from kritash.grammar import Invocation

Look = Callable[[], Progress]


def _cluster(context: Context) -> Cluster:
    return Cluster.of(cluster_status(context))


def look_at_emptying(context: Context, node: int, leave: bool) -> Look:
    """Follows a node that is drained, or with ``leave`` removed."""
    most = 0

    def look() -> Progress:
        nonlocal most
        seen = progress.emptying(_cluster(context), node, most, leave)
        left = seen.document.get("replicas_left")
        most = max(most, left if isinstance(left, int) else 0)
        return seen

    return look


def look_at_arrival(context: Context, known: frozenset[int]) -> Look:
    """Follows a node that is not among the known ones until it has its share."""
    arrival = progress.Arrival(known)
    return lambda: arrival.progress(_cluster(context))


def look_at_move(context: Context, shard: int, source: int, target: int) -> Look:
    """Follows a shard on its way."""
    return lambda: progress.moving(_cluster(context), shard, source, target)


def look_at_split(context: Context, shard: int, shard_new: int) -> Look:
    """Follows a shard that is cut in two."""
    return lambda: progress.splitting(_cluster(context), shard, shard_new)


def begun(
    context: Context,
    invocation: Invocation,
    document: dict[str, object],
    said: str,
    look: Callable[[], Look],
) -> Reply:
    """The reply to something that was just begun: at once, or with --wait when it is done."""
    patience_s = invocation.options.get("wait-s")
    if not invocation.flag("wait") and patience_s is None:
        return sentence(document | {"done": False}, "ok", said)
    seconds = float(patience_s) if isinstance(patience_s, (int, float)) else None
    return ended(document, follow(context, look(), seconds))


def ended(document: dict[str, object], followed: Followed) -> Reply:
    """What to say when the waiting is over."""
    seen = followed.progress
    known = {} if seen is None else seen.document
    told = document | known | {"done": followed.code is Exit.DONE}
    text = "nothing was seen of it" if seen is None else seen.text
    if followed.code is Exit.DONE:
        return sentence(told, "ok", text)
    why = "interrupted" if followed.code is Exit.INTERRUPTED else "not done yet"
    return sentence(told, f"{why}; the cluster goes on with it", text, code=followed.code)
