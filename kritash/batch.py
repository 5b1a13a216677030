"""What became of writes that went out together, when some of them failed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from krita.errors import KritaError, Outcome


def shown(key: bytes) -> str:
    """A key in a message."""
    return repr(key.decode("utf-8", "backslashreplace"))


def worst(failed: Sequence[tuple[bytes, KritaError]]) -> tuple[bytes, KritaError]:
    """Which of these keys' errors is to be told: one whose outcome is unknown, if there is."""
    return max(failed, key=lambda pair: pair[1].outcome is Outcome.UNKNOWN)


def renamed(error: KritaError, message: str) -> KritaError:
    """The same error with another message."""
    return type(error)(message, hint=error.hint, outcome=error.outcome, detail=error.detail)


def broken_off(error: KritaError, message: str, *, happened: bool, hint: str) -> KritaError:
    """The error as that of all of the work, of which a part has ``happened`` before; ``hint``
    says how to go on then."""
    whole = renamed(error, message)
    if happened:
        whole.hint = hint
        if error.outcome is Outcome.NOT_APPLIED:
            whole.outcome = Outcome.APPLIED
    return whole
