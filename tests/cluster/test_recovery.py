"""What is decided about shards without a majority, from what the survivors' disks say."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import takewhile

import attrs
import pytest

from krita.ring import RING_SIZE
from kritad.cluster.meta_recovery import FoundShard
from kritad.cluster.recovery import (
    TERM_STEP,
    VERSION_STEP,
    Decision,
    NodeSurvey,
    Numbers,
    RecoveryRefused,
    ReplicaSurvey,
    decide,
    given_up,
    read_record,
)
from kritad.raft.types import Configuration

CLUSTER = b"c" * 16


def conf(*nodes: int, version: int = 3, outgoing: Sequence[int] = ()) -> Configuration:
    """Voters on ``nodes``; the replica on node N is 10 N."""
    return Configuration(
        version,
        frozenset(10 * node for node in nodes),
        frozenset(10 * node for node in outgoing),
        nodes={10 * node: node for node in sorted({*nodes, *outgoing})},
    )


def replica(
    node: int, last: int, term: int = 2, shard: int = 1, members: Configuration | None = None
) -> ReplicaSurvey:
    return ReplicaSurvey(
        shard, 10 * node, term + 1, last - 1, last - 1, last, term, members or conf(1, 2, 3)
    )


def node(number: int, *replicas: ReplicaSurvey) -> NodeSurvey:
    return NodeSurvey(CLUSTER, number, 4, replicas)


def test_the_last_of_three_goes_on_alone_in_a_term_and_version_far_ahead() -> None:
    decision = decide([node(3, replica(3, 17))], [3])
    assert (decision.kept, decision.lost) == ((3,), (1, 2))
    (forced,) = decision.forced
    assert (forced.shard, forced.node, forced.replica) == (1, 3, 30)
    assert (forced.index, forced.term) == (18, 3 + TERM_STEP)
    assert forced.configuration == Configuration(3 + VERSION_STEP, frozenset({30}), nodes={30: 3})


@pytest.mark.parametrize(
    ("one", "three", "keeper"),
    [
        (replica(1, 20), replica(3, 17), 1),
        (replica(1, 17), replica(3, 20), 3),
        (replica(1, 20, term=2), replica(3, 17, term=3), 3),
        (replica(1, 17), replica(3, 17), 1),
    ],
)
def test_the_newest_log_goes_on_and_the_others_follow_it(
    one: ReplicaSurvey, three: ReplicaSurvey, keeper: int
) -> None:
    members = conf(1, 2, 3, 4, 5)
    one, three = (attrs.evolve(each, configuration=members) for each in (one, three))
    decision = decide([node(1, one), node(3, three)], [1, 3])
    (forced,) = decision.forced
    assert forced.node == keeper
    assert forced.configuration.voters == {10 * keeper}
    assert forced.configuration.learners == {10, 30} - {10 * keeper}
    assert forced.configuration.nodes == {10: 1, 30: 3}
    assert forced.term == max(one.term, three.term) + TERM_STEP
    assert decision == decide([node(3, three), node(1, one)], [3, 1])


def test_a_shard_with_a_majority_is_left_alone() -> None:
    whole = replica(3, 9, shard=2, members=conf(3))
    decision = decide([node(3, replica(3, 17), whole)], [3])
    assert [forced.shard for forced in decision.forced] == [1]
    assert decision.whole == (2,)


def test_where_nothing_is_lost_nothing_is_done() -> None:
    with pytest.raises(RecoveryRefused, match="nothing to recover"):
        decide([node(1, replica(1, 20)), node(3, replica(3, 17))], [1, 3])


def test_a_joint_configuration_needs_both_majorities() -> None:
    joint = conf(1, 3, 4, outgoing=[1, 2, 5])
    surveys = [node(n, replica(n, 20, members=joint)) for n in (3, 4)]
    decision = decide(surveys, [3, 4])
    assert decision.lost == (1, 2, 5)
    assert not decision.forced[0].configuration.joint


def test_the_newest_configuration_decides_who_counts() -> None:
    old, new = replica(2, 5, members=conf(1, 2, 3)), replica(3, 9, members=conf(3, 4, 5))
    decision = decide([node(2, old), node(3, new)], [2, 3])
    assert decision.forced[0].configuration.members == {30}, "a replica that had left is back"


def test_replicas_that_had_all_left_their_shard_do_not_begin_it_anew() -> None:
    with pytest.raises(RecoveryRefused, match="all that is left are replicas that had left it"):
        decide([node(3, replica(3, 9, members=conf(1, 2)))], [3])


def test_every_node_that_is_left_has_to_be_heard() -> None:
    survey = node(3, replica(3, 17))
    with pytest.raises(RecoveryRefused, match="no plan of node 1"):
        decide([survey], [1, 3])
    with pytest.raises(RecoveryRefused, match="not among those to keep"):
        decide([survey, node(1, replica(1, 17))], [3])
    with pytest.raises(RecoveryRefused, match="named twice"):
        decide([survey, survey], [3])
    with pytest.raises(RecoveryRefused, match="not of one cluster"):
        decide([survey, attrs.evolve(node(1), cluster_id=b"d" * 16)], [1, 3])
    with pytest.raises(RecoveryRefused, match="not of one cluster: none"):
        decide([attrs.evolve(survey, cluster_id=b"")], [3])


def test_a_damaged_survivor_may_be_the_newest_and_so_stops_the_decision() -> None:
    damaged = ReplicaSurvey(1, 10, damage="a bit was flipped")
    members = conf(1, 2, 3, 4, 5)
    surveys = [
        node(1, damaged, replica(1, 9, shard=2)),
        node(3, replica(3, 17, members=members)),
    ]
    with pytest.raises(RecoveryRefused, match="leave it out of --keep"):
        decide(surveys, [1, 3])
    decision = decide(surveys, [1, 3], leave_damaged=True)
    assert decision.gone == (1,)
    assert [forced.shard for forced in decision.forced] == [2]


def test_a_replica_that_was_never_sent_anything_saves_nothing() -> None:
    empty = ReplicaSurvey(2, 30)
    decision = decide([node(3, replica(3, 17), empty)], [3])
    assert decision.gone == (2,)


def test_a_second_recovery_does_not_forget_whom_the_first_gave_up() -> None:
    survey = attrs.evolve(node(3, replica(3, 17, members=conf(3, 4, 5))), given_up=(1, 2))
    assert decide([survey], [3]).lost == (1, 2, 4, 5)


def test_a_plan_survives_its_file() -> None:
    joint = conf(1, 3, 4, outgoing=[1, 2, 5])
    cut = attrs.evolve(
        replica(3, 17, members=joint), arc=(0, 8), unborn=(FoundShard(5, (8, 16), ((31, 3),)),)
    )
    survey = node(3, cut, ReplicaSurvey(2, 30, damage="why"))
    assert NodeSurvey.from_document(json.loads(json.dumps(survey.to_document()))) == survey


@pytest.mark.parametrize("document", [None, [], {}, {"format": 1}, {"format": 2, "replicas": [1]}])
def test_a_file_that_is_no_plan_is_refused(document: object) -> None:
    with pytest.raises(RecoveryRefused, match="not a plan"):
        NodeSurvey.from_document(document)


def test_the_decision_knows_the_highest_numbers_of_all_survivors() -> None:
    surveys = [
        attrs.evolve(node(3, replica(3, 17, members=conf(1, 3, 5))), given_up=(7,)),
        node(4, replica(4, 9, members=conf(1, 2, 4)), ReplicaSurvey(9, 81, damage="why")),
    ]
    decision = decide(surveys, [3, 4], leave_damaged=True)
    assert decision.numbers == Numbers(node=7, replica=81, shard=9)


def test_the_meta_shard_is_told_what_is_on_the_disks_by_the_logs_that_go_on() -> None:
    newer = attrs.evolve(replica(3, 20), arc=(0, 8), unborn=(FoundShard(5, (8, 16), ()),))
    older = attrs.evolve(replica(1, 17), arc=(0, 16))
    surveys = [
        node(1, replica(1, 9, shard=0), older, ReplicaSurvey(7, 70, damage="why")),
        node(3, newer, ReplicaSurvey(6, 60)),
    ]
    members = conf(1, 2, 3, 4, 5)
    surveys = [
        attrs.evolve(each, replicas=tuple(
            attrs.evolve(r, configuration=members) if r.last_index else r for r in each.replicas
        ))
        for each in surveys
    ]  # fmt: skip
    assert decide(surveys, [1, 3], leave_damaged=True).found == (
        FoundShard(1, (0, 8), ((10, 1), (30, 3))),
        FoundShard(5, (8, 16), ()),
        FoundShard(7, None, ()),
    )


@pytest.mark.parametrize(
    ("arcs", "unheld"),
    [
        ([(0, 8), (8, RING_SIZE)], ()),
        ([(0, 8), (16, RING_SIZE)], ((8, 16),)),
        ([(4, 64), (8, 32)], ((0, 4), (64, RING_SIZE))),
        ([(0, 8), None], ()),
    ],
)
def test_the_decision_knows_which_keys_no_survivor_has(
    arcs: list[tuple[int, int] | None], unheld: tuple[tuple[int, int], ...]
) -> None:
    shards = [attrs.evolve(replica(3, 9, shard=n), arc=arc) for n, arc in enumerate(arcs, 1)]
    assert decide([node(3, *shards)], [3]).unheld == unheld


def test_the_record_says_who_may_not_come_back() -> None:
    decision = decide([node(3, replica(3, 17))], [3])
    record = decision.record(1_700_000_000_000, 4)
    assert read_record(record)["decision"] == decision.digest
    assert given_up([record, record]) == {1, 2}
    assert given_up([]) == frozenset()


def test_what_the_survivors_knew_to_be_committed_is_never_behind_the_keeper() -> None:
    """Random histories of leaders that replicate to some and are lost: any entry that a
    majority had and a survivor still has is in the keeper's log."""
    chance = random.Random(4)
    for _ in range(300):
        logs, committed = _random_history(chance)
        left = sorted(chance.sample(range(1, 6), chance.choice([1, 2])))
        members = conf(1, 2, 3, 4, 5)
        surveys = [
            node(n, attrs.evolve(replica(n, len(logs[n]), members=members), last_term=logs[n][-1]))
            for n in left
        ]
        decision = decide(surveys, left)
        keeper = logs[decision.forced[0].node]
        for n in left:
            had = [at for at in committed if logs[n][: at + 1] == committed[at]]
            assert all(keeper[: at + 1] == committed[at] for at in had), (logs, committed, left)


Logs = dict[int, list[int]]


def _random_history(chance: random.Random) -> tuple[Logs, dict[int, list[int]]]:
    """Logs of five nodes as lists of terms, and of each committed place the log up to it."""
    logs: Logs = {n: [0] for n in range(1, 6)}
    committed: dict[int, list[int]] = {}
    for term in range(1, chance.randint(2, 6)):
        voters = chance.sample(range(1, 6), 3)
        leader = max(voters, key=lambda n: (logs[n][-1], len(logs[n])))
        logs[leader] += [term] * chance.randint(1, 3)
        for follower in chance.sample(range(1, 6), chance.randint(0, 4)):
            # An append cuts only what contradicts it: nothing acknowledged is taken back.
            pairs = zip(logs[follower], logs[leader], strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if follower != leader:
                logs[follower] = logs[leader][: chance.randint(shared, len(logs[leader]))]
        for at, entry in enumerate(logs[leader]):
            holders = [log for log in logs.values() if log[: at + 1] == logs[leader][: at + 1]]
            if entry == term and len(holders) >= 3:
                committed[at] = logs[leader][: at + 1]
    return logs, committed


def test_decisions_are_told_apart_by_their_digits() -> None:
    one: Decision = decide([node(3, replica(3, 17))], [3])
    assert one.digest == decide([node(3, replica(3, 17))], [3]).digest
    assert one.digest != decide([node(3, replica(3, 18))], [3]).digest
