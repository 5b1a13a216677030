"""A command's bytes."""

from __future__ import annotations

import pytest

from kritad.state.command import CLOCK_MS_MAX, BadCommand, pack_command, unpack_command


@pytest.mark.parametrize("clock_ms", [0, 1_700_000_000_000, CLOCK_MS_MAX])
def test_a_command_survives_its_bytes(clock_ms: int) -> None:
    assert unpack_command(pack_command(clock_ms, 255, b"body")) == (clock_ms, 255, b"body")


def test_a_command_is_clock_operation_body() -> None:
    assert pack_command(0x0102, 2, b"\x80") == bytes.fromhex("0000000000000102 02 80")


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\xff" * 9])
def test_bytes_that_are_no_command_are_refused(data: bytes) -> None:
    with pytest.raises(BadCommand):
        unpack_command(data)


@pytest.mark.parametrize("clock_ms", [-1, CLOCK_MS_MAX + 1])
def test_a_clock_that_is_no_time_is_our_own_mistake(clock_ms: int) -> None:
    with pytest.raises(AssertionError):
        pack_command(clock_ms, 2, b"")
