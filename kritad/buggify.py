"""Places where the code may misbehave, legally, and does so in the simulator only.

``if buggify("site"):`` guards something that the rules allow but that hardly ever
happens: a frame that finds its queue full, a flush in the worst moment, a leader that
steps down for no reason. Nothing at a site may break a promise; whatever goes wrong
after one is a bug of the rest. Outside the simulator every call is False, for 50 ns:
so a site is at most one call a turn or a request, never one a log entry.

Source: FoundationDB's BUGGIFY, by way of its papers and talks. docs/simulation.md
lists the sites.
"""

from __future__ import annotations

from collections.abc import Callable

_choose: Callable[[str], bool] | None = None


def buggify(site: str) -> bool:
    """Whether to misbehave here and now."""
    return _choose is not None and _choose(site)


def set_chooser(choose: Callable[[str], bool] | None) -> None:
    """For the simulator: who decides from now on. None: nobody, nothing misbehaves."""
    global _choose
    _choose = choose
