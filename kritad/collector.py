"""The interpreter's collector of reference cycles, kept out of a busy node's way.

What a node allocates under load (rows, entries, messages, requests) forms no cycles and is
freed when it is dropped, at once. The collector walks through it nevertheless, looking for
cycles that are not there; with the interpreter's own settings it does so every few hundred
requests, and the more the node holds the longer the walk: a quarter of a second for a million
objects, in which no request is answered.

Rules:
* Only what is new is walked through: ``_YOUNG`` objects at a time, 3 to 6 ms. What survives
  that is *frozen*, so a pause does not grow with what the node holds.
* A cycle that lives when it is frozen, and is dropped later, is found by the full pass. There is
  one about every hour, and not for all nodes at the same time; 0.3 µs an object. A node that
  holds so much that it takes longer than 0.36 s has it less often: a ten-thousandth of the time.

The settings are the process's: whoever embeds a node in a program of his own does not get them.
"""

from __future__ import annotations

import gc
import logging
import random
from time import perf_counter

import trio

log = logging.getLogger(__name__)

_YOUNG = 10_000
# Never reached: frozen objects are in no generation, so the older two have nothing in them.
_OLDER = 1_000_000
_FULL_S = 3_600.0
_FULL_TIMES = 10_000  # what a full pass took, until the next one


def install() -> None:
    """Have it so for the rest of the process's life."""
    gc.set_threshold(_YOUNG, _OLDER, _OLDER)
    if _freeze_survivors not in gc.callbacks:
        gc.callbacks.append(_freeze_survivors)
    gc.freeze()


def _freeze_survivors(phase: str, _info: dict[str, int]) -> None:
    if phase == "stop":
        gc.freeze()  # moves one list to the end of another: no matter how long they are


def collect_all() -> int:
    """Walk through everything; how many objects were in cycles that nothing used any more."""
    gc.unfreeze()
    return gc.collect()  # which freezes what it leaves, by the callback


async def collect_seldom() -> None:
    """``collect_all`` about every hour (see the rules), until cancelled."""
    pause_s = _FULL_S
    while True:
        await trio.sleep(pause_s * random.uniform(0.5, 1.5))
        began = perf_counter()
        found = collect_all()
        took_s = perf_counter() - began
        log.info("looking for reference cycles took %.3f s and freed %d objects", took_s, found)
        pause_s = max(_FULL_S, took_s * _FULL_TIMES)
