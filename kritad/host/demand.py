"""How much is asked of each shard here: by what leaders follow the requests (cluster/homes.py).

A node counts what its own clients ask it for, whoever serves that in the end, and what it
serves as a shard's leader, whoever asked. A client that knows the leader and goes there by
itself is in the second number only: it is as well off wherever the leader is.

The numbers are requests a second, smoothed: the newest second is three tenths of what is told, so
a load is seen within a second or two of its beginning, and forgotten some ten seconds after
its end. They are told to the other nodes each second (``leaders.Word``).

Cost: 0.1 µs a request and number.
"""

from __future__ import annotations

_INTERVAL_MS = 1_000.0
_NEWEST = 0.3  # the share of the newest interval
_FORGOTTEN_PER_S = 1.0  # what is less is told to nobody

Row = tuple[int, int, int]  # shard, asked here and served here, a second


class Demand:
    """See the module's docstring. ``now_ms`` is when it begins."""

    def __init__(self, now_ms: float) -> None:
        self._since_ms = now_ms
        self._asked: dict[int, int] = {}
        self._served: dict[int, int] = {}
        self._rates: dict[int, tuple[float, float]] = {}

    def __repr__(self) -> str:
        return f"<Demand {self.rows()}>"

    def asked(self, shard: int) -> None:
        """A client of this node's asks for something of the shard."""
        self._asked[shard] = self._asked.get(shard, 0) + 1

    def served(self, shard: int) -> None:
        """This node serves a request as the shard's leader."""
        self._served[shard] = self._served.get(shard, 0) + 1

    def step(self, now_ms: float) -> None:
        """Called on each tick: counts what came in the last second, once it is over."""
        passed_s = (now_ms - self._since_ms) / 1000.0
        if passed_s * 1000.0 < _INTERVAL_MS:
            return
        self._since_ms = now_ms
        asked, self._asked = self._asked, {}
        served, self._served = self._served, {}
        rates, self._rates = self._rates, {}
        for shard in sorted({*rates, *asked, *served}):
            before = rates.get(shard, (0.0, 0.0))
            newest = asked.get(shard, 0) / passed_s, served.get(shard, 0) / passed_s
            here, led = (
                old + _NEWEST * (new - old) for old, new in zip(before, newest, strict=True)
            )
            if max(here, led) >= _FORGOTTEN_PER_S * _NEWEST:
                self._rates[shard] = here, led

    def rows(self) -> list[Row]:
        """What there is to tell, by shard."""
        return [
            (shard, round(here), round(led))
            for shard, (here, led) in self._rates.items()
            if max(here, led) >= _FORGOTTEN_PER_S
        ]
