"""Which exit code an error deserves."""

from __future__ import annotations

import pytest

from krita.errors import (
    BadRequest,
    Busy,
    Compacted,
    ConditionFailed,
    Conflict,
    KritaError,
    LeaseUnknown,
    Locked,
    LockLost,
    Outcome,
    ProtocolError,
    SeveralGroups,
)
from kritash.exits import MEANINGS, Exit, exit_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConditionFailed(""), Exit.NO),
        (LockLost(""), Exit.NO),
        (Locked(""), Exit.NO),
        (LeaseUnknown(""), Exit.NO),
        (Conflict(""), Exit.CONFLICT),
        (Compacted(""), Exit.CONFLICT),
        (SeveralGroups(""), Exit.USAGE),
        (BadRequest(""), Exit.USAGE),
        (Busy(""), Exit.UNAVAILABLE),
        (ProtocolError(""), Exit.UNREACHABLE),
        (KritaError("of a newer server", outcome=Outcome.NOT_APPLIED), Exit.UNAVAILABLE),
    ],
)
def test_an_error_s_class_says_the_code(error: KritaError, code: Exit) -> None:
    assert exit_of(error) is code


@pytest.mark.parametrize("cls", [ConditionFailed, Busy, ProtocolError, BadRequest])
def test_an_unknown_outcome_outranks_the_class(cls: type[KritaError]) -> None:
    assert exit_of(cls("", outcome=Outcome.UNKNOWN)) is Exit.UNKNOWN


def test_an_answer_that_cannot_be_read_to_a_write_that_happened_is_to_be_looked_into() -> None:
    assert exit_of(ProtocolError("", outcome=Outcome.APPLIED)) is Exit.UNKNOWN


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Exit)
