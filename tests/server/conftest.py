"""Fixtures of the server's tests."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture
def quick_clock() -> MockClock:
    """Virtual time: when everybody waits, it jumps to the next deadline. Not at once,
    for what was just sent over the loopback interface may be about to arrive."""
    return MockClock(autojump_threshold=0.001)
