"""A short piece of ``python -m tests.system.endurance``, with everything in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.endurance import endure
from tests.system.namespaces import why_not

_missing = why_not()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_missing), reason=_missing or "namespaces can be made"),
]


def test_whatever_people_do_in_times_of_trouble_is_right_in_the_end(tmp_path: Path) -> None:
    report = endure(tmp_path, seconds=25, seed=7, shards=4, quiet=True)
    assert report.problems == [], report.text()
    assert all(errand.done for errand in report.errands), report.text()
