"""What a directed scenario can do: one method of ``Stage`` for each command.

``COMMANDS`` is the list; each one's docstring says how it is written. A command
drives the cluster by hand and leaves its lines there (trace.py); none of them
decides whether what happened is right.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from kritad.raft.configuration import Change, ChangeKind
from kritad.raft.errors import InvariantBroken
from kritad.raft.messages import Message, TimeoutNow
from kritad.raft.types import NOBODY, HardState
from tests.raft.cluster import SHARD
from tests.simulator.scenario import Command
from tests.simulator.trace import (
    ROLES,
    TracedCluster,
    configuration_text,
    entries_text,
    message_text,
    state_text,
)

CHANGES = {
    "voter": ChangeKind.ADD_VOTER,
    "learner": ChangeKind.ADD_LEARNER,
    "remove": ChangeKind.REMOVE,
}


class Stage:
    """A cluster and what is done with it. The first command must be ``cluster``."""

    def __init__(self) -> None:
        self.cluster = TracedCluster(0)
        self.held: list[Message] = []

    # --- the cluster ----------------------------------------------------------

    def new(self, command: Command) -> None:
        """``cluster 3 [extra=2] [election_ticks=10 ...]``: voters 1 to 3; 4 and 5 no members."""
        settings = {pair: command.number(pair, 0) for pair in command.pairs}
        self.cluster = TracedCluster(int(command.words[0]), **settings)

    def load(self, command: Command) -> None:
        """``load 2 [term=3] [vote=1] [log=(1,1,2)]``: boots from a disk with such a state.

        Without ``log`` the one on the disk stays; the entries are empty commands.
        """
        terms = command.numbers("log")
        term = command.number("term", max([0, *terms]))
        state = HardState(term, command.number("vote", 0))
        self.cluster.load(command.replicas[0], state, terms)

    def crash(self, command: Command) -> None:
        """``crash 1 [flushed=3]``: unsynced saves are gone, and what was applied behind 3."""
        for replica in command.replicas:
            self.cluster.crash(replica)
            node = self.cluster.nodes[replica]
            node.applied = command.number("flushed", node.applied)
            node.state = [pair for pair in node.state if pair[0] <= node.applied]

    def restart(self, command: Command) -> None:
        """``restart 1 2``."""
        for replica in command.replicas:
            self.cluster.restart(replica)

    def wipe(self, command: Command) -> None:
        """``wipe 3``: loses its disk, and boots with the first configuration and nothing else."""
        for replica in command.replicas:
            configuration = self.cluster.nodes[replica].disk.snapshot.configuration
            self.cluster.add_node(replica, configuration)
            self.cluster.restart(replica)

    def isolate(self, command: Command) -> None:
        """``isolate 1 2``: these hear each other and nobody else, nobody else hears them."""
        self.cluster.isolate(*command.replicas)

    def cut(self, command: Command) -> None:
        """``cut 1 3``: what 1 sends does not arrive at 3; the other way it does."""
        sender, recipient = command.replicas
        self.cluster.cut.add((sender, recipient))

    def heal(self, command: Command) -> None:
        """``heal``: every link works."""
        assert not command.words
        self.cluster.heal()

    # --- time, disk and network -----------------------------------------------

    def tick(self, command: Command) -> None:
        """``tick [1 2] [count=10]``: in turn, that often."""
        for _ in range(command.number("count", 1)):
            self.cluster.tick(*command.replicas)

    def sync(self, command: Command) -> None:
        """``sync [1 2] [count=1]``: the disk writes what it was given, or its next saves."""
        for replica in command.replicas or sorted(self.cluster.nodes):
            self.cluster.sync(replica, command.number("count", 1 << 30))

    def round(self, command: Command) -> None:
        """``round [1 2] [count=2]``: what is in flight arrives, then these disks write, or all."""
        for _ in range(command.number("count", 1)):
            self.cluster.deliver_all()
            for replica in command.replicas or sorted(self.cluster.nodes):
                self.cluster.sync(replica)

    def deliver(self, command: Command) -> None:
        """``deliver [from=(1,2)] [to=3] [kind=Append] [order=(2,1)] [keep] [drop]``.

        What is in flight now and fits; answers stay in flight. ``order`` picks
        some by their place among those, ``keep`` delivers copies, ``drop`` loses
        them instead.
        """
        for message in self._pick(command, keep="keep" in command.words):
            if "drop" in command.words:
                self.cluster.lose(message, "lost")
            else:
                self.cluster.deliver(attrs.evolve(message))

    def hold(self, command: Command) -> None:
        """``hold [from=3] [to=1] [kind=AppendReply]``: takes what fits out of the network,
        so that nothing delivers it before ``release``."""
        self.held += self._pick(command, keep=False)

    def release(self, command: Command) -> None:
        """``release``: what is held is in flight again."""
        assert not command.words
        self.cluster.network += self.held
        self.held = []

    def _pick(self, command: Command, *, keep: bool) -> list[Message]:
        """The messages in flight that a command means; they are gone unless ``keep``."""
        network = self.cluster.network
        fitting = [message for message in network if _fits(message, command)]
        places = command.numbers("order") or list(range(1, len(fitting) + 1))
        assert all(place <= len(fitting) for place in places), f"{len(fitting)} messages fit"
        chosen = [fitting[place - 1] for place in places]
        if not keep:
            gone = {id(message) for message in chosen}
            network[:] = [message for message in network if id(message) not in gone]
        return chosen

    def settle(self, command: Command) -> None:
        """``settle [ticks=3]``: until nothing moves; then as many ticks, each until nothing moves.

        Disks write, what leaders fetch is read, snapshots are streamed, all at once.
        """
        self.cluster.settle(command.number("ticks", 0))

    def elect(self, command: Command) -> None:
        """``elect 1``: makes it the leader with everybody's consent."""
        self.cluster.elect(command.replicas[0])

    # --- what a host asks of a core -------------------------------------------

    def campaign(self, command: Command) -> None:
        """``campaign 1``."""
        self.cluster[command.replicas[0]].campaign()
        self.cluster.pump(command.replicas[0])

    def propose(self, command: Command) -> None:
        """``propose 1 a b``: commands, in one turn."""
        replica = int(command.words[0])
        for data in command.words[1:]:
            self.cluster[replica].propose(data.encode())
        self.cluster.pump(replica)

    def propose_conf(self, command: Command) -> None:
        """``propose-conf 1 [learner=4] [voter=(4,5)] [remove=2] [version=1]``."""
        replica = command.replicas[0]
        raft = self.cluster[replica]
        changes = [
            Change(CHANGES[kind], changed)
            for kind in command.pairs
            if kind in CHANGES
            for changed in command.numbers(kind)
        ]
        nodes = {change.replica: 100 + change.replica for change in changes}
        raft.propose_conf(changes, nodes, command.number("version", raft.configuration.version))
        self.cluster.pump(replica)

    def read(self, command: Command) -> None:
        """``read 1 7``: a linearizable read with the token 7."""
        replica, token = command.replicas
        self.cluster.read(self.cluster[replica], token)

    def transfer(self, command: Command) -> None:
        """``transfer 1 2``: 1 is to hand over to 2."""
        replica, heir = command.replicas
        self.cluster[replica].transfer(heir)
        self.cluster.pump(replica)

    def timeout_now(self, command: Command) -> None:
        """``timeout-now 2``: as if its leader asked it to campaign at once."""
        raft = self.cluster[command.replicas[0]]
        self.cluster.deliver(TimeoutNow(SHARD, NOBODY, raft.replica, raft.term))

    def step_down(self, command: Command) -> None:
        """``step-down 1``."""
        self.cluster[command.replicas[0]].step_down()
        self.cluster.pump(command.replicas[0])

    def unreachable(self, command: Command) -> None:
        """``unreachable 1 3``: 1 is told that messages to 3 were dropped."""
        replica, other = command.replicas
        self.cluster[replica].unreachable(other)
        self.cluster.pump(replica)

    def compact(self, command: Command) -> None:
        """``compact 1 5``: the log of 1 is cut up to 5."""
        self.cluster.compact(*command.replicas)

    def stream(self, command: Command) -> None:
        """``stream 1 3 [fails]``: 1 sends its state to 3 as a snapshot."""
        replica, recipient = (int(word) for word in command.words[:2])
        self.cluster.stream(replica, recipient, ok="fails" not in command.words)

    def fetch(self, command: Command) -> None:
        """``fetch 1``: the storage of 1 answers what it was asked for first."""
        replica = command.replicas[0]
        assert self.cluster.nodes[replica].fetches, f"replica {replica} fetches nothing"
        self.cluster.serve_fetch(replica)

    # --- looking --------------------------------------------------------------

    def state(self, command: Command) -> None:
        """``state [1 2]``: a line for each replica."""
        for replica in command.replicas or sorted(self.cluster.nodes):
            self.cluster.note(f"{replica}: {state_text(self.cluster.nodes[replica])}")

    def disk(self, command: Command) -> None:
        """``disk 1``: what is durable, and the saves that are not yet."""
        for replica in command.replicas:
            disk = self.cluster.nodes[replica].disk
            state, waiting = disk.hard_state, [save.sequence for save, _ in disk.pending]
            text = f"{replica}: term={state.term} vote={state.vote}"
            text += f" [{entries_text(disk.entries)}]"
            self.cluster.note(text + (f" waiting={waiting}" if waiting else ""))

    def conf(self, command: Command) -> None:
        """``conf 1 2``: the configuration in force, and whether it is known to be committed."""
        for replica in command.replicas:
            raft = self.cluster[replica]
            known = "" if raft.configuration_committed else " uncommitted"
            self.cluster.note(f"{replica}: {configuration_text(raft.configuration)}{known}")

    def progress(self, command: Command) -> None:
        """``progress 1``: the others as this leader sees them."""
        raft = self.cluster[command.replicas[0]]
        for member in raft.progress.values():
            state = member.state.name.lower()
            self.cluster.note(f"{member.replica}: {state} match={member.match} next={member.next}")
        if not raft.progress:
            self.cluster.note(f"{raft.replica} is a {ROLES[raft.role]} and follows nobody's log")

    def messages(self, command: Command) -> None:
        """``messages``: what is in flight."""
        assert not command.words
        for message in self.cluster.network:
            text = message_text(message)
            self.cluster.note(f"{message.sender} -- {message.recipient} {text}")

    def commands(self, command: Command) -> None:
        """``commands 1 2``: what its state machine has executed."""
        for replica in command.replicas:
            done = " ".join(data.decode() or "''" for data in self.cluster.commands(replica))
            self.cluster.note(f"{replica}: {done or '-'}")

    # --- what must go wrong ---------------------------------------------------

    def broken(self, command: Command) -> None:
        """``broken deliver to=3``: the command must make a replica poison itself."""
        inner = Command(command.line, command.words[0], command.words[1:], command.pairs)
        try:
            COMMANDS[inner.name](self, inner)
        except InvariantBroken as error:
            self.cluster.note(f"broken: {error}")
        else:
            raise AssertionError(f"{inner} broke nothing")


def _fits(message: Message, command: Command) -> bool:
    senders, recipients = command.numbers("from"), command.numbers("to")
    kinds = command.pairs.get("kind", ())
    return (
        (not senders or message.sender in senders)
        and (not recipients or message.recipient in recipients)
        and (not kinds or type(message).__name__ in kinds)
    )


COMMANDS: dict[str, Callable[[Stage, Command], None]] = {
    "broken": Stage.broken,
    "campaign": Stage.campaign,
    "cluster": Stage.new,
    "commands": Stage.commands,
    "compact": Stage.compact,
    "conf": Stage.conf,
    "crash": Stage.crash,
    "cut": Stage.cut,
    "deliver": Stage.deliver,
    "disk": Stage.disk,
    "elect": Stage.elect,
    "fetch": Stage.fetch,
    "heal": Stage.heal,
    "hold": Stage.hold,
    "isolate": Stage.isolate,
    "load": Stage.load,
    "messages": Stage.messages,
    "progress": Stage.progress,
    "propose": Stage.propose,
    "propose-conf": Stage.propose_conf,
    "read": Stage.read,
    "release": Stage.release,
    "restart": Stage.restart,
    "round": Stage.round,
    "settle": Stage.settle,
    "state": Stage.state,
    "step-down": Stage.step_down,
    "stream": Stage.stream,
    "sync": Stage.sync,
    "tick": Stage.tick,
    "timeout-now": Stage.timeout_now,
    "transfer": Stage.transfer,
    "unreachable": Stage.unreachable,
    "wipe": Stage.wipe,
}
