"""The calls that a dispatcher makes of its own accord: they fetch what callers' calls need. Pure.

Rules:

- At most one is under way for each need; whoever needs the same waits for that one.
- One that fails tells those who waited for it that nothing of theirs was sent
  (``krita.call.errand_failed``), whatever became of itself.
- The map is fetched when there is none, and again when it is doubted; not all the time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from krita import requests
from krita.call import Call, CallState, Need, errand_failed
from krita.routing import REFRESH_PAUSE_S

if TYPE_CHECKING:
    from krita.request import Request
    from krita.retry import Trial

FETCH_TIMEOUT_S = 5.0

MAP: Need = ("map", 0)


def request_for(need: Need) -> Request[Any]:
    """What to ask for it."""
    kind, shard = need
    return requests.shard_map() if kind == "map" else requests.session_open(shard)


class Fetches:
    """Those under way, by what they are to bring."""

    def __init__(self) -> None:
        self._calls: dict[Need, Call] = {}
        self._refresh_after = -math.inf

    def __contains__(self, need: Need) -> bool:
        return need in self._calls

    def begun(self, need: Need, call: Call) -> None:
        """The call is on its way for that."""
        call.fetches = need
        self._calls[need] = call

    def ended(self, call: Call) -> Need:
        """The call has finished; what it was for."""
        need = call.fetches
        assert need is not None
        del self._calls[need]
        return need

    def may_refresh(self, now: float) -> bool:
        """Whether the map was not fetched a moment ago. It is being fetched now, if so."""
        if now < self._refresh_after:
            return False
        self._refresh_after = now + REFRESH_PAUSE_S
        return True

    def explain(self, call: Call, trial: Trial) -> None:
        """The call's time is over, and it may have waited for one of these: then what stood in
        that one's way stood in the call's."""
        fetch = self._calls.get(call.needs) if call.needs is not None else None
        if trial.error is None and fetch is not None and fetch.trial is not None:
            assert fetch.trial.error is not None
            assert call.needs is not None
            error = errand_failed(fetch.trial.error, call.needs)
            trial.adopt(fetch.trial, error, waiting=fetch.state is CallState.SENT)

    def forget(self) -> None:
        """They end, and nobody is to be told."""
        for call in self._calls.values():
            call.fetches = None
        self._calls.clear()

    def __repr__(self) -> str:
        return f"<Fetches {list(self._calls)}>"
