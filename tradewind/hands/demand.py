"""What is expected of demand: the next hour as the forecaster says, the next day told here from its history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from forecasting.models.day_ahead import DayAhead, Parts, day_ahead, parts
from streams.contract.records import DemandForecast, DemandHistory
from streams.contract.topics import DEMAND_FORECAST, DEMAND_HISTORY
from streams.settings import Settings
from tradewind.hands import facts, kafka
from tradewind.hands.text import at

HOUR_S = 3600.0


class Tomorrow(msgspec.Struct, frozen=True, kw_only=True):
    """The next 24 hours of a flow, in requests per second."""

    model: str
    """Who told the last days best, and so tells these."""
    begins_at_s: float
    rps: tuple[float, ...]
    wrong: dict[str, float]
    """Candidate to its mean absolute error over the days told again, over their mean."""
    growth_per_day: float | None = None
    """Trend, as a share of the mean. With the next two: Prophet's account of the past; None without Prophet."""
    by_hour: tuple[float, ...] | None = None
    """By the hour of the day, UTC: how far above the mean."""
    by_day: tuple[float, ...] | None = None
    """By the day of the week, Monday first; empty: less than two weeks are known."""


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow and what is expected of it; None: nothing was said yet."""

    flow: str
    forecast: DemandForecast | None = None
    tomorrow: Tomorrow | None = None


async def flows(consumer: Any, settings: Settings, service: str | None) -> list[Flow]:
    """All flows that were forecast, or only those of one service."""
    said = facts.last_words(await kafka.held(consumer, settings, DEMAND_FORECAST), DemandForecast)
    held = facts.last_words(await kafka.held(consumer, settings, DEMAND_HISTORY), DemandHistory)
    keys = sorted(key for key in said.keys() | held.keys() if service in (None, key.partition("/")[0]))
    return [
        Flow(
            flow=key,
            forecast=said[key].record if key in said else None,
            tomorrow=tomorrow(held[key].record) if key in held else None,
        )
        for key in keys
    ]


def tomorrow(history: DemandHistory) -> Tomorrow | None:
    """From whole hours; None where not even a day is known."""
    begins_s, hours = hourly(history)
    if (told := day_ahead(hours, begins_s)) is None:
        return None
    return _said(told, parts(hours, begins_s), begins_s + HOUR_S * len(hours))


def hourly(history: DemandHistory) -> tuple[float, np.ndarray]:
    """(where the first whole hour begins, requests per second by the hour; NaN: nobody measured)."""
    slots = round(HOUR_S / history.slot_s)
    rpm = np.array([np.nan if one is None else one for one in history.rpm], np.float64)
    skip = round(-history.first_at_s % HOUR_S / history.slot_s)
    whole = rpm[skip : skip + (len(rpm) - skip) // slots * slots].reshape(-1, slots)
    known = ~np.isnan(whole)
    mean = np.where(known, whole, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return history.first_at_s + skip * history.slot_s, np.where(known.any(axis=1), mean / 60.0, np.nan)


def _said(told: DayAhead, why: Parts | None, begins_s: float) -> Tomorrow:
    return Tomorrow(
        model=told.model,
        begins_at_s=begins_s,
        rps=_rounded(told.hours),
        wrong={name: round(value, 4) for name, value in told.wrong.items()},
        growth_per_day=round(why.growth_per_day, 4) if why else None,
        by_hour=_rounded(why.by_hour) if why else None,
        by_day=_rounded(why.by_day) if why else None,
    )


def _rounded(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def rows(found: Sequence[Flow]) -> Iterable[Sequence[object]]:
    """For people: a line a flow."""
    yield "FLOW", "IN AN HOUR", "19 OF 20 BELOW", "SPIKE", "PATTERN", "NEXT 24 H", "TOLD BY"
    for one in found:
        last = one.forecast.horizons[-1].rps if one.forecast and one.forecast.horizons else {}
        yield (
            one.flow,
            *(f"{last[q]:.3g}/s" if q in last else "-" for q in ("0.5", "0.95")),
            f"{one.forecast.spike:.0%}" if one.forecast and one.forecast.spike is not None else "-",
            one.forecast.pattern if one.forecast else "-",
            _peak(one.tomorrow) if one.tomorrow else "not a day is known",
            one.tomorrow.model if one.tomorrow else "-",
        )


def _peak(said: Tomorrow) -> str:
    most = int(np.argmax(said.rps))
    growth = f", {said.growth_per_day:+.0%} a day" if said.growth_per_day is not None else ""
    return f"most {said.rps[most]:.3g}/s at {at(said.begins_at_s + HOUR_S * most)[11:16]}{growth}"
