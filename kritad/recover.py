"""``kritad recover``: go on with the nodes that are left when a majority is lost for good.

For stopped nodes, on their data directories; kritad/cluster/recovery.py decides. On each
survivor ``--plan`` says what its disk has (``--json`` for the others), then on each
``--apply`` carries out that survivor's part of what follows from all the plans:

    kritad recover --plan --data_dir D --json > plan1.json
    kritad recover --apply --data_dir D --keep 1,3 --with plan3.json

Rules:
* Nothing is written by ``--plan``, but what every start does: the files' formats are
  brought up to date and their WALs emptied.
* All rows and entries are verified before anything is decided.
* A directory is changed in one durable transaction. What is refused or breaks off has
  changed nothing there, and may be repeated.
* The same plans make the same decision everywhere; its eight digits are printed so that
  people can compare.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from krita.codec import CodecError, decode, encode_body
from krita.errors import BadRequest, ConditionFailed
from krita.operations import Op
from krita.ring import META_SHARD
from kritad.cluster.meta_recovery import FoundShard
from kritad.cluster.recovery import (
    Decision,
    Forced,
    NodeSurvey,
    RecoveryRefused,
    ReplicaSurvey,
    decide,
    done_already,
    given_up,
    read_record,
)
from kritad.raft.configuration import encode_configuration
from kritad.raft.types import Boot, Configuration, Entry, EntryKind, HardState, Save
from kritad.state.command import BadCommand, pack_command, unpack_command
from kritad.state.split import Lineage, SplitCommand
from kritad.storage.data_db import DataDatabase
from kritad.storage.directory import DataDirectory
from kritad.storage.errors import Corrupt, DirectoryRefused, StorageError
from kritad.storage.extent import Extent
from kritad.storage.inspection import verify_store
from kritad.storage.raft_db import RaftDatabase, ReplicaRow
from kritad.storage.rows import Applied

EXIT_OK, EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIG = 0, 1, 2, 78

_CLUSTER_DIGITS = 8

Say = Callable[[str], None]
Ask = Callable[[str], str]


def run(arguments: Sequence[str], say: Say, complain: Say, ask: Ask) -> int:
    """Do what the arguments (behind ``recover``) say; returns the exit status. ``ask``
    raises EOFError when there is nobody to answer."""
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    try:
        with ExitStack() as stack:
            stores = [_Store(stack, Path(path)) for path in options.data_dir]
            surveys = [store.survey() for store in stores]
            if options.plan:
                return _plan(options, surveys, say)
            return _apply(options, stores, surveys, say, ask)
    except OSError as error:
        complain(f"kritad: {error.filename}: {error.strerror}")
        return EXIT_CONFIG
    except (RecoveryRefused, StorageError) as error:
        complain(f"kritad: {error}")
        return EXIT_CONFIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kritad recover",
        description="Go on with the nodes that are left when a majority is lost for good."
        " For stopped nodes. Writes that only lost nodes had are lost.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--plan", action="store_true", help="say what the disk has; change nothing")
    what.add_argument("--apply", action="store_true", help="carry it out on this directory")
    parser.add_argument(
        "--data_dir", "--data-dir", action="append", required=True, metavar="DIR",
        help="the directory of a node that is left; several times if they are on one machine",
    )  # fmt: skip
    parser.add_argument(
        "--keep", type=_numbers, default=(), metavar="N,…", help="the numbers of all nodes left"
    )
    parser.add_argument(
        "--with", dest="plans", action="append", default=[], metavar="FILE",
        help="another survivor's plan, made with --json",
    )  # fmt: skip
    parser.add_argument(
        "--leave_damaged", "--leave-damaged", action="store_true",
        help="leave shards that are damaged here as they are, and recover the others",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the plan as a document")
    parser.add_argument("--yes", action="store_true", help="do not ask before changing anything")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        wanted = f"{text!r} is no list of nodes' numbers, such as 1,3"
        raise argparse.ArgumentTypeError(wanted) from None


class _Store:
    """One stopped node's directory, locked until the stack ends."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        """Raises DirectoryRefused, also for a directory that holds no node."""
        if not (path / "raft.db").is_file():
            raise DirectoryRefused(f"{path} holds no node of a cluster", "name its --data_dir")
        self.directory = stack.enter_context(closing(DataDirectory(path)))
        self._stack = stack
        self.records: list[bytes] = []  # of the recoveries it is a part of; see ``survey``

    def survey(self) -> NodeSurvey:
        """What it holds, verified. Reads all of it; raises StorageError for damage that
        concerns the whole of it."""
        raft_path, data_path = self.directory.raft_path, self.directory.data_path
        damage: dict[int, str] = {}
        for problem in verify_store(raft_path, data_path):
            if not isinstance(problem, Corrupt):
                continue  # a row of data.db, whose shard is made again from the log, if that can
            if problem.shard is None:
                raise problem
            damage.setdefault(problem.shard, problem.message)
        with (
            closing(RaftDatabase.open(raft_path)) as raft_db,
            closing(DataDatabase.open(data_path)) as data_db,
        ):
            known = raft_db.identity()
            if known is None or not known.node_id:
                raise DirectoryRefused(f"{self.directory.path} belongs to no cluster yet")
            replicas = tuple(
                ReplicaSurvey(row.shard, row.replica, damage=damage[row.shard])
                if row.shard in damage
                else survey_of(raft_db, data_db, row)
                for row in raft_db.replicas()
            )
            self.records = raft_db.recoveries()
            lost = tuple(sorted(given_up(self.records)))
            return NodeSurvey(known.cluster_id, known.node_id, known.boot_counter, replicas, lost)

    def recover(
        self, own: Sequence[Forced], commits: Sequence[int], told: bytes, record: bytes
    ) -> None:
        """Put the forced entries behind their logs, whose commits stay, and keep the record.
        ``told`` is the body of the meta shard's META_RECOVERED."""
        with closing(RaftDatabase.open(self.directory.raft_path)) as raft_db:
            raft_db.recover(saves_of(own, commits, told), record)


def saves_of(own: Sequence[Forced], commits: Sequence[int], told: bytes) -> list[tuple[int, Save]]:
    """What a survivor's logs get, by shard. ``told``: see ``told_by``."""
    saves = []
    for forced, commit in zip(own, commits, strict=True):
        hard = HardState(forced.term, commit=commit)
        saves.append((forced.shard, Save(0, hard, entries=list(_entries(forced, told)))))
    return saves


def told_by(decision: Decision) -> bytes:
    """The body of META_RECOVERED."""
    numbers, found = decision.numbers, [shard.to_fields() for shard in decision.found]
    highest = numbers.node, numbers.replica, numbers.shard
    return encode_body(Op.META_RECOVERED, *highest, found)


def _entries(forced: Forced, told: bytes) -> Iterator[Entry]:
    data = encode_configuration(forced.configuration)
    yield Entry(forced.index, forced.term, EntryKind.CONF, data)
    if forced.shard == META_SHARD:
        # At no time: the shard's clock stays where it is.
        data = pack_command(0, Op.META_RECOVERED, told)
        yield Entry(forced.index + 1, forced.term, EntryKind.COMMAND, data)


def survey_of(raft_db: RaftDatabase, data_db: DataDatabase, row: ReplicaRow) -> ReplicaSurvey:
    """What the two say of one replica, which is sound."""
    state = data_db.applied().get(row.shard)
    applied = state.index if state is not None and state.replica == row.replica else 0
    boot = raft_db.load(row.shard, applied)
    arc: tuple[int, int] | None = None
    unborn: tuple[FoundShard, ...] = ()
    if state is not None and applied and row.shard != META_SHARD and state.cells:
        arc, unborn = _cut(row, state, boot)
    return ReplicaSurvey(
        row.shard,
        row.replica,
        boot.hard_state.term,
        boot.hard_state.commit,
        applied,
        boot.last_index,
        boot.terms[-1][1] if boot.terms else boot.snapshot.term,
        boot.configurations[-1][1] if boot.configurations else boot.snapshot.configuration,
        arc=arc,
        unborn=unborn,
    )


def _cut(
    row: ReplicaRow, state: Applied, boot: Boot
) -> tuple[tuple[int, int], tuple[FoundShard, ...]]:
    """The arc that the log will leave, and what it will split off behind the state."""
    lo, hi = state.arc
    lineage = Lineage.decode(state.lineage)
    extent = Extent.decode(lo, hi, state.cells)
    unborn = []
    for entry in boot.entries:
        command = _split_command(entry) if entry.index > state.index else None
        if command is None:
            continue
        known = [conf for index, conf in boot.configurations if index < entry.index]
        conf = known[-1] if known else boot.snapshot.configuration
        try:
            command.check(lineage, extent, conf)
        except ConditionFailed:
            continue  # refused when it is applied, too
        lineage = lineage.cut(command.shard_new, command.at)
        members = tuple((new, node) for _, new, node in command.replicas)
        if command.replica_new(row.replica):
            unborn.append(FoundShard(command.shard_new, (command.at, extent.hash_hi), members))
        extent.cut(command.at)
    return extent.arc, tuple(unborn)


def _split_command(entry: Entry) -> SplitCommand | None:
    if entry.kind != EntryKind.COMMAND:
        return None
    try:
        _, op, body = unpack_command(entry.data)
        fields = decode(body) if op == Op.SPLIT else None
        return SplitCommand.parse(fields) if isinstance(fields, list) else None
    except (BadCommand, BadRequest, CodecError):
        return None


def _plan(options: argparse.Namespace, surveys: list[NodeSurvey], say: Say) -> int:
    if options.json:
        if len(surveys) != 1 or options.keep:
            raise RecoveryRefused("--json writes the plan of one directory, without --keep")
        say(json.dumps(surveys[0].to_document(), indent=1, sort_keys=True))
        return EXIT_OK
    for survey in surveys:
        for line in survey_lines(survey):
            say(line)
    if options.keep:
        decision = _decide(options, surveys)
        for line in decision_lines(decision):
            say(line)
    return EXIT_OK


def _apply(
    options: argparse.Namespace,
    stores: list[_Store],
    surveys: list[NodeSurvey],
    say: Say,
    ask: Ask,
) -> int:
    if not options.keep:
        raise RecoveryRefused("which nodes are left?", "name them all: --keep 1,3")
    pending = [
        (store, survey)
        for store, survey in zip(stores, surveys, strict=True)
        if not _is_done(store, survey, options.keep, say)
    ]
    if not pending:
        return EXIT_OK
    decision = _decide(options, surveys)
    for line in decision_lines(decision):
        say(line)
    if not options.yes and not _confirmed(decision, say, ask):
        return EXIT_USAGE
    at_ms = time.time_ns() // 1_000_000
    told = told_by(decision)
    for store, survey in pending:
        own = [forced for forced in decision.forced if forced.node == survey.node]
        commits = {replica.shard: replica.commit for replica in survey.replicas}
        record = decision.record(at_ms, survey.boot_counter)
        store.recover(own, [commits[forced.shard] for forced in own], told, record)
        say(f"done on node {survey.node}: {len(own)} shards go on from here")
    rest = sorted(set(decision.kept) - {survey.node for survey in surveys})
    if rest:
        nodes = _listed(rest)
        say(f"now the same on node {nodes}, with this decision {decision.digest}; then start all")
    else:
        say("when it is done on all survivors, start them")
    for node in decision.lost:
        say(f"then: kritash node remove {node} --yes")
    return EXIT_OK


def _is_done(store: _Store, survey: NodeSurvey, kept: Sequence[int], say: Say) -> bool:
    record = done_already(store.records, survey, kept)
    if record is not None:
        say(f"done already on node {survey.node} (decision {record['decision']}): nothing changed")
    return record is not None


def _decide(options: argparse.Namespace, surveys: list[NodeSurvey]) -> Decision:
    own = {survey.node: survey for survey in surveys}
    others = []
    for path in options.plans:
        try:
            plan = NodeSurvey.from_document(json.loads(Path(path).read_bytes()))
        except json.JSONDecodeError as error:
            raise RecoveryRefused(f"{path} is not a plan: {error}") from error
        if plan.node not in own:
            others.append(plan)
        elif plan != own[plan.node]:
            raise RecoveryRefused(
                f"{path} is an older plan of node {plan.node} than its directory",
                "has it been running since? Stop all survivors, and make all plans anew",
            )
    return decide([*surveys, *others], options.keep, leave_damaged=options.leave_damaged)


def _confirmed(decision: Decision, say: Say, ask: Ask) -> bool:
    digits = decision.cluster_id.hex()[:_CLUSTER_DIGITS]
    try:
        answer = ask(f"to go on, type the first {_CLUSTER_DIGITS} digits of the cluster's id: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() == digits:
        return True
    say("that is not it: nothing was changed")
    return False


# --- what people read ------------------------------------------------------------------


def survey_lines(survey: NodeSurvey) -> Iterator[str]:
    """A node's plan as a table."""
    yield (
        f"cluster {survey.cluster_id.hex()}, node {survey.node},"
        f" started {survey.boot_counter} times"
    )
    rows = [("shard", "replica", "last term/index", "commit", "applied", "voters", "")]
    for found in survey.replicas:
        conf = found.configuration
        if found.damage:
            rows.append((str(found.shard), str(found.replica), "", "", "", "", found.damage))
            continue
        rows.append(
            (
                str(found.shard),
                str(found.replica),
                f"{found.last_term}/{found.last_index}",
                str(found.commit),
                str(found.applied),
                _members(conf, conf.voters),
                f"and {_members(conf, conf.voters_outgoing)}" if conf.joint else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        padded = [text.ljust(width) for text, width in zip(row[:6], widths, strict=True)]
        yield "  ".join([*padded, row[6]]).rstrip()


def _members(conf: Configuration, replicas: frozenset[int]) -> str:
    return " ".join(f"{replica}@{conf.nodes.get(replica, '?')}" for replica in sorted(replicas))


def decision_lines(decision: Decision) -> Iterator[str]:
    """What would be done, and what it costs."""
    yield f"decision {decision.digest}: cluster {decision.cluster_id.hex()}"
    yield f"keep nodes {_listed(decision.kept)}; give up for ever: {_listed(decision.lost)}"
    for forced in decision.forced:
        yield (
            f"shard {forced.shard}: replica {forced.replica} on node {forced.node} goes on alone"
            f" behind entry {forced.index - 1}, in term {forced.term}"
        )
    if decision.whole:
        yield f"untouched, they have their majority: shards {_listed(decision.whole)}"
    for unborn in decision.unborn:
        yield (
            f"shard {unborn} is split off when its node has started; the same"
            f" once more for shard {unborn}, if nobody leads it then"
        )
    if decision.gone:
        yield f"NOT recovered, nothing sound is left of them: shards {_listed(decision.gone)}"
    for lo, hi in decision.unheld:
        yield (
            f"NOT recovered, none of these nodes has them: the keys from {lo:08x} to {hi:08x} on"
            " the ring; nobody answers them then, whatever is found later"
        )
    yield "lost is every write that was acknowledged behind these entries by lost nodes alone;"
    yield "how many those are, nobody can tell any more"


def record_line(record: bytes) -> str:
    """A recovery that a store is part of, for the log of each start."""
    fields = read_record(record)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(fields["at_ms"] / 1000))
    return (
        f"recovered {when} (decision {fields['decision']}): nodes {_listed(fields['lost'])} were"
        f" given up, shards {_listed(fields['shards'])} went on with one replica"
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers) or "none"
