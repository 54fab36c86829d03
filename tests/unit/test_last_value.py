"""The floor among models: last value, plus what that rule got wrong lately."""

import math
import random

import pytest

from forecasting.models.last_value import LEAST, LastValue, Residuals

HORIZONS_S = (0.0, 300.0)


def taught(values: list[float | None], least: int = 1, **more: int) -> LastValue:
    model = LastValue(HORIZONS_S, least=least, **more)
    for n, value in enumerate(values):
        model.learn(60.0 * n, value)
    return model


def test_a_steady_series_goes_on_as_it_is_at_every_quantile() -> None:
    assert taught([7.0] * 10).forecast(300.0, (0.5, 0.99)) == (7.0, 7.0)


def test_residuals_are_those_of_the_slot_as_far_ahead_as_asked() -> None:
    model = taught([float(n) for n in range(20)])
    assert model.forecast(0.0, (0.5,)) == (20.0,)
    assert model.forecast(300.0, (0.5,)) == (25.0,), "the slot that begins 5 min after the last one's end"


def test_a_horizon_without_enough_residuals_says_nothing() -> None:
    values: list[float | None] = [1.0] * (LEAST + 6)
    assert taught(values[:-1], least=LEAST).forecast(300.0, (0.5,)) is None
    assert taught(values, least=LEAST).forecast(300.0, (0.5,)) == (1.0,)
    assert LastValue(HORIZONS_S).forecast(0.0, (0.5,)) is None


def test_a_falling_series_is_never_expected_below_nothing() -> None:
    assert taught([30.0, 20.0, 10.0, 1.0]).forecast(0.0, (0.5, 0.99)) == (0.0, 0.0)


def test_a_gap_carries_the_last_value_on_and_teaches_nothing() -> None:
    said = taught([5.0, 5.0, None, None, 9.0], least=1)
    left_out = LastValue(HORIZONS_S, least=1)
    for n, value in ((0, 5.0), (1, 5.0), (4, 9.0)):
        left_out.learn(60.0 * n, value)
    for model in (said, left_out):
        # residuals at the next slot: 0 (5 -> 5), 4 (carried on 5 -> 9); none of the two minutes nobody measured
        assert len(model._residuals[0.0]) == 2
        assert model.forecast(0.0, (0.5, 0.99)) == (13.0, 13.0)
        assert model.forecast(300.0, (0.5,)) is None


def test_a_series_begins_with_its_first_value() -> None:
    assert taught([None, None, 3.0, 3.0]).forecast(0.0, (0.5,)) == (3.0,)
    assert LastValue(HORIZONS_S, least=0)._past.maxlen == 6


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_value_that_cannot_be_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="has to be finite, and 0 or more"):
        LastValue(HORIZONS_S).learn(0.0, value)


def test_slots_out_of_order_and_unknown_horizons_are_refused_with_a_remedy() -> None:
    model = taught([1.0, 1.0])
    with pytest.raises(ValueError, match="in order, each once"):
        model.learn(60.0, 1.0)
    with pytest.raises(ValueError, match="name it when making the model"):
        model.forecast(301.0, (0.5,))


def test_residuals_are_the_newest_ones_and_keep_their_order() -> None:
    rng, residuals, said = random.Random(1), Residuals(5), []
    for _ in range(200):
        said.append(float(rng.randint(-3, 3)))
        residuals.add(said[-1])
        kept = sorted(said[-5:])
        assert residuals._by_size == kept
        assert [residuals.quantile(q) for q in (0.01, 0.5, 0.99)] == [kept[0], kept[len(kept) // 2], kept[-1]]


def test_the_rank_of_a_quantile_leaves_room_for_the_value_to_come() -> None:
    residuals = Residuals(250)
    for n in range(1, 251):
        residuals.add(float(n))
    assert [residuals.quantile(q) for q in (0.5, 0.9, 0.95, 0.99)] == [126.0, 226.0, 239.0, 249.0]
