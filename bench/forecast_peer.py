"""A forecaster of a library, asked over stdin: run by the interpreter that has it, which need not have us.

A line in: {"model", "step_s", "values", "lags", "quantiles"}, `values` without gaps, the newest last. A line out:
{"said": [lag][quantile], "cpu_s"}, or {"error"}.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from typing import Any

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


def statsforecast(asked: dict[str, Any]) -> list[list[float]]:
    """AutoARIMA or AutoETS as they come, without a season: a day has too many slots for one."""
    import numpy as np
    from statsforecast import models

    quantiles = asked["quantiles"]
    levels = [round(200 * q - 100) for q in quantiles]
    model = getattr(models, asked["model"])()
    said = model.forecast(y=np.array(asked["values"], float), h=max(asked["lags"]), level=[x for x in levels if x > 0])
    columns = [np.asarray(said[f"hi-{x}"] if x > 0 else said["mean"]) for x in levels]
    return [[float(column[lag - 1]) for column in columns] for lag in asked["lags"]]


def prophet(asked: dict[str, Any]) -> list[list[float]]:
    """Prophet as it comes: trend, day and week as far as the past shows them, 300 samples for quantiles."""
    import numpy as np
    import pandas as pd
    from prophet import Prophet

    count, step = len(asked["values"]), pd.Timedelta(seconds=asked["step_s"])
    times = pd.Timestamp("2024-01-01") + step * np.arange(count + max(asked["lags"]))
    model = Prophet(uncertainty_samples=300)
    model.fit(pd.DataFrame({"ds": times[:count], "y": asked["values"]}), seed=0)
    ahead = pd.DataFrame({"ds": times[[count + lag - 1 for lag in asked["lags"]]]})
    np.random.seed(0)
    samples = model.predictive_samples(ahead)["yhat"]
    return np.quantile(samples, asked["quantiles"], axis=1).T.tolist()  # type: ignore[no-any-return]


def main() -> None:
    """Answer line by line."""
    for line in sys.stdin:
        asked = json.loads(line)
        began_s = time.process_time()
        try:
            said = (prophet if asked["model"] == "Prophet" else statsforecast)(asked)
        except Exception as error:  # noqa: BLE001 - a library that cannot answer is counted, whatever it raises
            print(json.dumps({"error": repr(error)[:200]}), flush=True)
        else:
            print(json.dumps({"said": said, "cpu_s": time.process_time() - began_s}), flush=True)


if __name__ == "__main__":
    main()
