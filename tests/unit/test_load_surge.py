"""Surges: how they are written, and how they bend time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradewind.load.surge import Surge, parse_surges, run_time, trace_time


@pytest.mark.parametrize("text", ["3x", "x@30", "3x@", "-3x@30", "0x@30", "2000x@1", "3x@30-20", "3x@30-30", "3@30"])
def test_a_wrong_surge_is_refused_with_the_part_and_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"surge '.*x@|must be above 0"):
        parse_surges(text)


def test_surges_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match=r"overlap; end the first"):
        parse_surges("3x@30,2x@40")


def test_no_text_is_no_surge() -> None:
    assert parse_surges("") == ()


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.5, 50), st.floats(0.5, 50)), max_size=4),
    st.lists(st.floats(0, 500), min_size=1, max_size=20),
)
def test_trace_time_and_run_time_undo_each_other(parts: list[tuple[float, float, float]], at: list[float]) -> None:
    surges, start = [], 0.0
    for factor, gap_s, width_s in parts:
        surges.append(Surge(factor, start + gap_s, start + gap_s + width_s))
        start += gap_s + width_s
    run_s = np.array(sorted(at))
    assert run_time(trace_time(run_s, surges), surges) == pytest.approx(run_s, abs=1e-6)
