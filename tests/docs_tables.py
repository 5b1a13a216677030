"""The tables of docs/operations.md and docs/shell.md that follow from the code.

``python -m tests.docs_tables`` writes them anew, between ``<!-- table: NAME -->`` and
``<!-- end -->``; tests/test_docs.py fails when they are not current.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from kritad.settings import SETTINGS, Kind, Setting
from kritash.commands import COMMANDS, GLOBAL_OPTIONS
from kritash.exits import MEANINGS
from kritash.grammar import Option

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"
SHELL = OPERATIONS.with_name("shell.md")


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def default_of(setting: Setting) -> str:
    """A default as people would write it."""
    value = setting.default
    if value is None or value in ("", ()):
        return ""
    if setting.kind is Kind.FLAG:
        return str(value).lower()
    mib = 1 << 20
    if isinstance(value, int) and value >= mib and value % mib == 0:
        return f"`{value}` ({value // mib} MiB)"
    return f"`{value}`"


def settings_table() -> Iterator[str]:
    yield row("setting", "default", "")
    yield "|---|---|---|"
    for setting in SETTINGS:
        allowed = setting.allowed
        yield row(
            f"`{setting.name}`",
            default_of(setting),
            f"{setting.help} {allowed[0].upper()}{allowed[1:]}.",
        )


def commands_table() -> Iterator[str]:
    yield row("command", "also", "")
    yield "|---|---|---|"
    for command in COMMANDS:
        also = ", ".join(f"`{alias}`" for alias in command.aliases)
        yield row(f"`{command.usage}`", also, command.summary)


def options_table() -> Iterator[str]:
    def spelled(option: Option) -> str:
        value = f" {option.metavar}" if option.metavar else ""
        return f"`--{option.name}{value}`" + (f", `-{option.short}`" if option.short else "")

    yield row("option", "")
    yield "|---|---|"
    for option in GLOBAL_OPTIONS:
        yield row(spelled(option), option.summary)


def exits_table() -> Iterator[str]:
    yield row("exit code", "")
    yield "|---|---|"
    for code, meaning in MEANINGS.items():
        yield row(str(int(code)), meaning)


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "settings": settings_table,
    "commands": commands_table,
    "options": options_table,
    "exits": exits_table,
}
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->\n)", re.S)


def with_current_tables(text: str) -> str:
    """The document with its tables made anew."""

    def current(found: re.Match[str]) -> str:
        lines = "".join(f"{line}\n" for line in TABLES[found[2]]())
        return f"{found[1]}\n{lines}\n{found[4]}"

    return TABLE.sub(current, text)


def main() -> None:
    """Write the tables anew."""
    for path in (OPERATIONS, SHELL):
        path.write_text(with_current_tables(path.read_text()))


if __name__ == "__main__":
    main()
