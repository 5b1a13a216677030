"""The checker agrees with Porcupine's verdicts on its own test data."""

from __future__ import annotations

import pytest

from tests.simulator import porcupine
from tests.simulator.search import UNKNOWN, Call, Verdict, check


def test_every_history_of_porcupine_gets_its_verdict() -> None:
    histories = porcupine.require()
    assert len(histories) > 50
    assert {history.linearizable for history in histories} == {True, False}
    wrong = []
    for history in histories:
        verdicts = [check(model, calls).verdict for model, calls in history.objects()]
        assert Verdict.UNKNOWN not in verdicts, f"{history.name} is not decided"
        if (Verdict.NOT not in verdicts) != history.linearizable:
            wrong.append(history.name)
    assert wrong == []


def test_a_jepsen_log_is_read_event_by_event() -> None:
    text = (
        "INFO  jepsen.util - 0\t:invoke\t:write\t3\n"
        "INFO  jepsen.util - 1\t:invoke\t:cas\t[3 4]\n"
        "INFO  jepsen.util - 0\t:ok\t:write\t3\n"
        "INFO  jepsen.util - 1\t:fail\t:cas\t[3 4]\n"
        "INFO  jepsen.util - 0   :invoke :read   nil\n"
        "INFO  jepsen.util - 0   :ok :read   3\n"
        "INFO  jepsen.util - 2\t:invoke\t:write\t1\n"
        "INFO  jepsen.util - 2\t:info\t:write\t:timed-out\n"
    )
    assert list(porcupine.jepsen_calls(text)) == [
        Call(("write", 3), True, (1, 0), (3, 0)),
        Call(("cas", 3, 4), False, (2, 0), (4, 0)),
        Call(("read",), 3, (5, 0), (6, 0)),
        Call(("write", 1), UNKNOWN, (7, 0), None),
    ]


def test_the_strings_of_each_key_are_an_object_of_their_own() -> None:
    text = (
        '{:process 0, :type :invoke, :f :append, :key "1", :value "x 0 y"}\n'
        '{:process 1, :type :invoke, :f :get, :key "2", :value nil}\n'
        '{:process 0, :type :ok, :f :append, :key "1", :value "x 0 y"}\n'
        '{:process 1, :type :ok, :f :get, :key "2", :value ""}\n'
    )
    assert porcupine.string_calls(text) == {
        "1": [Call(("append", "x 0 y"), True, (1, 0), (3, 0))],
        "2": [Call(("get",), "", (2, 0), (4, 0))],
    }


def test_a_line_that_is_no_event_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="line 1 is no event"):
        list(porcupine.jepsen_calls("WARN something else\n"))
