"""Log lines: one per event, for people (text) or for machines (JSON), on stderr or in a file.

Rules. A module logs through ``logging.getLogger(__name__)``. What varies goes
into ``extra``, which the text shows as ``name=value`` and JSON as fields. A line
is one line whatever the message holds: a client must not be able to forge
another. The admin token is masked, should it ever get into one.

A file is reopened when it was renamed or removed (logrotate needs to tell nobody);
that costs one stat a line, 2 µs. While it cannot be, or takes no line because the disk is
full, lines go to standard error: whoever logs something must not fail for it.
"""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kritad.config import Config

# Shorter ones would mask words of the language, and protect nothing.
SECRET_LENGTH_MIN = 8

# By which ``configure`` knows what it set up itself.
HANDLER_NAME = "kritad"

# What every record has; the rest of its attributes came with ``extra``.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """What the two formats share: time, extras, one line, no secrets."""

    def __init__(self, secret: bytes | None = None) -> None:
        super().__init__()
        text = secret.decode("ascii") if secret else ""
        self._secret = text if len(text) >= SECRET_LENGTH_MIN else ""

    def format(self, record: logging.LogRecord) -> str:
        line = self.compose(record, extras(record))
        return line.replace(self._secret, "***") if self._secret else line

    def compose(self, record: logging.LogRecord, more: Mapping[str, object]) -> str:
        raise NotImplementedError

    def traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info else ""


class TextFormatter(LineFormatter):
    """``2026-11-22T22:54:01.123Z INFO    kritad.host: message name=value``"""

    def compose(self, record: logging.LogRecord, more: Mapping[str, object]) -> str:
        message = record.getMessage()
        for name, value in more.items():
            message += f" {name}={_quoted(value)}"
        if not message.isprintable():
            message = "".join(map(_visible, message))
        line = f"{timestamp(record.created)} {record.levelname:<7} {record.name}: {message}"
        trace = self.traceback(record)
        # Indented: the lines of a traceback begin with no date, so they are no events.
        return line + "".join(f"\n  {text}" for text in trace.splitlines())


class JsonFormatter(LineFormatter):
    """One JSON object per line: time, level, logger, message, and the extras."""

    def compose(self, record: logging.LogRecord, more: Mapping[str, object]) -> str:
        document: dict[str, object] = {
            "time": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = self.traceback(record)
        if trace:
            document["traceback"] = trace
        return json.dumps({**more, **document}, default=str)


class LogFile(logging.handlers.WatchedFileHandler):
    """Lines in a file that others may rename or remove; see the module's docstring."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when it cannot be written now."""
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._lost = False  # said already that lines go elsewhere
        self._written = True  # whether the line that is being emitted has been

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, to the file or else to standard error. Never raises."""
        self._written = True
        try:
            super().emit(record)
        except OSError as problem:  # it cannot be opened again
            self._write_elsewhere(record, problem)
        if self._written:
            self._lost = False

    def handleError(self, record: logging.LogRecord) -> None:
        """What logging calls when a line cannot be written. Its own way is a traceback for
        each of them, with what the line was made of, secrets and all."""
        problem = sys.exc_info()[1]
        if isinstance(problem, OSError):
            self._write_elsewhere(record, problem)
        else:
            super().handleError(record)

    def _write_elsewhere(self, record: logging.LogRecord, problem: OSError) -> None:
        self._written = False
        stream, self.stream = self.stream, None  # it is opened anew for the next line
        with suppress(OSError):
            if stream is not None:
                stream.close()  # what it still holds stands elsewhere now
        with suppress(OSError):  # on the same full disk, perhaps
            if not self._lost:
                sys.stderr.write(f"the log file is lost, lines go here: {problem}\n")
            self._lost = True
            sys.stderr.write(f"{self.format(record)}\n")


def extras(record: logging.LogRecord) -> dict[str, object]:
    """The attributes that a caller gave with ``extra``."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03}Z"


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and " " not in text and '"' not in text else json.dumps(text)


def configure(config: Config) -> None:
    """Send everything that is logged to where the settings say. Replaces what an earlier
    call set up. Raises OSError when ``log_file`` cannot be written."""
    handler: logging.Handler
    if config.log_file is not None:
        handler = LogFile(config.log_file)
    else:
        handler = logging.StreamHandler(sys.stderr)
    formatter = JsonFormatter if config.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(config.admin_token))
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.name == HANDLER_NAME]:
        root.removeHandler(old)
        old.close()
    handler.name = HANDLER_NAME
    root.addHandler(handler)
    root.setLevel(config.log_level.upper())
    for warning in config.warnings:
        logging.getLogger("kritad.config").warning("%s", warning)
