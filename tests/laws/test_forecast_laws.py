"""What holds for every model of a series, and for the stage that teaches them, whatever they are taught."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Iterable
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from forecasting.demand import HORIZONS_S, ExpectDemand, Expected
from forecasting.models.last_value import LastValue
from forecasting.models.many import Many
from forecasting.protocol import QUANTILES, Floats, Forecast, Forecaster
from streams.contract.records import Demand, DemandForecast
from streams.contract.topics import DEMAND
from streams.runtime.batch import Batch, Message
from streams.runtime.step import Heard
from tests.unit.pretend_forecasters import Spy

MODELS: dict[str, Callable[[], Forecaster]] = {"lv_add": lambda: LastValue(HORIZONS_S, least=3)}
every_model = pytest.mark.parametrize("name", MODELS)
quick = settings(max_examples=40, deadline=None)
values = st.one_of(st.none(), st.floats(0, 1e12), st.integers(0, 9).map(float))
series = st.lists(values, max_size=150)
Said = list[tuple[float, ...] | None]


def said(model: Forecaster) -> Said:
    return [model.forecast(ahead_s, QUANTILES) for ahead_s in HORIZONS_S]


def lived(name: str, taught: Iterable[float | None]) -> list[Said]:
    """What a model says after each slot."""
    model, heard = MODELS[name](), []
    for n, value in enumerate(taught):
        model.learn(60.0 * n, value)
        heard.append(said(model))
    return heard


# ---------------------------------------------------------------- models


@every_model
@quick
@given(past=series, one=series, other=series)
def test_what_comes_later_changes_nothing_said_before(
    name: str, past: list[float | None], one: list[float | None], other: list[float | None]
) -> None:
    now = len(past)
    assert lived(name, past + one)[:now] == lived(name, past + other)[:now] == lived(name, past)


@every_model
@quick
@given(taught=series)
def test_forecasts_are_finite_and_not_negative_and_quantiles_do_not_cross(
    name: str, taught: list[float | None]
) -> None:
    for values_said in (v for moment in lived(name, taught) for v in moment if v is not None):
        assert all(math.isfinite(v) and v >= 0 for v in values_said)
        assert list(values_said) == sorted(values_said)


@every_model
@quick
@given(taught=series)
def test_a_forecast_only_reads_and_is_the_same_twice(name: str, taught: list[float | None]) -> None:
    model = MODELS[name]()
    for n, value in enumerate(taught):
        model.learn(60.0 * n, value)
    before = pickle.dumps(model)
    assert said(model) == said(model)
    assert pickle.dumps(model) == before


@every_model
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_on_stationary_noise_quantiles_cover_what_they_say(name: str, seed: int) -> None:
    """Within 2.5 points at every horizon, over 4000 minutes: sampling alone moves the .5 by a point or so."""
    rng = random.Random(seed)
    noise = [max(0.0, rng.gauss(100, 15)) for _ in range(4400)]
    model = MODELS[name]()
    held = np.zeros((len(HORIZONS_S), len(QUANTILES)))
    scored = 0
    for n, value in enumerate(noise):
        model.learn(60.0 * n, value)
        if n >= 330 and n + 61 < len(noise):
            scored += 1
            for row, ahead_s in enumerate(HORIZONS_S):
                forecast = model.forecast(ahead_s, QUANTILES)
                assert forecast is not None
                held[row] += noise[n + 1 + round(ahead_s / 60)] <= np.array(forecast)
    assert np.abs(held / scored - np.array(QUANTILES)).max() < 0.025


# ---------------------------------------------------------------- models of many series

ROWS = 6
few = settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""A life of many series takes tenths of a second; what fails is small already."""


@st.composite
def pasts(draw: st.DrawFn) -> Floats:
    """[slot, series] some dozen slots of series that are calm, bursting, idle, huge, full of gaps, or begin late."""
    rng, slots = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(1, 40))
    levels = np.array([100.0, 5.0, 0.0, 1e11, 1e4, 300.0])
    values = rng.poisson(np.minimum(levels, 1e9), (slots, ROWS)) * np.maximum(levels / 1e9, 1.0)
    values[:, 1] *= rng.random(slots) < 0.2
    values[rng.random(slots) < 0.05] *= 10
    values[:, 4][rng.random(slots) < 0.5] = np.nan
    values[: draw(st.integers(0, slots)), 5] = np.nan
    values[rng.random(slots) < 0.1] = np.nan
    return values.astype(np.float32)


def many() -> Many:
    return Many(ROWS, 300.0, [1, 2, 6, 12])


def told(model: Many, values: Floats, first: int = 0) -> list[Forecast]:
    """What `model` says after each slot."""
    said = []
    for n, each in enumerate(values):
        model.learn(first + n, each)
        said.append(model.forecast())
    return said


def alike(one: Forecast, other: Forecast, rows: slice = slice(None)) -> bool:
    """Whether both say the same, to the bit, of `rows`."""
    names = ("quantiles", "provide", "spike", "on_off", "young")
    return all(getattr(one, name)[rows].tobytes() == getattr(other, name)[rows].tobytes() for name in names)


@few
@given(values=pasts(), first=st.integers(0, 30_000_000))
def test_what_is_said_of_many_is_finite_and_not_negative_and_in_order(values: Floats, first: int) -> None:
    for said in told(many(), values, first):
        assert np.isfinite(said.quantiles).all()
        assert (said.quantiles >= 0).all()
        assert (np.diff(said.quantiles, axis=-1) >= 0).all()
        assert np.isfinite(said.provide).all()
        assert (said.provide >= said.quantiles[..., 0] * 0.999).all()
        assert ((said.spike >= 0) & (said.spike <= 1)).all()
        assert (np.diff(said.spike, axis=-1) >= 0).all()


@few
@given(past=pasts(), one=pasts(), other=pasts())
def test_of_many_what_comes_later_changes_nothing_said_before(past: Floats, one: Floats, other: Floats) -> None:
    for later in (one, other):
        lives = zip(told(many(), np.concatenate([past, later])), told(many(), past), strict=False)
        assert all(alike(said, alone) for said, alone in lives)


@few
@given(values=pasts(), with_them=pasts())
def test_what_is_said_of_a_series_does_not_depend_on_those_beside_it(values: Floats, with_them: Floats) -> None:
    slots = min(len(values), len(with_them))
    beside = np.concatenate([values[:slots, :3], with_them[:slots, 3:]], axis=1)
    lives = zip(told(many(), values[:slots]), told(many(), beside), strict=True)
    assert all(alike(one, other, slice(0, 3)) for one, other in lives)


@few
@given(values=pasts())
def test_asking_changes_nothing(values: Floats) -> None:
    asked, silent = many(), many()
    told(asked, values)
    for n, each in enumerate(values):
        silent.learn(n, each)
    assert alike(asked.forecast(), silent.forecast())
    assert alike(asked.forecast(), asked.forecast())


@few
@given(before=pasts(), values=pasts())
def test_a_place_that_was_forgotten_knows_nothing_of_who_lived_there(before: Floats, values: Floats) -> None:
    fresh, used = many(), many()
    told(used, before)
    used.reset(np.arange(ROWS))
    for n in range(len(before)):
        fresh.learn(n, np.full(ROWS, np.nan, np.float32))
    lives = zip(told(fresh, values, len(before)), told(used, values, len(before)), strict=True)
    assert all(alike(one, other) for one, other in lives)


@few
@given(seed=st.integers(0, 2**32), hours=st.integers(1, 30))
def test_what_is_remembered_can_be_recalled(seed: int, hours: int) -> None:
    rng, model, other = np.random.default_rng(seed), Many(ROWS, 300.0, [1, 2]), Many(ROWS, 300.0, [1, 2])
    for slot in range(12 * hours):
        model.learn(slot, rng.poisson(50, ROWS).astype(np.float32))
    first, means = model.remembered(2)
    other.learn(12 * hours, np.full(ROWS, 50, np.float32))
    other.recall(2, first, means)
    moved, again = other.remembered(2)
    moved -= first
    assert np.array_equal(again[: len(again) - moved], means[moved:], equal_nan=True)
    assert other.forecast().young.tolist() == [True, True, hours < 24, True, True, True]


# ---------------------------------------------------------------- the stage

T0 = 1_763_938_800.0
STAGE = ExpectDemand(model=Spy, refits=False)
Sent = tuple[float, Demand]
"""A message's time, and what it says."""


@st.composite
def slots(draw: st.DrawFn) -> list[Sent]:
    """An hour or so of two sources and two origins, in the order of the topic: some late, some said again, gaps."""
    rng, sent = random.Random(draw(st.integers(0, 2**32))), []
    dead = set(range(*sorted(draw(st.tuples(st.integers(0, 70), st.integers(0, 70))))))
    for minute in (m for m in range(draw(st.integers(1, 75))) if m not in dead):
        for _ in range(rng.randint(1, 3)):
            at_s = T0 + 60 * minute + rng.randrange(0, 60, 10)
            count = rng.randint(0, 20)
            record = Demand(
                source=f"arrivals.v1/{rng.randint(0, 1)}", at_s=at_s, service=("chat",),
                origin=(rng.choice(["eu", "us"]),), class_=("batch",),
                arrived=(count,), admitted=(count,), shed=(0,), failed=(0,),
            )  # fmt: skip
            sent.append((at_s + rng.choice([1, 1, 1, 4, 20, 90]), record))
    return sorted(sent, key=lambda one: one[0])


def heard(sent: list[Sent], start: int) -> Heard[Demand]:
    messages = [Message(start + n, int(stamp_s * 1000), b"k", b"") for n, (stamp_s, _) in enumerate(sent)]
    return Heard(Batch(DEMAND.name, 0, messages), np.arange(len(sent)), [record for _, record in sent])


def folded(sent: list[Sent], cuts: Iterable[int], ticking: bool = False) -> Expected:
    state, bounds = STAGE.empty(), [0, *sorted({c for c in cuts if c < len(sent)}), len(sent)]
    for start, stop in pairwise(bounds):
        if ticking and start < stop:
            state = STAGE.advance(state, sent[start][0])
        state = STAGE.fold(state, heard(sent[start:stop], start))
    return state


def spoken(state: Expected, now_s: float) -> bytes:
    return msgspec.json.encode(list(STAGE.view(STAGE.advance(state, now_s), now_s)))


later_s = st.sampled_from([60.0 * 40, 60.0 * 76, 60.0 * 80 + 10, 60.0 * 200])


@quick
@given(sent=slots(), cuts=st.lists(st.integers(0, 200), max_size=20), after_s=later_s)
def test_how_batches_are_cut_does_not_matter(sent: list[Sent], cuts: list[int], after_s: float) -> None:
    assert spoken(folded(sent, cuts), T0 + after_s) == spoken(folded(sent, []), T0 + after_s)


@quick
@given(sent=slots())
def test_whether_time_passed_meanwhile_does_not_matter(sent: list[Sent]) -> None:
    """A worker that ticked all along, and one that was restored."""
    now_s = sent[-1][0] + 300 if sent else T0
    assert spoken(folded(sent, range(len(sent)), ticking=True), now_s) == spoken(folded(sent, []), now_s)


@quick
@given(sent=slots(), steps_s=st.lists(st.floats(0, 59), max_size=10))
def test_time_that_passes_in_small_steps_passes_as_in_one(sent: list[Sent], steps_s: list[float]) -> None:
    slowly, at_once, now_s = folded(sent, []), folded(sent, []), T0 + 5000
    for step_s in steps_s:
        now_s += step_s
        slowly = STAGE.advance(slowly, now_s)
    assert spoken(slowly, now_s + 60) == spoken(at_once, now_s + 60)


@quick
@given(sent=slots(), after_s=later_s)
def test_a_view_only_reads_and_time_passes_once(sent: list[Sent], after_s: float) -> None:
    state = STAGE.advance(folded(sent, []), T0 + after_s)
    before, first = pickle.dumps(state), list(STAGE.view(state, T0 + after_s))
    assert list(STAGE.view(state, T0 + after_s)) == first
    assert pickle.dumps(state) == before
    state = STAGE.advance(state, T0 + after_s)
    assert pickle.dumps(state) == before


@quick
@given(sent=slots(), seed=st.integers(0, 2**32), at=st.integers(0, 200))
def test_scrambling_the_future_changes_nothing_spoken_before_it(sent: list[Sent], seed: int, at: int) -> None:
    rng = random.Random(seed)
    past, future = sent[:at], sent[at:]
    scrambled = [
        (stamp_s, msgspec.structs.replace(record, arrived=(rng.randint(0, 999),))) for stamp_s, record in future
    ]

    def life(later: list[Sent]) -> list[DemandForecast]:
        state, out = STAGE.empty(), []
        for n, one in enumerate(past + later):
            state = STAGE.advance(state, one[0])
            # what is spoken before the first message of the future was heard
            out += [] if n > len(past) else list(STAGE.view(state, one[0]))
            state = STAGE.fold(state, heard([one], n))
        return out

    assert life(scrambled) == life(future)
