"""What kritash is told by flags and environment, and where it keeps its history.

flag > environment > default. A token never comes by flag: ``ps`` would show it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import attrs

from krita.address import AddressError, parse_many
from krita.limits import PORT_DEFAULT

NODES_DEFAULT = f"127.0.0.1:{PORT_DEFAULT}"
TIMEOUT_MS_DEFAULT = 5000

_SENSITIVE = re.compile("passw|secret|token|credential|private", re.IGNORECASE)


class SettingsError(Exception):
    """A flag or variable that cannot be used; the message says which, and why."""


@attrs.frozen
class Settings:
    """How to reach the cluster."""

    nodes: tuple[str, ...]  # "host:port"; any one that lives is enough
    timeout_ms: int
    token: str | None = attrs.field(repr=False)
    zone: str = ""  # where we are; stale reads stay there if they can


def load_settings(options: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Settings from parsed options and the environment.

    Raises SettingsError: a malformed address, an unreadable token file.
    """
    option = options.get("nodes")
    given = str(option) if option is not None else environment.get("KRITA_NODES") or NODES_DEFAULT
    source = "--nodes" if option is not None else "KRITA_NODES"
    try:
        nodes = tuple(str(address) for address in parse_many(given))
    except AddressError as error:
        raise SettingsError(f"{source}: {error}") from error
    timeout_ms = options.get("timeout-ms")
    file = options.get("token-file")
    token = read_token(str(file)) if file else environment.get("KRITA_ADMIN_TOKEN") or None
    return Settings(
        nodes,
        timeout_ms if isinstance(timeout_ms, int) else TIMEOUT_MS_DEFAULT,
        token,
        environment.get("KRITA_ZONE", ""),  # as for a node: one variable for the machine
    )


def read_token(path: str) -> str:
    """The token in a file: its text without surrounding blanks.

    Raises SettingsError when the file cannot be read, is empty or is not text.
    """
    try:
        token = Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"cannot read the token file {path}: {why}") from error
    if not token:
        raise SettingsError(f"the token file {path} is empty")
    return token


def history_path(environment: Mapping[str, str]) -> Path:
    """Where the prompt's history lives (XDG Base Directory: state)."""
    state = environment.get("XDG_STATE_HOME", "")
    # The specification: a relative path there is to be ignored.
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "krita" / "history"


def open_history(path: Path) -> Path | None:
    """Makes the history file and its directory, readable by their owner alone;
    None when that is impossible (then the history lives in memory)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW, 0o600))
        path.chmod(0o600)
    except OSError:
        return None
    return path


def belongs_in_history(line: str) -> bool:
    """Whether a line may be written to disk: not if it begins with a blank (as
    in other shells), nor if it seems to carry a secret. Of several that were pasted, which
    are kept as one, none may."""
    private = any(part[0].isspace() for part in line.split("\n") if part)
    return bool(line.strip()) and not private and not _SENSITIVE.search(line)
