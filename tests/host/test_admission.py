"""Who is let in: members, newcomers; not wiped, rolled-back or copied disks."""

from __future__ import annotations

import attrs
import pytest

from krita.errors import Foreign, Unavailable
from krita.hello import Identity
from kritad.cluster.model import NodeRecord, NodeState
from kritad.cluster.view import MetaView
from kritad.host.admission import Twins, check_kept, check_member, lost_advice, same_place

N = [bytes([number]) * 16 for number in range(10)]  # N[b]: drawn at boot b
COPY = b"?" * 16  # drawn by a copy instead

KNOWN = NodeRecord(2, b"s" * 16, "n2:8080", "", 5, nonce=N[5])


def view(known: NodeRecord = KNOWN) -> MetaView:
    return MetaView(b"c" * 16, 3, 9, {2: known}, {})


def who(
    node: int = 2, store: bytes = b"s" * 16, boot: int = 5, nonces: tuple[bytes, ...] = ()
) -> Identity:
    return Identity(b"c" * 16, node, store, boot, "n2:8080", nonces)


@pytest.mark.parametrize(
    "identity",
    [
        who(),
        who(boot=6),
        who(node=3, store=b"?" * 16),
        who(nonces=(N[4], N[5])),
        who(boot=7, nonces=(N[5], N[6], N[7])),
        # Boot 7 was acknowledged: the view that knows only boot 5 is old.
        who(boot=8, nonces=(N[7], N[8])),
    ],
)
def test_a_member_is_let_in_and_so_is_one_too_new_to_be_known(identity: Identity) -> None:
    check_member(view(), identity)


def test_a_known_name_on_another_disk_is_turned_away() -> None:
    with pytest.raises(Foreign, match="is known with store"):
        check_member(view(), who(store=b"?" * 16))


@pytest.mark.parametrize(
    "identity",
    [
        who(boot=4),
        who(boot=4, nonces=(N[3], N[4])),
        # Set back to boot 4 and started as often as the original, or more often.
        who(boot=5, nonces=(N[4], COPY)),
        who(boot=6, nonces=(N[4], COPY, N[6])),
    ],
)
def test_a_disk_that_was_rolled_back_is_turned_away(identity: Identity) -> None:
    with pytest.raises(Foreign, match="rolled back"):
        check_member(view(), identity)


def test_a_node_that_never_told_a_nonce_is_judged_by_its_boots() -> None:
    check_member(view(attrs.evolve(KNOWN, nonce=b"")), who(nonces=(N[4], COPY)))


def test_a_node_that_a_recovery_has_given_up_stays_away() -> None:
    check_kept(frozenset({3}), who())
    with pytest.raises(Foreign, match="given up when this cluster was recovered"):
        check_kept(frozenset({2, 3}), who())


def test_a_member_that_was_where_a_newcomer_is_now_is_named_with_what_to_do() -> None:
    assert same_place(view(), "n2:8080", {1}, 4) == [2]
    assert same_place(view(), "n2:8080", {1, 2}, 4) == []
    assert same_place(view(), "n2:8080", {1}, 2) == []
    assert same_place(view(), "elsewhere:8080", {1}, 4) == []
    left = attrs.evolve(KNOWN, state=NodeState.LEFT)
    assert same_place(view(left), "n2:8080", {1}, 4) == []
    assert "kritash node remove 2 --yes" in lost_advice([2], "n2:8080")


class Line:
    """What a node's dialled connection is, for ``Twins``: who answers, how often dialled."""

    def __init__(self, other: Identity | None) -> None:
        self.other = other
        self.attempts = 1
        self.redials = 0
        self.twins = Twins()

    def redial(self) -> None:
        self.redials += 1

    def dialled(self, other: Identity | None) -> None:
        """An attempt has ended."""
        self.other = other
        self.attempts += 1

    def judge(self, newcomer: Identity) -> None:
        self.twins.judge(newcomer, self.other, self.attempts, self.redial)


ORIGINAL = who(boot=5)
OTHER = attrs.evolve(who(boot=6), address="elsewhere:8080")


@pytest.mark.parametrize("running", [None, OTHER])
def test_who_is_the_only_one_is_let_in_at_once(running: Identity | None) -> None:
    line = Line(running)
    line.judge(OTHER)
    assert line.redials == 0


def test_a_copy_is_refused_when_the_original_still_answers() -> None:
    line = Line(ORIGINAL)
    for _ in range(3):  # its lanes, and its attempts
        with pytest.raises(Unavailable, match="finding out"):
            line.judge(OTHER)
    assert line.redials == 1
    line.dialled(ORIGINAL)
    with pytest.raises(Foreign, match=r"already running at n2:8080 \(boot 5\)"):
        line.judge(OTHER)
    line.judge(ORIGINAL)


@pytest.mark.parametrize("answers", [None, OTHER])
def test_a_restart_is_let_in_when_nobody_else_answers_where_its_last_life_was(
    answers: Identity | None,
) -> None:
    line = Line(ORIGINAL)
    with pytest.raises(Unavailable):
        line.judge(OTHER)
    line.dialled(answers)
    line.judge(OTHER)
    line.judge(OTHER)
    assert line.redials == 1
