"""An operator's day with a router and a queue of deferred work: freeze, outage, rollback, a night's work, an audit."""

from __future__ import annotations

import msgspec

from router_sync.audit import Audit
from router_sync.flow import steps
from streams.contract.records import Order, Record, Release, Route, RoutingTable, TableOrder
from streams.contract.topics import DECISIONS, RELEASES, ROUTING_TABLE, TOPIC_OF
from streams.runtime.batch import Message
from streams.runtime.memory import MemoryCarrier
from tests.replay.test_router_in_memory import SETTINGS, SIGNER, share_of
from tests.unit.deferred_world import NOON_S, H, carbon, green_fleet, job
from tests.unit.router_fleet import demand, health

EVE_S = NOON_S + H - 400.0
"""Not long before the green hour."""
A, B = "eu-west-a", "eu-west-b"


class Day:
    """Both steps of the room on one carrier; somebody speaks for the endpoints every ten seconds."""

    def __init__(self) -> None:
        self.carrier = MemoryCarrier(steps(SETTINGS, SIGNER), now_s=EVE_S)
        self.down: dict[str, float] = {}
        self.tell(green_fleet())

    def tell(self, *records: Record) -> None:
        for record in records:
            topic = TOPIC_OF[type(record)]
            self.carrier.send(topic, topic.key_of(record), msgspec.json.encode(record))

    def live(self, seconds: float) -> None:
        until_s = self.carrier.now_s + seconds
        while self.carrier.now_s < until_s:
            self.tell(health([A, B], self.carrier.now_s, self.down))
            self.tell(demand(float(int(self.carrier.now_s)), {("eu", "interactive"): 40, ("us", "interactive"): 40}))
            self.carrier.run_until(min(until_s, self.carrier.now_s + 10.0))

    @property
    def table(self) -> RoutingTable:
        return msgspec.json.decode(self.carrier.said(ROUTING_TABLE)[-1].value or b"", type=RoutingTable)

    def hold(self, *routes: Route, on: bool = True) -> None:
        at_s = self.carrier.now_s
        self.tell(TableOrder(service="chat", hold=on, routes=routes, by="ann", reason="bill", at_s=at_s))


def lived() -> Day:
    day = Day()
    day.tell(*carbon({0: 500.0, 1: 60.0, 2: 400.0}), job("nightly", requests=50_000, within_s=2 * H, at_s=EVE_S))
    day.live(60)
    day.hold(Route(origin="eu", class_="interactive", slo_p95_ms=400, endpoints=(A, B), shares=(0.25, 0.75)))
    day.live(60)
    assert share_of(day.table, [A]) == 0.25
    day.down = {B: day.carrier.now_s}
    day.live(60)
    assert share_of(day.table, [A]) == 1.0
    day.down = {}
    day.live(60)
    assert share_of(day.table, [A]) == 0.25
    day.tell(Order(endpoint=A, drain=True, by="ben", at_s=day.carrier.now_s))
    day.live(30)
    assert share_of(day.table, [B]) == 1.0
    day.tell(Order(endpoint=A, drain=False, by="ben", at_s=day.carrier.now_s))
    day.hold(on=False)
    day.live(60)
    assert day.table.held == ""
    day.live(100)
    return day


def test_orders_are_obeyed_work_waits_for_its_hour_and_the_chain_is_whole() -> None:
    day = lived()
    words = [msgspec.json.decode(m.value or b"", type=Release) for m in day.carrier.said(RELEASES)]
    assert [w.released for w in words] == [False, True]
    assert words[1].made_at_s - (NOON_S + H) < 1.5
    audit = Audit()
    for message in day.carrier.said(DECISIONS):
        audit.take(str(message.offset), message.key or b"", message.value or b"")
    [chain] = audit.judged({"chat": day.table.decision})
    assert (chain.ok, chain.begins, chain.vouched, chain.noted) == (True, True, chain.decisions, ())


def test_two_such_days_are_the_same_to_the_byte() -> None:
    def said(day: Day) -> list[Message]:
        return [message for topic in (ROUTING_TABLE, DECISIONS, RELEASES) for message in day.carrier.said(topic)]

    assert said(lived()) == said(lived())
