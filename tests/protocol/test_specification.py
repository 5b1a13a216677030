"""protocol/README.md and krita.cddl say what the code does, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import krita
import kritad
from krita.connection import Connection, ServerConnection
from krita.errors import ERRORS, Status
from krita.hello import MAGIC
from krita.operations import OPERATIONS
from krita.retry import _SETTLES
from kritad.data_service import _CONTENT_TYPE_MAX
from kritad.host import transport
from kritad.state.leases import LEASES_MAX
from kritad.state.reading import _LEASE_KEYS_MAX
from kritad.state.sessions import REPLIES_MAX, SESSIONS_MAX
from tests.protocol import specification

_PROTOCOL = Path(__file__).parents[2] / "protocol"
_README = (_PROTOCOL / "README.md").read_text()
_CDDL = (_PROTOCOL / "krita.cddl").read_text()


@pytest.mark.parametrize(
    "part",
    [
        specification.operations_table,
        specification.errors_table,
        specification.limits_table,
        specification.outcomes,
        specification.versions,
        specification.transcript,
    ],
    ids=lambda part: part.__name__,
)
def test_the_document_has_what_follows_from_the_code(part: object) -> None:
    assert callable(part)
    text = part()
    assert text in _README, f"this belongs into protocol/README.md:\n\n{text}"


def test_every_status_but_ok_has_an_error_and_advice() -> None:
    assert set(ERRORS) == set(Status) - {Status.OK}
    assert set(specification._ADVICE) == set(ERRORS)


def test_what_settles_a_write_in_doubt_is_documented() -> None:
    (said,) = re.findall(r"That is success, (.*?)\.\n", _README, re.S)
    assert set(re.findall(r"[A-Z_]{5,}", said)) == {cls.status.name for cls in _SETTLES}


def test_what_a_shard_keeps_at_most_is_documented() -> None:
    (said,) = re.findall(r"A shard has at most (.*?)\.\n", _README, re.S)
    sessions = f"{SESSIONS_MAX:,} sessions, {REPLIES_MAX:,} replies in them"
    assert said == f"{sessions}, and {LEASES_MAX:,} leases"
    assert f"more than {SESSIONS_MAX:,}, or keeps more than {REPLIES_MAX:,} replies" in _README
    assert f"at most {_LEASE_KEYS_MAX:,} of its keys in each shard" in _README
    (characters,) = re.findall(r"A content type has at most (\d+)\s", _README)
    assert int(characters) == _CONTENT_TYPE_MAX


def test_every_limit_is_documented() -> None:
    names = set(re.findall(r"^([A-Z_]+) =", Path(krita.limits.__file__).read_text(), re.M))
    assert names == set(specification._LIMITS)


def _choices(rule: str) -> dict[str, int]:
    found = re.search(rf"^{rule} = &\((.*?)^\)", _CDDL, re.M | re.S)
    assert found is not None
    return {name: int(code) for name, code in re.findall(r"(\w+): (\d+)", found[1])}


def test_the_documents_know_the_lanes_that_nodes_dial() -> None:
    dialled = {transport.URGENT, transport.ENTRIES, transport.REQUESTS, transport.POLLS}
    found = re.search(r"^lane = (.*)$", _CDDL, re.M)
    assert found is not None
    assert set(re.findall(r'"(\w+)"', found[1])) == dialled | {transport.BULK}
    (said,) = re.findall(r"^- `lane`: .*?(?=^- )", _README, re.M | re.S)
    assert set(re.findall(r'`"(\w+)"`', said)) == dialled | {transport.BULK}


def test_the_cddl_knows_the_same_operations_and_statuses() -> None:
    assert _choices("op") == {row.name: int(row.code) for row in OPERATIONS.values()}
    assert _choices("status") == {status.name.lower(): int(status) for status in Status}


@pytest.mark.parametrize("row", OPERATIONS.values(), ids=lambda row: row.name)
def test_the_cddl_has_an_operations_fields_in_their_order(row: object) -> None:
    assert row in OPERATIONS.values()
    for suffix, names in (("body", row.fields), ("reply", row.reply)):  # type: ignore[attr-defined]
        rule = f"{row.name}_{suffix}"  # type: ignore[attr-defined]
        found = re.search(rf"^{rule} = \[(.*?)\]", _CDDL, re.M | re.S)
        assert found is not None, f"krita.cddl has no rule {rule}"
        text = re.sub(r";.*", "", found[1])
        assert tuple(re.findall(r"(\w+):", text)) == names, rule


def test_the_cddl_has_no_operation_that_the_code_has_not() -> None:
    rules = set(re.findall(r"^(\w+)_(?:body|reply) =", _CDDL, re.M))
    assert rules == {row.name for row in OPERATIONS.values()}


def test_every_vector_file_and_only_those_is_named_in_the_document() -> None:
    named = set(re.findall(r"`(\w+\.json)`", _README))
    assert named == {path.name for path in (_PROTOCOL / "vectors").iterdir()}


def test_the_transcript_can_be_replayed_by_whoever_copies_it() -> None:
    found = re.findall(r"^(client|server)> ([0-9a-f]+)$", _README, re.M)
    client_bytes = [bytes.fromhex(text) for who, text in found if who == "client"]
    assert client_bytes[0] == MAGIC
    server = ServerConnection()
    events = [event for data in client_bytes[:2] for event in server.receive_data(data)]
    assert len(events) == 1
    client = Connection.client(events[0].hello)  # type: ignore[union-attr]
    (welcomed, *_) = client.receive_data(bytes.fromhex(found[2][1]))
    server.accept(welcomed.welcome.identity, client.frame_bytes_max)  # type: ignore[union-attr]
    requests = [event for data in client_bytes[2:] for event in server.receive_data(data)]
    assert [event.id for event in requests] == [1, 2, 3]  # type: ignore[union-attr]


def test_the_client_has_the_daemons_version() -> None:
    assert krita.__version__ == kritad.__version__


def test_every_public_name_is_there() -> None:
    for name in krita.__all__:
        assert hasattr(krita, name), name
