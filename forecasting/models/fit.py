"""Trees are grown with scikit-learn, in a process beside the loop, and leave it as plain arrays (extra: forecast)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from forecasting.models.features import FEATURES, rising
from forecasting.models.past import Floats
from forecasting.models.trees import LEAVES, SPLITS, Packed, Trees, unpacked
from forecasting.models.weights import pinball
from forecasting.protocol import QUANTILES, Examples

ITERATIONS: Final = 80
RATE: Final = 0.06
LEAST_ROWS: Final = 80
"""In a leaf. Fewer, or a higher rate, tell the past better and what comes worse."""
L2: Final = 1.0
CHANCE: Final = {"max_iter": 120, "learning_rate": 0.1, "min_samples_leaf": 40}
"""Spikes are rare, and their signs are fine: as few leaves tell them worse."""
BINS: Final = 63
MOST_ROWS: Final = 70_000
"""For quantiles; chances are quick to fit, and spikes are rare."""
FARTHEST: Final = 20.0
"""Of what the median leaves, in the series' scale."""
LEAST: Final = 200
"""Fewer examples teach nothing."""
_TINY: Final = 1e-9
_LEAST_FLOOR: Final = 1e-3
_FEW: Final = 40
"""A cell with fewer rows than this weighs as if it had as many."""


def can_fit() -> bool:
    """Whether scikit-learn is there."""
    return find_spec("sklearn") is not None


def refit(rows: Examples, than: Mapping[str, Packed]) -> dict[str, Packed]:
    """Those of `fit` that would have told the newest quarter of `rows` better than those of the same name in `than`."""
    late = newest_quarter(rows)
    known, held = rows.picked(~late), rows.picked(late)
    better = [
        name
        for name, (grow, missed) in _KINDS.items()
        if len(known) >= LEAST and missed(grow(known), held) < _missed_by(than.get(name), missed, held)
    ]
    return fit(rows, better)


def fit(rows: Examples, names: Iterable[str] = ("quantiles", "spikes")) -> dict[str, Packed]:
    """Trees by name, as `trees.unpacked` takes them: "quantiles" of what the median leaves, and "spikes"."""
    return {name: _KINDS[name][0](rows).packed() for name in names}


def newest_quarter(rows: Examples) -> NDArray[np.bool_]:
    """[row] whether it is among the last quarter of its cell's; rows of a cell are in the order they came in."""
    order = np.argsort(rows.cell, kind="stable")
    _, start, count = np.unique(rows.cell[order], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(start, count)
    late = np.zeros(len(rows), np.bool_)
    late[order] = place >= 0.75 * np.repeat(count, count)
    return late


def _missed_by(trees: Packed | None, missed: Missed, held: Examples) -> float:
    return float("inf") if trees is None else missed(unpacked(trees), held)


def _quantiles(rows: Examples) -> Trees:
    some = np.arange(len(rows)) % max(1, -(-len(rows) // MOST_ROWS)) == 0
    return quantile_trees(FEATURES, rows.features[some], _left(rows)[some], weights(rows)[some], QUANTILES)


def _left(rows: Examples) -> Floats:
    left: Floats = np.clip(rows.truth - rows.median, -FARTHEST, FARTHEST)
    return left


def _missed_quantiles(trees: Trees, held: Examples) -> float:
    """Mean pinball loss, each row by its weight."""
    said = np.maximum.accumulate(trees(held.features), axis=-1)
    loss = pinball(_left(held), said, np.array(QUANTILES, np.float32)).mean(axis=-1)
    return float(np.average(loss, weights=weights(held) + _TINY))


def _spikes(rows: Examples) -> Trees:
    calm = ~rising(rows.features)
    some = rows.picked(calm)
    return chance_trees(FEATURES, some.features, some.spike, alike(some))


def _missed_spikes(trees: Trees, held: Examples) -> float:
    """Mean logarithmic loss."""
    calm = ~rising(held.features)
    odds = trees(held.features[calm])[:, 0].astype(np.float64)
    return float(np.logaddexp(0, np.where(held.spike[calm], -odds, odds)).sum() / max(1, calm.sum()))


Missed = Callable[[Trees, Examples], float]
_KINDS: Final[dict[str, tuple[Callable[[Examples], Trees], Missed]]] = {
    "quantiles": (_quantiles, _missed_quantiles),
    "spikes": (_spikes, _missed_spikes),
}


def weights(rows: Examples) -> Floats:
    """Each cell the same, its rows by what lv_add cost there: what trees save is then saved of the relative score."""
    _, cell, count = np.unique(rows.cell, return_inverse=True, return_counts=True)
    floor = np.bincount(cell, rows.floor) / count
    each = np.where(floor > 0, 1 / np.maximum(floor, _LEAST_FLOOR) / np.maximum(count, _FEW), 0)[cell]
    return (each / max(float(each.mean()), 1e-12)).astype(np.float32)


def alike(rows: Examples) -> Floats:
    """Each cell the same."""
    _, cell, count = np.unique(rows.cell, return_inverse=True, return_counts=True)
    each = (1 / np.maximum(count, _FEW))[cell]
    return (each / max(float(each.mean()), 1e-12)).astype(np.float32)


def quantile_trees(
    features: tuple[str, ...], rows: Floats, target: Floats, weight: Floats, quantiles: Sequence[float]
) -> Trees:
    """Trees with an output for each of `quantiles`: that quantile of `target`, given a row."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    shape = _shape()
    with _one_core():
        grown = [
            HistGradientBoostingRegressor(loss="quantile", quantile=q, **shape).fit(rows, target, sample_weight=weight)
            for q in quantiles
        ]
    return exported(features, grown)


def chance_trees(features: tuple[str, ...], rows: Floats, happened: NDArray[np.bool_], weight: Floats) -> Trees:
    """Trees with one output: log odds that it `happened`, given a row; of one in a million when it never did."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    if len(np.unique(happened)) < 2:
        return _never(features)
    model = HistGradientBoostingClassifier(**_shape() | CHANCE)
    with _one_core():
        return exported(features, [model.fit(rows, happened, sample_weight=weight)])


def exported(features: tuple[str, ...], models: Sequence[Any]) -> Trees:
    """Fitted models of HistGradientBoosting as plain arrays, an output each."""
    grown = [(output, tree) for output, model in enumerate(models) for (tree,) in model._predictors]
    empty = _empty(features, np.array([output for output, _ in grown], np.int16))
    for number, (_, tree) in enumerate(grown):
        _copy(tree.nodes, empty, number)
    empty["start"] = np.array([np.ravel(model._baseline_prediction)[0] for model in models], np.float32)
    return Trees(**empty)


def _never(features: tuple[str, ...]) -> Trees:
    return Trees(**(_empty(features, np.zeros(1, np.int16)) | {"start": np.array([-13.8], np.float32)}))


def _empty(features: tuple[str, ...], output: NDArray[np.int16]) -> dict[str, Any]:
    """Trees of one leaf that adds nothing."""
    splits = np.zeros((len(output), SPLITS))
    return {
        "features": features,
        "feature": np.full(splits.shape, -1, np.int16),
        "threshold": splits.astype(np.float32),
        "word": np.full(splits.shape, 0xFFFF, np.uint16),
        "value": np.zeros((len(output), LEAVES), np.float32),
        "output": output,
    }


def _shape() -> dict[str, Any]:
    return {
        "max_iter": ITERATIONS,
        "learning_rate": RATE,
        "max_leaf_nodes": LEAVES - 1,
        "min_samples_leaf": LEAST_ROWS,
        "l2_regularization": L2,
        "max_bins": BINS,
        "early_stopping": False,
        "random_state": 0,
    }


def _one_core() -> AbstractContextManager[Any]:
    """The loop and its neighbours want the others; and threads that spin for work make a fit slower, not quicker."""
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _copy(nodes: NDArray[Any], into: dict[str, Any], number: int) -> None:
    """One tree; leaves are numbered from the left."""
    splits = leaves = 0

    def walk(at: int) -> int:
        """The word of the leaves under node `at`."""
        nonlocal splits, leaves
        node = nodes[at]
        if node["is_leaf"]:
            into["value"][number, leaves] = node["value"]
            leaves += 1
            return 1 << (leaves - 1)
        split, splits = splits, splits + 1
        left = walk(node["left"])
        into["feature"][number, split] = node["feature_idx"]
        into["threshold"][number, split] = _floor(node["num_threshold"])
        into["word"][number, split] = 0xFFFF & ~left
        return left | walk(node["right"])

    walk(0)


def _floor(threshold: float) -> np.float32:
    """The largest 32-bit number that is not above `threshold`: so that no row changes sides."""
    near = np.float32(threshold)
    return near if near <= threshold else np.nextafter(near, np.float32(-np.inf))
