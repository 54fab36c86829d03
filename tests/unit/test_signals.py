"""Metrics and events: each declared once, with help; an event writes its line and its count together."""

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams import signals


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("tradewind")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def counted(name: str, level: str) -> float:
    return signals.REGISTRY.get_sample_value("tradewind_events_total", {"event": name, "level": level}) or 0.0


def test_an_event_writes_one_line_and_one_count() -> None:
    stream, before = io.StringIO(), counted("partition_assigned", "warning")
    signals.log_to(stream, "streams")
    signals.event("partition_assigned", "warning", partition=3, note="two\nlines")
    (line,) = lines(stream)
    assert line["event"] == "partition_assigned"
    assert (line["level"], line["role"], line["partition"], line["note"]) == ("warning", "streams", 3, "two\nlines")
    assert isinstance(line["at_s"], float)
    assert counted("partition_assigned", "warning") == before + 1


def test_an_event_below_the_level_is_counted_and_not_written() -> None:
    stream, before = io.StringIO(), counted("chatter", "debug")
    signals.log_to(stream, "streams", "info")
    signals.event("chatter", "debug")
    assert lines(stream) == []
    assert counted("chatter", "debug") == before + 1


def test_what_json_does_not_know_is_written_as_it_shows_itself() -> None:
    stream = io.StringIO()
    signals.log_to(stream, "streams")
    signals.event("strange", what=object, when=float("nan"))
    (line,) = lines(stream)
    assert line["what"] == "<class 'object'>"


def test_libraries_are_heard_from_warning_on_with_their_name_and_their_error() -> None:
    stream = io.StringIO()
    signals.log_to(stream, "gateway")
    library = logging.getLogger("some.library")
    library.info("hidden")
    try:
        raise ValueError("broken")
    except ValueError:
        library.exception("it failed")
    (line,) = lines(stream)
    assert (line["logger"], line["event"], line["level"]) == ("some.library", "it failed", "error")
    assert "ValueError: broken" in str(line["error"])


def test_every_metric_is_ours_and_has_help_and_few_labels() -> None:
    families = list(text_string_to_metric_families(signals.exposition().decode()))
    assert len(families) > 25
    for family in families:
        assert family.name.startswith("tradewind_")
        assert family.documentation.endswith(".")
    for metric in vars(signals).values():
        if isinstance(metric, (signals.Counter, signals.Gauge, signals.Histogram)):
            assert len(metric._labelnames) <= 3


def test_times_are_in_seconds_and_counts_say_total() -> None:
    for name, metric in vars(signals).items():
        if isinstance(metric, signals.Histogram):
            assert metric._name.endswith("_seconds"), name
        if isinstance(metric, signals.Counter):
            (family,) = metric.describe()
            assert re.fullmatch(r"tradewind_[a-z_]+", family.name), name


def test_the_exposition_says_what_format_it_has() -> None:
    assert signals.CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert signals.exposition().endswith(b"\n")
