"""What a run came to: counts and quantiles over all of it, or before, during and after something."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import numpy as np

from tradewind.load.outcome import Outcome

Measure = Literal["total_ms", "ttft_ms", "latency_ms"]


class Summary(msgspec.Struct, frozen=True):
    """Counts over some outcomes and quantiles over the good ones of them; quantiles are None where there is none."""

    requests: int
    ok: int
    failed: int
    not_sent: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    shed: int = 0


class Phases(msgspec.Struct, frozen=True):
    before: Summary
    during: Summary
    after: Summary


def phases(outcomes: Sequence[Outcome], from_s: float, to_s: float, measure: Measure = "total_ms") -> Phases:
    """Summaries of the requests due before `from_s`, from there to `to_s` (excluded), and from `to_s` on."""
    return Phases(
        before=summarise((one for one in outcomes if one.at_s < from_s), measure),
        during=summarise((one for one in outcomes if from_s <= one.at_s < to_s), measure),
        after=summarise((one for one in outcomes if one.at_s >= to_s), measure),
    )


def summarise(outcomes: Iterable[Outcome], measure: Measure = "total_ms") -> Summary:
    """Counts, and quantiles of `measure` (`ttft_ms` exists for streams only) over the good outcomes."""
    held = list(outcomes)
    ok = [one for one in held if one.ok]
    values = [value for one in ok if (value := getattr(one, measure)) is not None]
    p50_ms, p95_ms, p99_ms = (quantile_ms(values, q) for q in (0.5, 0.95, 0.99))
    not_sent = sum(one.error == "not_sent" for one in held)
    shed = sum(one.error == "shed" for one in held)
    failed = len(held) - len(ok) - not_sent - shed
    return Summary(len(held), len(ok), failed, not_sent, p50_ms, p95_ms, p99_ms, shed)


def quantile_ms(values_ms: Sequence[float], q: float) -> float | None:
    """The value at or below which a share `q` in [0, 1] lies (a value that occurred); None without values.

    >>> quantile_ms([10.0, 20.0, 30.0, 40.0], 0.5)
    20.0
    """
    if not values_ms:
        return None
    return float(np.quantile(np.asarray(values_ms), q, method="inverted_cdf"))
