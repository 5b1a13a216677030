"""The doctor's rules about shards: leaders, majorities, copies, sizes, balance. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from kritash.documents import Shard, get
from kritash.finding import Checkup, Finding, Urgency
from kritash.shares import fair_shares
from kritash.units import count_text, size_text
from kritash.views.moves import move_text

IMBALANCE_MAX = 1.15
LAG_MAX = 50_000  # entries
NAMED_MAX = 9  # shards that one finding names, if it is about many


def _name(shard: Shard) -> str:
    return "the meta shard" if shard.meta else f"shard {shard.shard}"


def _effect(shards: Sequence[Shard]) -> str:
    """Of these shards being without a leader."""
    unchangeable = "nodes and shards cannot be changed"
    if not any(shard.meta for shard in shards):
        keys = "its keys" if len(shards) == 1 else "their keys"
        return f"{keys} can be neither read nor written"
    if len(shards) == 1:
        return f"{unchangeable}; keys are served as before"
    return f"keys of the others can be neither read nor written, {unchangeable}"


def without_majority(checkup: Checkup) -> Iterator[Finding]:
    """Shards that nobody can lead for now. One finding for those that wait for the same
    nodes: they have one cause."""
    by_down: dict[tuple[int, ...], list[Shard]] = {}
    for shard in checkup.cluster.shards:
        if shard.majority_lost:
            by_down.setdefault(tuple(sorted(shard.down)), []).append(shard)
    for down, shards in by_down.items():
        yield Finding(
            Urgency.NOW, "majority-lost", _majority_lost(shards, down), _effect(shards),
            what_to_do=f"{_way_back(checkup, down)}stop the nodes that are left, and "
            "`kritad recover --plan --data_dir DIR` on each of them says what can be saved",
        )  # fmt: skip


def _way_back(checkup: Checkup, down: Sequence[int]) -> str:
    """What is to be known and tried before another recovery."""
    gone = [node for node in down if node in checkup.given_up]
    places = " and ".join(_place(checkup, node) for node in down if node not in gone)
    lost = f"{_nodes(gone)} may not come back, for the cluster was recovered without; "
    start = f"start {places}; if they are gone for good, "
    return (lost if gone else "") + (start if places else "")


def _majority_lost(shards: Sequence[Shard], down: Sequence[int]) -> str:
    if len(shards) == 1:
        replicas = count_text(len(shards[0].replicas), "replica")
        return (
            f"{_name(shards[0])} has lost its majority: {len(down)} of its {replicas} cannot be "
            "reached"
        )
    return f"{_names(shards)} have lost their majority: {_nodes(down)} cannot be reached"


def _nodes(numbers: Sequence[int]) -> str:
    return " and ".join(f"node {number}" for number in numbers)


def _names(shards: Sequence[Shard]) -> str:
    """``9 shards (0, 1, 2, 3, 4, 5, 6, 7, 8)``, the first of them where there are many."""
    shown = len(shards) if len(shards) <= NAMED_MAX else NAMED_MAX - 1
    names = ", ".join(str(shard.shard) for shard in shards[:shown])
    more = f" and {len(shards) - shown} more" if len(shards) > shown else ""
    return f"{count_text(len(shards), 'shard')} ({names}{more})"


def without_leader(checkup: Checkup) -> Iterator[Finding]:
    """Shards that could have a leader, and have none."""
    for shard in checkup.cluster.shards:
        if not shard.leader and not shard.majority_lost:
            yield Finding(
                Urgency.NOW, "no-leader", f"{_name(shard)} has no leader", _effect([shard]),
                what_to_do="an election takes seconds; if it lasts, look at the network between "
                "the nodes and at krita_wal_fsync_seconds",
            )  # fmt: skip


def _place(checkup: Checkup, number: int) -> str:
    node = next((n for n in checkup.cluster.nodes if n.node == number), None)
    if node is None:
        return f"node {number}"
    heir = checkup.heir_of(node)
    if heir is None:
        return f"node {number} ({node.address})"
    return (
        f"node {number} with its old directory, at another address ({node.address} has node "
        f"{heir.node} now)"
    )


def at_the_edge(checkup: Checkup) -> Iterator[Finding]:
    """Shards that answer, and will not if one more of their replicas fails, while
    there were to be enough of them. One finding for all: they have one cause."""
    thin = [
        shard for shard in checkup.cluster.shards
        if shard.leader and len(shard.replicas) >= 3
        and sum(r.up for r in shard.replicas) <= len(shard.replicas) // 2 + 1
        and any(r.lost for r in shard.replicas)
    ]  # fmt: skip
    if thin:
        yield Finding(
            Urgency.URGENT, "no-failure-tolerated",
            f"{_names(thin)} cannot lose another replica",
            "with one more node down they stop answering",
            what_to_do="start the nodes that are down, or let lost copies be made anew",
        )  # fmt: skip


def copies_differ(checkup: Checkup) -> Iterator[Finding]:
    """Replicas that have applied the same and are not the same."""
    for shard in checkup.cluster.shards:
        by_index: dict[int, dict[str, list[int]]] = {}
        for replica in shard.replicas:
            if replica.applied is not None and replica.state_hash:
                hashes = by_index.setdefault(replica.applied, {})
                hashes.setdefault(replica.state_hash, []).append(replica.node)
        for index, hashes in sorted(by_index.items()):
            if len(hashes) > 1:
                nodes = sorted(node for found in hashes.values() for node in found)
                yield Finding(
                    Urgency.NOW, "copies-differ",
                    f"{_name(shard)}: the copies on nodes {', '.join(map(str, nodes))} differ at "
                    f"index {index}",
                    "one of them is wrong, and answers from it are",
                    "kritash move pause",
                    "keep all data directories, and report it: this is a bug of Krita or a "
                    "damaged memory",
                )  # fmt: skip


def damaged(checkup: Checkup) -> Iterator[Finding]:
    """Replicas that found a checksum wrong, or have stopped themselves."""
    for node in sorted(checkup.documents):
        found = get(checkup.documents[node], "damaged")
        broken = get(checkup.documents[node], "broken")
        kept = [str(shard) for shard in broken] if isinstance(broken, list) else []
        for shard, why in sorted(found.items()) if isinstance(found, dict) else ():
            command, what_to_do = _mended(checkup, str(shard), node)
            if shard in kept:
                command, what_to_do = f"kritash node replace {node} NEW", _STOPPED_ITSELF
            yield Finding(
                Urgency.URGENT, "replica-damaged",
                f"the copy of shard {shard} on node {node} is damaged: {why}",
                "it has no vote any more, so the shard survives one failure fewer",
                command, what_to_do,
            )  # fmt: skip


_STOPPED_ITSELF = (
    "it is not made anew by itself, because it may be the copy that is right: keep the data "
    "directories of all nodes and report it, as a bug of Krita; starting the node again may help"
)


def _mended(checkup: Checkup, number: str, node: int) -> tuple[str, str]:
    """The command, and what is to be done, about a damaged copy: most of them are made anew
    without anybody."""
    shard = next((s for s in checkup.cluster.shards if str(s.shard) == number), None)
    if shard is None:
        return f"kritash node replace {node} NEW", "nothing is known of that shard"
    move = next((move for move in checkup.cluster.moves if move.shard == shard.shard), None)
    if checkup.cluster.paused:
        return "kritash move resume", "it is made anew when moves go on"
    if shard.held:
        return f"kritash move resume {number}", "it is made anew when the shard's moves go on"
    if move is not None:
        return f"kritash shard show {number}", f"nothing: {move_text(move)}"
    if 2 * sum(replica.up for replica in shard.replicas) > len(shard.replicas):
        return f"kritash shard show {number}", "nothing: it is about to be made anew"
    return "", "start the nodes that are down: it is made anew when most of its copies answer"


def suspect_disks(checkup: Checkup) -> Iterator[Finding]:
    """Nodes whose damaged replicas were made anew: the reason may be there still."""
    for node in sorted(checkup.documents):
        found = get(checkup.documents[node], "remade")
        times = [n for n in found.values() if isinstance(n, int)] if isinstance(found, dict) else []
        if any(times):
            yield Finding(
                Urgency.SOON, "disk-suspect",
                f"node {node} has had {count_text(sum(times), 'damaged copy')} "
                "since it was started; they are made anew",
                "a disk or a memory that flipped one bit will flip another",
                f"kritash node replace {node} NEW",
                "look at the disk first; to say that it is sound, start the node again",
            )  # fmt: skip


def behind(checkup: Checkup) -> Iterator[Finding]:
    """Replicas that are far behind their leaders."""
    for shard in checkup.cluster.shards:
        for replica in shard.replicas:
            if replica.role == "voter" and (replica.lag or 0) > LAG_MAX:
                yield Finding(
                    Urgency.SOON, "replica-behind",
                    f"{_name(shard)}: node {replica.node} is {replica.lag:,} entries behind",
                    "it does not help when another fails, until it has caught up",
                    what_to_do=f"see the load, disk and network of node {replica.node}",
                )  # fmt: skip


def held(checkup: Checkup) -> Iterator[Finding]:
    """Shards whose moves people have stopped."""
    if checkup.cluster.paused:
        return  # then all of them are, and that is said once
    for shard in checkup.cluster.data_shards:
        if shard.held:
            yield Finding(
                Urgency.SOON if shard.in_motion else Urgency.NOTE, "shard-held",
                f"the moves of shard {shard.shard} are held"
                + (", one of them half way" if shard.in_motion else ""),
                "a copy of it that gets lost is not made anew",
                f"kritash move resume {shard.shard}",
            )  # fmt: skip


def too_large(checkup: Checkup) -> Iterator[Finding]:
    """Shards over the size at which they are split; 0 is no limit."""
    limit = checkup.cluster.shard_bytes_max
    for shard in checkup.cluster.data_shards:
        if limit and (shard.bytes or 0) > limit and not shard.splitting:
            yield Finding(
                Urgency.SOON, "shard-too-large",
                f"shard {shard.shard} holds {size_text(shard.bytes)}, the limit is "
                f"{size_text(limit)}",
                "a large shard takes long to copy, and weighs on one leader",
                f"kritash shard split {shard.shard}",
            )  # fmt: skip


def unbalanced(checkup: Checkup) -> Iterator[Finding]:
    """Nodes with more than their share of the replicas, when nothing moves any more."""
    usable = [n for n in checkup.cluster.members if n.usable]
    if not checkup.cluster.at_rest or checkup.cluster.paused:
        return
    counts = {node.node: checkup.cluster.copies_on(node.node) for node in usable}
    shards = len(checkup.cluster.data_shards)
    for number, fair in fair_shares(usable, shards, sum(counts.values())).items():
        has = counts[number]
        # Replicas are whole: what the next whole number explains is no imbalance.
        if fair and has > math.ceil(fair) and has / fair > IMBALANCE_MAX:
            yield Finding(
                Urgency.NOTE, "unbalanced",
                f"node {number} holds {has} replicas, its share is {fair:.1f}",
                "it works and stores more than the others do",
                f"kritash shard move SHARD {number} TO",
            )  # fmt: skip


def stuck(checkup: Checkup) -> Iterator[Finding]:
    """Moves that say why they wait."""
    for move in checkup.cluster.moves:
        if move.reason and not move.held and not checkup.cluster.paused:
            yield Finding(
                Urgency.NOTE, "move-waits", f"the move of shard {move.shard} waits: {move.reason}",
                "until then the shard is not where it is wanted",
                f"kritash shard show {move.shard}",
            )  # fmt: skip


SHARD_RULES = (
    without_majority, without_leader, copies_differ, damaged, at_the_edge, suspect_disks, behind,
    too_large, held, unbalanced, stuck,
)  # fmt: skip
