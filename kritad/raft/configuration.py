"""Who is in the group, and which change of that is legal.

A configuration is a value (``types.Configuration``); the functions here take one
and a list of changes and return the next one, or raise IllegalChange. Nothing
here knows about the log: when a change may be *proposed* is in membership.py.

Rules (thesis 4.3, raft.md 2.7):
* A *simple* step changes at most one voter (any number of learners); anything
  else goes through a *joint* configuration, which asks both majorities.
* A replica is in one role of the incoming half at a time. A voter of the
  outgoing half that becomes a learner waits in ``learners_next`` until the
  joint configuration is left: until then it counts as a voter.
* The last voter cannot be removed.

The algebra is checked against etcd raft's confchange files
(tests/raft/test_confchange_oracle.py).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from kritad.raft.types import Configuration


class IllegalChange(ValueError):
    """This change cannot be made to this configuration; the text says why."""


class ChangeKind(enum.IntEnum):
    """What one change does to one replica."""

    ADD_VOTER = 1  # also promotes a learner
    ADD_LEARNER = 2  # also demotes a voter
    REMOVE = 3


@attrs.frozen
class Change:
    """One replica's change of role."""

    kind: ChangeKind
    replica: int


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of a CONF entry: sorted JSON, so that equal values are equal bytes."""
    return json.dumps(
        {
            "learners": sorted(configuration.learners),
            "learners_next": sorted(configuration.learners_next),
            "nodes": {str(replica): node for replica, node in configuration.nodes.items()},
            "version": configuration.version,
            "voters": sorted(configuration.voters),
            "voters_outgoing": sorted(configuration.voters_outgoing),
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()


def decode_configuration(data: bytes) -> Configuration:
    """The inverse of encode_configuration. Raises ValueError for anything else."""
    try:
        fields: dict[str, Any] = json.loads(data)
        nodes = sorted((int(replica), int(node)) for replica, node in fields["nodes"].items())
        return Configuration(
            version=int(fields["version"]),
            voters=_ids(fields["voters"]),
            voters_outgoing=_ids(fields["voters_outgoing"]),
            learners=_ids(fields["learners"]),
            learners_next=_ids(fields["learners_next"]),
            nodes=dict(nodes),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a configuration: {error!r}") from error


def _ids(values: Sequence[int]) -> frozenset[int]:
    return frozenset(int(value) for value in values)


def enter_joint(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    """The joint configuration that leads to ``changes``.

    Raises IllegalChange when already joint or without any voter to leave behind.
    """
    if configuration.joint:
        raise IllegalChange("configuration is already joint")
    if not configuration.voters:
        raise IllegalChange("cannot make a configuration without voters joint")
    start = attrs.evolve(configuration, voters_outgoing=configuration.voters)
    return _with_changes(start, changes)


def leave_joint(configuration: Configuration) -> Configuration:
    """The configuration after the outgoing half has been let go.

    Raises IllegalChange when the configuration is not joint.
    """
    if not configuration.joint:
        raise IllegalChange("configuration is not joint")
    return attrs.evolve(
        configuration,
        voters_outgoing=frozenset(),
        learners=configuration.learners | configuration.learners_next,
        learners_next=frozenset(),
    )


def simple_change(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    """The configuration after a change of at most one voter, in one step.

    Raises IllegalChange when joint or when more than one voter would change:
    then old and new majorities need not meet.
    """
    if configuration.joint:
        raise IllegalChange("cannot make a simple change to a joint configuration")
    changed = _with_changes(configuration, changes)
    if len(configuration.voters ^ changed.voters) > 1:
        raise IllegalChange("more than one voter changed without joint consensus")
    return changed


def _with_changes(configuration: Configuration, changes: Sequence[Change]) -> Configuration:
    """``changes`` done one after the other to the incoming half."""
    draft = _Draft(configuration)
    for change in changes:
        if change.replica == 0:
            continue  # nobody: a change whose effect somebody has already had
        if change.kind is ChangeKind.ADD_VOTER:
            draft.add_voter(change.replica)
        elif change.kind is ChangeKind.ADD_LEARNER:
            draft.add_learner(change.replica)
        else:
            draft.remove(change.replica)
    if not draft.voters:
        raise IllegalChange("removed all voters")
    return draft.finish()


class _Draft:
    """A configuration in the making: the incoming half as mutable sets."""

    def __init__(self, configuration: Configuration) -> None:
        self._start = configuration
        self.voters = set(configuration.voters)
        self.learners = set(configuration.learners)
        self.learners_next = set(configuration.learners_next)

    def add_voter(self, replica: int) -> None:
        self.voters.add(replica)
        self.learners.discard(replica)
        self.learners_next.discard(replica)

    def add_learner(self, replica: int) -> None:
        self.remove(replica)
        if replica in self._start.voters_outgoing:
            self.learners_next.add(replica)
        else:
            self.learners.add(replica)

    def remove(self, replica: int) -> None:
        self.voters.discard(replica)
        self.learners.discard(replica)
        self.learners_next.discard(replica)

    def finish(self) -> Configuration:
        changed = attrs.evolve(
            self._start,
            voters=frozenset(self.voters),
            learners=frozenset(self.learners),
            learners_next=frozenset(self.learners_next),
        )
        check_configuration(changed)
        return changed


def with_nodes(configuration: Configuration, nodes: Mapping[int, int]) -> Configuration:
    """``configuration`` with ``nodes`` (replica id -> node id) added and the
    nodes of replicas that are no member dropped."""
    known = {**configuration.nodes, **nodes}
    members = sorted(configuration.members)
    return attrs.evolve(
        configuration, nodes={replica: known[replica] for replica in members if replica in known}
    )


def check_configuration(configuration: Configuration) -> None:
    """Asserts what every configuration promises (raft.md 2.7)."""
    voters, outgoing = configuration.voters, configuration.voters_outgoing
    assert configuration.learners.isdisjoint(voters), "a voter is also a learner"
    assert configuration.learners.isdisjoint(outgoing), "an outgoing voter is already a learner"
    assert configuration.learners_next <= outgoing, "a next learner is no outgoing voter"
    assert configuration.learners_next.isdisjoint(voters), "a next learner is an incoming voter"
    assert outgoing or not configuration.learners_next, (
        "next learners outside a joint configuration"
    )
