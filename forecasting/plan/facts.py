"""What the planner hears beside the watch over pools: forecasts, risks, carbon, and who is not to be counted on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from forecasting.plan.site import Key, Site
from streams.contract.records import (
    Capacity,
    CarbonIntensity,
    DemandForecast,
    EndpointHealth,
    Interruption,
    Order,
    SpotRisk,
)
from streams.contract.topics import CARBON_INTENSITY, DEMAND_FORECAST, ENDPOINT_HEALTH, INTERRUPTIONS, ORDERS, SPOT_RISK
from streams.runtime.step import Heard

FORGET_S: Final = 120.0
"""An endpoint last said to be down, and unheard since, is counted on again."""
LEAVES_S: Final = 600.0
"""An endpoint that was to leave, of whose pool no actuator reports, is counted on again so long after its deadline."""
NOTICE_S: Final = 120.0
"""The deadline of a notice that names none."""
HALF: Final = 0.5
FORECASTS: Final = 20_000


@dataclass(slots=True)
class Facts:
    """The last words, by what they are of."""

    forecasts: dict[Key, DemandForecast] = field(default_factory=dict)
    risks: dict[str, SpotRisk] = field(default_factory=dict)
    carbon: dict[str, CarbonIntensity] = field(default_factory=dict)
    """Grid zone to the average that was measured last."""
    down: dict[str, float] = field(default_factory=dict)
    """Endpoint to when it was said to be down last."""
    leaving: dict[str, Interruption] = field(default_factory=dict)
    """Endpoint to the notice that all of it goes."""
    parts: dict[str, dict[tuple[float, float | None, int | None], Interruption]] = field(default_factory=dict)
    """Endpoint to the notices that some of its replicas go."""
    orders: dict[str, Order] = field(default_factory=dict)
    """Endpoint to the order that drains it; its time may be over."""

    def fold(self, heard: Heard[Any]) -> bool:
        """Take in what is one of these; whether somebody is newly not to be counted on."""
        match heard.topic:
            case DEMAND_FORECAST.name:
                for said in heard.records:
                    if (key := (said.service, said.origin, said.class_)) in self.forecasts or len(
                        self.forecasts
                    ) < FORECASTS:
                        self.forecasts[key] = said
            case SPOT_RISK.name:
                self.risks.update({said.pool: said for said in heard.records})
            case CARBON_INTENSITY.name:
                self._carbon(heard.records)
            case ENDPOINT_HEALTH.name:
                news = [self._health(r, s) for r, s in zip(heard.records, heard.stamps_s.tolist(), strict=True)]
                return any(news)
            case INTERRUPTIONS.name:
                news = [self._notice(notice) for notice in heard.records]
                return any(news)
            case ORDERS.name:
                return self._ordered(heard)
        return False

    def gone(self, site: Site, capacity: Mapping[str, Capacity], now_s: float) -> dict[str, str]:
        """Endpoints that cannot be counted on at `now_s`, and why."""
        down = [name for name, at_s in self.down.items() if now_s < at_s + FORGET_S and name in site.endpoint_at]
        found = dict.fromkeys(_fallen(site, down), "in a zone that is down") | dict.fromkeys(down, "down")
        for name, notice in self.leaving.items():
            if name in site.endpoint_at and _leaves(notice, capacity.get(site.pool[site.endpoint_at[name]]), now_s):
                found[name] = f"leaving: {notice.kind}"
        for name, order in self.orders.items():
            if name in site.endpoint_at and (order.until_s is None or now_s < order.until_s):
                found[name] = "drained"
        return found

    def fewer(self, site: Site, capacity: Mapping[str, Capacity], now_s: float) -> dict[str, int]:
        """Endpoint to how many of its replicas cannot be counted on at `now_s`, though it stays."""
        found = {}
        for name, notices in self.parts.items():
            if name in site.endpoint_at:
                seen = capacity.get(site.pool[site.endpoint_at[name]])
                found[name] = sum(n.replicas or 0 for n in notices.values() if _leaves(n, seen, now_s))
        return found

    def advance(self, now_s: float) -> None:
        """Forget what is over."""
        self.down = {name: at_s for name, at_s in self.down.items() if now_s < at_s + FORGET_S}
        self.leaving = {name: n for name, n in self.leaving.items() if not _over(n, now_s)}
        kept = {name: {at: n for at, n in held.items() if not _over(n, now_s)} for name, held in self.parts.items()}
        self.parts = {name: held for name, held in kept.items() if held}

    def _carbon(self, records: list[CarbonIntensity]) -> None:
        for said in records:
            known = self.carbon.get(said.grid_zone)
            wanted = said.kind == "average" and said.basis == "measured"
            if wanted and (known is None or said.valid_from_s >= known.valid_from_s):
                self.carbon[said.grid_zone] = said

    def _health(self, said: EndpointHealth, stamp_s: float) -> bool:
        if not self.down and "down" not in said.verdict:
            return False
        rows = list(zip(said.endpoint, said.verdict, strict=True))
        down = {name for name, verdict in rows if verdict == "down"}
        # silence of a dead endpoint is no recovery: only an answer is
        for name in {name for name, verdict in rows if verdict in ("up", "degraded")} - down:
            self.down.pop(name, None)
        new = down - self.down.keys()
        self.down.update(dict.fromkeys(down, stamp_s))
        return bool(new)

    def _notice(self, notice: Interruption) -> bool:
        if notice.kind == "rebalance":
            return False
        if notice.replicas is not None:
            at = notice.notice_at_s, notice.deadline_at_s, notice.replicas
            held = self.parts.setdefault(notice.endpoint, {})
            new = at not in held
            held[at] = notice
            return new
        known = self.leaving.get(notice.endpoint)
        if known is not None and known.notice_at_s >= notice.notice_at_s:
            return False
        self.leaving[notice.endpoint] = notice
        return known is None

    def _ordered(self, heard: Heard[Any]) -> bool:
        """The last word on an endpoint holds; a tombstone is one."""
        told = dict(zip(heard.positions.tolist(), heard.records, strict=True))
        before = set(self.orders)
        for position, message in enumerate(heard.batch.messages):
            order = told.get(position)
            if order is not None and order.drain:
                self.orders[order.endpoint] = order
            elif order is not None or message.value is None:
                self.orders.pop((message.key or b"").decode("utf-8", "replace"), None)
        return bool(self.orders.keys() - before)


def _fallen(site: Site, down: Iterable[str]) -> list[str]:
    """Endpoints of zones of which half, and at least two, are down."""
    of = Counter(site.zone.tolist())
    lost = Counter(int(site.zone[site.endpoint_at[name]]) for name in down)
    rows = zip(site.names, site.zone.tolist(), strict=True)
    return [name for name, zone in rows if lost[zone] >= max(2, HALF * of[zone])]


def _deadline_s(notice: Interruption) -> float:
    return notice.notice_at_s + NOTICE_S if notice.deadline_at_s is None else notice.deadline_at_s


def _over(notice: Interruption, now_s: float) -> bool:
    return now_s >= _deadline_s(notice) + LEAVES_S


def _leaves(notice: Interruption, seen: Capacity | None, now_s: float) -> bool:
    """Until an actuator reports of the time after: then its numbers are without what left."""
    deadline_s = _deadline_s(notice)
    if seen is not None:
        return now_s <= deadline_s or seen.at_s <= deadline_s
    return not _over(notice, now_s)
