"""The Node.js client, which was written from the specification alone: it passes the
vectors, and keeps the promises of the protocol when nodes fail.

What it does to a cluster of real nodes is in tests/system/test_examples.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from krita.errors import (
    Busy,
    InternalError,
    NotLeader,
    OutcomeUnknown,
    SessionExpired,
    Unavailable,
    WrongShard,
)
from krita.operations import Op
from tests.protocol import server
from tests.protocol.conftest import once
from tests.protocol.node_agent import Agent, Refused, needs_node, run_node
from tests.protocol.server import Cluster

pytestmark = needs_node

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"


@pytest.fixture
def db(cluster: Cluster) -> Iterator[Agent]:
    with Agent(cluster.seeds) as agent:
        yield agent


# -- The vectors ---------------------------------------------------------------


def test_the_vectors_hold() -> None:
    done = run_node("test/vectors.js", VECTORS)
    assert done.returncode == 0, done.stdout + done.stderr
    total = sum(len(json.loads(path.read_text())["vectors"]) for path in VECTORS.glob("*.json"))
    assert done.stdout == f"{total + 1} of {total + 1} hold\n"  # the shard map is read as one too


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("handshake.json", ('"880101', '"880102')),
        ("messages.json", ('"830101', '"83180101')),  # an id that is not in its shortest form
        ("operations.json", ("true]", "false]")),
        ("refused.json", ('"hex": "8001"', '"hex": "80"')),
        ("refused.json", ('"UNSUPPORTED"', '"BAD_REQUEST"')),
        ("ring.json", ("3421780262", "3421780263")),
        ("proofs.json", ('"acceptor_proof": "cc', '"acceptor_proof": "38')),
    ],
)
def test_a_vector_that_does_not_hold_is_found(
    tmp_path: Path, file: str, change: tuple[str, str]
) -> None:
    folder = shutil.copytree(VECTORS, tmp_path / "vectors")
    text = (folder / file).read_text()
    assert change[0] in text
    (folder / file).write_text(text.replace(*change))
    done = run_node("test/vectors.js", folder)
    assert (done.returncode, f"\n{file}: " in done.stdout) == (1, True), done.stdout


# -- What it does --------------------------------------------------------------


def test_it_reads_what_it_wrote(db: Agent) -> None:
    put = db.call("put", "k", {"hex": "00ff"}, {"contentType": "image/x-two"})
    assert put["existed"] is False
    value = db.call("get", "k")
    assert (value["data"], value["contentType"]) == ({"hex": "00ff"}, "image/x-two")
    assert value["revision"] == put["revision"]
    assert db.call("delete", "k")["existed"] is True
    assert db.call("get", "k") is None
    assert db.call("ping")["clusterId"] == server.CLUSTER_ID.hex()


def test_a_condition_that_does_not_hold_says_at_which_revision_the_key_is(db: Agent) -> None:
    revision = db.call("put", "k", "v", {"ifRevision": 0})["revision"]
    with pytest.raises(Refused) as caught:
        db.call("put", "k", "w", {"ifRevision": 0})
    assert (caught.value.status, caught.value.outcome) == ("CONDITION_FAILED", "not applied")
    assert caught.value.detail == {"revision": revision}


def test_requests_are_pipelined_on_one_connection(cluster: Cluster, db: Agent) -> None:
    db.call("put", "k", "v")
    hold = server.Hold()
    cluster.on(Op.PUT, hold, times=100)
    calls = [db.start("put", f"k{number}", "v") for number in range(100)]
    while hold.held < 100:
        db.call("ping")  # which overtakes them
    cluster.do(hold.release)
    for call in calls:
        assert db.finish(call)["existed"] is False
    assert cluster.connections == 1
    assert once(cluster)


def test_no_sequence_runs_further_ahead_than_the_window(cluster: Cluster, db: Agent) -> None:
    hold = server.Hold()
    cluster.on(Op.PUT, hold)
    calls = [db.start("put", "k{}" + str(number), "v") for number in range(3000)]
    for number in range(1, 900):
        db.finish(calls[number])
    cluster.do(hold.release)
    for call in (calls[0], *calls[900:]):
        db.finish(call)
    assert once(cluster)
    numbers = [fields[1:3] for _, op, fields in cluster.requests if op == Op.PUT]
    ahead = [
        sequence - acked_to
        for sequence, acked_to in numbers
        if isinstance(sequence, int) and isinstance(acked_to, int)
    ]
    assert 900 < max(ahead) <= 1024


def test_a_token_that_is_not_known_is_refused(cluster: Cluster) -> None:
    cluster.token = b"the right one"
    with Agent(cluster.seeds, token="a wrong one") as db, pytest.raises(Refused) as caught:
        db.call("ping")
    assert caught.value.status == "UNAUTHENTICATED"
    with Agent(cluster.seeds, token="the right one") as db:
        assert db.call("ping")["node"] == 1


def test_a_frame_over_the_limit_is_refused_and_the_client_lives_on(
    cluster: Cluster, db: Agent
) -> None:
    cluster.value_bytes_max = 100
    with pytest.raises(Refused) as caught:
        db.call("put", "k", "x" * 100_000)
    assert (caught.value.status, caught.value.outcome) == ("TOO_LARGE", "not applied")
    assert db.call("put", "k", "x")["existed"] is False


# -- When something fails ------------------------------------------------------


@pytest.mark.parametrize(
    "action",
    [
        server.apply_then_drop,
        server.apply_then_ignore,
        server.apply_then_answer(OutcomeUnknown("leadership was lost")),
        server.drop,
        server.answer(Busy("too much")),
        server.answer(Unavailable("no leader")),
        server.answer(WrongShard("your map is old")),
        server.answer(SessionExpired("forgotten")),
    ],
)
def test_a_write_is_repeated_and_happens_once(
    cluster: Cluster, db: Agent, action: server.Action
) -> None:
    db.call("put", "k", "0")
    cluster.on(Op.PUT, action)
    result = db.call("put", "k", "1")
    assert result["existed"] is True
    assert cluster.count(Op.PUT) == 3
    assert once(cluster)
    assert db.call("get", "k")["revision"] == result["revision"]


def test_a_read_that_got_no_answer_is_asked_again(cluster: Cluster, db: Agent) -> None:
    db.call("put", "k", "v")
    cluster.on(Op.GET, server.drop)
    assert db.call("get", "k")["data"] == {"hex": b"v".hex()}


def test_a_write_in_doubt_whose_session_is_gone_is_of_unknown_outcome(
    cluster: Cluster, db: Agent
) -> None:
    db.call("put", "k", "0")
    cluster.on(Op.PUT, server.apply_then_drop)
    cluster.on(Op.PUT, server.answer(SessionExpired("forgotten")))
    with pytest.raises(Refused) as caught:
        db.call("put", "k", "1")
    assert (caught.value.status, caught.value.outcome) == ("UNKNOWN", "unknown")


def test_an_error_that_is_no_passing_one_ends_the_call(cluster: Cluster, db: Agent) -> None:
    cluster.on(Op.PUT, server.answer(InternalError("a bug")))
    with pytest.raises(Refused) as caught:
        db.call("put", "k", "v")
    assert (caught.value.status, caught.value.outcome) == ("INTERNAL", "unknown")


def test_a_write_that_nobody_answers_ends_at_its_deadline_in_doubt(
    cluster: Cluster, db: Agent
) -> None:
    db.call("put", "k", "0")
    cluster.on(Op.PUT, server.ignore, times=100)
    with pytest.raises(Refused) as caught:
        db.call("put", "k", "1", {"timeoutMs": 300})
    assert (caught.value.status, caught.value.outcome) == ("UNKNOWN", "unknown")


def test_a_call_whose_nodes_are_down_was_not_applied(cluster: Cluster) -> None:
    seeds = cluster.seeds
    cluster.stop(1)
    with Agent(seeds) as db, pytest.raises(Refused) as caught:
        db.call("put", "k", "1", {"timeoutMs": 300})
    assert (caught.value.status, caught.value.outcome) == ("UNAVAILABLE", "not applied")


# -- Whom it asks --------------------------------------------------------------


def test_a_request_goes_to_the_leader_of_its_key(three: Cluster) -> None:
    three.lead(3, 2)
    with Agent(three.address(1)) as db:
        db.call("put", "k", "v")
        db.call("get", "k")
    assert three.count(Op.PUT, node=3) == three.count(Op.GET, node=3) == 1
    assert three.forwards == 0


def test_not_leader_is_followed_to_the_leader_that_it_names(three: Cluster) -> None:
    three.forwarding = False
    three.told = dict(three.leaders)  # the map goes on saying node 1
    three.lead(2, 5)
    with Agent(three.address(1)) as db:
        db.call("put", "k", "v")
        assert three.count(Op.PUT, node=2) == 1
        db.call("put", "k", "w")
    assert three.count(Op.PUT) == 2, "what was learnt has to last"
    assert once(three)


def test_not_leader_of_an_older_term_is_not_believed(three: Cluster) -> None:
    three.lead(1, 7)
    detail: dict[str, object] = {"node": 3, "address": three.address(3), "term": 6}
    with Agent(three.address(1)) as db:
        three.on(Op.GET, server.answer(NotLeader("led elsewhere", detail=detail)), node=1)
        db.call("get", "k")
    assert three.count(Op.GET, node=3) == 0


def test_a_leader_that_is_down_is_passed_over(three: Cluster) -> None:
    with Agent(three.seeds) as db:
        db.call("put", "k", "0")
        three.stop(1)
        three.lead(2, 2)
        assert db.call("put", "k", "1")["existed"] is True
    assert once(three)


def test_a_leader_that_has_fallen_silent_is_passed_over(three: Cluster) -> None:
    with Agent(three.seeds) as db:
        db.call("put", "k", "0")
        three.freeze(1)
        three.lead(2, 2)
        assert db.call("put", "k", "1")["existed"] is True
    assert once(three)
