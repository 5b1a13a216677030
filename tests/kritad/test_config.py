"""Settings from flags, environment and file: which one wins, and what is refused how."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import attrs
import pytest

from kritad.config import Config, ConfigError, load
from kritad.settings import BY_NAME, SETTINGS, Kind

TOKEN = "0123456789abcdef"


def problems(arguments: list[str], environment: dict[str, str] | None = None) -> list[str]:
    """What load refuses these with."""
    with pytest.raises(ConfigError) as caught:
        load(arguments, environment or {})
    return [problem.message for problem in caught.value.problems]


def the_problem(arguments: list[str], environment: dict[str, str] | None = None) -> str:
    (message,) = problems(arguments, environment)
    return message


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- The table -----------------------------------------------------------------


def test_every_setting_is_a_field_of_config_and_the_other_way_round() -> None:
    fields = {field.name for field in attrs.fields(Config)}
    assert fields - {"admin_token", "origins", "warnings"} == set(BY_NAME)


def test_names_are_unique_and_defaults_are_values_that_are_allowed() -> None:
    assert len(BY_NAME) == len(SETTINGS)
    for setting in SETTINGS:
        if setting.kind is Kind.NUMBER:
            assert setting.parse(str(setting.default)) == setting.default


def test_nothing_given_is_a_config_of_defaults() -> None:
    config = load([], {})
    assert config == Config.make()
    assert (config.listen_ip, config.port, config.data_dir) == ("127.0.0.1", 8080, Path("data"))
    assert set(config.origins.values()) == {"default"}


# -- Three forms, one name -----------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--raft_election_ms=3000"],
        ["--raft_election_ms", "3000"],
        ["--raft-election-ms=3000"],
        ["--raft-election-ms", "3000"],
        ["--raft_election_ms=2000", "--raft-election-ms=3000"],
    ],
)
def test_a_flag_is_read_with_underscores_or_hyphens_and_equals_or_space(
    arguments: list[str],
) -> None:
    assert load(arguments, {}).raft_election_ms == 3000


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = write(tmp_path / "k.yaml", "port: 3\nshards: 4\nzone: file\n")
    arguments = ["--port=1", f"--config={file}"]
    config = load(arguments, {"KRITA_PORT": "2", "KRITA_SHARDS": "8"})
    assert (config.port, config.shards, config.zone) == (1, 8, "file")
    assert config.replication_factor == 3
    assert config.origins["port"] == "flag --port"
    assert config.origins["shards"] == "environment variable KRITA_SHARDS"
    assert config.origins["zone"] == f"{file}:3"
    assert config.origins["replication_factor"] == "default"


def test_the_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path / "k.yaml", "port: 99\n")
    assert load([], {"KRITA_CONFIG": str(file)}).port == 99


def test_listen_ip_has_the_name_that_the_first_users_know() -> None:
    assert load([], {"LISTEN_IP": "::1"}).listen_ip == "::1"
    assert load([], {"LISTEN_IP": "::1", "KRITA_LISTEN_IP": "::1"}).listen_ip == "::1"
    assert "both set listen_ip" in the_problem(
        [], {"LISTEN_IP": "::1", "KRITA_LISTEN_IP": "127.0.0.1"}
    )


@pytest.mark.parametrize("text", ["true", "yes", "on", "1", "TRUE"])
def test_a_flag_without_a_value_is_true_and_with_one_is_what_it_says(text: str) -> None:
    assert load(["--start_cluster"], {}).start_cluster
    assert load([f"--start_cluster={text}"], {}).start_cluster
    assert not load(["--start_cluster=no"], {"KRITA_START_CLUSTER": text}).start_cluster


def test_join_ip_adds_up_within_one_source_and_is_replaced_by_a_stronger_one(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "k.yaml", "join_ip: [10.0.0.1, 'b:81']\n")
    from_file = load([f"--config={file}"], {})
    assert from_file.join_ip == ("10.0.0.1", "b:81")
    assert [str(address) for address in from_file.join_addresses] == ["10.0.0.1:8080", "b:81"]
    assert load(["--join_ip=a,b", "--join-ip", "c"], {"KRITA_JOIN_IP": "d"}).join_ip == (
        "a",
        "b",
        "c",
    )
    assert load([f"--config={file}"], {"KRITA_JOIN_IP": "d,e:9"}).join_ip == ("d", "e:9")


def test_other_programs_variables_are_none_of_our_business() -> None:
    assert load([], {"KRITA_NODES": "a,b", "PATH": "/bin", "PORT": "1"}) == Config.make()


# -- What is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--port=0", 'port is "0" (flag --port): must be a whole number from 1 to 65535'),
        ("--port=", 'port is "" (flag --port): must be a whole number'),
        ("--port=8_0", "perhaps 80"),
        ("--cache_bytes=64MiB", "write the plain number, perhaps 67108864"),
        ("--request_timeout_ms=5min", "perhaps 300000"),
        ("--raft_election_ms=2s", "perhaps 2000"),
        ("--raft_election_ms=1e3", "must be a whole number from 10 to 600000 (milliseconds)"),
        ("--port=\uff19", "must be a whole number"),
        ("--shards=12", "must be a power of two from 1 to 4096"),
        ("--replication_factor=8", "from 1 to 7"),
        ("--value_bytes_max=33554433", "from 1 to 33554432 (bytes)"),
        ("--listen_ip=eth0", "must be an IPv4 or IPv6 address"),
        ("--join_ip=a,,b", "must be HOST or HOST:PORT"),
        ("--join_ip=a:99999", "has no port from 1 to 65535"),
        ("--advertise=::1:80", "an IPv6 address is written [::1]:8080"),
        ("--log_level=loud", "must be one of debug, info, warning, error"),
        ("--start_cluster=maybe", "must be true or false"),
        ("--zone=a\nb", r'zone is "a\nb"'),
    ],
)
def test_a_bad_value_is_refused_with_the_setting_its_origin_and_what_is_allowed(
    flag: str, expected: str
) -> None:
    message = the_problem([flag])
    assert expected in message
    assert f"(flag {flag.partition('=')[0]})" in message
    assert "\n" not in message


def test_a_bad_value_in_the_environment_is_traced_to_its_variable() -> None:
    assert the_problem([], {"KRITA_PORT": "x"}).startswith(
        'port is "x" (environment variable KRITA_PORT): must be'
    )


def test_a_bad_value_is_refused_even_where_a_flag_hides_it() -> None:
    assert "KRITA_PORT" in the_problem(["--port=1"], {"KRITA_PORT": "x"})


def test_unknown_names_are_refused_with_a_suggestion(tmp_path: Path) -> None:
    file = write(tmp_path / "k.yaml", "port: 1\nraft_electon_ms: 5\n")
    assert problems([f"--config={file}", "--dta-dir=/x"], {"KRITA_PROT": "1"}) == [
        "unknown flag --dta-dir; did you mean --data_dir?",
        "unknown environment variable KRITA_PROT; did you mean KRITA_PORT?",
        f'{file}:2: unknown setting "raft_electon_ms"; did you mean raft_election_ms?',
    ]


def test_a_name_like_none_other_gets_no_suggestion() -> None:
    assert the_problem(["--xyzzy=1"]) == "unknown flag --xyzzy"


def test_the_value_behind_an_unknown_flag_is_not_a_second_problem() -> None:
    assert len(problems(["--prot", "81", "--port", "81"])) == 1


def test_only_a_mistake_of_the_command_line_itself_counts_as_usage() -> None:
    for arguments, usage in ((["--prot=1"], True), (["stray"], True), (["--port=x"], False)):
        with pytest.raises(ConfigError) as caught:
            load(arguments, {})
        assert caught.value.usage is usage


@pytest.mark.parametrize("arguments", [["--port"], ["--port", "--zone=a"]])
def test_a_flag_that_lacks_its_value_says_so(arguments: list[str]) -> None:
    assert "flag --port needs a value: it must be a whole number" in the_problem(arguments)


def test_the_variables_of_a_kubernetes_service_are_explained() -> None:
    found = problems([], {"KRITA_PORT": "tcp://10.0.0.1:8080", "KRITA_SERVICE_HOST": "10.0.0.1"})
    assert len(found) == 2
    assert all("enableServiceLinks: false" in message for message in found)


# -- YAML ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port: 1\nzone: [a\n", ":3:1: not valid YAML: "),
        ("port: 1\n\tzone: a\n", ":2:1: not valid YAML: "),
        ("port: 1\nport: 2\n", ":2: port is set for the second time; first in line 1"),
        ("- port\n", ":1: must be settings, one per line"),
        ("port:\n", 'port is "" ('),
        ("port: {a: 1}\n", ":1: port must be a whole number from 1 to 65535, not a list"),
        ("port: [1]\n", "not a list or a mapping"),
        ("join_ip: [[a]]\n", "not a list or a mapping"),
        ("config: other.yaml\n", ":1: config cannot be set in the configuration file itself"),
        ("a: &a [*a]\n", "unknown setting"),
        ("port: 0x50\n", 'port is "0x50"'),
        ("zone: *nowhere\n", ":1:7: not valid YAML: found undefined alias"),
        ("zone: '\x07'\n", ":1: not valid YAML: special characters are not allowed"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    file = write(tmp_path / "k.yaml", text)
    message = problems([f"--config={file}"])[0]
    assert str(file) in message
    assert expected in message


@pytest.mark.parametrize(("text", "port"), [("port: 010\n", 10), ("port: '81'\n", 81), ("", 8080)])
def test_numbers_in_a_file_are_read_as_they_are_written(
    tmp_path: Path, text: str, port: int
) -> None:
    assert load([f"--config={write(tmp_path / 'k.yaml', text)}"], {}).port == port


def test_a_file_that_is_missing_or_not_text_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert the_problem([f"--config={missing}"]) == (
        f"cannot read the configuration file {missing} (flag --config): No such file or directory"
    )
    binary = tmp_path / "k.yaml"
    binary.write_bytes(b"port: 1\n\xff\n")
    assert the_problem([f"--config={binary}"]) == f"{binary}:2: not UTF-8"


# -- Relations -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--raft_tick_ms=300"], "raft_tick_ms (300, flag --raft_tick_ms) must be at most"),
        (["--raft_heartbeat_ms=500"], "must be less than half of raft_election_ms (1000, default)"),
        (["--start_cluster", "--join_ip=a"], "give only one of them"),
        (["--advertise=0.0.0.0"], "is no address that another node could connect to"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    arguments: list[str], expected: str
) -> None:
    assert expected in the_problem(arguments)


def test_the_nearest_allowed_neighbours_of_the_relations_are_accepted() -> None:
    load(["--raft_tick_ms=200", "--raft_heartbeat_ms=200", "--raft_election_ms=401"], {})


# -- Guard and token -----------------------------------------------------------


@pytest.mark.parametrize("ip", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.2", "2001:db8::1"])
def test_beyond_loopback_nothing_starts_without_an_admin_token(ip: str) -> None:
    message = the_problem([f"--listen_ip={ip}"])
    assert "KRITA_ADMIN_TOKEN or admin_token_file" in message
    assert "admin token" in the_problem([f"--listen_ip={ip}"], {"KRITA_ADMIN_TOKEN": ""})
    config = load([f"--listen_ip={ip}"], {"KRITA_ADMIN_TOKEN": TOKEN})
    assert config.listens_beyond_loopback


def test_beyond_loopback_a_token_that_can_be_guessed_is_refused_with_how_to_make_a_good_one() -> (
    None
):
    short = TOKEN[:15]
    message = the_problem(["--listen_ip=0.0.0.0"], {"KRITA_ADMIN_TOKEN": short})
    assert "it must have at least 16 characters" in message
    assert "openssl rand -hex 32" in message
    assert short not in message


def test_on_loopback_a_short_token_is_accepted_with_a_warning() -> None:
    short = TOKEN[:15]
    config = load(["--listen_ip=127.0.0.1"], {"KRITA_ADMIN_TOKEN": short})
    assert config.admin_token == short.encode()
    (warning,) = config.warnings
    assert "fewer than 16 characters" in warning
    assert short not in warning


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(ip: str) -> None:
    assert not load([f"--listen_ip={ip}"], {}).listens_beyond_loopback


def test_the_token_is_read_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "token", f"{TOKEN}\n")
    file.chmod(0o600)
    for config in (
        load([], {"KRITA_ADMIN_TOKEN": TOKEN}),
        load([f"--admin_token_file={file}"], {}),
        load([f"--admin_token_file={file}"], {"KRITA_ADMIN_TOKEN": TOKEN}),
    ):
        assert config.admin_token == TOKEN.encode()
        assert config.warnings == ()


def test_a_token_file_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    file = write(tmp_path / "token", TOKEN)
    file.chmod(0o644)
    (warning,) = load([f"--admin_token_file={file}"], {}).warnings
    assert "other users can read it" in warning
    assert TOKEN not in warning


@pytest.mark.parametrize("flag", ["--admin_token=hunter2", "--admin-token hunter2"])
def test_a_token_on_the_command_line_is_refused_with_the_reason(flag: str) -> None:
    message = the_problem(flag.split())
    assert "shows in the list of processes" in message
    assert "KRITA_ADMIN_TOKEN" in message


def test_a_token_in_the_configuration_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = write(tmp_path / "k.yaml", "admin_token: hunter2\n")
    assert f"{file}:1: admin_token does not belong here" in the_problem([f"--config={file}"])


@pytest.mark.parametrize("token", ["a b", "schlüssel", "\udcff\udcfe", "x" * 513, "tab\tin"])
def test_a_token_that_fits_no_header_is_refused_and_never_shown(token: str, tmp_path: Path) -> None:
    # Beyond loopback: a token that is bad must not be called missing as well.
    message = the_problem(["--listen_ip=0.0.0.0"], {"KRITA_ADMIN_TOKEN": token})
    assert message.startswith("KRITA_ADMIN_TOKEN: the admin token ")
    assert token not in message
    file = tmp_path / "token"
    file.write_bytes(os.fsencode(token))
    file.chmod(0o600)
    assert token not in the_problem([f"--admin_token_file={file}"])


def test_an_empty_or_missing_token_file_and_one_that_differs_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "token", "\n")
    file.chmod(0o600)
    assert "the admin token is empty" in the_problem([f"--admin_token_file={file}"])
    assert "No such file" in the_problem([f"--admin_token_file={tmp_path / 'none'}"])
    write(file, "fedcba9876543210")
    message = the_problem([f"--admin_token_file={file}"], {"KRITA_ADMIN_TOKEN": TOKEN})
    assert "differ; keep one" in message
    assert TOKEN not in message


def test_no_representation_of_a_config_shows_the_token() -> None:
    config = load([], {"KRITA_ADMIN_TOKEN": TOKEN})
    assert TOKEN not in repr(config)


# -- The address that the others use -------------------------------------------


@pytest.mark.parametrize(
    ("listen_ip", "advertise", "expected"),
    [
        ("127.0.0.1", "", "127.0.0.1:81"),
        ("::1", "", "[::1]:81"),
        ("127.0.0.1", "db1", "db1:81"),
        ("127.0.0.1", "db1:9", "db1:9"),
        ("0.0.0.0", "[fe80::1]", "[fe80::1]:81"),
        ("0.0.0.0", "[fe80::1]:9", "[fe80::1]:9"),
    ],
)
def test_the_address_is_advertise_and_its_missing_port_our_own(
    listen_ip: str, advertise: str, expected: str
) -> None:
    config = Config.make(listen_ip=listen_ip, port=81, advertise=advertise)
    assert config.address == expected


def test_listening_everywhere_advertises_the_interface_that_leads_to_the_cluster() -> None:
    config = Config.make(listen_ip="0.0.0.0", port=81, join_ip=("127.0.0.1",))
    assert config.address == "127.0.0.1:81"


def test_an_address_that_no_route_tells_asks_for_advertise() -> None:
    config = Config.make(listen_ip="0.0.0.0", join_ip=("255.255.255.255",))
    with pytest.raises(ConfigError, match="set advertise"):
        _ = config.address


def test_every_pair_of_flags_in_either_order_gives_the_same_config() -> None:
    flags = ["--port=1", "--zone=a", "--start_cluster", "--shards=2"]
    for pair in itertools.combinations(flags, 2):
        assert load(list(pair), {}) == load(list(reversed(pair)), {})
