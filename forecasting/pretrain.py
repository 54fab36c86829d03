"""Train the trees that are shipped: python -m forecasting.pretrain --data DIR

They see the first 60 % of each series of the folder (`forecasting.traces` says what is read), the same that a bench on
that folder calls its past, so that its test stays unseen. Equal folders give equal trees, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from forecasting.evaluate import Panel, panels, walk
from forecasting.lessons import Lessons, joined
from forecasting.models.fit import fit
from forecasting.models.many import Many
from forecasting.models.trees import Trees, save, unpacked
from forecasting.protocol import Examples
from forecasting.traces import read

HORIZONS_S: Final = (300.0, 600.0, 1800.0, 3600.0)
EACH: Final = 500
"""Rows of a series at one horizon, at most."""
SHIPPED: Final = Path(__file__).parent / "models" / "shipped.npz"
Progress = Callable[[str], None]


def learned(panel: Panel, trees: dict[str, Trees] | None, places: int) -> tuple[Many, Examples]:
    """A model that has lived the past of `panel`, and what there was to learn; `places`: number of its first series."""
    model = Many(len(panel.traces), panel.step_s, panel.lags, trees)
    lessons, share = Lessons(most=sys.maxsize), min(1.0, EACH * model.every / max(panel.past, 1))
    at = np.arange(places, places + len(panel.traces))
    walk(model, panel, 0, panel.past, lambda _, judged: lessons.take(judged, at, share))
    return model, lessons.rows()


def pasts(
    made: Sequence[Panel], trees: dict[str, Trees] | None, progress: Progress
) -> tuple[list[Many], list[Examples]]:
    """Models and rows of all panels."""
    models, rows, places = [], [], 0
    for panel in made:
        progress(f"past of {_named(panel)}")
        model, part = learned(panel, trees, places)
        models.append(model)
        rows.append(part)
        places += len(panel.traces)
    return models, rows


def fitted(rows: Examples) -> dict[str, Trees]:
    """Trees by name."""
    return {name: unpacked(arrays) for name, arrays in fit(rows).items()}


def _named(panel: Panel) -> str:
    families = ", ".join(sorted({trace.family for trace in panel.traces}))
    return f"{families}: {len(panel.traces)} series of {len(panel.values)} slots of {panel.step_s:g} s"


def main() -> None:
    """Read, walk, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of series")
    parser.add_argument("--families", help="only these, with commas between: first words of files' names")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="file to write (default: %(default)s)")
    asked = parser.parse_args()

    def progress(what: str) -> None:
        print(what, file=sys.stderr)

    wanted = set(asked.families.split(",")) if asked.families else None
    traces = [trace for trace in read(asked.data) if wanted is None or trace.family in wanted]
    _, rows = pasts(panels(traces, HORIZONS_S), {}, progress)
    everything = joined(rows)
    progress(f"fitting {len(everything)} rows")
    save(asked.out, fitted(everything))
    progress(f"{asked.out}: {asked.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
