"""From words to invocations, over the real table of commands."""

from __future__ import annotations

import pytest

from kritash.commands import COMMANDS, COMMON_OPTIONS, GLOBAL_OPTIONS
from kritash.grammar import Invocation, Kind
from kritash.parser import parse, parse_options
from kritash.words import ParseError, split, words_of


def parsed(line: str) -> Invocation:
    return parse(split(line), COMMANDS, COMMON_OPTIONS)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("key get a", "key get"),
        ("get a", "key get"),
        ("put a b", "key put"),
        ("del a", "key delete"),
        ("delete a", "key delete"),
        ("cluster status", "cluster status"),
        ("--json node list", "node list"),
        ("bench mixed --read-ratio 0.5", "bench mixed"),
        ("?", "help"),
        ("quit", "exit"),
    ],
)
def test_full_names_and_short_forms_find_their_command(line: str, name: str) -> None:
    assert parsed(line).command.name == name


def test_every_command_and_every_short_form_in_the_table_can_be_found() -> None:
    fitting = {Kind.KEY: "k", Kind.VALUE: "v", Kind.ZONE: "a", Kind.DURATION: "2s"}
    for command in COMMANDS:
        words = [
            fitting.get(argument.kind, "2")
            for argument in command.arguments
            if not argument.optional
        ]
        for name in (command.name, *command.aliases):
            assert parsed(" ".join([name, *words])).command is command


def test_options_are_understood_before_between_and_behind_arguments() -> None:
    for line in ("--json put a b", "put --json a b", "put a --json b", "put a b --json"):
        found = parsed(line)
        assert found.flag("json")
        assert found.key() == b"a"


def test_hyphens_and_underscores_in_option_names_are_the_same() -> None:
    assert parsed("bench put --in_flight 3").integer("in-flight") == 3
    assert parsed("bench put --in-flight=4").integer("in-flight") == 4


def test_options_that_are_not_given_have_their_defaults() -> None:
    found = parsed("bench put")
    assert (found.integer("connections"), found.integer("in-flight")) == (8, 64)
    assert not found.flag("sessions")


def test_behind_two_hyphens_nothing_is_an_option() -> None:
    assert parsed("get -- --json").key() == b"--json"


def test_a_quoted_word_is_no_option() -> None:
    assert parsed("get '--json'").key() == b"--json"


def test_a_negative_number_is_a_value_and_no_option() -> None:
    word = parsed("put temperature -5.5").arguments["VALUE"]
    assert getattr(word, "data") == b"-5.5"  # noqa: B009 (typed object)


@pytest.mark.parametrize(
    ("line", "column", "message", "hint"),
    [
        ("gett a", 0, "unknown command 'gett'", "did you mean 'get'?"),
        ("clutser status", 0, "unknown command 'clutser'", "did you mean 'cluster'?"),
        ("key gte a", 4, "unknown command 'key gte'", "did you mean 'get'?"),
        ("nosuch", 0, "unknown command 'nosuch'", "'help' lists the commands"),
        ("zzzz", 0, "unknown command 'zzzz'", "'help' lists the commands"),
        ("move", 0, "'move' needs one of: cancel, list, pause, resume", ""),
        ("node drian 3", 5, "unknown command 'node drian'", "did you mean 'drain'?"),
        ("node set-weight 1 0", 18, "WEIGHT must be a whole number from 1 on, not '0'", ""),
        ("node set-weight 1 101", 18, "WEIGHT must be at most 100, not '101'", ""),
        ("node set-zone 1 'a\tb'", 16, "ZONE must be text of at most 64 printable", ""),
        ("node replace 3", 14, "NEW is missing: ", "usage: node replace OLD NEW"),
        ("node drain 3 --wait-s 0", 22, "--wait-s must be a number of seconds above 0", ""),
        ("get", 3, "KEY is missing: ", "usage: key get KEY"),
        ("get ''", 4, "KEY must not be empty", ""),
        ("get a b", 6, "key get takes no more arguments", "usage: key get KEY"),
        ("put a b c", 8, "key put takes no more arguments", "a value with blanks needs quotes"),
        ("get a --jsn", 6, "unknown option --jsn", "did you mean '--json'?"),
        ("get a --json=1", 6, "--json takes no value", ""),
        ("bench put --keys", 10, "--keys needs a value: N", ""),
        ("bench put --keys 0", 17, "--keys must be a whole number from 1 on, not '0'", ""),
        ("bench put --keys x", 17, "--keys must be a whole number from 1 on, not 'x'", ""),
        ("bench put --seconds 0", 20, "--seconds must be a number of seconds above 0", ""),
        ("bench mixed --read-ratio 1.5", 25, "--read-ratio must be a number from 0 to 1", ""),
        ("shard transfer one 2", 15, "SHARD must be a whole number from 0 on, not 'one'", ""),
        ("key import f --format jsno", 22, "--format must be one of jsonl, csv,", "'jsonl'?"),
        ("shard transfer 1 0", 17, "NODE must be a whole number from 1 on, not '0'", ""),
    ],
)
def test_a_wrong_line_says_where_it_went_wrong_and_what_was_meant(
    line: str, column: int, message: str, hint: str
) -> None:
    with pytest.raises(ParseError) as caught:
        parsed(line)
    assert caught.value.message.startswith(message)
    assert caught.value.column == column
    assert hint in caught.value.hint


def test_kritashs_own_options_are_found_on_both_sides_of_the_command() -> None:
    words = words_of(["--nodes", "a:1", "bench", "put", "--keys", "5", "--timeout_ms=70"])
    options, rest = parse_options(words, GLOBAL_OPTIONS)
    assert (options["nodes"], options["timeout-ms"]) == ("a:1", 70)
    assert parse(rest, COMMANDS, GLOBAL_OPTIONS).integer("keys") == 5


def test_an_option_may_be_repeated_where_the_table_says_so() -> None:
    options, rest = parse_options(words_of(["-e", "get a", "-e", "get b"]), GLOBAL_OPTIONS)
    assert options["execute"] == ["get a", "get b"]
    assert not rest


def test_words_from_argv_are_taken_as_they_are() -> None:
    found = parse(words_of(["get", r"a\x00 'b'"]), COMMANDS, GLOBAL_OPTIONS)
    assert found.key() == rb"a\x00 'b'"
