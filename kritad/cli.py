"""The command ``kritad``: arguments in, exit status out.

Exit status (what ``packaging/kritad.service`` relies on, and ``kritad --help`` tells):

    0    stopped as asked, or the command did what it should
    1    failed while running: the log says why
    2    the command line makes no sense: an unknown command, flag or argument
    78   a setting, or the data directory, is not one to start with (EX_CONFIG of
         sysexits.h): a restart would only fail again

Only what a command needs is imported: ``kritad --version`` answers before trio
would have been loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from kritad import __version__

if TYPE_CHECKING:
    from kritad.config import Config, ConfigError

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78

HELP = """\
kritad: the daemon of Krita, a distributed key-value database.

Usage:
  kritad [run] [FLAGS]                  run a node
  kritad dev [--nodes=N] [FLAGS]        run a cluster of N nodes on this machine, for trying out
  kritad config check [FLAGS]           say whether a node could start with these settings
  kritad config print [FLAGS]           the settings in effect, and where each comes from
  kritad config template                a configuration file of every setting, commented
  kritad recover --plan|--apply ...     go on without a majority that is lost for good
  kritad --version
  kritad help

The first node starts the cluster, the others join it by its address:
  kritad --data_dir=/var/lib/krita
  kritad --data_dir=/var/lib/krita2 --port=8081 --join_ip=127.0.0.1

Every setting is a flag (--raft_election_ms=2000, with hyphens as well), an environment
variable (KRITA_RAFT_ELECTION_MS=2000) and a line of the configuration file
(raft_election_ms: 2000). Flags win over the environment, the environment over the file.
KRITA_ADMIN_TOKEN, or admin_token_file, is the secret that administration asks for; to
listen beyond loopback it must be set, to 16 characters or more, the same on every node.
listen_ip may be given as LISTEN_IP too.

"""

EXIT_HELP = """\
Exit status: 0 stopped as asked; 1 failed while running; 2 bad command line; 78 bad setting
or data directory.
"""


def main() -> int:
    """The console script."""
    try:
        return run(sys.argv[1:])
    except BrokenPipeError:
        # ``kritad help | head``: leave quietly, and let no flush at exit fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments (without the program's name) say; returns the exit status."""
    first = arguments[0] if arguments else ""
    if first in ("--version", "-V", "version"):
        print(f"kritad {__version__}")
        return EXIT_OK
    if first == "recover":
        return _recover(arguments[1:])  # it explains its own flags
    if first == "help" or any(argument in ("--help", "-h") for argument in arguments):
        return _help()
    if not first or first.startswith("-"):
        return _run(arguments)
    command = COMMANDS.get(first)
    if command is None:
        return _unknown(first, COMMANDS, "command")
    return command(arguments[1:])


def _help() -> int:
    from kritad.config_text import flags_help

    print(HELP + flags_help() + "\n" + EXIT_HELP, end="")
    return EXIT_OK


def _run(arguments: Sequence[str]) -> int:
    config = _load(arguments)
    if isinstance(config, int):
        return config
    from kritad import logs
    from kritad.daemon import run as run_daemon

    try:
        logs.configure(config)
    except OSError as error:
        return _complain(
            EXIT_CONFIG, [f"log_file is {config.log_file}: cannot write it: {error.strerror}"]
        )
    return run_daemon(config)


def _dev(arguments: Sequence[str]) -> int:
    from kritad import dev
    from kritad.config import ConfigError
    from kritad.dev_plan import make_plan

    try:
        plan = make_plan(arguments, os.environ)
    except ConfigError as error:
        return _refuse(error)
    return dev.run(plan)


def _config(arguments: Sequence[str]) -> int:
    from kritad import config_text

    action, flags = (arguments[0] if arguments else ""), arguments[1:]
    if action == "template" and not flags:
        print(config_text.template(), end="")
        return EXIT_OK
    if action == "template":
        return _complain(EXIT_USAGE, ["config template takes no flags"])
    if action not in CONFIG_ACTIONS:
        return _unknown(action, CONFIG_ACTIONS, "config command")
    config = _load(flags)
    if isinstance(config, int):
        return config
    for warning in config.warnings:
        _complain(EXIT_OK, [warning])
    if action == "print":
        print(config_text.effective(config), end="")
    else:
        print("ok: these settings are valid")
    return EXIT_OK


def _recover(arguments: Sequence[str]) -> int:
    from kritad import recover

    return recover.run(arguments, print, lambda text: print(text, file=sys.stderr), input)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _run,
    "dev": _dev,
    "config": _config,
    "recover": _recover,
}
CONFIG_ACTIONS = ("check", "print", "template")


def _load(arguments: Sequence[str]) -> Config | int:
    """The Config, or the exit status when there is none (it has been explained then)."""
    from kritad.config import ConfigError, load

    try:
        return load(arguments, os.environ)
    except ConfigError as error:
        return _refuse(error)


def _refuse(error: ConfigError) -> int:
    status = EXIT_USAGE if error.usage else EXIT_CONFIG
    return _complain(status, [problem.message for problem in error.problems])


def _unknown(word: str, known: Iterable[str], what: str) -> int:
    from kritad.sources import suggestion

    listed = ", ".join(known)
    if not word:
        return _complain(EXIT_USAGE, [f"which {what}? One of {listed}"])
    close = suggestion(word, known) or f"; one of {listed}"
    return _complain(EXIT_USAGE, [f'unknown {what} "{word}"{close}'])


def _complain(status: int, messages: Sequence[str]) -> int:
    for message in messages:
        print(f"kritad: {message}", file=sys.stderr)
    if status == EXIT_USAGE:
        print("kritad help tells what there is.", file=sys.stderr)
    return status
