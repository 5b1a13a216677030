"""The line editor: prompt_toolkit dressed with our completion, history, toolbar.

prompt_toolkit runs an asyncio loop of its own inside ``read``; nothing else of
the shell knows of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.styles import Style

from kritash.cells import visible
from kritash.commands import COMMANDS, COMMON_OPTIONS
from kritash.health import Summary
from kritash.recent import Recent
from kritash.settings import Settings, belongs_in_history
from kritash.suggest import suggest
from kritash.watch import HealthWatch

_STYLE = Style.from_dict({
    "prompt.place": "bold",
    "bottom-toolbar": "noreverse bg:#262626 #b2b2b2",
    "healthy": "#87d787 bold",
    "degraded": "#ffd75f bold",
    "unavailable": "#ff5f5f bold",
    "other": "#ffaf5f bold",
})  # fmt: skip
_TOOLBAR_CHARS_MAX = 160


class TableCompleter(Completer):
    """Hands ``suggest``'s answers to prompt_toolkit."""

    def __init__(self, recent: Recent) -> None:
        self._recent = recent

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 (its name is prompt_toolkit's)
    ) -> Iterable[Completion]:
        """See Completer."""
        cursor = document.cursor_position
        for found in suggest(document.text, cursor, COMMANDS, COMMON_OPTIONS, self._recent):
            yield Completion(found.text, found.start - cursor, display_meta=found.meta)


class PrivateHistory(FileHistory):
    """Writes only what may be on disk; the session itself remembers all."""

    def store_string(self, string: str) -> None:
        """See History."""
        if belongs_in_history(string):
            super().store_string(string)


def toolbar(summary: Summary) -> FormattedText:
    """The bottom line for a state of the cluster. Pure."""
    known = summary.health in ("healthy", "degraded", "unavailable")
    style = f"class:{summary.health}" if known else "class:other"
    text = visible(summary.text).replace("\n", " ")[:_TOOLBAR_CHARS_MAX]
    return FormattedText([(style, f" {visible(summary.health)} "), ("", f" {text}")])


class Prompt:
    """Reads lines while a toolbar tells how the cluster is."""

    def __init__(self, settings: Settings, recent: Recent, history: Path | None) -> None:
        """``history``: the file to keep it in; None keeps it in memory."""
        self._place = settings.nodes[0]
        self._health = HealthWatch(settings, recent, self._refresh)
        kept: History = PrivateHistory(str(history)) if history else InMemoryHistory()
        self._session: PromptSession[str] = PromptSession(
            history=kept,
            completer=ThreadedCompleter(TableCompleter(recent)),
            complete_while_typing=True,
            bottom_toolbar=lambda: toolbar(self._health.summary),
            style=_STYLE,
            enable_suspend=True,  # Ctrl-Z, which would stand in the line otherwise
        )

    def _refresh(self) -> None:
        # On the watching thread; prompt_toolkit says that this call is safe there.
        self._session.app.invalidate()

    def __enter__(self) -> Prompt:
        self._health.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._health.stop()

    def read(self) -> str:
        """One line. Raises KeyboardInterrupt at Ctrl-C, EOFError at Ctrl-D on an
        empty line."""
        message = FormattedText([("", "krita "), ("class:prompt.place", self._place), ("", "> ")])
        return self._session.prompt(message)
