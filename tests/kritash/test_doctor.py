"""What the doctor finds, by table: a healthy cluster, and one thing made wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kritash.commands import COMMANDS, COMMON_OPTIONS
from kritash.doctor import diagnose, findings_document
from kritash.documents import Node
from kritash.finding import Finding, Urgency
from kritash.parser import parse
from kritash.shares import fair_shares
from kritash.words import split
from tests.kritash import samples
from tests.kritash.samples import MIB, Document, node, replica

Change = Callable[[Document], None]


def both(*changes: Change) -> Change:
    """One thing wrong and another."""

    def change(status: Document) -> None:
        for each in changes:
            each(status)

    return change


def found(change: Change, nodes: int = 3, shards: int = 4, **said: object) -> list[Finding]:
    """``said``: what each node says of itself beyond what a healthy one does."""
    status = samples.status(nodes, shards)
    change(status)
    documents = {row["node"]: samples.node_status(**said) for row in status["nodes"]}
    return diagnose(status, documents)


def one(code: str, findings: list[Finding]) -> Finding:
    """The only one of that code."""
    (finding,) = [finding for finding in findings if finding.code == code]
    return finding


def silence(status: Document, number: int, **different: object) -> None:
    """A node that nobody hears."""
    status["nodes"][number - 1] |= {"reachable": False} | different
    for shard in status["shards"]:
        shard["replicas"] = [
            replica(r["node"], "unreachable") if r["node"] == number else r
            for r in shard["replicas"]
        ]
        if shard["leader"] == number:
            shard["leader"] = next(r["node"] for r in shard["replicas"] if r["node"] != number)


def lose_majority(status: Document) -> None:
    for number in (2, 3):
        silence(status, number)
    status["shards"][1]["leader"] = 0


def drain(status: Document, **different: object) -> None:
    status["nodes"][2] |= {"state": "draining"} | different


def empty(status: Document, number: int) -> None:
    """Nothing is wanted on the node any more."""
    for shard in status["shards"]:
        shard["replicas"] = [r for r in shard["replicas"] if r["node"] != number]


def kill(status: Document) -> None:
    silence(status, 3, dead=True)


def set_zones(status: Document, *zones: str) -> None:
    for row, zone in zip(status["nodes"], zones, strict=True):
        row["zone"] = zone


def unbalance(status: Document) -> None:
    """Node 4 of 4 holds nothing."""
    for shard in status["shards"]:
        shard["replicas"] = [replica(n) for n in (1, 2, 3)]
    status["replication_factor"] = 3


TABLE: list[tuple[str, Change, str, Urgency, str]] = [
    # what is wrong, code, urgency, the command
    ("a shard has no leader", lambda s: s["shards"][2].update(leader=0),
     "no-leader", Urgency.NOW, ""),
    ("a majority is down", lose_majority, "majority-lost", Urgency.NOW, ""),
    ("copies differ", lambda s: s["shards"][1]["replicas"][1].update(state_hash="cd"),
     "copies-differ", Urgency.NOW, "kritash move pause"),
    ("a node is silent", lambda s: silence(s, 2, dead_in_s=200.0),
     "node-silent", Urgency.URGENT, ""),
    ("one node more would be too many", lambda s: silence(s, 2),
     "no-failure-tolerated", Urgency.URGENT, ""),
    ("a node is dead", kill, "node-dead", Urgency.URGENT, "kritash node remove 3"),
    ("a dead node is healed", both(kill, lambda s: empty(s, 3)),
     "node-dead", Urgency.SOON, "kritash node remove 3"),
    ("nobody is declared dead", lambda s: s.update(healing="2 of 5 nodes look dead"),
     "healing-waits", Urgency.URGENT, ""),
    ("moves are paused", lambda s: s.update(paused=True),
     "moves-paused", Urgency.NOTE, "kritash move resume"),
    ("paused, and something waits", lambda s: s.update(paused=True, moves_to_come=2),
     "moves-paused", Urgency.SOON, "kritash move resume"),
    ("a shard is held", lambda s: s["shards"][2].update(held=True),
     "shard-held", Urgency.NOTE, "kritash move resume 2"),
    ("a shard is held half way", lambda s: s["shards"][2].update(held=True, in_motion=True),
     "shard-held", Urgency.SOON, "kritash move resume 2"),
    ("a shard is too large", lambda s: s["shards"][3].update(bytes=2 << 30),
     "shard-too-large", Urgency.SOON, "kritash shard split 3"),
    ("a replica is far behind", lambda s: s["shards"][1]["replicas"][1].update(lag=70_000),
     "replica-behind", Urgency.SOON, ""),
    ("a node is drained", both(lambda s: drain(s, drained=True), lambda s: empty(s, 3)),
     "node-drained", Urgency.NOTE, "kritash node remove 3"),
    ("a drain stands still", drain, "drain-stands-still", Urgency.SOON, "kritash node add"),
    ("there are too few nodes", lambda s: s.update(replication_factor=5),
     "too-few-nodes", Urgency.SOON, "kritash node add"),
    ("there are too few zones", lambda s: set_zones(s, "a", "b", "b"),
     "too-few-zones", Urgency.NOTE, "kritash node add --zone ANOTHER"),
    ("a node has no zone", lambda s: set_zones(s, "a", "b", ""),
     "node-without-zone", Urgency.NOTE, "kritash node set-zone 3 ZONE"),
    ("versions differ", lambda s: s["nodes"][0].update(version="0.2.0"),
     "versions-differ", Urgency.NOTE, ""),
    ("a move waits", lambda s: s["moves"].append(samples.move(1, 1, 3, reason="no answer")),
     "move-waits", Urgency.NOTE, "kritash shard show 1"),
    ("the server knows of something", lambda s: s["problems"].append("the moon is full"),
     "problem", Urgency.SOON, ""),
]  # fmt: skip


@pytest.mark.parametrize(("change", "code", "urgency", "mend"), [
    pytest.param(*row[1:], id=row[0]) for row in TABLE
])  # fmt: skip
def test_what_is_wrong_is_found_with_the_command_that_mends_it(
    change: Change, code: str, urgency: Urgency, mend: str
) -> None:
    matching = [finding for finding in found(change) if finding.code == code]
    assert [(finding.urgency, finding.mend) for finding in matching[:1]] == [(urgency, mend)]
    assert all(finding.what and finding.why for finding in matching)
    assert mend or all(finding.what_to_do for finding in matching)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert found(lambda _: None) == []
    assert found(lambda _: None, nodes=4, shards=8) == []


def test_every_command_that_the_doctor_names_is_one() -> None:
    fitting = {"ZONE": "a", "ANOTHER": "b", "NEW": "4", "SHARD": "1", "TO": "2"}
    mends = {finding.mend for row in TABLE for finding in found(row[1])} - {""}
    mends.add(damage_found()[0].mend)
    mends.add(next(f.mend for f in found(unbalance, nodes=4) if f.code == "unbalanced"))
    for mend in mends:
        words = [fitting.get(word, word) for word in mend.split()]
        assert words[0] == "kritash"
        parse(split(" ".join(words[1:])), COMMANDS, COMMON_OPTIONS)


def test_the_most_urgent_comes_first() -> None:
    def change(status: Document) -> None:
        status["paused"] = True
        kill(status)
        status["shards"][1]["leader"] = 0

    urgencies = [finding.urgency for finding in found(change)]
    assert urgencies == sorted(urgencies)
    assert urgencies[0] is Urgency.NOW


def test_a_silent_node_s_countdown_is_told() -> None:
    findings = found(lambda s: silence(s, 2, dead_in_s=200.0))
    assert "declared dead in 3 min 20 s" in next(
        f.what for f in findings if f.code == "node-silent"
    )


def leave(status: Document, number: int) -> None:
    status["nodes"][number - 1]["state"] = "removing"


def take_over(status: Document) -> None:
    """Node 3 was wiped, and has joined again, as node 4."""
    silence(status, 3)
    status["nodes"].append(node(4, address="10.0.0.3:8080", replicas=1, bytes=0))


@pytest.mark.parametrize("gone", [silence, lambda s, n: silence(s, n, dead=True)])
@pytest.mark.parametrize(
    ("change", "said", "mend", "advice"),
    [
        (lambda s: leave(s, 3), {}, "", "nothing: it is being removed"),
        (lambda _: None, {"given_up": [3]}, "kritash node remove 3", "it may not come back"),
        (take_over, {}, "kritash node remove 3", "node 4 is at its address now"),
    ],
)
def test_a_node_that_cannot_come_back_is_not_to_be_started(
    gone: Callable[[Document, int], None], change: Change, said: Document, mend: str, advice: str
) -> None:
    findings = found(both(lambda s: gone(s, 3), change), **said)
    (finding,) = [f for f in findings if f.code in ("node-silent", "node-dead")]
    assert finding.mend == mend or finding.mend == "kritash node replace 3 4"
    assert finding.what_to_do.startswith(advice)
    assert "its old command" not in finding.what_to_do


def test_nobody_is_to_be_removed_while_the_meta_shard_takes_no_changes() -> None:
    def change(status: Document) -> None:
        silence(status, 2)
        silence(status, 3, dead=True)
        for shard in status["shards"]:
            shard["leader"] = 0

    findings = found(change)
    assert {f.code for f in findings} >= {"majority-lost", "node-silent", "node-dead"}
    assert not any("node re" in f.mend + f.what_to_do for f in findings)
    silent = one("node-silent", findings)
    assert "cannot be removed while the meta shard has no leader" in silent.what_to_do
    assert "survive" not in silent.why
    lost = one("majority-lost", findings)
    assert lost.what == (
        "5 shards (0, 1, 2, 3, 4) have lost their majority: node 2 and node 3 cannot be reached"
    )
    assert "--data_dir" in lost.what_to_do


def test_shards_that_wait_for_the_same_nodes_are_one_finding() -> None:
    def change(status: Document) -> None:
        for shard, *down in ((1, 2, 3), (2, 2, 3), (3, 1, 3)):
            status["shards"][shard]["leader"] = 0
            for row in status["shards"][shard]["replicas"]:
                if row["node"] in down:
                    row.update(replica(row["node"], "unreachable"))

    lost = [f for f in found(change) if f.code == "majority-lost"]
    assert [f.what for f in lost] == [
        "2 shards (1, 2) have lost their majority: node 2 and node 3 cannot be reached",
        "shard 3 has lost its majority: 2 of its 3 replicas cannot be reached",
    ]


def test_a_lost_majority_does_not_ask_for_a_node_whose_address_is_taken() -> None:
    def change(status: Document) -> None:
        lose_majority(status)
        status["nodes"].append(node(4, address="10.0.0.3:8080", replicas=0))

    what_to_do = one("majority-lost", found(change)).what_to_do
    assert "start node 2 (10.0.0.2:8080) and node 3 with its old directory" in what_to_do


def test_a_lost_majority_does_not_ask_for_nodes_that_a_recovery_has_given_up() -> None:
    what_to_do = one("majority-lost", found(lose_majority, given_up=[2])).what_to_do
    assert what_to_do.startswith(
        "node 2 may not come back, for the cluster was recovered without; start node 3"
    )
    what_to_do = one("majority-lost", found(lose_majority, given_up=[2, 3])).what_to_do
    assert "node 2 and node 3 may not come back" in what_to_do
    assert "start" not in what_to_do


@pytest.mark.parametrize(
    ("shards", "names"),
    [(8, "0, 1, 2, 3, 4, 5, 6, 7, 8"), (16, "0, 1, 2, 3, 4, 5, 6, 7 and 9 more")],
)
def test_of_many_shards_the_first_are_named_and_never_all_but_one(shards: int, names: str) -> None:
    finding = one("no-failure-tolerated", found(lambda s: silence(s, 2), shards=shards))
    assert f"{shards + 1} shards ({names})" in finding.what


def test_a_full_disk_of_a_node_that_must_lead_does_not_say_that_it_leads_nothing() -> None:
    def lead(status: Document) -> None:
        for shard in status["shards"]:
            shard["leader"] = 1

    full = [f for f in found(lead, disk_low=True) if f.code == "disk-full"]
    assert [f.why for f in full] == [
        "the 4 shards that it leads take no writes but deletes",
        *["it leads no shard, and takes no writes but deletes"] * 2,
    ]


def test_an_empty_node_is_offered_in_place_of_a_dead_one() -> None:
    def change(status: Document) -> None:
        kill(status)
        status["nodes"].append(node(4, replicas=1, bytes=0))

    mend = next(f.mend for f in found(change) if f.code == "node-dead")
    assert mend == "kritash node replace 3 4"


def test_all_shards_held_by_a_pause_are_one_finding() -> None:
    def change(status: Document) -> None:
        status["paused"] = True
        for shard in status["shards"][1:]:
            shard["held"] = True

    assert [finding.code for finding in found(change)] == ["moves-paused"]


def test_what_the_server_says_too_is_not_said_twice() -> None:
    def change(status: Document) -> None:
        silence(status, 2)
        status["problems"] = ["node 2 at 10.0.0.2:8080 cannot be reached"]

    assert "problem" not in [finding.code for finding in found(change)]


def damage_found() -> list[Finding]:
    documents = {2: samples.node_status(damaged={"3": "a row's checksum is wrong"})}
    return diagnose(samples.status(), documents)


def test_a_damaged_copy_is_found_in_its_node_s_document() -> None:
    (finding,) = damage_found()
    assert finding.code == "replica-damaged"
    assert "shard 3 on node 2 is damaged: a row's checksum is wrong" in finding.what


@pytest.mark.parametrize(("change", "mend", "what_to_do"), [
    (lambda _: None, "kritash shard show 3", "about to be made anew"),
    (lambda s: s["moves"].append(samples.move(3, 2, 2)), "kritash shard show 3",
     "nothing: shard 3: copying anew on 2, 40.0 % of 10.0 MiB, 3 s left"),
    (lambda s: s.update(paused=True), "kritash move resume", "when moves go on"),
    (lambda s: s["shards"][3].update(held=True), "kritash move resume 3", "moves go on"),
    (lambda s: s["shards"][3].update(replicas=[replica(1), replica(2, "damaged")]), "",
     "start the nodes that are down"),
])  # fmt: skip
def test_what_becomes_of_a_damaged_copy_is_told(change: Change, mend: str, what_to_do: str) -> None:
    status = samples.status()
    change(status)
    documents = {2: samples.node_status(damaged={"3": "a row's checksum is wrong"})}
    findings = diagnose(status, documents)
    (finding,) = [finding for finding in findings if finding.code == "replica-damaged"]
    assert finding.mend == mend
    assert what_to_do in finding.what_to_do


def test_no_node_is_to_join_while_nobody_can_let_it_in() -> None:
    status = samples.status()
    status["replication_factor"] = 5
    status["shards"][0]["leader"] = 0
    (finding,) = [f for f in diagnose(status, {}) if f.code == "too-few-nodes"]
    assert finding.mend == ""
    assert "before the meta shard has a leader" in finding.what_to_do


def test_a_copy_that_has_stopped_itself_is_kept_and_reported() -> None:
    told = {"damaged": {"3": "it has stopped itself: 2 and 3 both lead term 1"}, "broken": [3]}
    (finding,) = diagnose(samples.status(), {2: samples.node_status(**told)})
    assert finding.code == "replica-damaged"
    assert "not made anew by itself" in finding.what_to_do
    assert finding.mend == "kritash node replace 2 NEW"


def test_a_node_s_copy_of_the_meta_shard_is_made_anew_like_any_other() -> None:
    documents = {2: samples.node_status(damaged={"0": "a row's checksum is wrong"})}
    (finding,) = diagnose(samples.status(), documents)
    assert finding.mend == "kritash shard show 0"


def test_a_disk_that_has_lost_copies_is_suspect_though_they_were_made_anew() -> None:
    documents = {2: samples.node_status(remade={"3": 1, "1": 2})}
    (finding,) = diagnose(samples.status(), documents)
    assert (finding.code, finding.urgency) == ("disk-suspect", Urgency.SOON)
    assert "node 2 has had 3 damaged copies" in finding.what
    assert finding.mend == "kritash node replace 2 NEW"


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (samples.node_status(disk_free_bytes=10 * MIB, disk_low=True), "disk-full"),
        (samples.node_status(disk_free_bytes=100 * MIB), "disk-low"),
    ],
)
def test_a_disk_that_is_or_will_be_full_is_found(document: Document, code: str) -> None:
    (finding,) = diagnose(samples.status(), {2: document})
    assert finding.code == code


@pytest.mark.parametrize(
    ("skews_ms", "named"),
    [
        ({1: 0.0, 2: 3.0, 3: -5000.0}, "node 3 is 5.0 s behind"),
        ({1: 0.0, 2: 3.0, 3: 9000.0}, "node 3 is 9.0 s ahead of"),
        # The asker's own clock is the wrong one: nobody of the cluster is to blame.
        ({1: 60_000.0, 2: 60_010.0, 3: 60_020.0}, ""),
        ({1: 60_000.0}, ""),
    ],
)
def test_a_clock_that_is_apart_from_the_others_is_found(
    skews_ms: dict[int, float], named: str
) -> None:
    whats = [finding.what for finding in diagnose(samples.status(), {}, skews_ms)]
    assert len(whats) == bool(named)
    assert all(named in what for what in whats)


def test_imbalance_is_what_whole_replicas_and_moves_do_not_explain() -> None:
    assert [f.code for f in found(unbalance, nodes=4)] == ["unbalanced"] * 3
    moving = found(both(unbalance, lambda s: s.update(moves_to_come=1)), nodes=4)
    assert moving == []


@pytest.mark.parametrize(
    ("nodes", "shares"),
    [
        ([("", 1), ("", 1), ("", 1), ("", 1)], [6, 6, 6, 6]),
        ([("", 1), ("", 1), ("", 1), ("", 3)], [16 / 3, 16 / 3, 16 / 3, 8]),
        ([("a", 1), ("b", 1), ("c", 1), ("c", 1)], [8, 8, 4, 4]),
        ([("a", 1), ("b", 1), ("c", 1), ("c", 3)], [8, 8, 2, 6]),
        ([("", 1), ("", 1)], [8, 8]),
        ([], []),
    ],
)
def test_a_fair_share_goes_by_weight_and_by_what_zones_and_shards_allow(
    nodes: list[tuple[str, int]], shares: list[float]
) -> None:
    rows = [node(at, zone=zone, weight=weight) for at, (zone, weight) in enumerate(nodes, 1)]
    fair = fair_shares([Node.of(row) for row in rows], 8, 24)
    assert [fair[at] for at in range(1, len(nodes) + 1)] == pytest.approx(shares)


@pytest.mark.parametrize("status", [None, 3, [], {}, {"nodes": 3, "shards": [None, {}]}])
def test_documents_in_an_unknown_shape_break_nothing(status: object) -> None:
    diagnose(status, {1: None, 2: {"damaged": 3, "disk_free_bytes": "x"}}, {})


def test_json_names_the_urgency() -> None:
    (row,) = findings_document(damage_found())
    assert row["urgency"] == "urgent"
    assert set(row) == {"urgency", "code", "what", "why", "mend", "what_to_do"}
