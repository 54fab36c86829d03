"""Hindsight: forecasts that know what will be asked, once a minute, as the forecasters would say them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from forecasting.demand import HORIZONS_S
from forecasting.minutes import MINUTE_S
from forecasting.protocol import QUANTILES
from streams.contract.records import DemandForecast, Horizon
from tradewind.world.demand import Demand
from tradewind.world.ground import Flow, Ground
from tradewind.world.market import Told

NAME: Final = "hindsight"


class Oracle:
    """Tells of `demand` what it will be; all quantiles are the same, for it is sure."""

    def __init__(self, ground: Ground, demand: Demand) -> None:
        self._ground, self._demand = ground, demand

    def told(self, from_s: float, until_s: float) -> Iterator[Told]:
        """What is told in [from, until): of each flow that asks anything."""
        at_s = from_s + -from_s % MINUTE_S
        while at_s < until_s:
            middles = at_s + np.array(HORIZONS_S) + MINUTE_S / 2.0
            for flow, rps in zip(self._ground.flows, self._demand.rps(middles).tolist(), strict=True):
                if any(rps):
                    yield at_s, _forecast(flow, at_s, rps)
            at_s += MINUTE_S


def _forecast(flow: Flow, at_s: float, rps: list[float]) -> DemandForecast:
    return DemandForecast(
        service=flow.service,
        origin=flow.origin,
        class_=flow.class_.name,
        made_at_s=at_s,
        model=NAME,
        horizons=tuple(
            Horizon(ahead_s=ahead_s, rps={str(q): round(value, 4) for q in QUANTILES})
            for ahead_s, value in zip(HORIZONS_S, rps, strict=True)
        ),
    )
