"""Versions of a key, two of them side by side, and the rules that keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kritash import draw
from kritash.cells import Rows, cell, data_row, row, shortened, visible
from kritash.differences import styled
from kritash.documents import get, rows, texts, whole
from kritash.times import duration_word, time_text, time_word
from kritash.units import size_text

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADERS = ["revision", "until_revision", "until", "bytes", "content_type", "value"]
RULE_HEADERS = ["prefix", "retention", "since"]
_VALUE_CHARS_MAX = 60


def _time(item: object, name: str) -> int | None:
    """A time that is one, before the year 9999."""
    time_ms = whole(item, name)
    return time_ms if time_ms is not None and 0 <= time_ms < 253_402_300_800_000 else None


def versions_plain(document: object) -> Rows:
    """A header, and a row for each version; times in UTC. Bytes are - where it was absent."""
    return [HEADERS, *map(_version_row, rows(get(document, "versions")))]


def _version_row(version: dict[str, object]) -> list[str]:
    value, until_ms = version.get("value"), _time(version, "until_ms")
    return data_row(
        version.get("revision"),
        version.get("until_revision"),
        None if until_ms is None else time_word(until_ms),
        len(value) if isinstance(value, bytes) else None,
        version.get("content_type"),
        value,
    )


def versions_drawn(document: object) -> RenderableType:
    """A table, and since when it is complete."""
    cells = [_drawn_version(version) for version in rows(get(document, "versions"))]
    headers = ["revision", "until", "size", "value"]
    from_ms = _time(document, "complete_from_ms")
    if from_ms is None:
        said = "no retention keeps older ones ('retention set' does)"
    else:
        said = f"every change since {time_text(from_ms)} is known"
    table = draw.table(headers, cells) if cells else draw.text("nothing is known of it")
    return draw.group(table, draw.text(said, "dim"))


def _drawn_version(version: dict[str, object]) -> list[str]:
    value, until_ms = version.get("value"), _time(version, "until_ms")
    until = "-" if until_ms is None else time_text(until_ms)
    return [
        cell(version.get("revision")),
        "now" if version.get("until_revision") is None else until,
        size_text(len(value)) if isinstance(value, bytes) else "-",
        shortened(value, _VALUE_CHARS_MAX) if isinstance(value, bytes) else "absent",
    ]


def difference_plain(document: object) -> Rows:
    """The lines of the diff; none where nothing differs."""
    return [[visible(line)] for line in texts(document, "lines")]


def difference_drawn(document: object) -> RenderableType:
    """The same in colours."""
    found = styled([visible(line) for line in texts(document, "lines")])
    if not found:
        return draw.text("nothing differs")
    return draw.group(*(draw.text(line, style) for line, style in found))


def rules_plain(document: object) -> Rows:
    """A header, and a row for each rule; times in UTC."""
    return [RULE_HEADERS, *(_rule_row(rule, time_word, data_row) for rule in rows(document))]


def rules_drawn(document: object) -> RenderableType:
    """A table."""
    found = [_rule_row(rule, time_text, row) for rule in rows(document)]
    if not found:
        return draw.text("no old versions are kept")
    return draw.table(RULE_HEADERS, found)


def _rule_row(
    rule: dict[str, object], told: Callable[[int], str], row: Callable[..., list[str]]
) -> list[str]:
    prefix, since_ms = rule.get("prefix"), _time(rule, "since_ms")
    retention_ms = whole(rule, "retention_ms")
    return row(
        prefix if prefix != b"" else "all keys",
        None if retention_ms is None else duration_word(retention_ms),
        None if since_ms is None else told(since_ms),
    )
