"""kritad recover on directories: what it says, refuses, and leaves behind."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import attrs
import pytest

from kritad import cli, recover
from kritad.cluster.recovery import TERM_STEP, VERSION_STEP, given_up
from kritad.raft.types import Boot, Configuration, Entry, EntryKind, HardState, Save, SnapshotMeta
from kritad.storage.data_db import DataDatabase
from kritad.storage.directory import DataDirectory
from kritad.storage.raft_db import RaftDatabase

CLUSTER = b"c" * 16
DIGITS = CLUSTER.hex()[:8]
MEMBERS = Configuration(
    1, frozenset({10, 20, 30, 40, 50}), nodes={10: 1, 20: 2, 30: 3, 40: 4, 50: 5}
)
LAST = {1: 4, 3: 6}  # node -> where its log of shard 1 ends


@pytest.fixture
def stores(tmp_path: Path) -> dict[int, Path]:
    """The directories of nodes 1 and 3, of five; node 3 has more."""
    return {node: make_store(tmp_path / f"node{node}", node, last) for node, last in LAST.items()}


def make_store(path: Path, node: int, last: int, members: Configuration = MEMBERS) -> Path:
    DataDirectory(path).close()
    with closing(RaftDatabase.open(path / "raft.db")) as raft_db:
        raft_db.initialise(CLUSTER, node, bytes([node]) * 16)
        raft_db.count_boot(b"n" * 16)
        for shard in (0, 1):
            raft_db.create_replica(shard, 10 * node, SnapshotMeta(configuration=members))
            entries = [Entry(at, 2, EntryKind.COMMAND, b"x" * 10) for at in range(1, last + 1)]
            save = Save(1, HardState(3, 20, 2), entries=entries, sync_hard_state=True)
            raft_db.save([(shard, save)])
    DataDatabase.open(path / "data.db").close()
    return path


@attrs.define
class Run:
    """One run of the command."""

    status: int
    said: list[str]
    complaints: list[str]

    @property
    def text(self) -> str:
        return "\n".join([*self.said, *self.complaints])


def run(*arguments: object, answer: str | None = None) -> Run:
    said: list[str] = []
    complaints: list[str] = []

    def ask(question: str) -> str:
        said.append(question)
        if answer is None:
            raise EOFError
        return answer

    status = recover.run([str(a) for a in arguments], said.append, complaints.append, ask)
    return Run(status, said, complaints)


def boot(path: Path, shard: int = 1) -> Boot:
    with closing(RaftDatabase.open(path / "raft.db")) as raft_db:
        return raft_db.load(shard, 0)


def records(path: Path) -> list[bytes]:
    with closing(RaftDatabase.open(path / "raft.db")) as raft_db:
        return raft_db.recoveries()


def plan_file(path: Path) -> Path:
    done = run("--plan", "--data_dir", path, "--json")
    assert done.status == 0, done.text
    file = path.with_suffix(".json")
    file.write_text("\n".join(done.said))
    return file


def test_a_plan_tells_what_the_disk_has_and_changes_nothing(stores: dict[int, Path]) -> None:
    before = boot(stores[3])
    done = run("--plan", "--data-dir", stores[3], "--keep", "3")
    assert done.status == 0
    assert f"cluster {CLUSTER.hex()}, node 3, started 1 times" in done.said
    (row,) = (line for line in done.said if line.startswith("1 "))
    assert row.split()[:5] == ["1", "30", "2/6", "2", "0"]
    assert "10@1 20@2 30@3 40@4 50@5" in row
    assert "keep nodes 3; give up for ever: 1, 2, 4, 5" in done.said
    assert boot(stores[3]) == before
    assert records(stores[3]) == []


def test_the_newest_log_gets_an_entry_that_makes_it_the_only_voter(
    stores: dict[int, Path],
) -> None:
    behind = boot(stores[1])
    both = ("--data_dir", stores[1], "--data_dir", stores[3])
    done = run("--apply", *both, "--keep=1,3", answer=f" {DIGITS.upper()}\n")
    assert done.status == 0, done.text
    after = boot(stores[3])
    index, conf = after.configurations[-1]
    assert (index, after.last_index) == (7, 7)
    assert (set(conf.voters), set(conf.learners)) == ({30}, {10})
    assert conf.version == 1 + VERSION_STEP
    assert after.hard_state == HardState(3 + TERM_STEP, 0, 2)
    assert after.terms[-1] == (7, 3 + TERM_STEP)
    meta = boot(stores[3], 0)
    assert (meta.configurations[-1][0], meta.last_index) == (7, 8), "and one of what it knows"
    assert boot(stores[1]) == behind, "who follows was changed"
    assert given_up(records(stores[1])) == given_up(records(stores[3])) == {2, 4, 5}
    assert "kritash node remove 5 --yes" in done.text
    assert "nodes 2, 4, 5 were given up" in recover.record_line(records(stores[3])[0])
    again = run("--apply", *both, "--keep=1,3", "--yes")
    assert again.status == recover.EXIT_OK
    assert again.text.count("done already") == 2


def test_survivors_that_exchange_their_plans_decide_the_same(stores: dict[int, Path]) -> None:
    plans = {node: plan_file(path) for node, path in stores.items()}
    said = []
    for node, other in ((1, 3), (3, 1)):
        done = run(
            "--apply", "--data_dir", stores[node], "--keep=1,3", "--yes",
            "--with", plans[other], "--with", plans[node],
        )  # fmt: skip
        assert done.status == 0, done.text
        said.append(done.said[0])
        assert f"now the same on node {other}" in done.text
    assert said[0] == said[1]
    assert boot(stores[1]).last_index == LAST[1]
    assert boot(stores[3]).last_index == LAST[3] + 1


def test_repeated_it_changes_nothing_and_names_the_decision_that_was_made(
    stores: dict[int, Path],
) -> None:
    """The store's own part is done: decided anew, something else would come of it."""
    plans = {node: plan_file(path) for node, path in stores.items()}
    for node, other in ((3, 1), (1, 3)):
        words = ("--apply", "--data_dir", stores[node], "--keep=1,3", "--with", plans[other])
        first = run(*words, "--yes")
        assert first.status == 0, first.text
        decision = first.said[0].split()[1].rstrip(":")
        before = boot(stores[node]), records(stores[node])
        for again in (run(*words), run(*words, "--yes"), run(*words[:-2], "--yes")):
            assert again.status == 0, again.text
            assert again.said == [
                f"done already on node {node} (decision {decision}): nothing changed"
            ]
        assert (boot(stores[node]), records(stores[node])) == before


def test_another_set_of_survivors_is_another_recovery(stores: dict[int, Path]) -> None:
    both = ("--data_dir", stores[1], "--data_dir", stores[3])
    assert run("--apply", *both, "--keep=1,3", "--yes").status == 0
    done = run("--apply", "--data_dir", stores[1], "--keep=1", "--yes")
    assert "done already" not in done.text


def test_a_plan_that_is_older_than_its_directory_is_refused(stores: dict[int, Path]) -> None:
    old = plan_file(stores[3])
    with closing(RaftDatabase.open(stores[3] / "raft.db")) as raft_db:
        raft_db.count_boot(b"m" * 16)
    done = run("--apply", "--data_dir", stores[3], "--keep=3", "--yes", "--with", old)
    assert done.status == recover.EXIT_CONFIG
    assert "older plan of node 3" in done.text
    assert records(stores[3]) == []


@pytest.mark.parametrize("answer", ["", "00000000", None])
def test_without_the_digits_nothing_is_changed(stores: dict[int, Path], answer: str | None) -> None:
    before = boot(stores[3])
    done = run("--apply", "--data_dir", stores[3], "--keep=3", answer=answer)
    assert done.status == recover.EXIT_USAGE
    assert "nothing was changed" in done.text
    assert (boot(stores[3]), records(stores[3])) == (before, [])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--keep=1,3",), "no plan of node 1 was given"),
        ((), "which nodes are left"),
        (("--keep=3", "--with=nowhere.json"), "nowhere.json"),
    ],
)
def test_what_is_missing_is_named(
    stores: dict[int, Path], arguments: tuple[str, ...], why: str
) -> None:
    done = run("--apply", "--data_dir", stores[3], "--yes", *arguments)
    assert done.status == recover.EXIT_CONFIG
    assert why in done.text
    assert records(stores[3]) == []


@pytest.mark.parametrize("text", ["", "{}", "nonsense"])
def test_a_file_that_is_no_plan_is_refused(stores: dict[int, Path], text: str) -> None:
    file = stores[3].with_suffix(".json")
    file.write_text(text)
    done = run("--apply", "--data_dir", stores[3], "--keep=3", "--yes", "--with", file)
    assert done.status == recover.EXIT_CONFIG
    assert "plan" in done.text
    assert records(stores[3]) == []


def test_a_directory_in_use_is_left_alone(stores: dict[int, Path]) -> None:
    with closing(DataDirectory(stores[3])):
        done = run("--apply", "--data_dir", stores[3], "--keep=3", "--yes")
    assert done.status == recover.EXIT_CONFIG
    assert "already used by pid" in done.text


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    done = run("--plan", "--data_dir", tmp_path / "nothing")
    assert done.status == recover.EXIT_CONFIG
    assert "holds no node" in done.text
    assert list(tmp_path.iterdir()) == []


def test_a_majority_that_is_there_needs_no_recovery(tmp_path: Path) -> None:
    alone = Configuration(1, frozenset({30}), nodes={30: 3})
    path = make_store(tmp_path / "whole", 3, 5, alone)
    done = run("--apply", "--data_dir", path, "--keep=3", "--yes")
    assert done.status == recover.EXIT_CONFIG
    assert "nothing to recover" in done.text


def test_the_plan_says_which_keys_none_of_the_survivors_has(tmp_path: Path) -> None:
    path = make_store(tmp_path / "left", 3, 5)
    with closing(RaftDatabase.open(path / "raft.db")) as raft_db:
        raft_db.remove_replica(1, 30)
    done = run("--plan", "--data_dir", path, "--keep=3")
    assert done.status == 0, done.text
    assert "none of these nodes has them: the keys from 00000000 to 100000000" in done.text


def test_damage_stops_it_unless_the_damaged_shard_is_left_out(stores: dict[int, Path]) -> None:
    path = stores[3] / "raft.db"
    with closing(RaftDatabase.open(path)) as raft_db:
        raft_db._writer.execute("UPDATE log SET records = x'00' WHERE shard = 1")
    done = run("--apply", "--data_dir", stores[3], "--keep=3", "--yes")
    assert done.status == recover.EXIT_CONFIG
    assert "shard 1 has no sound majority, and its replica on node 3 is damaged" in done.text
    assert records(stores[3]) == []
    done = run("--apply", "--data_dir", stores[3], "--keep=3", "--yes", "--leave_damaged")
    assert done.status == 0, done.text
    assert "NOT recovered, nothing sound is left of them: shards 1" in done.said
    assert boot(stores[3], 0).configurations[-1][1].voters == {30}


@pytest.mark.parametrize("arguments", [(), ("--plan",), ("--plan", "--apply", "--data_dir=x")])
def test_a_command_line_that_makes_no_sense_is_told_so(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments).status == recover.EXIT_USAGE
    assert "usage: kritad recover" in capsys.readouterr().err


def test_it_explains_its_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recover", "--help"]) == 0
    assert "--leave_damaged" in capsys.readouterr().out


def test_numbers_that_are_none_and_files_that_are_not_there_are_named(
    stores: dict[int, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--apply", "--data_dir", stores[3])
    assert run(*given, "--keep", "x").status == recover.EXIT_USAGE
    assert "'x' is no list of nodes' numbers, such as 1,3" in capsys.readouterr().err
    done = run(*given, "--keep", "3", "--with", "/nowhere/plan.json")
    assert done.status == recover.EXIT_CONFIG
    assert done.complaints == ["kritad: /nowhere/plan.json: No such file or directory"]
