"""protocol/vectors: what other implementations are tested with holds for this one.

Every good vector decodes to its diagnostic notation, encodes to the same bytes
and matches its rule of krita.cddl; every bad one is refused for the reason given.

pycddl is a lenient judge: it overlooks a wrong type in the second row of an array
of rows, or an array in the place of a map. So it can prove a vector wrong but not
right; the readers under test do the rest.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pycddl  # type: ignore[import-untyped]
import pytest

from krita.codec import decode, decode_body, encode
from krita.errors import KritaError, from_wire, to_wire
from krita.handshake import (
    ServerHandshake,
    acceptor_proof,
    derive_peer_key,
    dialer_proof,
    refusal_from_wire,
    refusal_to_wire,
)
from krita.hello import Hello, Identity, Welcome
from krita.operations import OPERATIONS, OPERATIONS_BY_NAME
from krita.ring import ShardMap, equal_arcs, tag_of, token
from tests.protocol.notation import diagnose
from tests.protocol.pair import open_client_pair

_PROTOCOL = Path(__file__).parents[2] / "protocol"
_CDDL = (_PROTOCOL / "krita.cddl").read_text()


def _load(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((_PROTOCOL / "vectors" / name).read_text())[
        "vectors"
    ]
    return vectors


def _parameters(*names: str) -> list[Any]:
    return [pytest.param(v, id=v["name"]) for name in names for v in _load(name)]


def _matches(rule: str, data: bytes) -> bool:
    # pycddl judges by the first rule.
    try:
        pycddl.Schema(f"start = {rule}\n{_CDDL}").validate_cbor(data)
    except pycddl.ValidationError:
        return False
    return True


def _whole(rule: str, item: Any) -> Any:
    """An operation's body or reply with the nulls that may be left out at its end."""
    name, _, part = rule.rpartition("_")
    row = OPERATIONS_BY_NAME.get(name)
    if row is None or not isinstance(item, list):
        return item
    fields = row.fields if part == "body" else row.reply
    return item + [None] * (len(fields) - len(item))


@pytest.mark.parametrize(
    "vector", _parameters("handshake.json", "messages.json", "operations.json")
)
def test_a_vector_decodes_encodes_and_matches_its_rule(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    item = decode(data)
    assert diagnose(item) == vector["diag"]
    assert encode(item) == data
    assert _matches(vector["cddl"], encode(_whole(vector["cddl"], item)))


@pytest.mark.parametrize("vector", _parameters("handshake.json", "messages.json"))
def test_a_payload_that_is_cut_short_does_not_match_its_rule(vector: dict[str, Any]) -> None:
    item = decode(bytes.fromhex(vector["hex"]))
    assert isinstance(item, list)
    assert not _matches(vector["cddl"], encode(item[:-1]))


@pytest.mark.parametrize("vector", _parameters("handshake.json"))
def test_a_handshake_vector_survives_our_reader(vector: dict[str, Any]) -> None:
    item = decode(bytes.fromhex(vector["hex"]))
    match vector["cddl"].partition("_")[0]:
        case "hello":
            assert Hello.from_wire(item).to_wire() == item
        case "welcome":
            assert Welcome.from_wire(item).to_wire() == item
        case "refusal":
            refusal = refusal_from_wire(item)
            assert refusal is not None
            assert refusal_to_wire(refusal) == item
        case rule:
            assert rule == "proof"  # test_two_peers_prove_themselves_as_the_vector_says


def test_two_peers_prove_themselves_as_the_vector_says() -> None:
    vector, bare = _load("proofs.json")
    raw = {k: bytes.fromhex(v) for k, v in vector.items() if k not in ("name", "meaning")}
    key = derive_peer_key(raw["admin_token"])
    assert key == raw["peer_key"]
    identity = Identity.from_wire(decode(raw["identity"]))
    assert raw["acceptor_proof"] == acceptor_proof(
        key, raw["hello"], raw["hello_nonce"], raw["welcome_nonce"], identity
    )
    welcome = Welcome.from_wire(decode(raw["welcome"]))
    assert welcome.proof == raw["acceptor_proof"]
    assert raw["dialer_proof"] == dialer_proof(key, raw["hello"], raw["welcome"])
    sent = {v["name"]: v["hex"] for v in _load("handshake.json")}
    assert sent["peer hello"] == vector["hello"]
    assert sent["peer welcome"] == vector["welcome"]
    assert sent["peer proof"] == encode([raw["dialer_proof"]]).hex()
    assert derive_peer_key(None).hex() == bare["peer_key"]


def test_every_operation_has_vectors() -> None:
    rules = {vector["cddl"] for vector in _load("operations.json")}
    for row in OPERATIONS.values():
        assert f"{row.name}_body" in rules
        assert f"{row.name}_reply" in rules or "one-way" in row.summary


@pytest.mark.parametrize("vector", _parameters("operations.json"))
def test_a_body_has_the_fields_of_its_operation(vector: dict[str, Any]) -> None:
    item = decode(bytes.fromhex(vector["hex"]))
    assert isinstance(item, list)
    name = vector["cddl"].rpartition("_")[0]
    (row,) = (row for row in OPERATIONS.values() if row.name == name)
    fields = row.fields if vector["cddl"].endswith("_body") else row.reply
    left_out = [None] * (len(fields) - len(item))
    assert not left_out or "short" in vector["name"] or item[-1:] != [None]
    if "op" in vector:
        assert vector["op"] == row.code
        assert decode_body(row.code, bytes.fromhex(vector["hex"])) == item + left_out


def test_the_shard_map_vector_is_a_map() -> None:
    (vector,) = (v for v in _load("operations.json") if v["name"] == "shard_map reply")
    item = decode(bytes.fromhex(vector["hex"]))
    assert ShardMap.from_wire(item).to_wire() == item


@pytest.mark.parametrize("vector", _parameters("messages.json"))
def test_an_error_vector_survives_our_reader(vector: dict[str, Any]) -> None:
    if vector["cddl"] not in ("reply_error", "goodbye"):
        return
    item = decode(bytes.fromhex(vector["hex"]))
    assert isinstance(item, list)
    assert to_wire(from_wire(item[1], item[2])) == item[2]


@pytest.mark.parametrize("vector", _parameters("refused.json"))
def test_a_bad_vector_is_refused_for_its_reason(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    with pytest.raises(KritaError, match=re.escape(vector["reason"])) as caught:  # noqa: PT012
        match vector["read_as"]:
            case "item":
                decode(data)
            case "stream":
                open_client_pair()[1].receive_data(data)
            case "hello":
                ServerHandshake().receive(data)
            case "shard_map":
                ShardMap.from_wire(decode(data))
    assert caught.value.status.name == vector["error"]


@pytest.mark.parametrize("vector", [pytest.param(v, id=v["key"]) for v in _load("ring.json")])
def test_a_key_stands_where_the_vector_says(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["key"])
    assert tag_of(key).hex() == vector["tag"]
    assert token(key) == vector["token"]
    lo, hi = equal_arcs(16)[vector["shard_of_16"] - 1]
    assert lo <= token(key) < hi
