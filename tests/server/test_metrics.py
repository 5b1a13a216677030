"""Counting, and the text that Prometheus reads."""

from __future__ import annotations

import pytest

from kritad.metrics import Metrics


def lines_of(metrics: Metrics, name: str) -> list[str]:
    return [line for line in metrics.render().splitlines() if line.startswith(name)]


def test_a_counter_counts_per_set_of_labels() -> None:
    metrics = Metrics()
    metrics.commands.inc("put", "ok")
    metrics.commands.inc("put", "ok")
    metrics.commands.add(3, "get", "busy")
    assert lines_of(metrics, "krita_commands_total") == [
        'krita_commands_total{op="get",code="busy"} 3',
        'krita_commands_total{op="put",code="ok"} 2',
    ]


def test_the_buckets_of_a_histogram_are_cumulative_and_hold_their_upper_bound() -> None:
    metrics = Metrics()
    sizes = metrics.histogram("krita_test_bytes", "Sizes", bounds=(1.0, 10.0))
    for value in (0.5, 1.0, 1.5, 100.0):
        sizes.observe(value)
    assert lines_of(metrics, "krita_test_bytes") == [
        'krita_test_bytes_bucket{le="1"} 2',
        'krita_test_bytes_bucket{le="10"} 3',
        'krita_test_bytes_bucket{le="+Inf"} 4',
        "krita_test_bytes_sum 103",
        "krita_test_bytes_count 4",
    ]


def test_a_gauge_is_asked_at_scrape_time() -> None:
    metrics = Metrics()
    level: dict[tuple[str, ...], float] = {("1",): 5.0, ("2",): 0.5}
    metrics.gauge("krita_test_level", "Level", lambda: level, ("shard",))
    level["1",] = 6.0
    assert lines_of(metrics, "krita_test_level") == [
        'krita_test_level{shard="1"} 6',
        'krita_test_level{shard="2"} 0.5',
    ]


def test_a_label_cannot_break_out_of_its_quotes() -> None:
    metrics = Metrics()
    metrics.commands.inc('a"b\\c\nd', "ok")
    assert lines_of(metrics, "krita_commands_total") == [
        'krita_commands_total{op="a\\"b\\\\c\\nd",code="ok"} 1'
    ]


def test_every_metric_has_its_help_and_type_and_a_name_in_base_units() -> None:
    metrics = Metrics()
    text = metrics.render()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            name, kind = line.split()[2:]
            assert f"# HELP {name} " in text
            assert not name.endswith(("_ms", "_milliseconds", "_kilobytes"))
            assert name.endswith("_total") == (kind == "counter")
    assert float(lines_of(metrics, "process_resident_memory_bytes")[0].split()[1]) > 1e6


def test_a_name_is_registered_once() -> None:
    metrics = Metrics()
    with pytest.raises(AssertionError, match="krita_commands_total"):
        metrics.counter("krita_commands_total", "Again")
