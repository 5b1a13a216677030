"""Settings as text: the flags in ``kritad --help``, ``config print``, ``config template``.

All three are made from the table. What print and template write is YAML that
kritad reads again, secrets left out.
"""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from kritad.config import Config
from kritad.settings import SETTINGS, TOKEN_VARIABLE, Kind, Setting, Value

WIDTH = 88


def yaml_value(value: Value) -> str:
    """A value as the YAML scalar or flow sequence that reads back as itself."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    text = "" if value is None else str(value)
    plain = re.fullmatch(r"[A-Za-z0-9./][A-Za-z0-9._/-]*", text)
    return text if plain else json.dumps(text, ensure_ascii=False)  # which YAML reads alike


def effective(config: Config) -> str:
    """Each setting's value, and where it came from."""
    rows = []
    for setting in SETTINGS:
        value = getattr(config, setting.name)
        # What is unset has no line of YAML to stand on; nor does the file name itself.
        shown = value is not None and setting.in_file
        line = f"{setting.name}: {yaml_value(value) if value is not None else 'unset'}"
        rows.append((line if shown else f"# {line}", config.origins[setting.name]))
    rows.append((f"# admin_token: {'set, not shown' if config.admin_token else 'unset'}", ""))
    width = max(len(line) for line, _ in rows if len(line) < 48)
    return "".join(
        f"{line:<{width}}  # {origin}\n" if origin else f"{line}\n" for line, origin in rows
    )


def template() -> str:
    """A YAML file of every setting, each at its default and commented out."""
    parts = [
        "# Settings of kritad. Each is shown with its default; remove the # to change it.\n"
        "# A flag (--port) or an environment variable (KRITA_PORT) wins over this file.\n"
        f"# The admin token does not belong here: set {TOKEN_VARIABLE} or admin_token_file.\n"
    ]
    for section, settings in itertools.groupby(SETTINGS, key=lambda setting: setting.section):
        listed = [setting for setting in settings if setting.in_file]
        if listed:
            parts.append(f"\n# -- {section} {'-' * (WIDTH - 6 - len(section))}\n")
        parts.extend(_template_entry(setting) for setting in listed)
    return "".join(parts)


def _template_entry(setting: Setting) -> str:
    about = f"{setting.help} {_first_upper(setting.allowed)}."
    lines = textwrap.wrap(about, WIDTH, initial_indent="# ", subsequent_indent="# ")
    value = setting.placeholder if setting.default is None else yaml_value(setting.default)
    size = _size_words(setting.default)
    return "\n" + "\n".join(lines) + f"\n#{setting.name}: {value}{'  #' + size if size else ''}\n"


def _first_upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def flags_help() -> str:
    """The flags by section, each with its help, bounds and default."""
    return "\n".join(
        "\n".join([f"{section}:", *itertools.chain.from_iterable(map(_flag_help, settings)), ""])
        for section, settings in itertools.groupby(SETTINGS, key=lambda setting: setting.section)
    )


def _flag_help(setting: Setting) -> Iterator[str]:
    yield f"  {setting.flag}{_placeholder(setting)}"
    default = setting.default
    about = setting.help
    if setting.kind is Kind.NUMBER:
        about += f" {_first_upper(setting.allowed)}."
    if isinstance(default, str | int | Path) and not isinstance(default, bool) and default != "":
        about += f" Default {default}{_size_words(default)}."
    indent = " " * 8
    yield from textwrap.wrap(about, WIDTH, initial_indent=indent, subsequent_indent=indent)


def _size_words(value: Value) -> str:
    """`` (64 MiB)`` behind 67108864: the number to write stays the plain one."""
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f" ({value >> 20} MiB)"
    return ""


def _placeholder(setting: Setting) -> str:
    match setting.kind:
        case Kind.FLAG:
            return ""
        case Kind.CHOICE:
            return "=" + "|".join(setting.choices)
        case Kind.NUMBER:
            return "=N"
        case Kind.ADDRESS:
            return "=IP"
        case _:
            return f"={setting.placeholder or 'TEXT'}"
