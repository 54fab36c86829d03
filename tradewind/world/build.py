"""A scenario becomes a world's setup: curves, series, faults and jobs by number, and the notes of the timeline."""

from __future__ import annotations

from collections.abc import Iterator
from math import cos, inf, pi
from typing import Final

import numpy as np

from tradewind.hands.text import percent
from tradewind.world.demand import DAY_S, Curve, Curves, Surge
from tradewind.world.engine import Fault
from tradewind.world.ground import Ground, ground
from tradewind.world.market import AHEAD_H, HALF_HOUR_S, HOUR_S
from tradewind.world.reading import seconds, services_of, start_s
from tradewind.world.replicas import Lending
from tradewind.world.scenario import Powered, Scenario, Whole
from tradewind.world.series import Series, Stretch, steady, stretched
from tradewind.world.setup import Setup
from tradewind.world.timeline import What
from tradewind.world.work import Load

_USUAL_VALUE: Final = {"slow": 3.0, "partial": 0.3}
_SAYS: Final = {
    "dead": "is dead", "refusing": "refuses connections", "hanging": "answers nothing",
    "slow": "is {value:g} times slower", "partial": "fails {share} of its requests",
}  # fmt: skip
Note = tuple[float, What, str]


def built(whole: Whole, *, seed: int | None = None, from_s: float = 0.0, cold_start_s: float | None = None) -> Setup:
    """The setup of a scenario, lived through from `from_s` seconds after its start. What is not None goes before the
    file's own seed and cold start."""
    said = whole.scenario
    of = _Builder(whole)
    chosen = said.seed if seed is None else seed
    declared_s = seconds(said.cold_start) if said.cold_start is not None else None
    return Setup(
        fleet=whole.fleet,
        start_s=of.start_s + from_s,
        demand=of.demand(chosen),
        price=of.price(),
        carbon=of.carbon(),
        lending=of.lending(),
        faults=of.faults(),
        work=[load for load in of.work() if load.submitted_at_s >= of.start_s + from_s],
        gateways=said.gateways,
        cold_start_s=declared_s if cold_start_s is None else cold_start_s,
        report_delay_s=seconds(said.report_delay),
        table_delay_s=seconds(said.table_delay),
        notes=[note for note in sorted(of.notes()) if note[0] >= of.start_s + from_s],
        seed=chosen,
    )


class _Builder:
    """Turns names into numbers and lengths into times."""

    def __init__(self, whole: Whole) -> None:
        self.said: Scenario = whole.scenario
        self.ground: Ground = ground(whole.fleet)
        self.start_s = start_s(whole.scenario)
        self.lasts_s = seconds(whole.scenario.lasts)

    def between(self, at: str, lasts: str) -> tuple[float, float]:
        from_s = self.start_s + seconds(at)
        return from_s, from_s + seconds(lasts)

    # ------------------------------------------------------------ demand

    def demand(self, seed: int) -> Curves:
        curves = [
            Curve(
                flow=self.flow(item.service, item.origin, item.class_),
                mean_rps=item.mean_rps,
                swing=item.swing,
                peak_s=seconds(item.peak),
                noise=item.noise,
            )
            for item in self.said.demand
        ]
        rng = np.random.default_rng([seed, 1])
        return Curves(len(self.ground.flows), curves, list(self.surges()), self.start_s, self.lasts_s, rng)

    def surges(self) -> Iterator[Surge]:
        for item in self.said.surges:
            flows = tuple(
                n
                for n, flow in enumerate(self.ground.flows)
                if item.origin in ("", flow.origin) and item.class_ in ("", flow.class_.name)
            )
            yield Surge(flows, *self.between(item.at, item.lasts), factor=item.factor, ramp_s=seconds(item.ramp))

    def flow(self, service: str, origin: str, class_: str) -> int:
        (named,) = services_of(self.ground.fleet, service, class_)
        return self.ground.flow_at[named, origin, class_]

    def work(self) -> Iterator[Load]:
        for item in self.said.work:
            flow = self.flow(item.service, item.origin, item.class_)
            for n in range(item.times):
                at_s = self.start_s + seconds(item.at) + n * seconds(item.every)
                yield Load(
                    job=f"{item.class_}-{item.origin}-{n + 1}",
                    flow=flow,
                    requests=item.requests,
                    submitted_at_s=at_s,
                    deadline_at_s=at_s + seconds(item.within),
                    rps=item.rps,
                )

    # ------------------------------------------------------------ endpoints

    def faults(self) -> list[Fault]:
        return [
            Fault(tuple(self.ground.place(item.where)), *self.between(item.at, item.lasts), kind=item.kind,
                  value=_USUAL_VALUE.get(item.kind, 1.0) if item.value is None else item.value)
            for item in self.said.faults
        ]  # fmt: skip

    def lending(self) -> dict[int, Lending]:
        stretches: dict[int, list[Stretch]] = {}
        notice: dict[int, float] = {}
        for item in self.said.losses:
            for n in self.spot(item.where):
                stretches.setdefault(n, []).append(Stretch(*self.between(item.at, item.lasts), most=item.left))
                notice[n] = seconds(item.notice)
        return {n: Lending(stretched(steady(inf), of), notice[n]) for n, of in stretches.items()}

    def spot(self, where: str) -> list[int]:
        """Its spot endpoints; all of them where none is spot."""
        named = self.ground.place(where)
        return [n for n in named if self.ground.ends[n].market == "spot"] or named

    def price(self) -> dict[int, Series]:
        """Of all endpoints: what a price was and is belongs to what the house is told."""
        stretches: dict[int, list[Stretch]] = {}
        for item in self.said.prices:
            for n in self.ground.place(item.where):
                stretches.setdefault(n, []).append(Stretch(*self.between(item.at, item.lasts), factor=item.factor))
        return {
            n: stretched(steady(end.price_usd_per_h), stretches.get(n, ())) for n, end in enumerate(self.ground.ends)
        }

    def carbon(self) -> dict[str, Series]:
        swings = {
            item.grid_zone: [
                Stretch(*self.between(swing.at, swing.lasts), factor=swing.factor)
                for swing in self.said.carbon_swings
                if swing.grid_zone == item.grid_zone
            ]
            for item in self.said.carbon
        }
        return {item.grid_zone: stretched(self.wave(item), swings[item.grid_zone]) for item in self.said.carbon}

    def wave(self, item: Powered) -> Series:
        """By half hours, as far as forecasts look."""
        halves = int((self.lasts_s + (AHEAD_H + 2) * HOUR_S) // HALF_HOUR_S)
        first_s = self.start_s - self.start_s % HALF_HOUR_S
        times = [first_s + n * HALF_HOUR_S for n in range(halves)]
        low_s = seconds(item.low)
        values = [item.mean_g * (1.0 - item.swing * cos(2.0 * pi * (at_s - low_s) / DAY_S)) for at_s in times]
        return Series(tuple(times), tuple(values))

    # ------------------------------------------------------------ words

    def notes(self) -> Iterator[Note]:
        """When something begins and ends, in words."""
        for fault in self.said.faults:
            value = _USUAL_VALUE.get(fault.kind, 1.0) if fault.value is None else fault.value
            says = _SAYS[fault.kind].format(value=value, share=percent(value))
            yield from self._both("fault", fault.at, fault.lasts, f"{fault.where} {says}", f"{fault.where} is well")
        for loss in self.said.losses:
            names = ", ".join(self.ground.ends[n].name for n in self.spot(loss.where))
            notice_s = self.start_s + seconds(loss.at) - seconds(loss.notice)
            yield notice_s, "loss", f"{names}: notice that replicas will be taken back in {loss.notice}"
            left = f", {loss.left} each are left" if loss.left else ""
            yield from self._both(
                "loss", loss.at, loss.lasts, f"{names}: replicas are taken back{left}", f"{names} can be had again"
            )
        for surge in self.said.surges:
            who = f"{surge.class_ or 'all classes'} from {surge.origin or 'everywhere'}"
            says = f"{who}: {surge.factor:g} times the demand"
            yield from self._both("surge", surge.at, surge.lasts, says, f"{who}: as usual again")
        for price in self.said.prices:
            says = f"{price.where} costs {price.factor:g} times as much"
            yield from self._both("price", price.at, price.lasts, says, f"{price.where} costs what it did")
        for swing in self.said.carbon_swings:
            says = f"{swing.grid_zone} has power of {swing.factor:g} times the carbon"
            yield from self._both("carbon", swing.at, swing.lasts, says, f"{swing.grid_zone} has its usual power")

    def _both(self, what: What, at: str, lasts: str, begins: str, ends: str) -> Iterator[Note]:
        from_s, until_s = self.between(at, lasts)
        yield from_s, what, f"{begins}, for {lasts}"
        yield until_s, what, ends
