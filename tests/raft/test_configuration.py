"""Configurations as bytes, and the promises every change keeps."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kritad.raft.configuration import (
    Change,
    ChangeKind,
    IllegalChange,
    check_configuration,
    decode_configuration,
    encode_configuration,
    enter_joint,
    leave_joint,
    simple_change,
    with_nodes,
)
from kritad.raft.types import Configuration

CHANGES = st.lists(
    st.builds(Change, st.sampled_from(ChangeKind), st.integers(1, 6)), min_size=1, max_size=5
)
BASE = Configuration(
    4, frozenset({1, 2, 3}), learners=frozenset({4}), nodes={n: n for n in (1, 2, 3, 4)}
)


@given(CHANGES)
@settings(max_examples=200, deadline=None)
def test_joint_and_back_leads_where_the_changes_lead(changes: list[Change]) -> None:
    try:
        joint = enter_joint(BASE, changes)
    except IllegalChange:
        return
    check_configuration(joint)
    assert joint.voters_outgoing == BASE.voters
    left = leave_joint(joint)
    check_configuration(left)
    assert left.voters == joint.voters
    try:
        assert simple_change(BASE, changes) == left
    except IllegalChange:
        assert len(BASE.voters ^ left.voters) > 1


@given(CHANGES)
@settings(max_examples=100, deadline=None)
def test_a_configuration_survives_its_bytes(changes: list[Change]) -> None:
    try:
        configuration = with_nodes(enter_joint(BASE, changes), {5: 50, 6: 60})
    except IllegalChange:
        return
    data = encode_configuration(configuration)
    assert decode_configuration(data) == configuration
    assert encode_configuration(decode_configuration(data)) == data


def test_equal_configurations_have_equal_bytes() -> None:
    one = attrs.evolve(BASE, nodes={1: 1, 2: 2})
    other = attrs.evolve(BASE, nodes={2: 2, 1: 1})
    assert encode_configuration(one) == encode_configuration(other)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"version":"x"}', b"\xff"])
def test_other_bytes_are_no_configuration(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        decode_configuration(data)


def test_nodes_of_those_who_left_are_forgotten() -> None:
    changed = simple_change(BASE, [Change(ChangeKind.REMOVE, 4)])
    assert with_nodes(changed, {9: 9}).nodes == {1: 1, 2: 2, 3: 3}
