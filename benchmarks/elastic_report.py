"""What ``benchmarks.elastic`` measured, and how it reads. Pure: figures in, text out.

A figure of several runs is their median, beside the least and the greatest. A ratio
is made within each run: the runs' clients ask for different numbers of requests.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from attrs import asdict, frozen

from benchmarks.steady_load import Slice

MIB = 1 << 20

# What is promised of a join.
THROUGHPUT_RATIO_MIN = 0.7
P99_RATIO_MAX = 3.0


@frozen
class Join:
    """A fourth node joins three, while clients ask."""

    before: Slice
    during: Slice
    after: Slice
    seconds: float  # from the start of its process until it has its share of copies and leaders
    data_bytes: int  # one copy of everything
    sent_bytes: int  # in snapshots, by all nodes
    ideal_bytes: float  # an even share of all copies: what the fourth has to be sent

    @property
    def throughput_ratio(self) -> float:
        """During the join, to before."""
        return self.during.throughput_per_s / self.before.throughput_per_s

    @property
    def p99_ratio(self) -> float:
        return self.during.p99_ms / self.before.p99_ms

    @property
    def sent_ratio(self) -> float:
        """To the ideal."""
        return self.sent_bytes / self.ideal_bytes


@frozen
class Split:
    """The biggest shard is cut in two, while clients ask."""

    shard: int
    shard_bytes: int
    seconds: float  # from the request until both halves have a leader and the map shows them
    during: Slice  # those seconds and a little longer
    before: Slice  # as long a time before


@frozen
class Heal:
    """One of four nodes is killed for good, while nobody asks."""

    data_bytes: int  # one copy of everything
    rebuilt_bytes: int  # of all the copies that the node held
    sent_bytes: int  # in snapshots, by the nodes that are left
    silent_s: float  # from the kill until it is declared dead
    seconds: float  # from then until every shard has all its copies on the others

    @property
    def mib_per_s(self) -> float:
        return self.rebuilt_bytes / MIB / self.seconds


@frozen
class Round:
    """One cluster, from its start to its end."""

    maximum_per_s: float  # what clients without pause got from three nodes
    rate_per_s: float  # what they asked for from then on
    join: Join
    split: Split
    heal: Heal


@frozen
class Result:
    """All rounds, at least one."""

    share: float  # of the maximum
    in_flight: int  # of the clients without pause
    dead_after_s: int
    rounds: tuple[Round, ...]

    @property
    def joins(self) -> list[Join]:
        return [one.join for one in self.rounds]

    @property
    def splits(self) -> list[Split]:
        return [one.split for one in self.rounds]

    @property
    def heals(self) -> list[Heal]:
        return [one.heal for one in self.rounds]

    def to_document(self) -> dict[str, Any]:
        ratios = {
            "join_throughput_ratio": [join.throughput_ratio for join in self.joins],
            "join_p99_ratio": [join.p99_ratio for join in self.joins],
            "join_sent_ratio": [join.sent_ratio for join in self.joins],
            "split_longest_ms": [split.during.longest_ms for split in self.splits],
            "heal_s": [heal.seconds for heal in self.heals],
            "heal_mib_per_s": [heal.mib_per_s for heal in self.heals],
        }
        medians = {name: round(statistics.median(found), 3) for name, found in ratios.items()}
        return {**medians, **asdict(self)}

    def to_text(self) -> str:
        maximum = figure([one.maximum_per_s for one in self.rounds], "{:,.0f}")
        rate = figure([one.rate_per_s for one in self.rounds], "{:,.0f}")
        heading = (
            f"three nodes take {maximum} requests/s, {self.in_flight} in flight; from then on\n"
            f"clients ask for {self.share:.0%} of that: {rate}"
        )
        parts = [heading, join_text(self.joins), split_text(self.splits)]
        return "\n\n".join([*parts, heal_text(self.heals, self.dead_after_s)])


def figure(values: Sequence[float], form: str) -> str:
    """The median of several, and their extent."""
    median = form.format(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({form.format(min(values))} - {form.format(max(values))})"


def join_text(joins: Sequence[Join]) -> str:
    """Several lines."""

    def of(value: Callable[[Join], float], form: str) -> str:
        return figure([value(join) for join in joins], form)

    data = of(lambda join: join.data_bytes / MIB, "{:,.0f}")
    return "\n".join([
        f"{f'a fourth node joins, {data} MiB':<40}   done /s   p50 ms   p99 ms  longest ms  errors",
        slice_row("before", [join.before for join in joins]),
        slice_row("during", [join.during for join in joins]),
        slice_row("after", [join.after for join in joins]),
        f"  throughput during / before  {of(lambda join: join.throughput_ratio, '{:.2f}')}"
        f"   promised: at least {THROUGHPUT_RATIO_MIN:g}",
        f"  p99 during / before         {of(lambda join: join.p99_ratio, '{:.2f}')}"
        f"   promised: at most {P99_RATIO_MAX:g}",
        f"  it had its share after      {of(lambda join: join.seconds, '{:.1f}')} s",
        f"  MiB sent                    {of(lambda join: join.sent_bytes / MIB, '{:,.1f}')}"
        f"   ideal {of(lambda join: join.ideal_bytes / MIB, '{:,.1f}')}:"
        f" {of(lambda join: join.sent_ratio, '{:.2f}')} times that",
    ])  # fmt: skip


def slice_row(name: str, slices: Sequence[Slice]) -> str:
    """Medians of several runs; their errors all together."""

    def median(value: Callable[[Slice], float]) -> float:
        return statistics.median(map(value, slices))

    seconds = f"{name}, {median(lambda one: one.seconds):.1f} s"
    return (
        f"  {seconds:<38} {median(lambda one: one.throughput_per_s):>9,.0f} "
        f"{median(lambda one: one.p50_ms):>8.1f} {median(lambda one: one.p99_ms):>8.1f} "
        f"{median(lambda one: one.longest_ms):>11.0f} {sum(one.errors for one in slices):>7}"
    )


def split_text(splits: Sequence[Split]) -> str:
    """Several lines."""
    size = figure([split.shard_bytes / MIB for split in splits], "{:,.1f}")
    seconds = figure([split.seconds for split in splits], "{:.2f}")
    longest = figure([split.during.longest_ms for split in splits], "{:,.0f}")
    before = figure([split.before.longest_ms for split in splits], "{:,.0f}")
    errors = sum(split.during.errors for split in splits)
    return "\n".join([
        f"the biggest shard is split, {size} MiB, under the same load",
        f"  both halves had a leader after {seconds} s",
        f"  longest wait of a request   {longest} ms   {before} ms in as long a time before",
        f"  errors                      {errors}",
    ])  # fmt: skip


def heal_text(heals: Sequence[Heal], dead_after_s: int) -> str:
    """Several lines."""

    def of(value: Callable[[Heal], float], form: str) -> str:
        return figure([value(heal) for heal in heals], form)

    return "\n".join([
        f"one of four nodes is killed for good, {of(lambda heal: heal.data_bytes / MIB, '{:,.0f}')}"
        f" MiB, no load, dead_after_s {dead_after_s}",
        f"  declared dead after         {of(lambda heal: heal.silent_s, '{:.1f}')} s",
        f"  whole again after another   {of(lambda heal: heal.seconds, '{:.1f}')} s",
        f"  MiB rebuilt                 {of(lambda heal: heal.rebuilt_bytes / MIB, '{:,.1f}')}"
        f"   {of(lambda heal: heal.mib_per_s, '{:.1f}')} MiB/s",
        f"  MiB sent                    {of(lambda heal: heal.sent_bytes / MIB, '{:,.1f}')}",
    ])  # fmt: skip
