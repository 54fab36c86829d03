"""Load for as long as a run lasts, in rounds of an hour: a plan of more would fill the memory."""

from __future__ import annotations

from collections.abc import Sequence

from tradewind.demo.options import Options
from tradewind.load import SAMPLE, Arrivals, load, parse_surges
from tradewind.load.surge import Surge

ROUND_S = 3600.0


def arrivals(options: Options, number: int, from_s: float) -> Arrivals:
    """Arrivals of the round `number` (0, 1 …) that begins `from_s` into the run, by seconds from its own beginning.

    Each round plays the trace from its start; surges stay where the run has them. Raises ValueError for a trace or a
    surge that cannot be played.
    """
    return load(
        options.trace or SAMPLE,
        seconds=lasts_s(options, from_s),
        seed=options.seed + number,
        mean_rps=options.rps,
        surges=shifted(parse_surges(options.surge), from_s),
    )


def lasts_s(options: Options, from_s: float) -> float:
    """How long the round that begins at `from_s` lasts; 0 or less when the run is over."""
    return ROUND_S if options.seconds is None else min(ROUND_S, options.seconds - from_s)


def shifted(surges: Sequence[Surge], by_s: float) -> tuple[Surge, ...]:
    """The surges as one sees them who begins `by_s` later; those that are over by then are left out.

    >>> shifted([Surge(3.0, 10.0, 20.0), Surge(2.0, 30.0, 40.0)], 35.0)
    (Surge(factor=2.0, from_s=0.0, to_s=5.0),)
    """
    return tuple(Surge(s.factor, max(0.0, s.from_s - by_s), s.to_s - by_s) for s in surges if s.to_s > by_s)
