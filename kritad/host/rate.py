"""How many bytes a second may leave, whoever asks: a bucket that fills with time.

All who share one get their turns in the order in which they ask. Time is an
argument, so the same requests get the same answers.
"""

from __future__ import annotations

# What may leave at once after a pause, in seconds' worth of bytes.
_BURST_S = 0.5


class ByteRate:
    """At most ``bytes_per_s`` on average; 0: no limit."""

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s = bytes_per_s
        self._paid_until_s = float("-inf")  # what was granted is paid for by then

    def __repr__(self) -> str:
        return f"<ByteRate {self.bytes_per_s or 'without limit'} B/s>"

    def reserve(self, size_bytes: int, now_s: float) -> float:
        """Take so many bytes; returns for how many seconds to wait before they leave.
        Whoever takes more than the bucket holds waits for the rest, once."""
        if not self.bytes_per_s:
            return 0.0
        begin_s = max(self._paid_until_s, now_s - _BURST_S)
        self._paid_until_s = begin_s + size_bytes / self.bytes_per_s
        return max(0.0, self._paid_until_s - now_s)
