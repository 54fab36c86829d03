"""Trees told by numpy say what the library that grew them says; refits are heard only where a back-test won."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecasting.lessons import Lessons, joined, lot, none
from forecasting.models.features import FEATURES
from forecasting.models.many import shipped
from forecasting.models.trees import Trees, load, save, unpacked
from forecasting.protocol import QUANTILES, Examples

NAMES = ("a", "b", "c")


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, len(NAMES))).astype(np.float32)


def grown(count: int = 500) -> tuple[Trees, list[Any], np.ndarray]:
    """Trees, the models they come from, and what these were fitted to."""
    ensemble = pytest.importorskip("sklearn.ensemble")
    from forecasting.models.fit import exported

    x = rows(count)
    y = x[:, 0] * 2 + np.abs(x[:, 1]) + np.random.default_rng(1).normal(size=count)
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        models = [
            ensemble.HistGradientBoostingRegressor(loss="quantile", quantile=q, max_iter=15, max_leaf_nodes=15).fit(
                x, y
            )
            for q in (0.5, 0.9)
        ]
    return exported(NAMES, models), models, x


def test_trees_say_what_the_library_says() -> None:
    trees, models, x = grown()
    more = np.concatenate([x, rows(3000, seed=2) * 100])
    for output, model in enumerate(models):
        assert trees(more)[:, output] == pytest.approx(model.predict(more), rel=1e-5, abs=1e-5)


def test_trees_are_kept_as_arrays_alone_and_equal_trees_give_equal_bytes(tmp_path: Path) -> None:
    trees, _, x = grown()
    save(tmp_path / "one.npz", {"quantiles": trees})
    save(tmp_path / "two.npz", {"quantiles": unpacked(trees.packed())})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert np.array_equal(load(tmp_path / "one.npz")["quantiles"](x), trees(x))
    assert np.array_equal(pickle.loads(pickle.dumps(trees))(x), trees(x))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"threshold": np.full((30, 15), np.nan, np.float32)}, "not finite"),
        ({"feature": np.full((30, 15), 9, np.int16)}, "beyond the 3"),
        ({"value": np.zeros((30, 4), np.float32)}, "other shapes"),
        ({"output": np.full(30, 1, np.int16)}, "not each told"),
    ],
)
def test_trees_that_cannot_be_used_are_refused(broken: dict[str, np.ndarray], says: str) -> None:
    trees, _, _ = grown()
    with pytest.raises(ValueError, match=says):
        unpacked(trees.packed() | broken)


def test_those_shipped_can_be_told_and_know_all_features() -> None:
    for trees in shipped().values():
        assert trees.features == FEATURES
        assert np.isfinite(trees(np.zeros((3, len(FEATURES)), np.float32))).all()
    assert shipped().keys() == {"quantiles", "spikes"}


# ---------------------------------------------------------------- lessons


def lessons(count: int, seed: int, slope: float) -> Examples:
    """Demand is its median, and so much of the first feature more; two cells, in the order they came in."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, len(FEATURES))).astype(np.float32)
    truth = (10 + slope * features[:, 0] + 0.1 * rng.normal(size=count)).astype(np.float32)
    spike = features[:, 1] > 1
    features[:, FEATURES.index("now_by_hour")] = 1
    cell, tens = np.arange(count, dtype=np.int64) % 2, np.full(count, 10, np.float32)
    return Examples(features, truth, tens, np.ones(count, np.float32), spike, cell)


def test_a_refit_is_heard_where_it_told_the_newest_quarter_better(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    from forecasting.models import fit as fits
    from forecasting.models.fit import fit, refit

    monkeypatch.setattr(fits, "ITERATIONS", 4)
    monkeypatch.setattr(fits, "RATE", 0.6)
    monkeypatch.setattr(fits, "CHANCE", {"max_iter": 4})

    old, new = fit(lessons(280, 0, slope=2.0), ["quantiles"]), lessons(280, 1, slope=-2.0)
    assert refit(new, old).keys() == {"quantiles", "spikes"}, "better, and where there was none"
    # the past says one thing, its newest quarter another: what was fitted elsewhere told that better
    turned = lessons(280, 2, slope=2.0)
    late = np.arange(280) >= 210
    mixed = replace(turned, truth=np.where(late, turned.truth, 20 - turned.truth).astype(np.float32))
    assert "quantiles" not in refit(mixed, old)


def test_nothing_is_fitted_to_a_handful_of_examples_or_to_none() -> None:
    pytest.importorskip("sklearn")
    from forecasting.models.fit import refit

    assert refit(lessons(100, 0, slope=1.0), {}) == {}
    assert refit(none(), {}) == {}


def test_the_newest_quarter_is_that_of_each_cell() -> None:
    from forecasting.models.fit import newest_quarter

    cell = np.array([7, 7, 3, 7, 3, 7, 3, 3], np.int64)
    made = replace(lessons(8, 0, slope=1.0), cell=cell)
    assert np.flatnonzero(newest_quarter(made)).tolist() == [5, 7]


def test_quantile_trees_have_an_output_for_each_quantile() -> None:
    assert len(shipped()["quantiles"].start) == len(QUANTILES)


class Said:
    """Words said at `slot`, that all came."""

    horizon = 2

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.known = np.arange(4)

    def examples(self, series: np.ndarray, cells: np.ndarray) -> Examples:
        made = lessons(len(series), self.slot, slope=1.0)
        return replace(made, truth=np.full(len(series), self.slot, np.float32), cell=cells)


def test_lessons_are_a_bounded_sample_of_the_newest() -> None:
    held = Lessons(most=40)
    for slot in range(100):
        held.take([Said(slot)], np.arange(4) + 10, share=0.5)
    assert 40 <= len(held.rows()) <= 45
    assert held.rows().truth.min() > 70
    assert set(held.rows().cell.tolist()) == {(10 + n) * 64 + 2 for n in range(4)}
    assert (held.fitted, held.newest) == (0, 99)
    assert held.due(99, 40)
    held.learned()
    assert not held.due(1, 40)


def test_the_lot_falls_the_same_on_every_run_and_like_chance() -> None:
    cells = np.arange(1000, dtype=np.int64)
    one = np.concatenate([lot(slot, cells) for slot in range(20)])
    assert np.array_equal(one[:1000], lot(0, cells))
    assert one.mean() == pytest.approx(0.5, abs=0.02)
    assert np.corrcoef(lot(5, cells), lot(6, cells))[0, 1] == pytest.approx(0.0, abs=0.1)


def test_examples_are_joined_in_their_order() -> None:
    one, two = lessons(3, 0, slope=1.0), lessons(2, 1, slope=1.0)
    assert joined([one, two]).truth.tolist() == [*one.truth.tolist(), *two.truth.tolist()]
