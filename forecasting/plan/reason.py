"""Why a pool should have so many replicas, in words."""

from __future__ import annotations

from collections.abc import Iterator

from forecasting.plan.situation import Situation
from forecasting.plan.steady import DOWN_S


def reason(now: Situation, pool: str, want: int, method: str) -> str:
    """One line: what is needed where the pool may serve, what stands in the way, how it was found."""
    return f"{'; '.join(_parts(now, pool, want))} ({method}, reserve {now.mix.reserve:.2f})"[:2000]


def _parts(now: Situation, pool: str, want: int) -> Iterator[str]:
    where, stock, needed = now.site, now.stocks[pool], now.need
    rows = where.rows_of[pool]
    flows = where.may[:, rows].any(axis=1)
    by = "" if needed.foretold[flows].all() else ", by the recent peak"
    yield (
        f"{needed.now[flows].sum():.4g} requests/s may come here now, "
        f"{needed.ahead[flows].sum():.4g} in {now.cold_start_s:.0f} s{by}"
    )
    if (needed.surge & flows).any():
        yield "a surge is under way"
    yield from (f"{name} is {why}" for name, why in now.gone.items() if where.endpoint_at[name] in rows)
    if stock.benched:
        yield stock.benched
    if want < stock.ready:
        yield f"more was not needed for {DOWN_S:.0f} s"
    if stock.starting:
        yield f"{stock.starting} are on their way"
