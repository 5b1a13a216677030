"""Two decoders that were written from one specification agree: what Python's takes, the
JavaScript example's takes as the same item, and what one refuses the other does.

They may differ where the specification leaves it open: simple values that nobody uses,
and floats, of which JavaScript does not tell 1.0 from 1.
"""

from __future__ import annotations

import random
import subprocess
from typing import Any

import cbor2

from krita.codec import CodecError, decode
from tests.protocol.node_agent import FOLDER, NODE, TIMEOUT_S, needs_node
from tests.protocol.notation import diagnose

pytestmark = needs_node

CASES = 20_000
TEXT = '\ufeffab"\\é\u2028\U0001f600\x00\n'
OPEN = "open"  # how it is read is left open


def an_item(chance: random.Random, depth: int = 0) -> Any:
    """Some item, mostly a plain one."""
    kind = chance.randrange(9 if depth < 4 else 6)
    match kind:
        case 0:
            return chance.choice([None, True, False])
        case 1 | 2:
            bits = chance.choice([4, 8, 16, 32, 53, 64])
            number = chance.getrandbits(bits)
            return number if chance.random() < 0.7 else -1 - number
        case 3:
            return chance.randbytes(chance.choice([0, 3, 30]))
        case 4:
            return "".join(chance.choices(TEXT, k=chance.choice([0, 2, 25])))
        case 5:
            return chance.choice([0.5, -1e300, float("inf")])
        case 6 | 7:
            return [an_item(chance, depth + 1) for _ in range(chance.randrange(4))]
    # A flipped bit makes two of these the same.
    names = chance.sample(["a", "b", "c", b"a", b"c"], chance.randrange(5))
    return {name: an_item(chance, depth + 1) for name in names}


def some_bytes(chance: random.Random) -> bytes:
    """An item's bytes, as they are or with something changed."""
    data = bytearray(cbor2.dumps(an_item(chance)))
    for _ in range(chance.choice([0, 0, 1, 1, 2])):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data.insert(at, chance.randrange(256))
            case _ if len(data) > 1:
                del data[at]
    return bytes(data)


def notation(data: bytes) -> str:
    """What Python's decoder makes of it."""
    try:
        item = decode(data)
    except CodecError:
        return "refused"
    return OPEN if is_open(item) else diagnose(item)


def is_open(item: object) -> bool:
    if isinstance(item, list):
        return any(map(is_open, item))
    if isinstance(item, dict):
        return any(map(is_open, item.values()))
    return isinstance(item, float | cbor2.CBORSimpleValue) or item is cbor2.undefined


def test_two_decoders_of_one_specification_agree() -> None:
    chance = random.Random("two decoders")
    cases = [some_bytes(chance) for _ in range(CASES)]
    assert NODE is not None
    done = subprocess.run(
        [NODE, "test/judge.js"],
        cwd=FOLDER,
        input="\n".join(data.hex() for data in cases) + "\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.removesuffix("\n").split("\n")  # texts hold other line ends
    assert len(answers) == CASES
    expected = list(map(notation, cases))
    differing = [
        f"{data.hex()}: {ours} here, {theirs} there"
        for data, ours, theirs in zip(cases, expected, answers, strict=True)
        if ours not in (OPEN, theirs)
    ]
    assert differing == []
    refused = expected.count("refused")
    assert CASES / 4 < refused < CASES * 3 / 4, "too many are of one kind"
