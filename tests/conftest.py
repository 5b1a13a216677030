"""KRITA_MUTANT=NAME plants one of the simulator's bugs for a whole run of pytest."""

from __future__ import annotations

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    name = os.environ.get("KRITA_MUTANT")
    if name:
        from tests.simulator.mutants.registry import planted  # late: it imports the product

        planting = planted(name)
        planting.__enter__()
        config.add_cleanup(lambda: planting.__exit__(None, None, None))
