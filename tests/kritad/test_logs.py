"""Log lines: one per event, whatever is in them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from kritad import logs
from kritad.config import Config

SECRET = b"0123456789abcdef"


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [each for each in root.handlers if each.name == logs.HANDLER_NAME]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "kritad.host", "levelno": 20, "levelname": "INFO", "msg": message, **extra}
    )
    made.args = arguments
    made.created = 1_700_000_000.1239
    return made


def test_a_text_line_has_time_level_logger_message_and_extras() -> None:
    line = logs.TextFormatter().format(record("lost %d of %d", 1, 3, shard=7, why="a b"))
    assert line == ('2023-11-14T22:13:20.123Z INFO    kritad.host: lost 1 of 3 shard=7 why="a b"')


def test_a_json_line_has_the_same_as_fields_and_no_extra_replaces_a_standard_one() -> None:
    line = logs.JsonFormatter().format(record("hej", shard=7, address=Path("/x"), time="forged"))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "info",
        "logger": "kritad.host",
        "message": "hej",
        "shard": 7,
        "address": "/x",
    }


@pytest.mark.parametrize("formatter", [logs.TextFormatter, logs.JsonFormatter])
def test_no_message_can_forge_a_second_line_or_steer_a_terminal(
    formatter: type[logs.LineFormatter],
) -> None:
    line = formatter().format(record("key %s", "a\n2023 INFO forged\r\x1b[2J\u2028\udcff é"))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    line.encode("utf-8")


def test_a_text_line_keeps_letters_that_can_be_printed() -> None:
    assert logs.TextFormatter().format(record("é\n")).endswith(": é\\n")


@pytest.mark.parametrize("formatter", [logs.TextFormatter, logs.JsonFormatter])
def test_an_exception_is_shown_whole(formatter: type[logs.LineFormatter]) -> None:
    made = record("failed")
    try:
        raise ValueError("the reason")
    except ValueError:
        made.exc_info = sys.exc_info()
    text = formatter().format(made)
    assert "ValueError: the reason" in text
    assert all(line.startswith("  ") for line in text.splitlines()[1:])


@pytest.mark.parametrize("formatter", [logs.TextFormatter, logs.JsonFormatter])
def test_the_admin_token_is_masked_wherever_it_turns_up(
    formatter: type[logs.LineFormatter],
) -> None:
    made = record("got %s", SECRET.decode(), token=SECRET)
    assert SECRET.decode() not in formatter(SECRET).format(made)
    assert "***" in formatter(SECRET).format(made)


def configured(path: Path, **settings: str) -> None:
    logs.configure(Config.make(log_file=path, admin_token=None, **settings))


def test_the_file_gets_what_is_at_least_of_the_level_and_follows_a_rename(tmp_path: Path) -> None:
    path = tmp_path / "k.log"
    configured(path, log_level="warning")
    log = logging.getLogger("kritad.test")
    log.warning("one")
    log.info("quiet")
    path.rename(tmp_path / "k.log.1")
    log.error("two")
    assert (tmp_path / "k.log.1").read_text().splitlines()[0].endswith("kritad.test: one")
    assert [line.rpartition(": ")[2] for line in path.read_text().splitlines()] == ["two"]


def test_a_file_that_cannot_be_opened_again_costs_nobody_his_life(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "k.log"
    configured(path)
    log = logging.getLogger("kritad.test")
    log.info("one")
    path.unlink()
    folder.rmdir()
    log.info("two")
    log.info("three")
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("the log file is lost, lines go here: ")
    assert [line.rpartition(": ")[2] for line in lines] == ["two", "three"]
    folder.mkdir()
    log.info("four")
    assert path.read_text().rstrip().endswith("kritad.test: four")
    assert not capsys.readouterr().err


def test_while_the_disk_is_full_a_line_stays_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "k.log"
    path.symlink_to("/dev/full")
    logs.configure(Config.make(log_file=path, admin_token=SECRET))
    log = logging.getLogger("kritad.test")
    log.info("one")
    log.info("%s", SECRET.decode())
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("the log file is lost, lines go here: [Errno 28]")
    assert [line.rpartition(": ")[2] for line in lines] == ["one", "***"]
    path.unlink()
    log.info("three")
    assert path.read_text().rstrip().endswith("kritad.test: three")
    assert not capsys.readouterr().err


def test_configuring_again_replaces_the_first_setting_up(tmp_path: Path) -> None:
    configured(tmp_path / "a")
    configured(tmp_path / "b", log_format="json")
    logging.getLogger("kritad.test").info("here")
    assert (tmp_path / "a").read_text() == ""
    assert json.loads((tmp_path / "b").read_text())["message"] == "here"


def test_the_warnings_of_the_settings_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "k.log"
    logs.configure(attrs.evolve(Config.make(log_file=path), warnings=("chmod it",)))
    assert path.read_text().rstrip().endswith("WARNING kritad.config: chmod it")


def test_a_file_that_cannot_be_written_is_an_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        configured(tmp_path / "none" / "k.log")
