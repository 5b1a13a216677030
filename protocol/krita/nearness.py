"""How near the nodes are: round trips as they were measured, for reads that any replica
may answer.

Rules:

- Only answers that a node gives from its own memory or disk are measured: a write or a
  linearizable read also takes as long as the leader needs with its followers.
- Several samples make an estimate as TCP's do (RFC 6298: an exponentially weighted
  average, the newest counts an eighth). A single slow answer changes little.
- An estimate lives for ``MEASURED_S``. After that, and before the first sample, a node
  counts as near, so that it is asked again: else one bad moment would last for ever,
  and a far node that was measured first would keep all the reads.
- Nodes that differ by less than people notice are equally near. Always taking the
  very fastest would send all clients of one place to one node.

Sans-IO: readings of a steady clock, in seconds, are given.
"""

from __future__ import annotations

from collections.abc import Iterable

MEASURED_S = 30.0
NEAR_FACTOR = 2.0  # times the fastest one's round trip …
NEAR_SLACK_S = 0.005  # … and this, and a node still counts as near
_WEIGHT = 1 / 8


class Nearness:
    """What one client has measured; nodes by their addresses, ``host:port``."""

    def __init__(self) -> None:
        self._measured: dict[str, tuple[float, float]] = {}  # address -> round trip, when

    def learn(self, address: str, round_trip_s: float, now: float) -> None:
        """A node has answered by itself, and it took this long. 0.4 µs."""
        known = self._measured.get(address)
        if known is not None and now - known[1] <= MEASURED_S:
            round_trip_s = known[0] + _WEIGHT * (round_trip_s - known[0])
        self._measured[address] = (round_trip_s, now)

    def round_trip_s(self, address: str, now: float) -> float | None:
        """The estimate, or None when there is none that is fresh enough."""
        known = self._measured.get(address)
        if known is None or now - known[1] > MEASURED_S:
            return None
        return known[0]

    def distances(self, addresses: Iterable[str], now: float) -> dict[str, float]:
        """For each address 0.0 if it counts as near, else its round trip in seconds."""
        measured = {address: self.round_trip_s(address, now) for address in addresses}
        known = [seconds for seconds in measured.values() if seconds is not None]
        near_s = NEAR_FACTOR * min(known, default=0.0) + NEAR_SLACK_S
        return {
            address: 0.0 if seconds is None or seconds <= near_s else seconds
            for address, seconds in measured.items()
        }

    def __repr__(self) -> str:
        trips = {address: round(1000 * trip, 1) for address, (trip, _) in self._measured.items()}
        return f"<Nearness {trips} ms>"
