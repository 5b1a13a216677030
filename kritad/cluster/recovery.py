"""What to do about shards whose majority is lost for good: the decision, as a value.

A *survey* is what the disk of one stopped node says of its replicas; the surveys of all
nodes that are left make a *decision*, the same on whichever of them it is made
(kritad/recover.py gathers, asks and carries out).

Rules (raft.md 4.5, last paragraph):
* Only shards without a majority are touched. Every other one elects by itself.
* The newest log that is left goes on, by term and then index of its last entry: Raft's
  own comparison (thesis 3.6.1), under which it has every entry that was committed and
  that any of the survivors has. What only lost disks had is lost.
* Its replica becomes the group's only voter by one entry behind its log; the other
  survivors' replicas of the shard are learners then. They follow as any follower would,
  and what they have beyond the newest log's is overwritten: it was never committed.
* The meta shard's log gets one entry more, which tells it what is on the disks
  (cluster/meta_recovery.py): it may lack what the shards' logs know, or know what they lack.
* Term and configuration version rise by a large step, so that nothing which the lost
  nodes might still say under the old ones counts for more.
* The lost nodes are named in a record that every survivor keeps for ever: should one come
  back with an old disk, it is refused at the door (host/admission.py). Nothing can keep
  a majority of lost nodes from serving each other if they are started out of reach.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any

import attrs

from krita.errors import BadRequest
from krita.ring import META_SHARD, RING_SIZE
from kritad.cluster.meta_recovery import FoundShard
from kritad.raft.configuration import decode_configuration, encode_configuration
from kritad.raft.types import Configuration

TERM_STEP = 1_000_000
VERSION_STEP = 1_000_000
_FORMAT = 2


class RecoveryRefused(ValueError):
    """There is nothing to recover, or it cannot be known what; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)


@attrs.frozen
class ReplicaSurvey:
    """What a disk says of one replica. ``damage``: why it cannot be trusted; the rest of
    the fields are 0 then."""

    shard: int
    replica: int
    term: int = 0  # the highest seen
    commit: int = 0  # what it knows to be committed; may lag
    applied: int = 0  # of the state on the disk
    last_index: int = 0
    last_term: int = 0  # of the entry at last_index
    configuration: Configuration = attrs.field(factory=Configuration)  # the log's newest
    damage: str = ""
    # Of the state on the disk, as the entries behind it will cut it; None: not known.
    arc: tuple[int, int] | None = None
    # What those entries will split off: its number, arc, and [replica, node] of its members.
    unborn: tuple[FoundShard, ...] = ()


@attrs.frozen
class NodeSurvey:
    """What a stopped node's directory holds."""

    cluster_id: bytes
    node: int
    boot_counter: int
    replicas: tuple[ReplicaSurvey, ...]
    given_up: tuple[int, ...] = ()  # the nodes that earlier recoveries have gone on without

    def to_document(self) -> dict[str, Any]:
        """For a file that travels to the other survivors."""
        replicas = []
        for survey in self.replicas:
            fields = attrs.asdict(survey, recurse=False)
            fields["configuration"] = json.loads(encode_configuration(survey.configuration))
            fields["unborn"] = [shard.to_fields() for shard in survey.unborn]
            replicas.append(fields)
        return {
            "format": _FORMAT,
            "cluster_id": self.cluster_id.hex(),
            "node": self.node,
            "boot_counter": self.boot_counter,
            "replicas": replicas,
            "given_up": list(self.given_up),
        }

    @classmethod
    def from_document(cls, document: Any) -> NodeSurvey:
        """The inverse. Raises RecoveryRefused for anything else."""
        try:
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']}")
            replicas = []
            for fields in document["replicas"]:
                conf = decode_configuration(json.dumps(fields["configuration"]).encode())
                arc = None if fields["arc"] is None else (fields["arc"][0], fields["arc"][1])
                unborn = tuple(FoundShard.of(shard) for shard in fields["unborn"])
                read = {"configuration": conf, "arc": arc, "unborn": unborn}
                replicas.append(ReplicaSurvey(**{**fields, **read}))
            return cls(
                bytes.fromhex(document["cluster_id"]),
                int(document["node"]),
                int(document["boot_counter"]),
                tuple(replicas),
                tuple(int(node) for node in document["given_up"]),
            )
        except (BadRequest, KeyError, TypeError, ValueError) as error:
            raise RecoveryRefused(f"not a plan of this kritad: {error!r}") from error


@attrs.frozen
class Forced:
    """One shard that goes on with one voter: ``replica`` on ``node``, whose log gets an
    entry at ``index`` of ``term`` with ``configuration``."""

    shard: int
    node: int
    replica: int
    index: int
    term: int
    configuration: Configuration


@attrs.frozen
class Numbers:
    """The highest numbers that any survivor's disk knows."""

    node: int
    replica: int
    shard: int


@attrs.frozen
class Decision:
    """What is done to the cluster; each survivor carries its own part out."""

    cluster_id: bytes
    kept: tuple[int, ...]
    lost: tuple[int, ...]
    forced: tuple[Forced, ...]
    whole: tuple[int, ...]  # shards that have their majority
    gone: tuple[int, ...]  # shards of which nothing is left but empty or damaged replicas
    numbers: Numbers
    found: tuple[FoundShard, ...]  # the data shards on the disks, for the meta shard

    @property
    def unborn(self) -> tuple[int, ...]:
        """The shards that are in a log as a split, and on no disk yet."""
        known = {*(each.shard for each in self.forced), *self.whole, *self.gone}
        return tuple(each.shard for each in self.found if each.shard not in known)

    @property
    def unheld(self) -> tuple[tuple[int, int], ...]:
        """The arcs of which no survivor has a replica, as far as that is known: a replica whose
        arc is not may have any of them."""
        arcs = sorted(each.arc or (0, RING_SIZE) for each in self.found)
        reached = accumulate((hi for _, hi in arcs), max, initial=0)
        starts = [*(lo for lo, _ in arcs), RING_SIZE]
        return tuple((end, lo) for end, lo in zip(reached, starts, strict=True) if end < lo)

    @property
    def digest(self) -> str:
        """Eight hex digits: the same on all survivors, or they do not agree."""
        forced = [
            [f.shard, f.node, f.replica, f.index, f.term, f.configuration.version]
            for f in self.forced
        ]
        told = [attrs.astuple(self.numbers), [shard.to_fields() for shard in self.found]]
        text = json.dumps([self.cluster_id.hex(), self.kept, self.lost, forced, told])
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    def record(self, at_ms: int, boot_counter: int) -> bytes:
        """What each survivor keeps of it. ``boot_counter`` is that store's own."""
        return json.dumps(
            {
                "at_ms": at_ms,
                "boot_counter": boot_counter,
                "decision": self.digest,
                "kept": self.kept,
                "lost": self.lost,
                "shards": [forced.shard for forced in self.forced],
            },
            sort_keys=True,
        ).encode()


def read_record(record: bytes) -> Mapping[str, Any]:
    """What ``Decision.record`` wrote; storage has checked its seal."""
    fields: dict[str, Any] = json.loads(record)
    return fields


def given_up(records: Iterable[bytes]) -> frozenset[int]:
    """All nodes that any recovery has gone on without. Numbers are never given again."""
    return frozenset(node for record in records for node in read_record(record)["lost"])


def done_already(
    records: Iterable[bytes], survey: NodeSurvey, kept: Collection[int]
) -> Mapping[str, Any] | None:
    """The record of the newest recovery that went on with these nodes and without all others
    that this store knows of, if it is a part of one and nothing has come since; None otherwise. A
    repetition must not be decided anew: the store's own part is done, so another decision
    would come of it. A shard that was split off since with lost voters needs another one."""
    others = _named([survey]) - set(kept)
    done = [
        record
        for record in map(read_record, records)
        if set(record["kept"]) == set(kept) and others <= set(record["lost"])
    ]
    decided = {shard for record in done for shard in record["shards"]}
    open_still = {r.shard for r in survey.replicas if _lacks_majority(r.configuration, kept)}
    return done[-1] if done and open_still <= decided else None


def decide(
    surveys: Sequence[NodeSurvey], kept: Collection[int], *, leave_damaged: bool = False
) -> Decision:
    """What to do, given what every node of ``kept`` has on its disk.

    Raises RecoveryRefused when a survey is missing, when they do not belong together,
    when nothing is lost, and when a shard without a majority is damaged on a survivor;
    ``leave_damaged`` leaves such a shard as it is and goes on.
    """
    cluster_id = _check(surveys, kept)
    lost = _named(surveys) - set(kept)
    found: dict[int, list[tuple[int, ReplicaSurvey]]] = {}
    for survey in sorted(surveys, key=lambda each: each.node):
        for replica in survey.replicas:
            found.setdefault(replica.shard, []).append((survey.node, replica))
    forced: list[Forced] = []
    whole: list[int] = []
    gone: list[int] = []
    for shard in sorted(found):
        newest = max((replica for _, replica in found[shard]), key=_age)
        sound = {replica.replica for _, replica in found[shard] if not replica.damage}
        if _has_majority(newest.configuration, sound):
            whole.append(shard)
        elif _is_damaged(shard, found[shard], leave_damaged):
            gone.append(shard)
        elif newest.configuration.voters:
            forced.append(_force(shard, newest.configuration, found[shard]))
        else:
            gone.append(shard)  # a replica that nobody had sent anything yet
    if not forced:
        raise RecoveryRefused(
            f"nothing to recover: nodes {_listed(kept)} have the majority of all that they have",
            "start them, and the cluster goes on by itself",
        )
    return Decision(
        cluster_id,
        tuple(sorted(kept)),
        tuple(sorted(lost)),
        tuple(forced),
        tuple(whole),
        tuple(gone),
        _numbers(surveys),
        tuple(_found(found, forced, gone)),
    )


def _named(surveys: Iterable[NodeSurvey]) -> set[int]:
    """Every node that any of the surveys knows to have been a member."""
    named = {node for survey in surveys for node in survey.given_up}
    for survey in surveys:
        for replica in survey.replicas:
            named.update(replica.configuration.nodes.values())
    return named


def _found(
    replicas: Mapping[int, Sequence[tuple[int, ReplicaSurvey]]],
    forced: Sequence[Forced],
    gone: Collection[int],
) -> Iterator[FoundShard]:
    """What the disks have: by the log that goes on, of each shard."""
    members = {each.shard: each.configuration for each in forced}
    for shard in sorted(replicas.keys() - {META_SHARD}):
        newest = max((replica for _, replica in replicas[shard]), key=_age)
        conf = members.get(shard, newest.configuration)
        nodes = tuple(sorted((r, conf.nodes[r]) for r in conf.members))
        if shard not in gone:
            yield FoundShard(shard, newest.arc, nodes)
        elif any(replica.damage for _, replica in replicas[shard]):
            yield FoundShard(shard, None, ())  # it may be mended
        yield from (unborn for unborn in newest.unborn if unborn.shard not in replicas)


def _numbers(surveys: Sequence[NodeSurvey]) -> Numbers:
    found = [replica for survey in surveys for replica in survey.replicas]
    replicas = {replica.replica for replica in found}
    replicas.update(*(replica.configuration.nodes for replica in found))
    nodes = _named(surveys) | {survey.node for survey in surveys}
    return Numbers(max(nodes), max(replicas), max(replica.shard for replica in found))


def _check(surveys: Sequence[NodeSurvey], kept: Collection[int]) -> bytes:
    nodes = sorted(survey.node for survey in surveys)
    if len(set(nodes)) != len(nodes):
        raise RecoveryRefused(f"a node was named twice among {_listed(nodes)}")
    if missing := sorted(set(kept) - set(nodes)):
        raise RecoveryRefused(
            f"no plan of node {_listed(missing)} was given",
            "run kritad recover --plan --json --data_dir DIR there, and name the file by --with",
        )
    if surplus := sorted(set(nodes) - set(kept)):
        raise RecoveryRefused(
            f"node {_listed(surplus)} has a plan and is not among those to keep",
            "a node that is left belongs to --keep",
        )
    clusters = {survey.cluster_id for survey in surveys}
    if len(clusters) != 1 or clusters == {b""}:
        named = ", ".join(sorted(cluster.hex() or "none" for cluster in clusters))
        raise RecoveryRefused(f"these nodes are not of one cluster: {named}")
    return clusters.pop()


def _age(replica: ReplicaSurvey) -> tuple[int, int, bool, int]:
    """Ascending from the oldest log; a voter's counts for newer than a learner's."""
    votes = replica.replica in replica.configuration.voters
    return replica.last_term, replica.last_index, votes, -replica.replica


def _lacks_majority(conf: Configuration, kept: Collection[int]) -> bool:
    """Whether it has voters, and no majority of them on these nodes."""
    left = {replica for replica, node in conf.nodes.items() if node in kept}
    return bool(conf.voters) and not _has_majority(conf, left)


def _has_majority(conf: Configuration, alive: Set[int]) -> bool:
    if not conf.voters:
        return False
    halves = [conf.voters, conf.voters_outgoing] if conf.joint else [conf.voters]
    return all(len(half & alive) > len(half) // 2 for half in halves)


def _is_damaged(shard: int, found: Sequence[tuple[int, ReplicaSurvey]], leave: bool) -> bool:
    for node, replica in found:
        if replica.damage and not leave:
            raise RecoveryRefused(
                f"shard {shard} has no sound majority, and its replica on node {node} is damaged:"
                f" {replica.damage}",
                f"to go on without what only node {node} may have, leave it out of --keep;"
                " to recover the other shards only: --leave_damaged",
            )
    return any(replica.damage for _, replica in found)


def _force(shard: int, conf: Configuration, found: Sequence[tuple[int, ReplicaSurvey]]) -> Forced:
    """``conf`` is the newest configuration, which may have let some of the found go."""
    members = [(node, replica) for node, replica in found if replica.replica in conf.members]
    if not members:
        raise RecoveryRefused(f"shard {shard}: all that is left are replicas that had left it")
    node, keeper = max(members, key=lambda each: _age(each[1]))
    learners = frozenset(replica.replica for _, replica in members) - {keeper.replica}
    forced = Configuration(
        version=max(replica.configuration.version for _, replica in found) + VERSION_STEP,
        voters=frozenset({keeper.replica}),
        learners=learners,
        nodes={replica.replica: where for where, replica in members},
    )
    term = max(replica.term for _, replica in found) + TERM_STEP
    return Forced(shard, node, keeper.replica, keeper.last_index + 1, term, forced)


def _listed(nodes: Iterable[int]) -> str:
    return ", ".join(str(node) for node in sorted(nodes))
