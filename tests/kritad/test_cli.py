"""The command kritad: what it prints, and how it exits."""

from __future__ import annotations

import importlib.abc
import subprocess
import sys
import types
from pathlib import Path

import pytest

import kritad
from kritad import cli, config_text
from kritad.__main__ import main
from kritad.config import Config, load
from kritad.settings import SETTINGS

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have a cluster's settings in the environment."""
    for setting in SETTINGS:
        monkeypatch.delenv(setting.environment, raising=False)
    for variable in ("LISTEN_IP", "KRITA_ADMIN_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


def kritad_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kritad", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(kritad.__file__).parents[1],
        env={"PYTHONPATH": ":".join(sys.path)},
    )


def test_version_is_told_by_a_real_process() -> None:
    done = kritad_process("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"kritad {kritad.__version__}\n", "")


def test_version_and_help_load_nothing_heavy() -> None:
    code = (
        "import sys; from kritad import cli; cli.run(['--version']); cli.run(['help'])\n"
        "heavy = {'trio', 'yaml', 'sqlite3', 'logging'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
        env={"PYTHONPATH": ":".join(sys.path)},
    )


def test_a_real_process_with_a_bad_setting_exits_with_78_and_one_line() -> None:
    done = kritad_process("run", "--port=none")
    assert done.returncode == 78
    assert done.stderr.startswith('kritad: port is "none" (flag --port): must be')
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["help"], ["--help"], ["-h"], ["run", "--help"]])
def test_help_names_every_setting_and_every_exit_status(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 0
    shown = capsys.readouterr().out
    for setting in SETTINGS:
        assert f"  {setting.flag}" in shown
    assert all(status in shown for status in ("0 stopped", "1 failed", "2 bad", "78 bad"))
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["rn"], 2, 'unknown command "rn"; did you mean run?'),
        (["status"], 2, 'unknown command "status"; one of run, dev, config'),
        (["run", "stray"], 2, 'unexpected argument "stray"'),
        (["--prot=1"], 2, "did you mean --port?"),
        (["--start_cluster", "true"], 2, 'unexpected argument "true"'),
        (["--admin_token=hunter2"], 2, "shows in the list of processes"),
        (["config"], 2, "which config command? One of check, print, template"),
        (["config", "chek"], 2, "did you mean check?"),
        (["config", "template", "--port=1"], 2, "config template takes no flags"),
        (["config", "check", "--shards=3"], 78, "must be a power of two"),
        (["--listen_ip=0.0.0.0"], 78, "there is no admin token"),
        (["dev", "--nodes=0"], 78, "must be a whole number from 1 to 9"),
        (["--config=/nowhere/k.yaml"], 78, "cannot read the configuration file"),
        (["--log_file=/nowhere/k.log"], 78, "log_file is /nowhere/k.log: cannot write it"),
    ],
)
def test_a_mistake_is_explained_on_stderr_with_its_exit_status(
    arguments: list[str],
    status: int,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    daemon: list[Config],
) -> None:
    assert cli.run(arguments) == status
    out, err = capsys.readouterr()
    assert expected in err
    assert "hunter2" not in err
    assert out == ""
    assert daemon == []


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """In place of the daemon: what it was asked to run with. It exits with 1."""
    started: list[Config] = []
    stand_in = types.ModuleType("kritad.daemon")

    def run(config: Config) -> int:
        started.append(config)
        return 1

    stand_in.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kritad.daemon", stand_in)
    return started


@pytest.mark.parametrize("arguments", [["run", "--port=81"], ["--port=81"]])
def test_run_is_what_kritad_does_by_default_and_its_status_is_the_daemons(
    arguments: list[str], daemon: list[Config]
) -> None:
    assert cli.run(arguments) == 1
    assert [config.port for config in daemon] == [81]


def test_config_check_says_that_it_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["config", "check", "--port=81"]) == 0
    assert capsys.readouterr().out.startswith("ok: ")


def test_what_config_print_shows_is_a_file_that_means_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRITA_ADMIN_TOKEN", TOKEN)
    flags = ["--listen_ip=::", '--zone=a "b" \\ #ü', "--join_ip=h:1,[::1]:2", "--data_dir=/x y"]
    assert cli.run(["config", "print", *flags]) == 0
    shown = capsys.readouterr().out
    assert TOKEN not in shown
    assert "# admin_token: set, not shown\n" in shown
    file = tmp_path / "k.yaml"
    file.write_text(shown, encoding="utf-8")
    environment = {"KRITA_ADMIN_TOKEN": TOKEN}
    assert load([f"--config={file}"], environment) == load(
        [*flags, f"--config={file}"], environment
    )


def test_config_print_says_where_each_value_comes_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRITA_SHARDS", "8")
    assert cli.run(["config", "print", "--port=81"]) == 0
    lines = capsys.readouterr().out.splitlines()
    origins = {line.partition(":")[0]: line.rpartition("  # ")[2] for line in lines}
    assert origins["port"] == "flag --port"
    assert origins["shards"] == "environment variable KRITA_SHARDS"
    assert origins["zone"] == "default"


def test_the_template_changes_nothing_and_uncommented_it_sets_every_default(
    tmp_path: Path,
) -> None:
    text = config_text.template()
    file = tmp_path / "k.yaml"
    file.write_text(text, encoding="utf-8")
    assert load([f"--config={file}"], {}).port == 8080
    unset = {setting.name for setting in SETTINGS if setting.default is None}
    lines = [
        line[1:]
        for line in text.splitlines()
        if line.startswith("#") and line[1:2].isalpha() and line[1:].split(":")[0] not in unset
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    config = load([f"--config={file}"], {})
    assert config == Config.make(config=file)
    assert len(lines) == len(SETTINGS) - len(unset)
    for setting in SETTINGS:
        assert (f"\n#{setting.name}: " in text) is setting.in_file


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    code = "import sys; from kritad.cli import main; sys.argv[1:] = ['help']; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.stdin.read(); {code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert err == b""


def test_ctrl_c_while_it_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname == "kritad.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "kritad.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    assert main() == 130
