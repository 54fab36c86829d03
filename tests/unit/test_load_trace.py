"""Traces: formats, rates, and errors that say where and what to do."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from tradewind.load import SAMPLE, TraceError, load, parse_surges

SIMPLE = "at_s,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,30,3\n3,40,4\n"
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:05.9799600,110,27\n"
)
WINDOWS = "t_s,requests,active_clients\n0,60,2\n600,180,3\n1200,0,0\n"


def written(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_the_simple_format_is_read_as_it_stands(tmp_path: Path, name: str) -> None:
    arrivals = load(written(tmp_path, SIMPLE, name), seconds=10, seed=1, loop=False)
    assert arrivals.at_s.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert arrivals.input_tokens.tolist() == [10, 20, 30, 40]
    assert arrivals.output_tokens.tolist() == [1, 2, 3, 4]


def test_azures_format_starts_at_its_first_request(tmp_path: Path) -> None:
    arrivals = load(written(tmp_path, AZURE), seconds=10, seed=1, loop=False)
    assert arrivals.at_s == pytest.approx([0.0, 0.052, 2.0], abs=1e-6)
    assert arrivals.output_tokens.tolist() == [10, 8, 27]


def test_requests_out_of_order_are_put_in_order_with_their_tokens(tmp_path: Path) -> None:
    text = "at_s,input_tokens,output_tokens\n5,10,1\n4,20,2\n"
    arrivals = load(written(tmp_path, text), seconds=10, seed=1, loop=False)
    assert arrivals.at_s.tolist() == [0.0, 1.0]
    assert arrivals.input_tokens.tolist() == [20, 10]


def test_a_record_played_in_a_loop_keeps_its_rate(tmp_path: Path) -> None:
    arrivals = load(written(tmp_path, SIMPLE), seconds=9, seed=1)
    assert arrivals.at_s == pytest.approx(np.arange(9.0))
    assert arrivals.output_tokens.tolist() == [1, 2, 3, 4, 1, 2, 3, 4, 1]


def test_a_mean_rate_alone_changes_only_the_speed(tmp_path: Path) -> None:
    arrivals = load(written(tmp_path, SIMPLE), seconds=2, seed=1, mean_rps=10)
    assert arrivals.at_s == pytest.approx(np.arange(20) / 10)


def test_a_speed_and_a_mean_rate_thin_the_record() -> None:
    full = load(SAMPLE, seconds=100, seed=1, speed=10)
    thinned = load(SAMPLE, seconds=100, seed=1, speed=10, mean_rps=9)
    assert set(thinned.at_s) < set(full.at_s)
    assert 700 < len(thinned) < 1100


def test_a_rate_above_what_the_speed_gives_is_refused_with_a_speed_that_does() -> None:
    with pytest.raises(TraceError, match=r"100 requests/s are asked for, at speed 2 it has 7\.\d+; .*raise it to 27"):
        load(SAMPLE, seconds=10, seed=1, speed=2, mean_rps=100)


def test_windows_are_drawn_at_their_rates_scaled_to_the_mean_asked_for(tmp_path: Path) -> None:
    arrivals = load(written(tmp_path, WINDOWS), seconds=90, seed=1, speed=20, mean_rps=40)
    counts = np.histogram(arrivals.at_s, bins=[0, 30, 60, 90])[0]
    assert counts == pytest.approx([900, 2700, 0], abs=170)
    assert np.all(np.diff(arrivals.at_s) >= 0)
    assert 5 < np.mean(arrivals.output_tokens) < 100


def test_windows_played_faster_keep_their_counts(tmp_path: Path) -> None:
    arrivals = load(written(tmp_path, WINDOWS), seconds=1000, seed=1, speed=60, loop=False)
    assert 180 < len(arrivals) < 300
    assert arrivals.at_s.max() < 20


@pytest.mark.parametrize("text", [SIMPLE, WINDOWS])
def test_the_same_seed_gives_the_same_arrivals_and_another_gives_others(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    runs = [load(path, seconds=60, seed=seed, speed=20, mean_rps=8) for seed in (1, 1, 2)]
    assert runs[0].at_s.tolist() == runs[1].at_s.tolist()
    assert runs[0].at_s.tolist() != runs[2].at_s.tolist()


def test_a_surge_brings_more_of_the_same_record_in_its_time() -> None:
    plain = load(SAMPLE, seconds=40, seed=1, mean_rps=30)
    surged = load(SAMPLE, seconds=20, seed=1, mean_rps=30, surges=parse_surges("3x@10"))
    assert len(surged) == len(plain)
    assert surged.at_s[surged.at_s < 10].tolist() == plain.at_s[plain.at_s < 10].tolist()
    assert np.sum(surged.at_s >= 10) == np.sum(plain.at_s >= 10)
    assert surged.at_s.max() < 20


def test_the_sample_is_small_and_plays_at_the_rate_asked_for() -> None:
    assert SAMPLE.stat().st_size < 40_000
    once = load(SAMPLE, seconds=1020, seed=1, loop=False)
    assert len(once) == 3704
    whole = load(SAMPLE, seconds=370.4, seed=1, mean_rps=10)
    assert len(whole) == pytest.approx(3704, abs=2)
    assert "CC BY 4.0" in SAMPLE.with_name("SAMPLE.md").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SIMPLE.replace("2,30,3", "2,-30,3"), r"line 4, column input_tokens: '-30'; write a number from 1"),
        (SIMPLE.replace("1,20,2", "soon,20,2"), r"line 3, column at_s: 'soon'; write a number"),
        (SIMPLE.replace("1,20,2", "nan,20,2"), r"line 3, column at_s: 'nan'; write a number"),
        (SIMPLE.replace("1,20,2", "1,20,"), r"line 3, column output_tokens: None; write a number"),
        (AZURE.replace("2023-11-16 18:17:05.9799600", "yesterday"), r"line 4, column TIMESTAMP: 'yesterday'; write it"),
        (WINDOWS.replace("1200,", "1300,"), r"line 4, column t_s: '1300' is not 600 s after .*fill in"),
        (WINDOWS.replace("60,2", "-1,2"), r"line 2, column requests: '-1'; write a number"),
        ("a,b\n1,2\n", r"line 1 has the columns 'a,b'; rename them to one of: at_s,input_tokens"),
        ("at_s,input_tokens,output_tokens\n", r"has a header and no rows"),
        ("", r"cannot be read as csv"),
        ("t_s,requests\n0,5\n", r"needs two windows or more"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_place_value_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError, match=said) as caught:
        load(path, seconds=10, seed=1)
    assert str(caught.value).startswith(str(path))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.csv: there is no such file"):
        load(tmp_path / "none.csv", seconds=10, seed=1)
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(gzip.compress(SIMPLE.encode())[:20])
    with pytest.raises(TraceError, match=r"broken\.csv\.gz: cannot be read"):
        load(broken, seconds=10, seed=1)


def test_more_requests_than_memory_should_hold_are_refused_before_they_are_made() -> None:
    with pytest.raises(TraceError, match=r"5000000 is the limit; lower"):
        load(SAMPLE, seconds=1e9, seed=1, mean_rps=100)


@pytest.mark.parametrize("wrong", [{"mean_rps": 0.0}, {"speed": -1.0}, {"seconds": float("nan")}])
def test_a_wrong_number_asked_for_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(TraceError, match=rf"{next(iter(wrong))} is .*; give a number above 0"):
        load(SAMPLE, **{"seconds": 10.0, "seed": 1, **wrong})  # type: ignore[arg-type]
