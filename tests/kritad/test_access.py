"""Who may do what: the whole table, row by row."""

from __future__ import annotations

import pytest

from krita.errors import Forbidden, KritaError, Unauthenticated
from krita.handshake import derive_peer_key
from krita.operations import OPERATIONS, Op, Operation
from krita.operations import Access as Need
from kritad.access import ADMIN, ANONYMOUS, PEER, Access, Principal

TOKEN = b"correct horse battery staple"

LOCAL = Principal(ANONYMOUS, loopback=True)
REMOTE = Principal(ANONYMOUS, loopback=False)
ADMIN_LOCAL = Principal(ADMIN, loopback=True)
ADMIN_REMOTE = Principal(ADMIN, loopback=False)
NODE = Principal(PEER, 2)

YES = None

# What each principal gets for each kind of operation: YES or the error.
RULES: dict[Need, dict[Principal, type[KritaError] | None]] = {
    Need.DATA: {
        LOCAL: YES, REMOTE: Unauthenticated, ADMIN_LOCAL: YES, ADMIN_REMOTE: YES, NODE: YES,
    },
    Need.STATUS: {
        LOCAL: YES, REMOTE: Unauthenticated, ADMIN_LOCAL: YES, ADMIN_REMOTE: YES, NODE: YES,
    },
    Need.ADMIN: {
        LOCAL: Unauthenticated, REMOTE: Unauthenticated, ADMIN_LOCAL: YES, ADMIN_REMOTE: YES,
        NODE: YES,
    },
    Need.PEER: {
        LOCAL: Forbidden, REMOTE: Forbidden, ADMIN_LOCAL: Forbidden, ADMIN_REMOTE: Forbidden,
        NODE: YES,
    },
    Need.LOG: {
        LOCAL: Forbidden, REMOTE: Forbidden, ADMIN_LOCAL: Forbidden, ADMIN_REMOTE: Forbidden,
        NODE: YES,
    },
}  # fmt: skip

CASES = [
    pytest.param(operation, principal, expected, id=f"{operation.name}: {principal}")
    for operation in OPERATIONS.values()
    for principal, expected in RULES[operation.access].items()
]


@pytest.mark.parametrize(("operation", "principal", "expected"), CASES)
def test_the_rule_holds(
    operation: Operation, principal: Principal, expected: type[KritaError] | None
) -> None:
    access = Access(TOKEN)
    if expected is None:
        access.check(principal, operation)
    else:
        with pytest.raises(expected):
            access.check(principal, operation)


def test_every_kind_of_operation_has_a_rule() -> None:
    assert RULES.keys() == set(Need)


def test_a_cluster_without_a_token_has_no_administration() -> None:
    operation = OPERATIONS[Op.LEADER_TRANSFER]
    with pytest.raises(Forbidden, match="no admin token"):
        Access(None).check(LOCAL, operation)
    Access(None).check(LOCAL, OPERATIONS[Op.PUT])


@pytest.mark.parametrize("loopback", [True, False])
def test_the_token_makes_an_administrator(loopback: bool) -> None:
    assert Access(TOKEN).authenticate(TOKEN, loopback) == Principal(ADMIN, loopback=loopback)


@pytest.mark.parametrize("loopback", [True, False])
def test_no_token_makes_nobody_in_particular(loopback: bool) -> None:
    assert Access(TOKEN).authenticate(None, loopback) == Principal(ANONYMOUS, loopback=loopback)


@pytest.mark.parametrize("token", [b"", b"wrong", TOKEN + b" ", TOKEN[:-1]])
def test_a_wrong_token_is_refused_also_on_the_same_machine(token: bytes) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Access(TOKEN).authenticate(token, True)
    assert token.decode() not in str(caught.value) or not token


@pytest.mark.parametrize("token", [b"", b"anything"])
@pytest.mark.parametrize("own", [None, b""])
def test_where_there_is_no_token_none_is_right(own: bytes | None, token: bytes) -> None:
    with pytest.raises(Unauthenticated):
        Access(own).authenticate(token, True)


def test_nodes_prove_themselves_with_a_key_made_from_the_token() -> None:
    assert Access(TOKEN).peer_key == derive_peer_key(TOKEN)
    assert Access(TOKEN).peer_key != Access(None).peer_key
    assert TOKEN not in Access(TOKEN).peer_key


def test_the_token_is_in_no_repr() -> None:
    assert repr(Access(TOKEN)) == "<Access with a token>"
    assert repr(Access(None)) == "<Access without token>"
