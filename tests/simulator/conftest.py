"""The option by which the scenarios' outputs are written anew."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``pytest tests/simulator/test_scenarios.py --rewrite``, then read the diff."""
    parser.addoption(
        "--rewrite",
        action="store_true",
        default=False,
        help="write what the directed scenarios now put out into their files",
    )
