"""Two values of a key side by side. Pure.

Text is compared line by line, as ``diff -u`` does it. Of what is no text, or has too many
lines for that to be read (or to be computed while somebody waits), the sizes are told and
the first byte that differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import attrs

from kritash.cells import shortened, visible
from kritash.units import size_text

LINES_MAX = 5000  # of a text; comparing takes up to the product of both
CONTEXT_LINES = 3
SHOWN_BYTES = 8  # from the first that differs on


@attrs.frozen
class Side:
    """What a key was at some moment."""

    revision: int  # 0: it was absent, and nobody knows since when
    data: bytes | None  # None: absent
    content_type: str | None = None

    def named(self, key: bytes) -> str:
        """``user:1 at revision 7``."""
        name = shortened(key, 60)
        if self.data is None:
            return f"{name}, absent"
        kind = f", {visible(self.content_type)}" if self.content_type else ""
        return f"{name} at revision {self.revision}{kind}"


ABSENT = Side(0, None)


def difference_document(key: bytes, before: Side, after: Side) -> dict[str, object]:
    """What a program wants to know, and ``lines``, which are for people too: a unified diff,
    or sentences."""
    changed = (before.data, before.content_type) != (after.data, after.content_type)
    document: dict[str, object] = {
        "key": key,
        "changed": changed,
        "from": _told(before),
        "to": _told(after),
        "first_difference": first_difference(before.data or b"", after.data or b""),
    }
    return document | {"lines": _lines(key, before, after) if changed else []}


def _told(side: Side) -> dict[str, object]:
    size = None if side.data is None else len(side.data)
    return {"revision": side.revision, "content_type": side.content_type, "bytes": size}


def _lines(key: bytes, before: Side, after: Side) -> list[str]:
    heads = [f"--- {before.named(key)}", f"+++ {after.named(key)}"]
    old, new = text_lines(before.data), text_lines(after.data)
    if old is None or new is None:
        return heads + _of_bytes(before.data, after.data)
    found = difflib.unified_diff(old, new, n=CONTEXT_LINES, lineterm="")
    return heads + list(found)[2:]


def text_lines(data: bytes | None) -> list[str] | None:
    """The lines of a text, none of what is absent. None: it is no text, or too many."""
    if data is None:
        return []
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        return None
    readable = all(line.replace("\t", "").replace("\r", "").isprintable() for line in lines)
    return lines if readable and len(lines) <= LINES_MAX else None


def _of_bytes(before: bytes | None, after: bytes | None) -> list[str]:
    lines = [f"-{_size(before)}", f"+{_size(after)}"]
    at = first_difference(before or b"", after or b"")
    if at is not None and before and after:
        lines.append(f"@@ the first difference is at byte {at} @@")
        lines += [f"-{_shown(before, at)}", f"+{_shown(after, at)}"]
    return lines


def _size(data: bytes | None) -> str:
    return "absent" if data is None else size_text(len(data))


def _shown(data: bytes, at: int) -> str:
    return data[at : at + SHOWN_BYTES].hex(" ") or "the end"


def first_difference(before: bytes, after: bytes) -> int | None:
    """Where two values begin to differ; None: nowhere. By halves: slices are compared
    faster than bytes."""
    if before == after:
        return None
    low, high = 0, min(len(before), len(after))
    while low < high:
        middle = (low + high + 1) // 2
        if before[low:middle] == after[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def styled(lines: Sequence[str]) -> list[tuple[str, str]]:
    """(line, its colour) of a unified diff."""
    found = []
    for number, line in enumerate(lines):
        if number < 2:
            found.append((line, "bold"))
        else:
            found.append((line, {"-": "red", "+": "green", "@": "cyan"}.get(line[:1], "")))
    return found
