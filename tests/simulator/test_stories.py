"""Every story ends well; the planted bugs that they are there for are in test_hunt.py."""

from __future__ import annotations

import pytest

from tests.simulator.stories.stories import STORIES, tell


@pytest.mark.parametrize("name", STORIES)
def test_a_story_breaks_no_promise(name: str) -> None:
    outcome = tell(name)
    assert outcome.ok, f"{outcome.text}\n    python -m tests.simulator --story {name} --trace"


def test_a_story_is_one_life() -> None:
    name = next(iter(STORIES))
    assert tell(name).hash == tell(name).hash
