"""Writes of one shard that wait, at its leader, for keys that a transaction holds.

The log refuses what meets a held key as Busy (state/intents.py), and a client that comes
again after a pause may find it held by the next one, for ever if it needs many keys. So the
leader keeps such a write back until the keys are free, and proposes it then.

Rules:
* First come, first served: who comes later does not overtake somebody who waits for the
  same key, even if it is free.
* Nobody who waits here holds anything that he could be waited for: a write of one shard holds
  nothing, and a prepare that may wait is asked for in the order of the shards
  (kritad/txn_steps.py). One that may not is refused at once, and costs the log nothing.
* Prepares that were proposed and are not applied count as holding their keys.
* Everybody waits for a bounded time, and is refused as Busy then: a coordinator may have died.
  It is less than clients wait for a node (krita/dispatch.py): whoever is not answered takes
  the node for slow and the write for one in doubt.
* It is a courtesy, and the log decides. A new leader knows nothing of who waited at the old
  one; they are sent on (``clear``).

Measured with 20 keys in 4 shards, 4 clients that move money and one that reads all keys
at once: see docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import attrs

from krita.operations import Op
from kritad.host.request import Request

LINE_MAX = 1_000
PATIENCE_MS = 1_000.0
# A refusal has to get back before its request's deadline.
_MARGIN_MS = 500.0
_OF_ONE_KEY = frozenset({Op.PUT, Op.DELETE, Op.ADD, Op.APPEND, Op.TOUCH, Op.LOCK})
_OF_SEVERAL = frozenset({Op.TXN, Op.TXN_PREPARE})

Keys = Sequence[bytes]


def keys_of(request: Request) -> Keys:
    """The keys that it needs to be free; none: it is not of those that wait."""
    if request.op in _OF_ONE_KEY:
        return (request.key,)
    return request.fields if request.op in _OF_SEVERAL else ()  # type: ignore[return-value]


@attrs.define(eq=False)
class Waiting:
    """One of the line."""

    request: Request
    keys: Keys
    clock_ms: int  # the leader's wall clock when it came

    until_ms: float | None = None  # on the host's monotonic clock; None: no tick since it came

    def is_late(self, now_ms: float) -> bool:
        """Whether it has waited for long enough."""
        if self.until_ms is None:
            usual_ms = self.request.wait_until_ms or now_ms + PATIENCE_MS
            self.until_ms = min(usual_ms, self.request.deadline_ms - _MARGIN_MS)
        return self.until_ms <= now_ms


class Line:
    """See the module's docstring. ``busy``: whether anybody has to be asked about it."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._wanted: set[bytes] = set()  # by those who wait
        self._coming: dict[int, Keys] = {}  # of prepares that are not applied, by index
        self._taken: set[bytes] = set()  # by those

    def __repr__(self) -> str:
        return f"<Line of {len(self._waiting)}, {len(self._coming)} coming>"

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether somebody waits, or holds keys that the state does not know of yet."""
        return bool(self._waiting or self._coming)

    def is_free(self, keys: Keys, held: Collection[bytes]) -> bool:
        """Whether somebody who comes now need not wait; ``held``: as the state knows it."""
        return not any(key in held or key in self._taken or key in self._wanted for key in keys)

    def join(self, request: Request, keys: Keys, clock_ms: int) -> bool:
        """Wait. False: the line is full."""
        if len(self._waiting) >= LINE_MAX:
            return False
        self._waiting.append(Waiting(request, keys, clock_ms))
        self._wanted.update(keys)
        return True

    def proposed(self, index: int, keys: Keys) -> None:
        """A prepare stands in the log at ``index``."""
        self._coming[index] = keys
        self._taken.update(keys)

    def applied(self, index: int) -> None:
        """Up to there the state knows who holds what."""
        done = [at for at in self._coming if at <= index]
        for at in done:
            del self._coming[at]
        if done:
            self._taken = {key for keys in self._coming.values() for key in keys}

    def next(self, held: Collection[bytes], owns: Callable[[bytes], bool]) -> Waiting | None:
        """The first whose turn it is, who leaves the line. Also one whose keys the shard does
        not have any more: the log says so."""
        before: set[bytes] = set()
        for place, waiting in enumerate(self._waiting):
            if waiting.request.respond is None or self._has_turn(waiting, before, held, owns):
                del self._waiting[place]
                self._wanted = {key for other in self._waiting for key in other.keys}
                return waiting
            before.update(waiting.keys)
        return None

    def _has_turn(
        self,
        waiting: Waiting,
        before: Collection[bytes],
        held: Collection[bytes],
        owns: Callable[[bytes], bool],
    ) -> bool:
        return not all(map(owns, waiting.keys)) or not any(
            key in held or key in self._taken or key in before for key in waiting.keys
        )

    def overdue(self, now_ms: float) -> list[Request]:
        """Those who have waited for too long; they leave. Called on each tick."""
        late = [waiting for waiting in self._waiting if waiting.is_late(now_ms)]
        if late:
            self._waiting = [waiting for waiting in self._waiting if waiting not in late]
            self._wanted = {key for other in self._waiting for key in other.keys}
        return [waiting.request for waiting in late]

    def clear(self) -> list[Request]:
        """Everybody leaves."""
        left = [waiting.request for waiting in self._waiting]
        self.__init__()  # type: ignore[misc]
        return left
