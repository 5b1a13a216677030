"""Stories that end with ``kritad recover``: one of three nodes is left, and goes on.

Acknowledged writes may be lost then, and entries that were committed are others. So the
invariants, and all that is judged, begin anew behind the recovery, and two things are asked
for in their place: what the survivor's disk had can be read, and no number is given out twice that
any disk knew.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from krita.codec import encode_body
from krita.errors import Status
from krita.operations import Op
from krita.ring import META_SHARD
from kritad import recover
from kritad.access import ADMIN, Principal
from kritad.cluster.model import NodeState
from kritad.cluster.recovery import NodeSurvey, decide
from kritad.cluster.view import MetaView
from kritad.raft.types import Save
from tests.simulator.census import take_census
from tests.simulator.chronicle.chronicle import Apply
from tests.simulator.history import History
from tests.simulator.invariants import Invariants, Violation
from tests.simulator.node import SimNode
from tests.simulator.stories.story import Story

_REMOVING = int(NodeState.REMOVING)
_LEFT = 3  # the node that is left, and its number


@attrs.define
class _Used:
    """Numbers that any disk knew when the others were lost."""

    nodes: set[int] = attrs.field(factory=set)
    shards: set[int] = attrs.field(factory=set)
    replicas: set[int] = attrs.field(factory=set)


class Recovered(Story):
    """What these have in common. Node 1 leads the meta shard, node 2 the other one."""

    changes: ClassVar = {"reads": 0.0}

    def observing(self, apply: Apply) -> Apply:
        """The chronicle's books would have two entries in one place."""
        return apply

    def begin(self) -> None:
        """Whoever leads what, and some rows in the memtables and on the disks."""
        self.lead(META_SHARD, 1)
        self.lead(1, 2)
        self.pass_ms(1_000)

    def behind_recovery(self, kept: SimNode) -> None:
        """What else is looked at, before anybody writes."""

    def go_on_alone(self) -> None:
        """All processes end, two nodes are lost, and the third is recovered and started."""
        kept, used = self.at(_LEFT), _Used()
        rows = self._rows_of(kept)
        for person in self.people:
            person.client.die()
        self.people.clear()
        for node in self.members:
            used.nodes.add(node.number)
            used.shards.update(row.shard for row in node.raft_db.replicas())
            used.replicas.update(row.replica for row in node.raft_db.replicas())
            node.crash(power=False)
            if node is not kept:
                node.number = 0  # nobody's any more
        self._begin_anew(kept)
        _recover(kept)
        kept.start()
        self.until("every shard is led", lambda: None not in map(self.leader, self.shards()))
        self._check_rows(rows)
        self.behind_recovery(kept)
        self._check_numbers(kept, used)
        for _ in range(self.plan.clients):
            self._add_client()

    def _begin_anew(self, kept: SimNode) -> None:
        self._view, self._ring = MetaView(), None
        self.invariants, self.history = Invariants(), History()
        self.network.on_send = self.invariants.on_send
        kept._observe_saves()

    def _rows_of(self, node: SimNode) -> dict[bytes, int]:
        """What the replicas there have of people's keys: revisions."""
        keys = [b"k%d" % number for number in range(self.plan.keys)]
        found = {}
        for replica in node.host.replicas.values():
            for key in keys if replica.shard != META_SHARD else ():
                row = replica.state.read(key) if replica.state.owns(key) else None
                if row is not None:
                    found[key] = row.revision
        assert found, "people have written nothing"
        return found

    def _check_rows(self, rows: dict[bytes, int]) -> None:
        found = self._read_all()
        on_map = {(each.shard, each.hash_lo, each.hash_hi) for each in self.view().data_shards}
        states = [replica.state for replica in self.members[0].host.replicas.values()]
        for state in states:
            if state.shard != META_SHARD and (state.shard, *state.extent.arc) not in on_map:
                raise Violation("kept", f"{state!r} is on the disk and not on the map {on_map}")
        for key, revision in rows.items():
            if found[key][1] < revision:
                raise Violation("kept", f"{key!r} was there at {revision}, and now is {found[key]}")

    def _check_numbers(self, kept: SimNode, used: _Used) -> None:
        """Others come in the place of those that are lost, and a shard is split: all these get
        numbers that nobody had."""
        known = set(kept.host.view.shards)
        for lost in sorted(used.nodes - {kept.number}):
            self.ask(kept.number, Op.NODE_SET, lost, _REMOVING, None)
            self.add_node(kept)
        self.until("nodes have joined", lambda: len(self.members) == len(used.nodes))
        self.until("all is at rest", lambda: not kept.host.view.shards[1].in_motion)
        self.ask(kept.number, Op.SHARD_SPLIT, 1)
        self.until("it is split", lambda: kept.host.view.shards[1].split is None)
        for node in self.members:
            rows = node.raft_db.replicas()
            again = used.shards & {row.shard for row in rows if row.shard not in known}
            if node is not kept:
                again |= used.replicas & {row.replica for row in rows}
                again |= used.nodes & {node.number}
            if again:
                raise Violation("numbers", f"{node} has {rows}, and {used} had {again}")

    def judge(self) -> None:
        """The rows add up."""
        self._read_all()
        for shard in self.shards():
            take_census(self._replicas(shard))


def _recover(node: SimNode) -> None:
    """``kritad recover --apply`` on its disk."""
    raft_db, data_db = node.raft_db, node.data_db
    identity = raft_db.identity()
    assert identity is not None
    replicas = tuple(recover.survey_of(raft_db, data_db, row) for row in raft_db.replicas())
    survey = NodeSurvey(identity.cluster_id, node.number, identity.boot_counter, replicas)
    decision = decide([survey], [node.number])
    own = [forced for forced in decision.forced if forced.node == node.number]
    commits = {replica.shard: replica.commit for replica in replicas}
    saves: list[tuple[int, Save]] = recover.saves_of(
        own, [commits[forced.shard] for forced in own], recover.told_by(decision)
    )
    raft_db.recover(saves, decision.record(0, identity.boot_counter))


class HalfThatTheMetaShardLacks(Recovered):
    """The survivor has lived a split, and does not know of it by its meta shard."""

    def happen(self) -> None:
        """See the class."""
        self.begin()
        kept = self.at(_LEFT)
        self.cut(1, _LEFT)
        self.ask(1, Op.SHARD_SPLIT, 1)
        self.until("it is split there", lambda: kept.replica(2) is not None)
        assert 2 not in kept.host.view.shards
        self.pass_ms(500)
        self.go_on_alone()


class HalfThatTheSurvivorLacks(Recovered):
    """The survivor's meta shard has heard of a split that its replica of the shard lacks; and it
    lacks what was written since."""

    def happen(self) -> None:
        """See the class."""
        self.begin()
        kept = self.at(_LEFT)
        self.cut(2, _LEFT)
        self.ask(1, Op.SHARD_SPLIT, 1)
        self.until("it knows of the split", lambda: 2 in kept.host.view.shards)
        assert kept.replica(2) is None
        with self.stewards_rest():  # or they would have another node lead, which reaches ours
            self.pass_ms(500)
            self.session = self._open(self.at(2))
            self.pass_ms(500)
        self.place = self.here(1, 2).state.index
        self.go_on_alone()

    def behind_recovery(self, kept: SimNode) -> None:
        """Who watches, and has been told what is lost, hears of that. Who has a session that is
        lost has it alone."""
        status, _ = self._answer(kept, Op.CHANGES, 1, self.place, None, None, None, 1_000, None)
        if status != Status.COMPACTED:
            raise Violation("watch", f"a place of entries that are lost was answered with {status}")
        while self.here(1, kept.number).state.index < self.place:
            if self._open(kept) == self.session:
                raise Violation("sessions", f"{self.session} was given to two clients")

    def _open(self, node: SimNode) -> object:
        """A new session's id."""
        status, answer = self._answer(node, Op.SESSION_OPEN, 1, None)
        assert status == Status.OK, (status, answer)
        assert isinstance(answer, list)
        return answer[0]

    def _answer(self, node: SimNode, op: Op, *fields: object) -> tuple[int, object]:
        answers: list[tuple[int, object]] = []

        def answered(status: int, answer: object) -> None:
            answers.append((status, answer))

        principal = Principal(ADMIN, loopback=True)
        node.do(node.service.submit, op, encode_body(op, *fields), principal, 3_000.0, 0, answered)
        self.until(f"{op.name} is answered", lambda: bool(answers))
        return answers[0]
