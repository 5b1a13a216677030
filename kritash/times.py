"""Durations and moments as people type them, and written so that they can be typed. Pure.

A duration is numbers with their units, the largest first or not: ``30s``, ``1h30m``,
``1.5h``, ``250ms``. A bare number is refused: in seconds to one, in milliseconds to another.

A moment is a revision (``17``), a time (``2026-11-29T10:00``, a date alone is its midnight,
``Z`` or ``+02:00`` behind it says the zone, otherwise it is the machine's), or a
duration ago (``-10m``). Which time that is depends on the clock, so it is kept as it was
said until somebody knows what time it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo

import attrs

from krita.limits import TTL_MS_MAX

_UNITS_MS = {
    "ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000,
}  # fmt: skip
DURATION_MS_MAX = TTL_MS_MAX  # the longest that the store takes
DURATION_EXAMPLES = "250ms, 30s, 5m, 1h30m, 7d"
MOMENT_EXAMPLES = "a revision, a time like 2026-11-29T10:00, or -10m"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)  # floats would lose some of them
_PART = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)(ms|s|m|h|d|w)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_REVISION = re.compile("[0-9]{1,19}")


class TimeError(ValueError):
    """The text is none of these; the message says what is wrong with it, ``hint`` what to type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@attrs.frozen
class Moment:
    """A time: one of the two. ``resolved`` makes milliseconds since 1970 of it."""

    time_ms: int | None = None
    ago_ms: int | None = None

    def resolved(self, now_ms: int) -> int:
        """The time, given the clock's."""
        if self.time_ms is not None:
            return self.time_ms
        assert self.ago_ms is not None
        return max(0, now_ms - self.ago_ms)


def duration_ms(text: str) -> int:
    """The milliseconds of a duration, at least one. Raises TimeError."""
    if not _DURATION.fullmatch(text):
        if re.fullmatch("[0-9.]+", text):
            raise TimeError(f"{text!r} has no unit", f"did you mean {text}s or {text}ms?")
        raise TimeError(f"{text!r} is no duration", f"durations are typed like {DURATION_EXAMPLES}")
    total = sum(float(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))
    if not 1 <= round(total) <= DURATION_MS_MAX:
        raise TimeError(f"{text!r} is too {'short' if total < 1 else 'long'}", "1ms to 100 years")
    return round(total)


def duration_word(milliseconds: int) -> str:
    """A duration so that ``duration_ms`` gives it back: ``1h30m``; ``0s`` for none."""
    left, words = max(0, milliseconds), ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, left = divmod(left, _UNITS_MS[unit])
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def moment_of(text: str, zone: tzinfo | None = None) -> int | Moment:
    """A revision, or a moment. ``zone``: of times that name none, None: the machine's.
    Raises TimeError."""
    if _REVISION.fullmatch(text):
        return int(text)
    if text.startswith("-"):
        return Moment(ago_ms=duration_ms(text[1:]))
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=zone) if zone else found.astimezone()
        time_ms = (found - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError, OSError):
        raise TimeError(f"{text!r} is no moment", f"it is {MOMENT_EXAMPLES}") from None
    if time_ms < 0:
        raise TimeError(f"{text!r} is before 1970", f"it is {MOMENT_EXAMPLES}")
    return Moment(time_ms=time_ms)


def time_word(time_ms: int) -> str:
    """A time in UTC, so that ``moment_of`` gives it back: ``2026-11-29T10:00:00.250Z``."""
    found = _EPOCH + time_ms * _MILLISECOND
    return found.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_text(time_ms: int) -> str:
    """A time for people, by this machine's clock: ``2026-11-29 10:00:00``."""
    found = _EPOCH + time_ms * _MILLISECOND
    return found.astimezone().strftime("%Y-%m-%d %H:%M:%S")
