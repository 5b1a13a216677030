"""Who leads what, as told by nodes of which some are behind."""

from __future__ import annotations

import attrs
import pytest

from krita.codec import encode
from krita.errors import ProtocolError
from kritad.host.leaders import NO_NODE, LeaderTable, Word


def test_a_higher_term_wins_whoever_says_it() -> None:
    table = LeaderTable()
    assert table.learn(1, 2, 5)
    assert table.learn(1, 3, 6)
    assert table.of(1) == (3, 6)


def test_a_laggard_does_not_replace_what_is_newer() -> None:
    table = LeaderTable()
    table.learn(1, 3, 6)
    assert not table.learn(1, 2, 5)
    assert table.of(1) == (3, 6)


def test_within_a_term_a_known_leader_is_not_forgotten_for_nobody() -> None:
    table = LeaderTable()
    table.learn(1, 3, 6)
    assert not table.learn(1, NO_NODE, 6)
    assert table.of(1) == (3, 6)


def test_a_lost_leader_is_nobody_until_it_is_heard_of_again() -> None:
    table = LeaderTable()
    table.learn(1, 3, 6)
    table.lost(1, 6)
    assert table.of(1) == (NO_NODE, 6)
    assert table.learn(1, 3, 6)
    assert table.of(1) == (3, 6)


def test_losing_an_old_leader_leaves_the_new_one_alone() -> None:
    table = LeaderTable()
    table.learn(1, 3, 6)
    table.lost(1, 5)
    assert table.of(1) == (3, 6)


def test_nobody_is_known_of_a_shard_not_heard_of() -> None:
    assert LeaderTable().of(9) == (NO_NODE, 0)


def test_all_known_are_listed_by_shard() -> None:
    table = LeaderTable()
    table.learn(2, 1, 1)
    table.learn(1, 3, 6)
    assert list(table) == [(1, 3, 6), (2, 1, 1)]


def test_a_frame_of_leaders_comes_back_as_it_was() -> None:
    for word in (
        Word([(0, 3), (7, 12)]),
        Word([(0, 3)], unwilling=True),
        Word([], damaged=[(3, 17)]),
        Word([], demand=[(3, 700, 20)]),
    ):
        assert Word.decode(word.encode()) == attrs.evolve(
            word, damaged=list(word.damaged), demand=list(word.demand)
        )


def test_a_newer_nodes_longer_rows_and_an_older_ones_shorter_frames_are_understood() -> None:
    assert Word.decode(encode([[[1, 2, "more"]]])) == Word([(1, 2)])
    assert Word.decode(encode([[[1, 2]], True])) == Word([(1, 2)], unwilling=True)
    shorter = [[[1, 2]], True, [[3, 4]]]
    assert Word.decode(encode(shorter)) == Word([(1, 2)], True, [(3, 4)])
    longer = [[[1, 2, "more"]], True, [[3, 4, "more"]], [[5, 6, 7, "more"]], "more"]
    assert Word.decode(encode(longer)) == Word([(1, 2)], True, [(3, 4)], [(5, 6, 7)])


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        [[1, 2]],
        [[[1]]],
        [[["a", 2]]],
        [[[-1, 2]]],
        [[[1, -2]]],
        7,
        [[], 1],
        [[], False, 3],
        [[], False, [[1]]],
        [[], False, [], 4],
        [[], False, [], [[1, 2]]],
        [[], False, [], [[1, -2, 3]]],
    ],
)
def test_a_malformed_frame_of_leaders_is_a_protocol_error(item: object) -> None:
    with pytest.raises(ProtocolError):
        Word.decode(encode(item))
