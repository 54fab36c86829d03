"""How well losses of spot replicas are foretold: `python -m bench.spot --data DIR [--json] [--fit]`.

At each look at a pool, for each replica that stands: will it be lost within the hour? What is said at a time is made of
what was seen until then, by frozen weights. The first 60 % of each set are for looking (and, with --fit, for fitting),
the last 40 % are scored. A probability p costs (p - lost)^2, the Brier score; sets count alike in the means.

    ours           forecasting.spot.hazard
    gamma_poisson  the posterior alone: losses over exposure, half-life 6 h
    base_rate      of the set's first 60 %, one figure for all; pool_rate: one for each pool
    hindsight      the base rate of what is scored: no constant can do better
    without        ours when a sign is not looked at
    tried          ours with a sign more: none was worth it
    unseen         (--fit) each set by weights fitted to all the other sets

DIR holds CSV files, or a folder spot/ of them (formats: bench/spot_traces.py); other files are named in `skipped`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import spot_rows
from bench.machine import described
from bench.spot_fit import ASSUMED, chance, fit
from bench.spot_rows import Bools, Floats, Table
from bench.spot_traces import losses, read
from forecasting.spot.hazard import FROZEN, Weights

BINS: Final = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TRIED: Final = {"hour of day": spot_rows.with_hour, "failed launches": spot_rows.with_failed}
"""Signs that one would think of, and that did not earn their place."""


def brier(p: Floats, table: Table) -> float:
    """Mean over the replicas that are scored of the squared difference between what was said and what came."""
    return _mean(table.lost * (1.0 - p) ** 2 + (1.0 - table.lost) * p**2, table, table.judge)


def rivals(table: Table) -> dict[str, Floats]:
    """What each says of every row."""
    look, one = table.look, np.ones(len(table.lost))
    own = [look & (table.pool == n) for n in range(table.pools)]
    return {
        "ours": chance(table, FROZEN),
        "gamma_poisson": 1.0 - np.exp(-table.plain),
        "base_rate": one * _mean(table.lost, table, look),
        "pool_rate": np.array([_mean(table.lost, table, rows if rows.any() else look) for rows in own])[table.pool],
        "hindsight": one * _mean(table.lost, table, table.judge),
    }


def _mean(values: Floats, table: Table, rows: Bools) -> float:
    return float(np.average(values[rows], weights=table.ready[rows]))


def reliability(said: list[Floats], tables: list[Table]) -> list[dict[str, float]]:
    """Of all that was said between two probabilities: what was said, what came, how many replica-looks."""
    each = [(s[t.judge], t.lost[t.judge], t.ready[t.judge]) for s, t in zip(said, tables, strict=True)]
    p, lost, ready = (np.concatenate(column) for column in zip(*each, strict=True))
    rows = []
    for low, high in pairwise(BINS):
        here = (p >= low) & ((p < high) | (high == BINS[-1]))
        if here.any():
            means = [round(float(np.average(column[here], weights=ready[here])), 4) for column in (p, lost)]
            rows.append({"from": low, "to": high, "said": means[0], "came": means[1], "looks": int(ready[here].sum())})
    return rows


def run(folder: Path, *, refit: bool = False) -> dict[str, Any]:
    """All figures."""
    sets, skipped = read(folder)
    tables = {name: table for name, pools in sets.items() if (table := spot_rows.table(pools)) is not None}
    if not tables:
        sys.exit(f"{folder} has no traces of spot pools that last for hours: see python -m bench.spot --help")
    each = list(tables.values())
    said = {name: rivals(table) for name, table in tables.items()}
    by_set = {
        name: _row(said[name], table) | {"events_in_all": sum(map(losses, sets[name]))}
        for name, table in tables.items()
    }
    mean = {who: round(float(np.mean([row["brier"][who] for row in by_set.values()])), 5) for who in rivals(each[0])}
    return {
        "brier": mean,
        "skill": {who: round(1.0 - mean["ours"] / score, 4) for who, score in mean.items() if who != "ours"},
        "reliability": reliability([what["ours"] for what in said.values()], each),
        "events": sum(row["events"] for row in by_set.values()),
        "exposure_h": round(sum(row["exposure_h"] for row in by_set.values()), 1),
        "sets": by_set,
        "without": {name: _over(each, lambda t, n=name: _unseen_sign(t, n)) for name in _signs()},
        "tried": {name: _over(each, lambda t, way=way: way(t, chance(t, FROZEN))) for name, way in TRIED.items()},
        **(_fitted(tables) if refit else {}),
        "weights": asdict(FROZEN),
        "assumed": list(ASSUMED),
        "within_s": spot_rows.WITHIN_S,
        "skipped": skipped,
    } | described()  # fmt: skip


def _row(said: dict[str, Floats], table: Table) -> dict[str, Any]:
    return {
        "brier": {who: round(brier(p, table), 5) for who, p in said.items()},
        "said": round(_mean(said["ours"], table, table.judge), 4),
        "came": round(_mean(table.lost, table, table.judge), 4),
        "events": table.events,
        "exposure_h": round(table.exposure_h, 1),
        "pools": table.pools,
        "looks": int(table.judge.sum()),
    }


def _signs() -> list[str]:
    return [f.name for f in fields(Weights) if f.name not in ("base", *ASSUMED)]


def _over(tables: list[Table], way: Any) -> float:
    """Mean Brier score over sets of what `way` says of each."""
    return round(float(np.mean([brier(way(table), table) for table in tables])), 5)


def _unseen_sign(table: Table, name: str) -> Floats:
    """Ours, where one sign stands at its mean over what was looked at, whatever it is: the level stays."""
    usual = float(table.signs[table.look][:, spot_rows.SIGNS.index(name)].mean())
    return chance(table, replace(FROZEN, base=FROZEN.base + getattr(FROZEN, name) * usual, **{name: 0.0}))


def _fitted(tables: dict[str, Table]) -> dict[str, Any]:
    unseen = {}
    for name in tables if len(tables) > 1 else ():
        others = fit([table for other, table in tables.items() if other != name])
        unseen[name] = round(brier(chance(tables[name], others), tables[name]), 5)
    return {"fitted": asdict(fit(list(tables.values()))), "unseen": unseen}


def show(found: dict[str, Any]) -> None:
    """For people."""
    whos, width = list(found["brier"]), max(map(len, found["sets"]))
    print(f"{'Brier score':{width}}" + "".join(f"{who:>15}" for who in whos) + "  events  exposure h   said   came")
    for name, row in found["sets"].items():
        tail = f"{row['events']:8}{row['exposure_h']:12.0f}{row['said']:7.3f}{row['came']:7.3f}"
        print(f"{name:{width}}" + "".join(f"{row['brier'][who]:15.4f}" for who in whos) + tail)
    print(f"{'mean of sets':{width}}" + "".join(f"{found['brier'][who]:15.4f}" for who in whos))
    print("\nwhat was said        said    came     looks")
    for row in found["reliability"]:
        print(f"  {row['from']:4.2f} to {row['to']:4.2f}    {row['said']:7.3f} {row['came']:7.3f} {row['looks']:9}")
    print()
    for what in ("without", "tried", "fitted", "unseen"):
        if what in found:
            print(f"{what:8} " + "   ".join(f"{name} {value:.4f}" for name, value in found[what].items()))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of traces")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument(
        "--fit", action="store_true", help="also fit weights to these traces; ours is not scored by them"
    )
    asked = parser.parse_args()
    if not asked.data.is_dir():
        sys.exit(f"--data: {asked.data} is no folder")
    found = run(asked.data, refit=asked.fit)
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
