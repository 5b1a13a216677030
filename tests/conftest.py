"""What holds for a whole run of pytest: Ctrl-C, and with KRITA_MUTANT=NAME a planted bug."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # A job in the background of a script is started with SIGINT ignored, and so would be all
    # that the tests start: none of them would ever see the Ctrl-C that it is tested with.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    name = os.environ.get("KRITA_MUTANT")
    if name:
        from tests.simulator.mutants.registry import planted  # late: it imports the product

        planting = contextlib.ExitStack()
        planting.enter_context(planted(name))
        config.add_cleanup(planting.close)
