"""Waiting: what is done, how far it is, and when the waiting ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from krita.errors import Unauthenticated, Unavailable
from kritash.context import Context
from kritash.documents import Cluster
from kritash.exits import Exit
from kritash.follow import PAUSE_S_MAX, SILENCE_S_MAX, Followed, Progress, follow
from kritash.progress import QUIET_LOOKS, Arrival, emptying, moving, splitting
from kritash.reply import Reply
from kritash.settings import Settings
from kritash.units import count_text, duration_text, rate_text, share_text, size_text
from tests.kritash import samples
from tests.kritash.samples import Document, node, replica


def of(status: Document) -> Cluster:
    return Cluster.of(status)


def draining(**different: object) -> Document:
    """Node 4 of 4 is drained: one shard has gone, one is going, one is still to go."""
    status = samples.status(4, 4)
    status["nodes"][3] |= {"state": "draining"} | different
    status["shards"][1]["replicas"] = [replica(n) for n in (1, 2, 3)]
    status["shards"][2]["replicas"] = [replica(1), replica(2), replica(3, "learner")]
    status["shards"][3]["replicas"] = [replica(n) for n in (1, 2, 4)]
    status["shards"][4]["replicas"] = [replica(n) for n in (1, 2, 3)]
    status["moves"] = [samples.move(2, 4, 3)]
    status["moves_to_come"] = 1
    return status


# -- A node that gets empty ----------------------------------------------------


def test_a_drain_counts_what_is_left_with_what_is_half_way() -> None:
    seen = emptying(of(draining()), 4, 3, leave=False)
    assert (seen.done, seen.document["replicas_left"]) == (False, 2)
    assert seen.share == pytest.approx((1 + 0.4) / 3)
    assert seen.text == "node 4: 2 replicas left of 3, 1 on the move"
    assert seen.pace == ", 2.0 MiB/s, the copies on their way need 3 s"


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"paused": True}, "all moves are paused"),
        ({"moves": []}, "waiting for its turn (1 shard to move)"),
        ({"moves": [], "moves_to_come": 0}, "nothing moves: kritash doctor may say why"),
        ({"moves": [samples.move(2, 4, 3, reason="node 3 does not answer")]},
         "waiting: node 3 does not answer"),
    ],
)  # fmt: skip
def test_a_drain_that_does_not_go_on_says_why(different: Document, said: str) -> None:
    assert emptying(of(draining() | different), 4, 3, leave=False).text.endswith(said)


@pytest.mark.parametrize(
    ("different", "leave", "done"),
    [
        ({}, False, False),
        ({"drained": True}, False, True),
        ({"drained": True}, True, False),
        # Seen before the drain has come to the node that was asked: empty, but not drained.
        ({"drained": True, "state": "up"}, False, False),
        ({"state": "removing", "drained": True}, True, False),
        ({"state": "left"}, True, True),
        ({"state": "left"}, False, True),
    ],
)
def test_a_node_is_done_when_it_is_drained_or_has_left(
    different: Document, leave: bool, done: bool
) -> None:
    assert emptying(of(draining(**different)), 4, 3, leave).done is done


def test_a_node_that_is_not_known_is_not_done() -> None:
    assert not emptying(of(samples.status()), 9, 0, leave=True).done


# -- A node that comes ---------------------------------------------------------


def joined(wanted: int, moves: int, to_come: int = 0, **different: object) -> Document:
    """A fourth node with some replicas, of which some are on their way."""
    status = samples.status(3, 4)
    status["nodes"].append(node(4, **different))
    for shard in status["shards"][1 : 1 + wanted]:
        shard["replicas"] = [replica(1), replica(2), replica(4)]
    status["moves"] = [samples.move(at + 1, 3, 4) for at in range(moves)]
    status["moves_to_come"] = to_come
    return status


def test_a_new_node_is_awaited_then_filled_then_done() -> None:
    arrival = Arrival(frozenset({1, 2, 3}))
    looks = [
        (samples.status(), "no new node has joined yet"),
        (joined(0, 0, reachable=False), "node 4 has joined, and does not answer"),
        (joined(0, 0, 3), "node 4: 0 of about 3 replicas, waiting for its turn (3 shards to move)"),
        (joined(2, 2, 1), "node 4: 0 of about 3 replicas, 2 on the move"),
        (joined(3, 1), "node 4: 2 of about 3 replicas, 1 on the move"),
        (joined(3, 0), "node 4: 3 of about 3 replicas"),
    ]
    for status, text in looks:
        seen = arrival.progress(of(status))
        assert seen.text.startswith(text)
        assert not seen.done
    for _ in range(QUIET_LOOKS - 2):
        assert not arrival.progress(of(joined(3, 0))).done
    seen = arrival.progress(of(joined(3, 0)))
    assert (seen.done, seen.text) == (True, "node 4 is a member with 3 replicas")


def test_a_moment_without_moves_is_not_the_end_of_them() -> None:
    arrival = Arrival(frozenset({1, 2, 3}))
    for _ in range(3):
        for _ in range(QUIET_LOOKS - 1):
            assert not arrival.progress(of(joined(2, 0))).done
        assert not arrival.progress(of(joined(3, 1))).done
    for _ in range(2 * QUIET_LOOKS):
        assert not arrival.progress(of(joined(2, 0, 1))).done


def test_the_share_of_a_bar_never_leaves_it() -> None:
    arrival = Arrival(frozenset({1, 2, 3}))
    for wanted in range(5):
        for moves in range(wanted + 1):
            share = arrival.progress(of(joined(wanted, moves))).share
            assert share is None or 0 <= share <= 1


# -- A shard that moves or is split --------------------------------------------


def test_a_move_is_done_when_the_target_has_it_and_nothing_is_in_motion() -> None:
    status = samples.status(4, 4)
    assert moving(of(status), 1, 2, 1).text == "shard 1: about to move"
    status["shards"][1] |= {"replicas": [replica(3), replica(4), replica(1)], "in_motion": True}
    status["moves"] = [samples.move(1, 2, 1)]
    seen = moving(of(status), 1, 2, 1)
    assert (seen.done, seen.share) == (False, 0.4)
    status["shards"][1]["in_motion"] = False
    assert moving(of(status), 1, 2, 1).done


def test_a_split_is_done_when_the_new_half_has_a_leader() -> None:
    status = samples.status(3, 4)
    assert not splitting(of(status), 1, 5).done
    half = samples.shard(5, [1, 2, 3], (1 << 29, 1 << 30), leader=0)
    status["shards"].append(half)
    assert splitting(of(status), 1, 5).text == "shard 5 is there, without a leader yet"
    half["leader"] = 2
    status["shards"][1]["splitting"] = True
    assert not splitting(of(status), 1, 5).done
    status["shards"][1]["splitting"] = False
    assert splitting(of(status), 1, 5).text == "shard 1 is split: shard 5 is led by node 2"


# -- Following -----------------------------------------------------------------


class Shown:
    """A display that keeps what it is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.removed = 0
        self.terminal = self.as_json = False

    def progress(self, line: str, share: float | None = None, pace: str = "") -> None:
        self.lines.append(line + pace if share is None else f"{line}{pace} {share}")

    def progress_done(self) -> None:
        self.removed += 1

    def preview(self, reply: Reply) -> None:
        raise AssertionError(reply)

    def note(self, text: str) -> None:
        raise AssertionError(text)

    def result(self, text: str) -> None:
        raise AssertionError(text)

    def part(self, reply: Reply) -> None:
        raise AssertionError(reply)

    def data(self, text: str) -> None:
        raise AssertionError(text)


class Waiting:
    """``follow`` with a clock that only pauses move."""

    def __init__(self) -> None:
        self.display = Shown()
        self.now_s = 0.0
        self.pauses_s: list[float] = []

    def run(self, look: Callable[[], Progress], patience_s: float | None = None) -> Followed:
        settings = Settings(("h:1",), 1000, None)
        context = Context(settings, self.display, clock=lambda: self.now_s, pause=self._pause)
        return follow(context, look, patience_s)  # fmt: skip

    def _pause(self, seconds: float) -> None:
        self.now_s += seconds
        self.pauses_s.append(seconds)


def looks(*seen: Progress | Exception | KeyboardInterrupt) -> Callable[[], Progress]:
    """One after the other; the last for ever."""
    left = list(seen)

    def look() -> Progress:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, BaseException):
            raise now
        return now

    return look


HALF, DONE = Progress(False, "half", 0.5), Progress(True, "done", 1.0)


def test_each_look_but_the_last_is_shown_and_the_end_ends_it() -> None:
    waiting = Waiting()
    followed = waiting.run(looks(Progress(False, "begun"), HALF, DONE))
    assert (followed.code, followed.progress) == (Exit.DONE, DONE)
    assert waiting.display.lines == ["begun", "half 0.5"]
    assert waiting.display.removed == 1


def test_pauses_grow_to_a_second_and_no_longer() -> None:
    waiting = Waiting()
    waiting.run(looks(*[HALF] * 20, DONE))
    assert waiting.pauses_s == sorted(waiting.pauses_s)
    assert waiting.pauses_s[-1] == PAUSE_S_MAX


def test_patience_ends_with_no() -> None:
    waiting = Waiting()
    followed = waiting.run(looks(HALF), patience_s=5)
    assert (followed.code, followed.progress) == (Exit.NO, HALF)
    assert 5 <= waiting.now_s < 5 + 2 * PAUSE_S_MAX


def test_a_look_that_fails_is_repeated() -> None:
    waiting = Waiting()
    followed = waiting.run(looks(HALF, Unavailable("no leader"), DONE))
    assert followed.code is Exit.DONE
    assert waiting.display.lines == ["half 0.5", "no answer: no leader"]


def test_a_cluster_that_stays_silent_is_the_answer() -> None:
    waiting = Waiting()
    with pytest.raises(Unavailable):
        waiting.run(looks(HALF, Unavailable("no leader")))
    assert waiting.now_s > SILENCE_S_MAX


def test_what_another_look_does_not_change_ends_it_at_once() -> None:
    waiting = Waiting()
    with pytest.raises(Unauthenticated):
        waiting.run(looks(Unauthenticated("no token")))
    assert waiting.now_s == 0


def test_ctrl_c_ends_the_waiting_and_keeps_what_was_seen() -> None:
    waiting = Waiting()
    followed = waiting.run(looks(HALF, KeyboardInterrupt()))
    assert (followed.code, followed.progress) == (Exit.INTERRUPTED, HALF)


# -- Units ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (size_text(0), "0 B"),
        (size_text(1023), "1023 B"),
        (size_text(1536), "1.5 KiB"),
        (size_text(102_350), "100 KiB"),
        (size_text(5 << 40), "5.0 TiB"),
        (size_text(None), "-"),
        (rate_text(2 << 20), "2.0 MiB/s"),
        (duration_text(0.2), "0 s"),
        (duration_text(60), "1 min"),
        (duration_text(200), "3 min 20 s"),
        (duration_text(7500), "2 h 5 min"),
        (duration_text(360_000), "4 d 4 h"),
        (share_text(0.125), "12.5 %"),
        (count_text(1, "copy"), "1 copy"),
        (count_text(0, "copy"), "0 copies"),
        (count_text(2, "replica"), "2 replicas"),
    ],
)
def test_numbers_are_shown_as_people_read_them(shown: str, expected: str) -> None:
    assert shown == expected
