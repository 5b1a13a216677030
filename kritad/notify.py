"""Tells systemd how the service is doing (the sd_notify protocol), where there is systemd."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)


def notify(state: str) -> None:
    """Send ``READY=1``, ``STOPPING=1`` or ``STATUS=…`` to the service manager; without
    one, nothing. That it cannot be told is logged, and no reason to fail."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path  # @: the abstract namespace
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.sendto(state.encode(), address)
    except OSError as problem:
        log.warning("NOTIFY_SOCKET %s cannot be told %s: %s", path, state, problem)
