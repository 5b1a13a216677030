"""Numbers as people read them: sizes, rates, times, shares. Pure."""

from __future__ import annotations

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(count: float | None) -> str:
    """``1.5 MiB``; ``-`` when it is not known."""
    if count is None:
        return "-"
    unit = 0
    while abs(count) >= 1024 and unit < len(_SIZES) - 1:
        count /= 1024
        unit += 1
    digits = 0 if unit == 0 or abs(count) >= 99.95 else 1
    return f"{count:.{digits}f} {_SIZES[unit]}"


def rate_text(bytes_per_s: float | None) -> str:
    """``12 MiB/s``."""
    return "-" if bytes_per_s is None else f"{size_text(bytes_per_s)}/s"


def duration_text(seconds: float | None) -> str:
    """``8 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 2 h``."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole // 60, "min", whole % 60, "s")
    if whole < 86_400:
        return _two(whole // 3600, "h", whole % 3600 // 60, "min")
    return _two(whole // 86_400, "d", whole % 86_400 // 3600, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    tail = f" {small} {small_unit}" if small else ""
    return f"{large} {large_unit}{tail}"


def share_text(share: float | None) -> str:
    """``12.5 %``."""
    return "-" if share is None else f"{100 * share:.1f} %"


def count_text(number: int, noun: str) -> str:
    """``1 node``, ``2 nodes``, ``2 copies``, ``2 keys``."""
    changes = noun.endswith("y") and noun[-2] not in "aeiou"
    plural = noun[:-1] + "ies" if changes else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
