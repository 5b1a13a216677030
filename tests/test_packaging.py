"""What is installed is what is here: packages, licence, locks, the systemd unit."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import setuptools

from tests.kritash.shell import environment

ROOT = Path(__file__).parents[1]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def listed_packages() -> set[str]:
    return set(setup_cfg()["options"]["packages"].split())


def found_packages() -> set[str]:
    here = setuptools.find_packages(str(ROOT), include=["kritad*", "kritash*"])
    return set(here) | set(setuptools.find_packages(str(ROOT / "protocol")))


def test_every_package_is_listed_in_setup_cfg() -> None:
    """A sub-package that is not works when installed editable, and is missing from the wheel."""
    assert listed_packages() == found_packages()


def test_every_folder_of_python_files_is_a_package() -> None:
    folders = {
        path.parent for top in ("kritad", "kritash", "protocol/krita")
        for path in (ROOT / top).rglob("*.py")
    }  # fmt: skip
    assert [f for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_the_only_commands_are_kritad_and_kritash() -> None:
    """A command called krita would be that of the paint program."""
    scripts = setup_cfg()["options.entry_points"]["console_scripts"].split("\n")
    assert {line.partition("=")[0].strip() for line in scripts if line} == {"kritad", "kritash"}


@pytest.mark.slow
@pytest.mark.skipif(
    int(setuptools.__version__.partition(".")[0]) < 77,
    reason="pyproject.toml asks for setuptools 77 to build with",
)
def test_the_wheel_holds_every_module_and_the_type_marks(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("kritad", "kritash", "protocol"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=source, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("krita_db-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    for base, top in ((ROOT / "protocol", "krita"), (ROOT, "kritad"), (ROOT, "kritash")):
        files = [*(base / top).rglob("*.py"), base / top / "py.typed"]
        assert {file.relative_to(base).as_posix() for file in files} <= held
    tops = {name.partition("/")[0] for name in held if ".dist-info" not in name}
    assert tops == {"krita", "kritad", "kritash"}
    assert any(name.endswith("licenses/LICENSE") for name in held)


# -- Locks ---------------------------------------------------------------------


def pinned(lock: str) -> dict[str, str]:
    """Each requirement line of a lock, by its normalized name: version and hashes."""
    text = (ROOT / "packaging" / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {re.split("==", line)[0].lower(): line for line in lines}


def wanted(*extras: str) -> set[str]:
    """The names that setup.cfg asks for."""
    config = setup_cfg()
    lines = config["options"]["install_requires"].split()
    for extra in extras:
        lines += config["options.extras_require"][extra].split()
    return {re.split("[><=~!;]", line)[0].lower() for line in lines}


def test_the_locks_pin_every_dependency_with_hashes() -> None:
    for lock, extras in (
        ("requirements.lock", ("build",)),
        ("requirements-dev.lock", ("build", "dev")),
    ):
        pins = pinned(lock)
        missing = wanted(*extras) - pins.keys()
        assert not missing, f"{lock} lacks {missing}: make lock"
        for line in pins.values():
            assert re.match(r"[A-Za-z0-9._-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", line), line


def test_the_locks_agree_so_that_run_and_test_share_an_environment() -> None:
    run, test = pinned("requirements.lock"), pinned("requirements-dev.lock")
    versions = {name: line.split()[0] for name, line in run.items()}
    assert versions == {name: test[name].split()[0] for name in run}


def test_the_locks_name_no_place_to_get_packages_from() -> None:
    for path in (ROOT / "packaging").glob("*.lock"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"://|--index|--extra-index|--find-links|--trusted-host", text)


# -- systemd -------------------------------------------------------------------

UNIT = ROOT / "packaging" / "kritad.service"


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is here: verify looks for it."""
    text = UNIT.read_text(encoding="utf-8").replace("/usr/bin/kritad", sys.executable)
    path = tmp_path / UNIT.name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_unit_has_no_unknown_key_and_no_bad_value(unit: Path) -> None:
    done = systemd_analyze("verify", "--man=no", str(unit))
    # It exits with 0 on an unknown key, so what it says decides.
    assert (done.returncode, done.stderr) == (0, "")


def test_the_checker_sees_a_unit_that_is_wrong(unit: Path) -> None:
    unit.write_text(unit.read_text(encoding="utf-8").replace("UMask=", "UMosk="), encoding="utf-8")
    assert "UMosk" in systemd_analyze("verify", "--man=no", str(unit)).stderr


def test_the_unit_is_exposed_no_more_than_a_hardened_service_is(unit: Path) -> None:
    """Of ten; Debian's prometheus has 4.0, and what needs the network at least 1."""
    done = systemd_analyze("security", "--offline=true", "--threshold=20", str(unit))
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_what_the_unit_says_to_do_first_works_where_there_is_nothing(tmp_path: Path) -> None:
    """The commands of its comment, in their order, below another root."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    head = UNIT.read_text(encoding="utf-8").partition("[Unit]")[0]
    commands = re.findall(r"(?m)^#   [a-z ]+: +(.*/etc/krita\b[^,\n]*)", head)
    assert len(commands) == 3
    for command in commands:
        here = command.replace("/etc/", f"{tmp_path}/").replace(
            "kritad config", f"{sys.executable} -m kritad config"
        )
        subprocess.run(["sh", "-ec", here], check=True, env=environment())
    made = tmp_path / "krita"
    assert (made / "admin_token").stat().st_mode & 0o777 == 0o600
    assert (made / "kritad.yaml").stat().st_size > 0


def test_the_flags_in_the_unit_are_settings() -> None:
    from kritad.settings import BY_NAME

    (line,) = re.findall("(?m)^ExecStart=(.*)$", UNIT.read_text(encoding="utf-8"))
    flags = re.findall("--([a-z_]+)=", line)
    assert flags
    assert set(flags) <= set(BY_NAME)


def test_the_unit_restarts_for_no_status_that_a_restart_cannot_mend() -> None:
    from kritad.cli import EXIT_CONFIG, EXIT_USAGE

    assert f"RestartPreventExitStatus={EXIT_USAGE} {EXIT_CONFIG}\n" in UNIT.read_text(
        encoding="utf-8"
    )
