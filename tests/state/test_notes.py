"""Notes: what a shard as a whole remembers, stored and hashed beside its sessions."""

from __future__ import annotations

import random

import pytest

from kritad.state.notes import Notes
from kritad.storage.digests import session_digest


def test_the_hash_is_the_sum_of_what_is_there_however_it_came() -> None:
    chance = random.Random(1)
    notes, model, stored = Notes(), dict[int, bytes](), dict[int, bytes]()
    for _ in range(500):
        number = -chance.randint(1, 9)
        if chance.random() < 0.3:
            notes.remove(number)
            model.pop(number, None)
        else:
            model[number] = b"%d" % chance.randrange(5)
            notes.put(number, model[number])
        if chance.random() < 0.1:
            for changed, blob in notes.freeze():
                stored.pop(changed, None)
                if blob is not None:
                    stored[changed] = blob
            assert stored == model
        assert notes.hash == sum(session_digest(*note) for note in model.items()) % (1 << 64)
        assert dict(notes) == model
        assert Notes(model.items()).hash == notes.hash
    assert [number for number, _ in notes] == sorted(model)


def test_only_what_has_changed_is_stored_again() -> None:
    notes = Notes([(-1, b"a"), (-2, b"b")])
    assert notes.freeze() == []
    notes.put(-2, b"c")
    notes.remove(-1)
    notes.remove(-3)
    assert notes.freeze() == [(-2, b"c"), (-1, None)]
    assert notes.freeze() == []


def test_a_copy_is_stored_as_a_whole_and_goes_its_own_way() -> None:
    notes = Notes([(-1, b"a")])
    other = notes.copy()
    other.put(-2, b"b")
    assert (len(notes), len(other)) == (1, 2)
    assert other.freeze() == [(-2, b"b"), (-1, b"a")]
    assert notes.freeze() == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_session_s_number_is_none_of_a_note(number: int) -> None:
    with pytest.raises(AssertionError):
        Notes().put(number, b"")
    with pytest.raises(AssertionError):
        Notes([(number, b"")])
