"""Where kritash's settings come from, and what it keeps on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from krita.errors import (
    ERRORS,
    Busy,
    ConnectionFailed,
    Forbidden,
    InternalError,
    KritaError,
    Outcome,
    SessionExpired,
    Unauthenticated,
    Unavailable,
)
from kritash.exits import Exit, exit_of
from kritash.health import Summary, summarize, trouble
from kritash.settings import (
    SettingsError,
    belongs_in_history,
    history_path,
    load_settings,
    open_history,
)
from tests.kritash import samples


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    assert load_settings({}, {}).nodes == ("127.0.0.1:8080",)
    environment = {"KRITA_NODES": "a,b:81"}
    assert load_settings({}, environment).nodes == ("a:8080", "b:81")
    assert load_settings({"nodes": "krita://c"}, environment).nodes == ("c:8080",)


def test_the_zone_comes_from_the_environment_as_a_nodes_does() -> None:
    assert load_settings({}, {}).zone == ""
    assert load_settings({}, {"KRITA_ZONE": "eu"}).zone == "eu"


def test_a_token_comes_from_its_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" secret\n")
    environment = {"KRITA_ADMIN_TOKEN": "other"}
    assert load_settings({}, {}).token is None
    assert load_settings({}, environment).token == "other"
    assert load_settings({"token-file": str(file)}, environment).token == "secret"
    assert "secret" not in repr(load_settings({"token-file": str(file)}, {}))


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    with pytest.raises(SettingsError, match="is empty"):
        load_settings({"token-file": str(tmp_path / "token")}, {})


def test_history_lives_where_the_xdg_specification_says() -> None:
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/krita/history")
    home = Path.home() / ".local/state/krita/history"
    assert history_path({}) == history_path({"XDG_STATE_HOME": "relative"}) == home


def test_a_history_that_was_readable_by_others_no_longer_is(tmp_path: Path) -> None:
    path = tmp_path / "krita" / "history"
    path.parent.mkdir()
    path.touch(0o644)
    assert open_history(path) == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_history_that_is_a_link_elsewhere_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "history").symlink_to(tmp_path / "victim")
    assert open_history(tmp_path / "history") is None
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("get a", True), (" get a", False), ("", False), ("   ", False),
        ("put db/Password x", False), ("put api-token x", False), ("put my_secret x", False),
        ("get a\n\nget b", True), ("get a\n get b", False),
    ],
)  # fmt: skip
def test_lines_that_may_hold_a_secret_are_not_kept(line: str, kept: bool) -> None:
    assert belongs_in_history(line) is kept


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionFailed("x"), Exit.UNREACHABLE),
        (Unavailable("x"), Exit.UNAVAILABLE),
        (Busy("x"), Exit.UNAVAILABLE),
        (SessionExpired("x"), Exit.CONFLICT),
        (SessionExpired("x", outcome=Outcome.UNKNOWN), Exit.UNKNOWN),
        (Busy("x", outcome=Outcome.UNKNOWN), Exit.UNKNOWN),
        (InternalError("x"), Exit.UNKNOWN),
        (InternalError("x", outcome=Outcome.NOT_APPLIED), Exit.UNAVAILABLE),
        (KritaError("x", outcome=Outcome.NOT_APPLIED), Exit.UNAVAILABLE),
    ],
)
def test_an_unknown_outcome_outranks_the_kind_of_error(error: KritaError, code: Exit) -> None:
    assert exit_of(error) is code


def test_no_error_is_reported_as_success() -> None:
    for cls in ERRORS.values():
        assert exit_of(cls("x")) not in (Exit.DONE, Exit.INTERRUPTED)


def test_the_toolbar_counts_nodes_leaders_and_shards_without_a_leader() -> None:
    status = {
        "health": "degraded",
        "nodes": [
            {"node": 1, "leaders": 2, "reachable": True},
            {"node": 2, "leaders": 0, "reachable": False},
        ],
        "shards": [{"leader": 1}, {"leader": 1}, {"leader": 0}],
    }
    found = summarize(status)
    assert found.health == "degraded"
    assert found.text == "1/2 nodes | 3 shards | leaders n1:2 n2:0 | 1 without a leader"


def test_the_toolbar_says_what_moves_and_leaves_out_who_has_left() -> None:
    status = samples.status(3, 4, paused=True)
    status["nodes"][2]["state"] = "left"
    status["shards"][1]["in_motion"] = True
    text = "2/2 nodes | 5 shards | leaders n1:2 n2:2 | 1 moving | moves paused"
    assert summarize(status).text == text


@pytest.mark.parametrize("status", [None, [], {}, {"nodes": None, "shards": [3]}])
def test_a_status_in_an_unknown_shape_does_not_break_the_toolbar(status: object) -> None:
    summarize(status)


@pytest.mark.parametrize(
    ("error", "health"),
    [
        (ConnectionFailed("nobody there"), "unreachable"),
        (Unavailable("no time"), "unreachable"),
        (Unauthenticated("the token is another"), "denied"),
        (Forbidden("the token is needed"), "denied"),
    ],
)
def test_a_node_that_refuses_us_is_not_unreachable(error: KritaError, health: str) -> None:
    assert trouble(error) == Summary(health, error.message)
