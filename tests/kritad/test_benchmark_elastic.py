"""The benchmark of elasticity: its clients keep their rate and note what they wait for,
and it reads a cluster's documents correctly. No test here is timed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import cluster_status, elastic
from benchmarks.elastic_report import MIB, Heal, Join, Result, Round, Split, figure
from benchmarks.krita_cluster import KritaCluster, key_of, metric
from benchmarks.processes import BenchmarkError
from benchmarks.steady_load import LoadProcess, Loop, Recording, Slice, mixed
from krita.operations import Op
from tests.kritash.server import Cluster

Finish = Callable[[bool], None]


# -- Clients at a fixed rate


class Desk:
    """Takes requests, and finishes them when the test says so; a clock that it turns."""

    def __init__(self, rate_per_s: float, in_flight_max: int) -> None:
        self.now_s = 100.0
        self.open: list[Finish] = []
        self.fails_at_once = False
        self.loop = Loop(self.submit, lambda: self.now_s, rate_per_s, in_flight_max, 100.0)

    def submit(self, finished: Finish) -> None:
        if self.fails_at_once:
            finished(True)
        else:
            self.open.append(finished)

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        self.loop.pump()

    def answer(self, count: int) -> None:
        for finished in self.open[:count]:
            finished(False)
        del self.open[:count]


def test_requests_go_out_when_they_are_due_answered_or_not() -> None:
    desk = Desk(rate_per_s=10, in_flight_max=100)
    desk.loop.pump()
    assert len(desk.open) == 1, "the first is due at once"
    desk.advance(0.05)
    assert len(desk.open) == 1
    desk.advance(0.95)
    assert len(desk.open) == 11


def test_a_pause_is_seen_by_all_who_would_have_come_meanwhile() -> None:
    desk = Desk(rate_per_s=8, in_flight_max=2)
    for _ in range(4):
        desk.advance(0.125)
    assert len(desk.open) == 2, "no more than there are places"
    desk.now_s += 0.5  # until 101.0, and all who were due are answered then
    while desk.open:
        desk.answer(2)
        desk.loop.pump()
    recording = desk.loop.recording
    assert list(recording.due_s) == [100 + n / 8 for n in range(9)]
    assert list(recording.took_s) == [1 - n / 8 for n in range(9)]


def test_a_closed_loop_fills_every_place_that_is_free() -> None:
    desk = Desk(rate_per_s=0, in_flight_max=3)
    desk.loop.pump()
    assert len(desk.open) == 3
    desk.now_s += 1
    desk.answer(2)
    desk.loop.pump()
    assert len(desk.open) == 3
    assert list(desk.loop.recording.took_s) == [1.0, 1.0]


@pytest.mark.parametrize("rate_per_s", [0.0, 1e9])
def test_what_fails_at_once_does_not_keep_the_loop_busy_for_ever(rate_per_s: float) -> None:
    desk = Desk(rate_per_s, in_flight_max=4)
    desk.fails_at_once = True
    desk.advance(1.0)
    assert desk.loop.outstanding == 0
    assert list(desk.loop.recording.failed) == [True] * 4


def test_half_of_the_requests_are_puts_and_every_key_is_asked_for() -> None:
    asked = list(islice(mixed(10, 64, seed=3), 1000))
    assert {request.key for request in asked} == {key_of(n) for n in range(10)}
    puts = [request for request in asked if request.op == Op.PUT]
    assert 400 < len(puts) < 600
    assert {len(bytes(request.fields[1])) for request in puts} == {64}  # type: ignore[call-overload]
    assert len({request.op for request in asked}) == 2


def test_clients_note_every_request_and_end_when_told(tmp_path: Path) -> None:
    with Cluster(2) as cluster:
        options = ("--rate=500", "--keys=10", "--value-bytes=16", "--seconds=0.5")
        addresses = cluster.addresses.split(",")
        limited = LoadProcess.start(tmp_path, "limited", addresses, *options)
        recording = limited.finish(30.0)
        start_s, end_s = recording.span()
        assert len(recording.due_s) >= 100
        assert end_s - start_s < 0.6
        assert not any(recording.failed)
        endless = LoadProcess.start(tmp_path, "endless", addresses, *options[:-1])
        before = cluster.requests
        while cluster.requests < before + 10:
            assert endless.process.running, endless.process.last_words()
        assert endless.stop().due_s


def test_clients_that_die_leave_their_last_words_and_no_figures(tmp_path: Path) -> None:
    load = LoadProcess.start(tmp_path, "wrong", ["nowhere:1"], "--rate=none")
    with pytest.raises(BenchmarkError, match="invalid float value"):
        load.finish(30.0)


# -- What they noted


def recorded(*rows: tuple[float, float, bool]) -> Recording:
    recording = Recording()
    for row in rows:
        recording.add(*row)
    return recording


def test_latencies_are_of_what_was_due_and_throughput_of_what_was_answered() -> None:
    recording = recorded(
        (9.0, 1.0, False),  # due before, answered within
        (9.5, 1.0, False),
        (10.0, 0.25, False),
        (10.5, 2.0, False),  # due within, answered behind
        (11.0, 4.0, True),  # failed, but somebody waited for it
        (12.0, 9.0, False),  # due behind
    )
    found = recording.measure(10.0, 12.0)
    assert found == Slice(
        seconds=2.0, due=3, throughput_per_s=1.5, p50_ms=250.0, p99_ms=2000.0,
        longest_ms=4000.0, errors=1,
    )  # fmt: skip
    assert recording.span() == (9.0, 12.0)


def test_a_span_in_which_nothing_succeeded_is_no_figure() -> None:
    with pytest.raises(BenchmarkError, match="of 1 requests in 2"):
        recorded((1.0, 0.1, True), (5.0, 0.1, False)).measure(0.0, 2.0)


def test_each_second_is_told_by_itself_also_one_without_requests() -> None:
    recording = recorded((1.0, 0.5, False), (1.9, 0.25, True), (3.0, 0.125, False))
    assert recording.by_second(1.0, 3.5) == [(2, 500.0, 500.0), (0, 0.0, 0.0), (1, 125.0, 125.0)]


def test_a_recording_outlives_its_process(tmp_path: Path) -> None:
    path = tmp_path / "load"
    recorded((1.5, 0.25, False), (2.5, 0.5, True)).save(path)
    found = Recording.load(path)
    assert (list(found.due_s), list(found.took_s), bytes(found.failed)) == (
        [1.5, 2.5], [0.25, 0.5], b"\x00\x01",
    )  # fmt: skip
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BenchmarkError, match="no recording"):
        Recording.load(path)


# -- What a status says


def shard_row(number: int, *nodes: int, roles: str = "lvv", **other: object) -> dict[str, object]:
    role = {"l": "leader", "v": "voter", "n": "learner", "u": "unreachable"}
    replicas = [{"node": n, "role": role[r]} for n, r in zip(nodes, roles, strict=True)]
    row = {"shard": number, "leader": nodes[0], "replicas": replicas, "bytes": 10 * number}
    return {**row, "in_motion": False, "held": False, "splitting": False, **other}


def status(*shards: dict[str, object], nodes: int = 4, **other: object) -> dict[str, object]:
    rows = [
        {"node": n, "reachable": True, "leaders": 1, "dead": False} for n in range(1, nodes + 1)
    ]
    meta = shard_row(0, 1, 2, 3, bytes=None)
    document = {"health": "healthy", "problems": [], "replication_factor": 3, "nodes": rows}
    return {**document, "healing": "", "shards": [meta, *shards], **other}


EVEN = (
    shard_row(1, 1, 2, 3), shard_row(2, 2, 3, 4), shard_row(3, 3, 4, 1), shard_row(4, 4, 1, 2),
)  # fmt: skip


def test_a_join_ends_when_every_node_has_its_share_and_nothing_moves() -> None:
    assert cluster_status.is_even(status(*EVEN), 4)
    assert cluster_status.copies(status(*EVEN)) == {1: 3, 2: 3, 3: 3, 4: 3}
    begun = shard_row(4, 4, 1, 2, roles="nlv", leader=1)
    assert not cluster_status.is_even(status(*EVEN[:3], begun), 4), "a copy is being made"
    leaving = shard_row(4, 4, 1, 2, in_motion=True)
    assert not cluster_status.is_even(status(*EVEN[:3], leaving), 4), "one has not been given up"
    uneven = (shard_row(1, 1, 2, 3), shard_row(2, 1, 2, 3), *EVEN[:2])
    assert not cluster_status.is_even(status(*uneven), 4), "4 copies at node 2, 1 at node 4"
    assert not cluster_status.is_even(status(*EVEN), 5), "the fifth is not there yet"


def test_a_node_is_healed_when_the_others_have_all_its_copies() -> None:
    healed = status(shard_row(1, 1, 2, 3), shard_row(2, 2, 3, 1))
    assert cluster_status.is_whole(healed, [1, 2, 3])
    for bad in (
        shard_row(2, 2, 3, 4),  # node 4 still has its copy
        shard_row(2, 2, 3, 1, roles="lvn"),
        shard_row(2, 2, 3, 1, roles="lvu"),
        shard_row(2, 2, 3, roles="lv"),
        shard_row(2, 2, 3, 1, leader=0),
        shard_row(2, 2, 3, 1, splitting=True),
    ):
        assert not cluster_status.is_whole(status(shard_row(1, 1, 2, 3), bad), [1, 2, 3]), bad


def test_a_split_ends_when_both_halves_have_a_leader() -> None:
    assert not cluster_status.is_split(status(shard_row(1, 1, 2, 3, splitting=True)), (1, 2))
    assert not cluster_status.is_split(
        status(shard_row(1, 1, 2, 3), shard_row(2, 1, 2, 3, leader=0)), (1, 2)
    )
    assert cluster_status.is_split(status(shard_row(1, 1, 2, 3), shard_row(2, 1, 2, 3)), (1, 2))


def test_sizes_are_of_one_copy_and_never_guessed() -> None:
    document = status(*EVEN)
    assert cluster_status.biggest(document)["shard"] == 4
    assert cluster_status.data_bytes(document) == 100
    assert cluster_status.bytes_on(document, 4) == 20 + 30 + 40
    unknown = status(*EVEN[:3], shard_row(4, 4, 1, 2, bytes=None))
    with pytest.raises(BenchmarkError, match="how large shard 4 is"):
        cluster_status.data_bytes(unknown)


def test_who_waits_in_vain_is_told_what_the_cluster_says() -> None:
    stuck = shard_row(2, 2, 3, 4, roles="lvn", in_motion=True, held=True)
    text = cluster_status.reasons(
        status(EVEN[0], stuck, problems=["node 4 cannot be reached"], healing="too many are dead")
    )
    assert text.splitlines() == [
        "  node 4 cannot be reached",
        "  too many are dead",
        "  shard 2 in_motion held: leader at node 2, voter at node 3, learner at node 4",
    ]
    assert cluster_status.reasons({}) == "", "it may never have answered"


def test_a_death_is_told_by_the_nodes_row() -> None:
    document = status(*EVEN)
    assert not cluster_status.is_dead(document, 4)
    document["nodes"][3]["dead"] = True  # type: ignore[index]
    assert cluster_status.is_dead(document, 4)
    assert not cluster_status.is_dead(document, 3)


def test_a_metric_is_summed_over_its_labels_and_no_other_is_taken_for_it() -> None:
    text = '# TYPE sent counter\nsent 4\nsent_more 8\nby{shard="1"} 1\nby{shard="2"} 2.5\n'
    assert metric(text, "sent") == 4
    assert metric(text, "by") == 3.5
    with pytest.raises(BenchmarkError, match="sen"):
        metric(text, "sen")


# -- What is done


def test_what_is_filled_in_adds_up() -> None:
    keys, pieces = elastic.plan_fill(256 * MIB)
    assert keys == elastic.KEYS_MAX
    filled = keys * elastic.VALUE_BYTES + pieces * elastic.BALLAST_BYTES
    assert 0 <= 256 * MIB - filled < elastic.BALLAST_BYTES
    assert elastic.plan_fill(10 * 1024) == (10, 0)
    assert elastic.plan_fill(0) == (1, 0), "the clients need a key"


def test_the_newest_node_is_due_an_even_share_of_all_copies() -> None:
    assert elastic.ideal_join_bytes(400, 3, 4) == 300
    assert elastic.ideal_join_bytes(400, 3, 2) == 400, "no node holds two copies of anything"


@pytest.fixture
def trial(tmp_path: Path) -> elastic.Trial:
    options = elastic.Options(MIB, 0, 0.6, 256, 10.0, dead_after_s=3)
    return elastic.Trial.create(tmp_path / "round", options)


def test_a_node_that_joins_later_has_the_settings_of_the_others(trial: elastic.Trial) -> None:
    cluster: KritaCluster = trial.cluster
    node = cluster.add_node()
    assert len(cluster.nodes) == len(set(cluster.ports)) == 4
    assert f"--join_ip=127.0.0.1:{cluster.ports[0]}" in node.command
    assert all("--dead_after_s=3" in one.command for one in cluster.nodes)
    assert sum("--start_cluster" in one.command for one in cluster.nodes) == 1


def test_the_token_is_in_a_file_of_its_own_and_on_no_command_line(trial: elastic.Trial) -> None:
    path = trial.directory / "token"
    assert path.read_text() == trial.token
    assert path.stat().st_mode & 0o077 == 0
    assert not any(trial.token in word for node in trial.cluster.nodes for word in node.command)


# -- Reports


def a_round(scale: float) -> Round:
    def seen(throughput: float, p99_ms: float) -> Slice:
        return Slice(10.0, 1000, throughput, p99_ms / 2, p99_ms, 2 * p99_ms, 1)

    join = Join(
        seen(1000, 20), seen(900, 50 * scale), seen(1000, 20), 12.5, 256 * MIB, 200 * MIB, 192 * MIB
    )
    split = Split(5, 33 * MIB, 0.25, seen(1000, 30 * scale), seen(1000, 20))
    heal = Heal(256 * MIB, 192 * MIB, 200 * MIB, 3.5, 8.0 * scale)
    return Round(2000.0, 1200.0, join, split, heal)


def test_a_figure_of_several_runs_is_their_median_beside_their_extent() -> None:
    assert figure([2.0], "{:.1f}") == "2.0"
    assert figure([3.0, 1.0, 2.0], "{:.1f}") == "2.0 (1.0 - 3.0)"


def test_the_report_names_every_figure_and_what_is_promised() -> None:
    text = Result(0.6, 256, 3, (a_round(1.0),)).to_text()
    for line in (
        "clients ask for 60% of that: 1,200",
        "throughput during / before  0.90   promised: at least 0.7",
        "p99 during / before         2.50   promised: at most 3",
        "MiB sent                    200.0   ideal 192.0: 1.04 times that",
        "both halves had a leader after 0.25 s",
        "longest wait of a request   60 ms   40 ms in as long a time before",
        "declared dead after         3.5 s",
        "MiB rebuilt                 192.0   24.0 MiB/s",
    ):
        assert line in text
    row = next(line for line in text.splitlines() if line.startswith("  during,"))
    assert row.split() == ["during,", "10.0", "s", "900", "25.0", "50.0", "100", "1"]


def test_ratios_are_made_within_each_run() -> None:
    rounds = [a_round(scale) for scale in (1.0, 3.0, 2.0)]
    random.Random(1).shuffle(rounds)
    result = Result(0.6, 256, 3, tuple(rounds))
    document = json.loads(json.dumps(result.to_document()))
    assert document["join_p99_ratio"] == 5.0
    assert document["heal_mib_per_s"] == 12.0
    assert len(document["rounds"]) == 3
    assert "p99 during / before         5.00 (2.50 - 7.50)" in result.to_text()
