"""Durations and moments: what is understood, what is refused and how, and the way back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kritash.times import (
    DURATION_MS_MAX,
    Moment,
    TimeError,
    duration_ms,
    duration_word,
    moment_of,
    time_word,
)

NOON_MS = round(datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp() * 1000)
TIMES_MS = st.integers(0, 253_402_300_799_999)  # up to the year 9999


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("7d", 604_800_000),
        ("1w", 604_800_000),
        ("0.25s", 250),
    ],
)
def test_a_duration_is_numbers_with_units(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("30", "did you mean 30s or 30ms?"),
        ("", "durations are typed like"),
        ("s", "durations are typed like"),
        ("-5s", "durations are typed like"),
        ("5 s", "durations are typed like"),
        ("5sec", "durations are typed like"),
        ("1e3s", "durations are typed like"),
        ("٣s", "durations are typed like"),
        ("0s", "too short"),
        ("0.1ms", "too short"),
        ("101w5000w99999d", "too long"),
    ],
)
def test_what_is_no_duration_is_refused_with_what_to_type(text: str, said: str) -> None:
    with pytest.raises(TimeError) as raised:
        duration_ms(text)
    assert said in f"{raised.value} {raised.value.hint}"


@given(st.integers(1, DURATION_MS_MAX))
def test_a_duration_that_is_written_can_be_typed(milliseconds: int) -> None:
    assert duration_ms(duration_word(milliseconds)) == milliseconds


@given(TIMES_MS)
def test_a_time_that_is_written_can_be_typed(time_ms: int) -> None:
    assert moment_of(time_word(time_ms)) == Moment(time_ms=time_ms)


@given(st.text(alphabet="0123456789.smhdw-:TZ+", max_size=20))
def test_whatever_is_typed_is_understood_or_refused(text: str) -> None:
    for read in (duration_ms, moment_of):
        with suppress(TimeError):
            read(text)


@given(TIMES_MS, st.integers(1, DURATION_MS_MAX))
def test_what_was_so_long_ago_is_never_in_the_future_and_never_before_1970(
    now_ms: int, ago_ms: int
) -> None:
    then = Moment(ago_ms=ago_ms).resolved(now_ms)
    assert 0 <= then <= now_ms
    assert then in (0, now_ms - ago_ms)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("17", 17),
        ("-10m", Moment(ago_ms=600_000)),
        ("-1h30m", Moment(ago_ms=5_400_000)),
        ("2026-11-29T12:00Z", Moment(time_ms=NOON_MS)),
        ("2026-11-29T14:00+02:00", Moment(time_ms=NOON_MS)),
        ("2026-11-29 10:00", Moment(time_ms=NOON_MS)),
        ("2026-11-29T10:00:00.5", Moment(time_ms=NOON_MS + 500)),
        ("2026-11-29", Moment(time_ms=NOON_MS - 36_000_000)),
    ],
)
def test_a_moment_is_a_revision_a_time_or_so_long_ago(text: str, moment: object) -> None:
    assert moment_of(text, timezone(timedelta(hours=-2))) == moment


@pytest.mark.parametrize("text", ["yesterday", "10:00", "-10", "1969-01-01", "2026-13-01", "-"])
def test_what_is_no_moment_is_refused_with_what_to_type(text: str) -> None:
    with pytest.raises(TimeError) as raised:
        moment_of(text)
    assert raised.value.hint
