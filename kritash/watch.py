"""The cluster's health for the toolbar, watched by a thread of its own.

It has its own client, because a request to a dead cluster takes as long as its
timeout, and typing must not wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import attrs

from krita.errors import KritaError
from kritash.context import check_reachable, open_client
from kritash.health import CONNECTING, summarize, trouble
from kritash.recent import Recent
from kritash.settings import Settings

REFRESH_S = 2.0
WATCH_TIMEOUT_MS = 2000


class HealthWatch:
    """Asks every REFRESH_S; ``summary`` is the latest answer."""

    def __init__(self, settings: Settings, recent: Recent, changed: Callable[[], None]) -> None:
        """``changed`` is called on the watching thread after every answer."""
        timeout_ms = min(settings.timeout_ms, WATCH_TIMEOUT_MS)
        self.summary = CONNECTING
        self._settings = attrs.evolve(settings, timeout_ms=timeout_ms)
        self._recent = recent
        self._changed = changed
        self._stop = threading.Event()
        # A daemon: leaving the shell must not wait for a dead cluster's timeout.
        self._thread = threading.Thread(target=self._watch, name="kritash health", daemon=True)

    def start(self) -> None:
        """Starts the thread; once."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end; does not wait for it."""
        self._stop.set()

    def _watch(self) -> None:
        client = open_client(self._settings)
        try:
            while not self._stop.is_set():
                try:
                    if self.summary.health in ("connecting", "unreachable"):
                        check_reachable(self._settings)
                    reply = client.call("cluster_status")
                except KritaError as error:
                    self.summary = trouble(error)
                else:
                    status = reply[0] if reply else None
                    self.summary = summarize(status)
                    if isinstance(status, dict):
                        self._recent.saw_nodes(status.get("nodes"))
                        self._recent.saw_shards(status.get("shards"))
                if not self._stop.is_set():
                    self._changed()
                self._stop.wait(REFRESH_S)
        finally:
            client.close()

    def __repr__(self) -> str:
        state = "stopped" if self._stop.is_set() else "watching"
        return f"<HealthWatch {state}: {self.summary.health} {self.summary.text}>"
