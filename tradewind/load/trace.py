"""Recorded arrivals from a file, at the rate and for the time asked for.

Three formats, told by their header (csv, or csv.gz):

    at_s,input_tokens,output_tokens               one row a request, seconds from the start (the bundled sample)
    TIMESTAMP,ContextTokens,GeneratedTokens       one row a request (Azure's LLM inference trace)
    t_s,requests[,...]                            requests counted per window (ServeGen's totals): drawn as a Poisson
                                                  process of that rate, token lengths drawn from the bundled sample
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tradewind.load.surge import Floats, Surge, run_time, trace_time

Ints = NDArray[np.int64]
SAMPLE = Path(__file__).with_name("sample.csv.gz")
ARRIVALS_MAX = 5_000_000
TOKENS_MAX = 10_000_000


class TraceError(ValueError):
    """A trace that cannot be played: names the file, the line and column, the value, and what to do."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Requests by arrival: seconds from the start (rising), input and output tokens; arrays of one length."""

    at_s: Floats
    input_tokens: Ints
    output_tokens: Ints

    def __len__(self) -> int:
        return len(self.at_s)


@dataclass(frozen=True, slots=True)
class _Windows:
    """Requests counted per window of `width_s`."""

    width_s: float
    counts: Floats


@dataclass(frozen=True, slots=True)
class _Recorded:
    """Single requests and how long the record of them lasts."""

    arrivals: Arrivals
    lasts_s: float


def load(
    path: Path,
    *,
    seconds: float,
    seed: int,
    mean_rps: float | None = None,
    speed: float | None = None,
    loop: bool = True,
    surges: Sequence[Surge] = (),
) -> Arrivals:
    """Arrivals of the first `seconds` of a run that plays `path`; the same arguments give the same arrivals.

    A record of requests: `mean_rps` alone sets the speed that gives this mean over the whole record (its shape kept);
    with `speed` too, requests are left out at random. A record of windows: `speed` plays windows faster, `mean_rps`
    scales their counts. With `loop` the record starts again when over; without, arrivals end with it.
    Surges speed the record up for a while. Raises TraceError.
    """
    for name, value in (("seconds", seconds), ("mean_rps", mean_rps), ("speed", speed)):
        if value is not None and not 0 < value < float("inf"):
            raise TraceError(f"{path}: {name} is {value}; give a number above 0")
    rng = np.random.default_rng(seed)
    needed_s = float(trace_time(np.array([seconds]), surges)[0])
    source = _read(path)
    if isinstance(source, _Windows):
        played = _play_windows(path, source, needed_s, mean_rps, speed or 1.0, loop, rng)
    else:
        played = _play_recorded(path, source, needed_s, mean_rps, speed, loop, rng)
    at_s = run_time(played.at_s, surges)
    return _only(Arrivals(at_s, played.input_tokens, played.output_tokens), at_s < seconds)


# -- playing ----------------------------------------------------------------------------------------------------------


def _play_recorded(
    path: Path,
    source: _Recorded,
    needed_s: float,
    mean_rps: float | None,
    speed: float | None,
    loop: bool,
    rng: np.random.Generator,
) -> Arrivals:
    own_rps = len(source.arrivals) / source.lasts_s
    if speed is None:
        speed = 1.0 if mean_rps is None else mean_rps / own_rps
        mean_rps = None
    repeated = _repeat(path, source, needed_s * speed, loop)
    played = Arrivals(repeated.at_s / speed, repeated.input_tokens, repeated.output_tokens)
    if mean_rps is None:
        return played
    keep = mean_rps / (own_rps * speed)
    if keep > 1.0 + 1e-9:
        raise TraceError(
            f"{path}: {mean_rps:g} requests/s are asked for, at speed {speed:g} it has {own_rps * speed:.3g}; "
            f"leave the speed out or raise it to {math.ceil(10 * mean_rps / own_rps) / 10:g}"
        )
    return _only(played, rng.random(len(played)) < keep)


def _repeat(path: Path, source: _Recorded, until_s: float, loop: bool) -> Arrivals:
    """The record as often as it takes to last `until_s`."""
    once = source.arrivals
    times = int(np.ceil(until_s / source.lasts_s)) if loop else 1
    _check_count(path, times * len(once))
    starts_s = np.repeat(np.arange(times) * source.lasts_s, len(once))
    at_s = np.tile(once.at_s, times) + starts_s
    whole = Arrivals(at_s, np.tile(once.input_tokens, times), np.tile(once.output_tokens, times))
    return _only(whole, at_s < until_s)


def _play_windows(
    path: Path,
    source: _Windows,
    needed_s: float,
    mean_rps: float | None,
    speed: float,
    loop: bool,
    rng: np.random.Generator,
) -> Arrivals:
    width_s = source.width_s / speed
    own_rps = float(source.counts.mean()) / width_s
    scale = 1.0 if mean_rps is None else mean_rps / own_rps
    number = int(np.ceil(needed_s / width_s))
    number = number if loop else min(number, len(source.counts))
    expected = scale * source.counts[np.arange(number) % len(source.counts)]
    _check_count(path, float(expected.sum()))
    at_s = _poisson(expected, width_s, rng)
    input_tokens, output_tokens = _token_lengths(len(at_s), rng)
    return _only(Arrivals(at_s, input_tokens, output_tokens), at_s < needed_s)


def _poisson(expected: Floats, width_s: float, rng: np.random.Generator) -> Floats:
    """Arrivals of a Poisson process that has `expected[i]` of them on average in the i-th stretch of `width_s`."""
    counts = rng.poisson(expected)
    starts_s = np.repeat(np.arange(len(expected)) * width_s, counts)
    return np.sort(starts_s + rng.random(len(starts_s)) * width_s)


def _token_lengths(number: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Pairs of input and output tokens as single requests of the sample had them."""
    sample = _read(SAMPLE)
    assert isinstance(sample, _Recorded)
    rows = rng.integers(0, len(sample.arrivals), number)
    return sample.arrivals.input_tokens[rows], sample.arrivals.output_tokens[rows]


def _only(arrivals: Arrivals, rows: NDArray[np.bool_]) -> Arrivals:
    return Arrivals(arrivals.at_s[rows], arrivals.input_tokens[rows], arrivals.output_tokens[rows])


def _check_count(path: Path, number: float) -> None:
    if number > ARRIVALS_MAX:
        raise TraceError(
            f"{path}: {number:.3g} requests are asked for, {ARRIVALS_MAX} is the limit; lower mean_rps or the seconds"
        )


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> _Recorded | _Windows:
    try:
        frame = pl.read_csv(path, infer_schema=False)
    except FileNotFoundError as error:
        raise TraceError(f"{path}: there is no such file; check the path, or play the sample") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TraceError(f"{path}: cannot be read as csv or csv.gz ({_first_line(error)}); mend it") from error
    for columns, read in _FORMATS:
        if set(columns) <= set(frame.columns):
            if frame.is_empty():
                raise TraceError(f"{path}: has a header and no rows; give a trace with at least one")
            return read(path, frame)
    known = "; ".join(",".join(columns) for columns, _ in _FORMATS)
    raise TraceError(f"{path}: line 1 has the columns {','.join(frame.columns)!r:.200}; rename them to one of: {known}")


def _read_simple(path: Path, frame: pl.DataFrame) -> _Recorded:
    return _recorded(path, frame, _numbers(path, frame, "at_s", 0.0, 1e12), "input_tokens", "output_tokens")


def _read_azure(path: Path, frame: pl.DataFrame) -> _Recorded:
    texts = frame["TIMESTAMP"].str.slice(0, 26)  # microseconds: the seventh digit is below what a timer can do
    times = texts.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False)
    _refuse_first(path, frame["TIMESTAMP"], times.is_null(), "write it as 2023-11-16 18:17:03.9799600")
    at_s = times.to_physical().to_numpy() / 1e6
    return _recorded(path, frame, at_s - at_s.min(), "ContextTokens", "GeneratedTokens")


def _read_windows(path: Path, frame: pl.DataFrame) -> _Windows:
    starts_s = _numbers(path, frame, "t_s", 0.0, 1e12)
    counts = _numbers(path, frame, "requests", 0.0, 1e12)
    if len(starts_s) < 2 or counts.sum() <= 0:
        raise TraceError(f"{path}: needs two windows or more and at least one request; give a longer record")
    widths_s = np.diff(starts_s)
    uneven = np.flatnonzero((widths_s <= 0) | (np.abs(widths_s - widths_s[0]) > 1e-6 * widths_s[0]))
    if len(uneven):
        row = int(uneven[0]) + 1
        raise TraceError(
            f"{path}: line {row + 2}, column t_s: {frame['t_s'][row]!r} is not {widths_s[0]:g} s after the line "
            "before; windows must be equally wide: fill in the missing ones"
        )
    return _Windows(float(widths_s[0]), counts)


_FORMATS: tuple[tuple[tuple[str, ...], Callable[[Path, pl.DataFrame], _Recorded | _Windows]], ...] = (
    (("at_s", "input_tokens", "output_tokens"), _read_simple),
    (("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _read_azure),
    (("t_s", "requests"), _read_windows),
)


def _recorded(path: Path, frame: pl.DataFrame, at_s: Floats, input_name: str, output_name: str) -> _Recorded:
    """Requests by time. The record lasts one mean gap beyond its last request, so that a repeat keeps the rate."""
    order = np.argsort(at_s, kind="stable")
    input_tokens = _numbers(path, frame, input_name, 1.0, TOKENS_MAX)[order].astype(np.int64)
    output_tokens = _numbers(path, frame, output_name, 1.0, TOKENS_MAX)[order].astype(np.int64)
    at_s = at_s[order] - at_s.min()
    span_s = float(at_s[-1])
    lasts_s = span_s * len(at_s) / (len(at_s) - 1) if span_s > 0 else 1.0
    return _Recorded(Arrivals(at_s, input_tokens, output_tokens), lasts_s)


def _numbers(path: Path, frame: pl.DataFrame, column: str, low: float, high: float) -> Floats:
    numbers = frame[column].str.strip_chars().cast(pl.Float64, strict=False)
    wrong = ~numbers.is_between(low, high).fill_null(value=False)
    _refuse_first(path, frame[column], wrong, f"write a number from {low:g} to {high:g}")
    return numbers.to_numpy()


def _refuse_first(path: Path, values: pl.Series, wrong: pl.Series, remedy: str) -> None:
    row = wrong.arg_max() if wrong.any() else None
    if row is not None:
        raise TraceError(f"{path}: line {row + 2}, column {values.name}: {values[row]!r:.80}; {remedy}")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
