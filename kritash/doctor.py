"""What is wrong with a cluster, why it matters, and the command that mends it. Pure.

``diagnose`` takes what was gathered and returns findings, most urgent first. A rule is
a function of the checkup that yields findings; ``RULES`` lists them. A rule says only
what the documents show: what they do not tell is no finding, and every ``mend`` is a
command as it has to be typed, or "" where only a hand on the machine helps, which then
stands in ``what_to_do``.

Rules about nodes that nobody hears are in ``doctor_absent``, those that look at one node or
at its disk in ``doctor_nodes``, those that look at shards in ``doctor_shards``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from kritash.doctor_absent import dead, silent
from kritash.doctor_nodes import NODE_RULES
from kritash.doctor_shards import SHARD_RULES
from kritash.documents import Cluster
from kritash.finding import Checkup, Finding, Urgency
from kritash.units import count_text

Rule = Callable[[Checkup], Iterator[Finding]]

# What the server says of itself and a rule says better.
_SAID_BY_A_RULE = (
    re.compile(r"node \d+ at .* cannot be reached"),
    re.compile(r"no leader is known for shard"),
    re.compile(r"shard \d+ is damaged (here|on node \d+)"),
    re.compile(r"the disk is below its reserve"),
)


def _paused(checkup: Checkup) -> Iterator[Finding]:
    if not checkup.cluster.paused:
        return
    waiting = len(checkup.cluster.moves) + checkup.cluster.moves_to_come
    why = "a copy that gets lost is not made anew"
    if waiting:
        why = f"{count_text(waiting, 'shard')} should move and cannot; {why}"
    yield Finding(
        Urgency.SOON if waiting or checkup.dead else Urgency.NOTE,
        "moves-paused", "all moves are paused", why, "kritash move resume",
    )  # fmt: skip


def _healing(checkup: Checkup) -> Iterator[Finding]:
    reason = checkup.cluster.healing
    if reason:
        yield Finding(
            Urgency.URGENT,
            "healing-waits",
            f"nobody is declared dead: {reason}",
            "if the silent nodes are gone for good, their copies are not made anew",
            what_to_do="mend the network or start the nodes; a node that is gone for good is "
            "taken out with `kritash node remove N`",
        )


def _too_few_nodes(checkup: Checkup) -> Iterator[Finding]:
    factor = checkup.cluster.replication_factor or 0
    usable = sum(node.usable for node in checkup.cluster.members)
    if 0 < usable < factor:
        yield Finding(
            Urgency.SOON,
            "too-few-nodes",
            f"{usable} of the {factor} nodes that {factor} copies of each key need",
            "there are fewer copies than are wanted, so fewer failures are survived",
            *checkup.joining("kritash node add"),
        )


def _zones(checkup: Checkup) -> Iterator[Finding]:
    factor = checkup.cluster.replication_factor or 0
    usable = [node for node in checkup.cluster.members if node.usable]
    named = {node.zone for node in usable if node.zone}
    if not named:
        return
    nameless = [node for node in usable if not node.zone]
    for node in nameless:
        yield Finding(
            Urgency.NOTE,
            "node-without-zone",
            f"node {node.node} has no zone, others have",
            "the nodes without a zone count as one zone",
            f"kritash node set-zone {node.node} ZONE",
        )
    zones = len(named) + bool(nameless)
    if zones < factor <= len(usable):
        yield Finding(
            Urgency.NOTE,
            "too-few-zones",
            f"{zones} zones for {factor} copies of each key",
            "some zone holds two copies of a key, so losing it costs more than one",
            *checkup.joining("kritash node add --zone ANOTHER"),
        )


def _versions(checkup: Checkup) -> Iterator[Finding]:
    by_version: dict[str, list[int]] = {}
    for node in checkup.cluster.members:
        version = checkup.version_of(node)
        if version:
            by_version.setdefault(version, []).append(node.node)
    if len(by_version) > 1:
        said = "; ".join(
            f"{version}: node {', '.join(map(str, nodes))}"
            for version, nodes in sorted(by_version.items())
        )
        yield Finding(
            Urgency.NOTE,
            "versions-differ",
            f"nodes run different versions ({said})",
            "that is meant for the time of an upgrade, and tested for no longer",
            what_to_do="upgrade the others one by one: SIGTERM, install, start, wait for /readyz",
        )


def _other_problems(checkup: Checkup) -> Iterator[Finding]:
    for problem in checkup.cluster.problems:
        if not any(pattern.match(problem) for pattern in _SAID_BY_A_RULE):
            yield Finding(
                Urgency.SOON, "problem", problem, "the node that was asked reports it",
                what_to_do="see the logs of the nodes",
            )  # fmt: skip


RULES: tuple[Rule, ...] = (
    *SHARD_RULES, dead, silent, *NODE_RULES, _healing, _paused, _too_few_nodes, _zones, _versions,
    _other_problems,
)  # fmt: skip


def diagnose(
    status: object,
    nodes: Mapping[int, object],
    clock_skews_ms: Mapping[int, float] | None = None,
) -> list[Finding]:
    """The findings, most urgent first. ``status``: the cluster_status document; ``nodes``:
    each node's node_status document, of those that answered; ``clock_skews_ms``: by how
    much each node's clock is ahead of the asker's."""
    checkup = Checkup(Cluster.of(status), dict(nodes), dict(clock_skews_ms or {}))
    found = [finding for rule in RULES for finding in rule(checkup)]
    return sorted(found, key=lambda finding: finding.urgency)


def findings_document(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """What ``kritash doctor --json`` prints."""
    return [
        attrs.asdict(finding) | {"urgency": finding.urgency.name.lower()} for finding in findings
    ]
