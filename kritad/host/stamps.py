"""What time a leader writes into the entries of its shard.

The shard's clock follows the leader's wall clock and never goes back. A leader whose clock was a
day ahead, be it for a second, has therefore moved it for good; if those that lead afterwards just
waited until their own clocks had come up, no lock, lease or key would end for a day.

Rules:
* While the shard's clock is far ahead of the leader's, it goes on at half speed by the leader's
  monotonic clock: what should end in ten seconds ends in twenty, never early, and the two
  come together in twice the time that lies between them.
* What honest clocks differ by is not far: then it waits.
"""

from __future__ import annotations

from kritad.host.clock import Clock

FAR_AHEAD_MS = 10_000
_SPEED = 0.5


class Stamps:
    """Those of one replica while it leads."""

    def __init__(self) -> None:
        self._since: tuple[int, float] | None = None  # the shard's clock, and our monotonic one

    def __repr__(self) -> str:
        return f"<Stamps {'of the wall clock' if self._since is None else 'at half speed'}>"

    def now_ms(self, clock: Clock, shard_ms: int) -> int:
        """What an entry that is made now says. ``shard_ms`` is the shard's clock; 0.3 µs."""
        wall_ms = clock.wall_ms()
        if shard_ms - wall_ms <= FAR_AHEAD_MS:
            self._since = None
            return wall_ms
        now_ms = clock.monotonic_ms()
        if self._since is not None:
            then_ms, since_ms = self._since
            slow_ms = then_ms + int((now_ms - since_ms) * _SPEED)
            if slow_ms >= shard_ms:
                return slow_ms
        self._since = shard_ms, now_ms  # from here on, or another leader has moved it on
        return shard_ms
