"""Where settings come from: flags, environment variables and a YAML file.

Each reader turns its source into ``Given`` values, still text, each knowing its
origin; what it cannot place is a ``Problem``. No reader stops at the first
problem: whoever starts a node wants to hear of all of them at once. Nothing
here knows which source wins (``config.py`` does).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from kritad.settings import BY_NAME, CLIENT_VARIABLES, SETTINGS, TOKEN_VARIABLE, Kind

if TYPE_CHECKING:
    import yaml

CONFIG_FILE_BYTES_MAX = 1 << 20

TOKEN_FLAG_REFUSED = (
    "a token on the command line shows in the list of processes; "
    f"set {TOKEN_VARIABLE}, or write it into a file and give --admin_token_file"
)
TOKEN_KEY_REFUSED = (
    "a configuration file gets copied and committed, so it holds no secrets; "
    f"set {TOKEN_VARIABLE}, or write it into a file and set admin_token_file"
)
SERVICE_LINKS_HINT = (
    'Kubernetes sets this for a service called "krita": '
    "set enableServiceLinks: false in the pod's specification"
)


@frozen
class Given:
    """One setting as one source gives it: ``origin`` is a phrase such as
    "flag --port" or "krita.yaml:3"."""

    name: str
    text: str
    origin: str


@frozen
class Problem:
    """Why kritad does not start. ``usage``: the command line itself makes no sense,
    as opposed to a setting with a bad value."""

    message: str
    usage: bool = False


@define
class Reading:
    """What a source gave, and what is wrong with it."""

    given: list[Given] = field(factory=list)
    problems: list[Problem] = field(factory=list)
    # Only from the environment; never shown.
    admin_token: str | None = field(default=None, repr=False)

    def wrong(self, message: str, *, usage: bool = False) -> None:
        self.problems.append(Problem(message, usage))


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` if a known word resembles this one, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


# -- Flags ---------------------------------------------------------------------


def read_flags(arguments: Sequence[str]) -> Reading:
    """``--name=value``, ``--name value``, ``--flag``; hyphens may stand for the
    underscores of a name. Of a flag given twice the last counts, except that
    ``--join_ip`` adds up."""
    reading = Reading()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or argument == "--":
            reading.wrong(f'unexpected argument "{argument}"', usage=True)
            continue
        word, equals, text = argument[2:].partition("=")
        name = word.replace("-", "_")
        setting = BY_NAME.get(name)
        if setting is None:
            _unknown_flag(reading, word, name)
            # The value of an unknown flag is not a second mistake.
            if not equals and rest and not rest[0].startswith("-"):
                rest.pop(0)
            continue
        if not equals and setting.kind is Kind.FLAG:
            text = "true"
        elif not equals:
            if not rest or rest[0].startswith("--"):
                reading.wrong(
                    f"flag --{word} needs a value: it must be {setting.allowed}", usage=True
                )
                continue
            text = rest.pop(0)
        reading.given.append(Given(name, text, f"flag --{word}"))
    return reading


def _unknown_flag(reading: Reading, word: str, name: str) -> None:
    if name == "admin_token":
        reading.wrong(f"flag --{word} does not exist: {TOKEN_FLAG_REFUSED}", usage=True)
        return
    close = suggestion(f"--{name}", [setting.flag for setting in SETTINGS])
    reading.wrong(f"unknown flag --{word}{close}", usage=True)


# -- Environment ---------------------------------------------------------------


def read_environment(environment: Mapping[str, str]) -> Reading:
    """Every variable that begins with KRITA_, and LISTEN_IP. An unknown one is a
    problem: a misspelt setting must not be silently without effect."""
    reading = Reading()
    known = {setting.environment: setting for setting in SETTINGS}
    also = {s.environment_also: s for s in SETTINGS if s.environment_also}
    for variable, text in sorted(environment.items()):
        setting = known.get(variable) or also.get(variable)
        if variable == TOKEN_VARIABLE:
            reading.admin_token = text
        elif setting is not None:
            if text.startswith("tcp://"):
                reading.wrong(f"environment variable {variable}: {SERVICE_LINKS_HINT}")
                continue
            reading.given.append(Given(setting.name, text, f"environment variable {variable}"))
        elif variable.startswith("KRITA_") and variable not in CLIENT_VARIABLES:
            if variable.startswith(("KRITA_PORT_", "KRITA_SERVICE_")):
                reading.wrong(f"unknown environment variable {variable}: {SERVICE_LINKS_HINT}")
                continue
            close = suggestion(variable, [*known, TOKEN_VARIABLE, *CLIENT_VARIABLES])
            reading.wrong(f"unknown environment variable {variable}{close}")
    _check_aliases(reading, environment)
    return reading


def _check_aliases(reading: Reading, environment: Mapping[str, str]) -> None:
    """Two names for one setting must not disagree: neither is stronger."""
    for setting in SETTINGS:
        one, other = environment.get(setting.environment), None
        if setting.environment_also:
            other = environment.get(setting.environment_also)
        if one is not None and other is not None and one != other:
            reading.wrong(
                f"environment variables {setting.environment} and {setting.environment_also} "
                f"both set {setting.name}, and differ; keep one"
            )


# -- YAML ----------------------------------------------------------------------


def read_file(path: Path, origin: str) -> Reading:
    """One mapping of settings. The composed nodes are read rather than the loaded
    values: they know their lines, repeat a key that is given twice, and leave
    ``010`` and ``1:30`` as they were written, so that all three sources are
    read by one set of rules."""
    reading = Reading()
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_FILE_BYTES_MAX + 1)
    except OSError as error:
        reading.wrong(f"cannot read the configuration file {path} ({origin}): {error.strerror}")
        return reading
    if len(data) > CONFIG_FILE_BYTES_MAX:
        reading.wrong(f"{path}: a configuration file has at most {CONFIG_FILE_BYTES_MAX} bytes")
        return reading
    _read_yaml(reading, path, data)
    return reading


def _read_yaml(reading: Reading, path: Path, data: bytes) -> None:
    import yaml  # 20 ms, and most nodes have no file

    try:
        root = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reading.wrong(f"{path}:{line}: not UTF-8")
        return
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        reading.wrong(f"{path}{place}: not valid YAML: {error.problem or error.context}")
        return
    except yaml.reader.ReaderError as error:
        # The position counts characters, which is not what an editor shows.
        line = data.decode("utf-8").count("\n", 0, int(error.position)) + 1
        reading.wrong(f"{path}:{line}: not valid YAML: {error.reason}")
        return
    except (yaml.YAMLError, RecursionError) as error:
        reading.wrong(f"{path}: not valid YAML: {error or 'nested too deeply'}")
        return
    if root is None:
        return  # empty, or nothing but comments
    if not isinstance(root, yaml.MappingNode):
        reading.wrong(f"{_place(path, root)}: must be settings, one per line, as in port: 8080")
        return
    _read_mapping(reading, path, root)


def _read_mapping(reading: Reading, path: Path, root: yaml.MappingNode) -> None:
    seen: dict[str, int] = {}
    names = [setting.name for setting in SETTINGS if setting.in_file]
    for key, node in root.value:
        place, name = _place(path, key), str(key.value)
        line = key.start_mark.line + 1
        if name in seen:
            reading.wrong(f"{place}: {name} is set for the second time; first in line {seen[name]}")
            continue
        seen[name] = line
        if name == "admin_token":
            reading.wrong(f"{place}: admin_token does not belong here: {TOKEN_KEY_REFUSED}")
        elif name == "config":
            reading.wrong(f"{place}: config cannot be set in the configuration file itself")
        elif name not in names:
            reading.wrong(f'{place}: unknown setting "{name}"{suggestion(name, names)}')
        else:
            _read_value(reading, name, node, place)


def _read_value(reading: Reading, name: str, node: yaml.Node, place: str) -> None:
    import yaml

    setting = BY_NAME[name]
    items: list[yaml.Node] = [node]
    if setting.kind is Kind.ADDRESSES and isinstance(node, yaml.SequenceNode):
        items = node.value
    texts = [item.value for item in items if isinstance(item, yaml.ScalarNode)]
    if len(texts) != len(items):
        reading.wrong(f"{place}: {name} must be {setting.allowed}, not a list or a mapping")
        return
    reading.given.extend(Given(name, text, place) for text in texts)


def _place(path: Path, node: yaml.Node) -> str:
    """file:line, as compilers and editors write it."""
    return f"{path}:{node.start_mark.line + 1}"
