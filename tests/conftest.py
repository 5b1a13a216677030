"""KRITA_MUTANT=NAME plants one of the simulator's bugs for a whole run of pytest."""

from __future__ import annotations

import contextlib
import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    name = os.environ.get("KRITA_MUTANT")
    if name:
        from tests.simulator.mutants.registry import planted  # late: it imports the product

        planting = contextlib.ExitStack()
        planting.enter_context(planted(name))
        config.add_cleanup(planting.close)
