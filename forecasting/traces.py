"""A folder of recorded demand as series of equal slots: what models are pretrained on and benches score them with.

A file is known by the columns it begins with, never by its name (CSV, plain or .gz, with a header):

| columns | what it is | becomes |
|---|---|---|
| `minute,requests` | a count per minute since the first | one series, 1 min |
| `t_s,requests,…` | a count per slot that begins `t_s` after the first | one series, slots as they are spaced |
| `client_id,t_s,requests,…` | the same per client; what is absent is none | a series per client |
| `TIMESTAMP,…`, `gmt_create,…` or `timestamp_ms,…` | a row per request | one series of counts, see below |
| `t,container,value,request_type` | a rate per sample, container and kind; absent: none | a series per kind, 1 min |
| `series,timestamp,value` | measured values | a series per name, slots as they are spaced |

Only where no file of a folder is known so, each CSV is taken whose first column is a time (a number of seconds, or a
date) and whose other columns have numbers: a series per column, empty cells are gaps.

Requests are counted per 1, 5, 10 or 30 min: in the shortest slots that hold five on average. Series in shorter slots
become means over the shortest of these that is a whole number of them; series in longer ones are left out. Slots in
which nobody at all was heard (no client of a file; nothing, in a series that has 20 in its median slot and nothing in
less than 5 %) are outages of the recorder, hence gaps; a log of single requests has none. Values are NaN there.
Negative values are gaps too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from forecasting.protocol import Floats

SLOTS_S: Final = (60.0, 300.0, 600.0, 1800.0)
LEAST_PER_SLOT: Final = 5
BUSY: Final = 20
SELDOM: Final = 0.05
NEAR: Final = 0.1
"""Samplers say 57 s and mean a minute."""
MOST_SLOTS: Final = 2_000_000
MOST_VALUE: Final = 1e15
_UNREADABLE: Final = (pl.exceptions.PolarsError, ValueError, TypeError, OverflowError, OSError)


@dataclass(frozen=True, slots=True)
class Trace:
    """One series."""

    family: str
    """The first word of its file's name."""
    file: str
    name: str
    step_s: float
    values: Floats
    """One per slot; NaN: nobody measured."""
    client: bool = False
    """Whether it is what one client asked."""


Series = Iterable[tuple[str, float, np.ndarray]]
"""Name, length of a slot, values."""
Readers = dict[tuple[str, ...], Callable[[pl.DataFrame], Series]]
"""By the columns that a file begins with."""
LeftOut = Callable[[str, str], None]
"""Is told what was left out, and why."""


def read(folder: Path, left_out: LeftOut = lambda what, why: None) -> list[Trace]:
    """All series of the CSV files in `folder` and below. Raises ValueError where there are none."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder: give one that holds CSV files")
    paths = sorted(path for path in folder.rglob("*.csv*") if path.name.endswith((".csv", ".csv.gz")))
    traces = [trace for path in paths for trace in _file(path, _KNOWN, left_out)]
    traces = traces or [trace for path in paths for trace in _file(path, {(): _wide}, left_out)]
    if not traces:
        raise ValueError(f"{folder} holds no series of demand in {len(paths)} CSV files: see --help for what is read")
    return traces


def _file(path: Path, readers: Readers, left_out: LeftOut) -> Iterable[Trace]:
    try:
        yield from _traces(path, readers, left_out)
    except _UNREADABLE as error:
        left_out(path.name, f"cannot be read: {str(error).partition(chr(10))[0]}")


def _traces(path: Path, readers: Readers, left_out: LeftOut) -> Iterable[Trace]:
    with path.open("rb") as raw:
        if not raw.read(1):
            return
    columns = pl.read_csv(path, n_rows=1, infer_schema=False).columns
    reader = next((made for begins, made in readers.items() if tuple(columns[: len(begins)]) == begins), None)
    if reader is None:
        return
    stem = path.name.partition(".")[0]
    for name, step_s, values in reader(pl.read_csv(path, infer_schema_length=10_000, try_parse_dates=True)):
        if (regular := _regular(step_s, values)) is None:
            left_out(f"{path.name}/{name}", f"slots of {step_s:g} s: no part of 1, 5, 10 or 30 min")
        elif len(regular[1]) > 1:
            family, client = stem.partition("_")[0], columns[0] == "client_id"
            yield Trace(family, stem, name, regular[0], regular[1].astype(np.float32), client)


def _regular(step_s: float, values: np.ndarray) -> tuple[float, np.ndarray] | None:
    """In slots that are scored; None where that cannot be."""
    values = np.where((values >= 0) & (values <= MOST_VALUE), values, np.nan)
    for slot_s in SLOTS_S:
        if abs(step_s - slot_s) <= NEAR * slot_s:
            return slot_s, values
    for slot_s in SLOTS_S:
        if 0 < step_s < slot_s and slot_s % step_s == 0:
            return slot_s, _means(values, round(slot_s / step_s))
    return None


def _means(values: np.ndarray, of: int) -> np.ndarray:
    """Means of `of` slots each, of what is known; those at the end that do not fill one are dropped."""
    parts = values[: len(values) // of * of].reshape(-1, of)
    known = (~np.isnan(parts)).sum(axis=1)
    return np.where(known > 0, np.nansum(parts, axis=1) / np.maximum(known, 1), np.nan)


def _minutes(frame: pl.DataFrame) -> Series:
    yield "all", 60.0, _outages(_placed(_numbers(frame["minute"].to_numpy()), frame["requests"].to_numpy()))


def _slots(frame: pl.DataFrame) -> Series:
    step_s, at = _spaced(frame["t_s"].to_numpy())
    yield "all", step_s, _outages(_placed(at, frame["requests"].to_numpy()))


def _clients(frame: pl.DataFrame) -> Series:
    step_s, at = _spaced(frame["t_s"].to_numpy())
    frame = frame.with_columns(pl.Series("at", at))
    silent = np.bincount(at, frame["requests"].to_numpy(), at.max() + 1) == 0
    for (client,), rows in frame.group_by("client_id", maintain_order=True):
        values = np.bincount(rows["at"].to_numpy(), rows["requests"].to_numpy(), at.max() + 1)
        yield str(client), step_s, np.where(silent, np.nan, values)


def _requests(frame: pl.DataFrame) -> Series:
    """The slots at either end are cut off: they are there in part only."""
    at_s = _seconds(frame.to_series(0))
    span_s = float(np.ptp(at_s))
    step_s = next((s for s in SLOTS_S if len(at_s) * s >= LEAST_PER_SLOT * span_s), SLOTS_S[-1])
    yield "all", step_s, np.bincount(_numbers((at_s - at_s.min() // step_s * step_s) // step_s))[1:-1]


def _samples(frame: pl.DataFrame) -> Series:
    step_s, at = _spaced(frame["t"].to_numpy())
    frame = frame.with_columns(pl.Series("at", at))
    for (kind,), rows in frame.group_by("request_type", maintain_order=True):
        values = np.bincount(rows["at"].to_numpy(), rows["value"].to_numpy(), at.max() + 1)
        yield str(kind), step_s, values


def _named(frame: pl.DataFrame) -> Series:
    for (name,), rows in frame.group_by("series", maintain_order=True):
        step_s, at = _spaced(_seconds(rows["timestamp"]))
        yield str(name), step_s, _outages(_placed(at, rows["value"].to_numpy()))


def _wide(frame: pl.DataFrame) -> Series:
    first = frame.to_series(0)
    if first.null_count() or len(first) < 3:
        raise ValueError("too short, or a time is missing in its first column")
    step_s, at = _spaced(_seconds(first))
    for column in frame.iter_columns():
        if column.name != first.name and column.dtype.is_numeric():
            yield column.name, step_s, _outages(_placed(at, column.cast(pl.Float64).to_numpy()))


_KNOWN: Final[dict[tuple[str, ...], Callable[[pl.DataFrame], Series]]] = {
    ("minute", "requests"): _minutes,
    ("t_s", "requests"): _slots,
    ("client_id", "t_s", "requests"): _clients,
    ("TIMESTAMP",): _requests,
    ("gmt_create",): _requests,
    ("timestamp_ms",): _requests,
    ("t", "container", "value", "request_type"): _samples,
    ("series", "timestamp", "value"): _named,
}


def _seconds(times: pl.Series) -> np.ndarray:
    if times.dtype.is_temporal():
        return times.cast(pl.Datetime("us")).to_physical().to_numpy() / 1e6
    if times.dtype == pl.String:  # more digits than a parser takes
        return _seconds(times.str.slice(0, 19).str.to_datetime())
    return times.cast(pl.Float64).to_numpy() / (1e3 if times.name.endswith("_ms") else 1.0)


def _spaced(at_s: np.ndarray) -> tuple[float, np.ndarray]:
    """The usual distance of times, and which slot each is in, from 0 on."""
    steps, counts = np.unique(np.round(np.diff(np.unique(at_s))), return_counts=True)
    step_s = float(steps[counts.argmax()]) if len(steps) else 0.0
    return step_s, _numbers(np.round((at_s - at_s.min()) / max(step_s, 1.0)))


def _numbers(at: np.ndarray) -> np.ndarray:
    """Of slots, from 0 on. Raises ValueError where they are too many to hold, or not numbers."""
    if not (at.min() >= 0 and at.max() < MOST_SLOTS):
        raise ValueError(f"its times are not known, or span more than {MOST_SLOTS} slots")
    return at.astype(np.intp)


def _placed(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """By slot; NaN where there is no row. The last row of a slot holds."""
    placed = np.full(int(at.max()) + 1, np.nan)
    placed[at] = values
    return placed


def _outages(values: np.ndarray) -> np.ndarray:
    """`values` with NaN for nothing, in a series that always has something."""
    busy = values[values > 0]
    always = len(busy) > 0 and np.median(busy) >= BUSY and np.mean(values == 0) < SELDOM
    return np.where(values == 0, np.nan, values) if always else values
