"""``lock``, ``lease`` and ``election``, and what runs under a lock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from krita.errors import ConditionFailed, KritaError, Unavailable
from krita.operations import Op
from tests.kritash.conftest import Shell
from tests.kritash.shell import environment, kritash_here
from tests.kritash.terminal import CTRL_C, Terminal
from tests.protocol.server import Exchange, answer

TTL = ("--ttl", "300ms")  # of locks that a test waits to see renewed


# -- Locks ---------------------------------------------------------------------


def test_a_lock_is_taken_shown_renewed_and_let_go(shell: Shell) -> None:
    taken = shell.json("lock", "acquire", "job", "--owner", "me", "--ttl", "10s")
    token = str(taken["token"])
    assert (taken["owner"], taken["ttl_ms"]) == ("me", 10_000)
    assert shell.said("lock", "show", "job") == [f"held by me token {token} for 10s"]
    shell("lock", "renew", "job", token, "--ttl", "1m")
    assert shell.json("lock", "show", "job")["left_ms"] == 60_000
    assert shell.said("lock", "release", "job", token) == ["ok free"]
    assert shell.said("lock", "show", "job", code=1) == ["free"]


def test_a_lock_that_another_holds_is_code_1(shell: Shell) -> None:
    shell("lock", "acquire", "job", "--owner", "me")
    token = shell.json("lock", "show", "job")["token"]
    said = shell.error("lock", "acquire", "job", code=1)
    assert f"the lock is held by me, token {token}, for 30s" in said
    assert "--wait TIME waits for it" in said
    told = json.loads(shell.error("--json", "lock", "acquire", "job", code=1))
    assert told["detail"] == {"owner": "me", "token": token, "left_ms": 30_000}
    done = shell("lock", "acquire", "job", "--wait", "10ms", code=1)
    assert "waiting: it is held by me" in done.err
    token = shell.json("lock", "acquire", "job", "--owner", "me")["token"]
    assert token == shell.json("lock", "show", "job")["token"]


def test_a_token_that_is_over_renews_and_releases_nothing(shell: Shell) -> None:
    token = str(shell.json("lock", "acquire", "job", "--ttl", "1s")["token"])
    shell.cluster.advance(1001)
    assert "stop what relies on it" in shell.error("lock", "renew", "job", token, code=1)
    shell("lock", "acquire", "job")
    shell("lock", "release", "job", token, code=1)
    shell("lock", "show", "job")


# -- Running under one ---------------------------------------------------------


def test_the_program_has_the_lock_and_its_status_is_the_exit_code(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "seen"
    script = f'echo "$KRITA_LOCK_TOKEN $KRITA_LOCK $KRITA_NODES" > {file}; exit 7'
    shell("lock", "run", "my job", "--", "sh", "-c", script, code=7)
    token, _, rest = file.read_text().strip().partition(" ")
    lock, _, nodes = rest.rpartition(" ")
    assert (lock, nodes) == (f"my job@{token}", shell.cluster.seeds)
    assert shell.db.get("my job") is None


def test_options_behind_the_dashes_are_the_program_s(shell: Shell) -> None:
    done = shell("lock", "run", "job", "--", "true", "--json", "--help", "--nodes", "x")
    assert (done.out, done.err) == (b"", "")


def test_an_option_that_is_not_ours_is_a_sign_that_the_dashes_are_missing(shell: Shell) -> None:
    said = shell.error("lock", "run", "job", "make", "-j4", code=2)
    assert "COMMAND and its options stand behind --" in said


def test_a_program_in_a_script_does_not_read_the_script(shell: Shell) -> None:
    script = b"lock run job -- cat\nput after v\n"
    kritash_here("--nodes", shell.cluster.seeds, stdin=script)
    assert shell.db.get("after") is not None


def test_a_program_that_is_ended_by_a_signal_is_128_and_its_number(shell: Shell) -> None:
    shell("lock", "run", "job", "--", "sh", "-c", "kill -9 $$", code=137)


def test_a_program_that_there_is_not_leaves_the_lock_free(shell: Shell) -> None:
    said = shell.error("lock", "run", "j", "--", "/nonexistent", code=2)
    assert "cannot run '/nonexistent': No such file" in said
    assert shell.db.get("j") is None
    assert "COMMAND is missing" in shell.error("lock", "run", "j", code=2)


def test_without_the_lock_the_program_does_not_run(shell: Shell, tmp_path: Path) -> None:
    shell("lock", "acquire", "job")
    shell("lock", "run", "job", "--wait", "10ms", "--", "touch", str(tmp_path / "x"), code=1)
    assert os.listdir(tmp_path) == []


def test_the_lock_is_renewed_until_a_signal_that_is_handed_on_ends_the_program(
    shell: Shell,
) -> None:
    renewals: list[Exchange] = []
    started: list[subprocess.Popen[bytes]] = []

    def renew(exchange: Exchange) -> None:
        exchange.finish()
        renewals.append(exchange)
        if len(renewals) >= 4 and started:
            started[0].send_signal(signal.SIGTERM)

    shell.cluster.on(Op.TOUCH, renew, times=999)
    command = ("lock", "run", "job", *TTL, "--", "sleep", "60")
    with subprocess.Popen(
        [sys.executable, "-m", "kritash", *command],
        env=environment(KRITA_NODES=shell.cluster.seeds),
    ) as process:
        started.append(process)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert shell.db.get("job") is None


@pytest.mark.parametrize("error", [ConditionFailed("revision 99"), Unavailable("no leader")])
def test_when_the_lock_is_lost_the_program_gets_sigterm_and_the_code_is_8(
    shell: Shell, tmp_path: Path, error: KritaError
) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"
    script = f"trap 'touch {told}; exit 3' TERM; touch {ready}; while :; do sleep 0.02; done"

    def renew(exchange: Exchange) -> None:
        if ready.exists():
            answer(error)(exchange)
        else:
            exchange.finish()

    shell.cluster.on(Op.TOUCH, renew, times=999)
    done = shell("lock", "run", "job", *TTL, "--", "sh", "-c", script, code=8)
    assert told.exists()
    assert "the program is told to end" in done.err


def test_ctrl_c_is_the_program_s_and_the_lock_is_held_until_it_has_ended(shell: Shell) -> None:
    script = "trap 'echo tidying up; exit 5' INT; echo at work; while :; do sleep 0.02; done"
    command = ("lock", "run", "job", "--", "sh", "-c", script)
    with Terminal(*command, KRITA_NODES=shell.cluster.seeds) as terminal:
        terminal.wait_for("at work")
        assert shell.db.get("job") is not None
        terminal.type(CTRL_C)
        terminal.wait_for("tidying up")
        assert terminal.wait_for_exit() == 5
    assert shell.db.get("job") is None


# -- Leases --------------------------------------------------------------------


def test_a_lease_is_granted_kept_alive_shown_and_revoked(shell: Shell) -> None:
    lease = shell.json("lease", "grant", "10s")["lease"]
    shell("put", "k", "v", "--lease", lease)
    shell.cluster.advance(9_000)
    assert shell.said("lease", "keepalive", lease) == [f"ok lease {lease} lasts 10s"]
    shell.cluster.advance(9_000)
    assert shell.json("lease", "show", lease) == {
        "lease": lease, "ttl_ms": 10_000, "left_ms": 1_000, "keys": ["k"],
    }  # fmt: skip
    assert "add --yes" in shell.error("lease", "revoke", lease, code=2)
    assert shell.said("lease", "revoke", lease, "--yes") == ["ok 1 key ended with it"]
    shell("get", "k", code=1)
    shell("lease", "revoke", lease, "--yes", code=1)
    assert "outcome: not applied" in shell.error("lease", "show", lease, code=1)
    shell.error("lease", "keepalive", lease, code=1)


def test_a_number_that_no_lease_has_is_refused(shell: Shell) -> None:
    for number in ("0", "-1", "x", str(1 << 60)):
        assert "must be a lease's number" in shell.error("lease", "show", "--", number, code=2)


# -- Elections -----------------------------------------------------------------


def test_a_candidate_leads_until_it_resigns(shell: Shell) -> None:
    elected = shell.json("election", "campaign", "jobs", "one", "--ttl", "10s")
    shell("election", "campaign", "jobs", "two", "--wait", "10ms", code=1)
    assert shell.said("election", "observe", "jobs", "--count", "1") == [
        f"one token {elected['token']}"
    ]
    shell("election", "renew", "jobs", str(elected["token"]))
    shell("election", "resign", "jobs", str(elected["token"]))
    shell("election", "resign", "jobs", str(elected["token"]), code=1)
    assert shell("election", "observe", "jobs", "--count", "1").out == b"nobody\n"
    document = {"leader": None, "token": None}
    assert shell.json("election", "observe", "jobs", "--count", "1") == document


def test_a_terminal_follows_who_leads(shell: Shell) -> None:
    with Terminal("election", "observe", "jobs", KRITA_NODES=shell.cluster.seeds) as terminal:
        terminal.wait_for("nobody")
        election = shell.db.election("jobs", ttl_ms=10_000)
        election.campaign("worker-7")
        terminal.wait_for("worker-7  token")
        election.resign()
        terminal.wait_for("nobody")
        terminal.type(CTRL_C)
        assert terminal.wait_for_exit() == 0
