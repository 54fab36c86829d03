"""What holds for every stage, whatever it hears: cut, order, repetition, silence. The stages are those of the map."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from forecasting import flow as forecasting_flow
from router_sync import flow as router_flow
from router_sync.sign import Signer
from streams import flow
from streams.contract import records as r
from streams.contract.topics import (
    ARRIVALS,
    CAPACITY,
    CAPACITY_PLAN,
    CARBON_INTENSITY,
    DEFERRED,
    DEMAND,
    ENDPOINT_HEALTH,
    ENDPOINT_METRICS,
    FLEET,
    INTERRUPTIONS,
    ORDERS,
    RELEASES,
    SPOT_PRICES,
    SPOT_RISK,
    TABLE_ORDERS,
    Topic,
)
from streams.runtime.batch import Batch, Message
from streams.runtime.edge import Edge
from streams.runtime.runner import Runner
from streams.runtime.step import Screens, Step
from streams.settings import load

T0 = 1_763_938_800.0
LATENESS_S = 5.0
STEPS: dict[str, Step] = {
    s.name: s
    for s in (
        *flow.steps(load()),
        *(step for step in forecasting_flow.steps(load()) if step.name in ("spot-risk", "plan")),
        *router_flow.steps(load(), Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))),
    )
}
quick = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

ENDPOINTS, CLASSES, OBSERVERS = ("eu-1", "eu-2", "us-1"), ("interactive", "batch"), ("gw-a", "gw-b", "gw-c")
THE_FLEET = r.Fleet(
    version=1,
    services=(
        r.Service(
            name="chat", default_class="interactive",
            classes=tuple(r.RequestClass(name=c, slo_p95_ms=400, defer_s=7200) for c in CLASSES),
        ),
    ),
    origins=(r.Origin(name="eu", jurisdiction="DE", rtt_ms={"eu": 10, "us": 90}),),
    endpoints=tuple(
        r.Endpoint(
            name=name, url="http://127.0.0.1:1", services=("chat",), provider="p", region=name[:2], zone=name[:2] + "a",
            jurisdiction="DE", capacity_rps=50, price_usd_per_h=1, grid_zone=name[:2], power_w=4000,
            market="on_demand" if name == "us-1" else "spot", most_replicas=20,
        )
        for name in ENDPOINTS
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One message on its way: topic, record (of a tombstone: one with its key), the broker's time."""

    topic: Topic
    record: msgspec.Struct
    stamp_s: float
    tombstone: bool = False


# ---------------------------------------------------------------- what may be said

latencies = st.lists(st.floats(0, 5000), max_size=4).map(tuple)
buckets = st.one_of(
    st.none(),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 4)), min_size=1, max_size=3, unique_by=lambda p: p[0]).map(
        lambda pairs: r.Buckets(
            gamma=1.04, index=tuple(i for i, _ in sorted(pairs)), count=tuple(n for _, n in sorted(pairs))
        )
    ),
)
errors = st.dictionaries(
    st.sampled_from(["connect", "stall", "http_5xx", "http_429", "client_4xx"]), st.integers(1, 9), max_size=2
)


@st.composite
def reports(
    draw: st.DrawFn,
    most: int = 25,
    span_s: float = 40.0,
    late_s: float = 12.0,
    vantages: Sequence[str] = ("gateway", "probe"),
) -> list[Sent]:
    """Endpoint metrics of three observers in the order the broker took them; some late, some by a fast clock."""
    said: list[Sent] = []
    for seq, stamp_s in enumerate(sorted(draw(st.lists(st.floats(0, span_s), max_size=most)))):
        behind_s = draw(st.floats(-3, late_s))
        failed, values, firsts, held = draw(errors), draw(latencies), draw(latencies), draw(buckets)
        fewest = max(sum(failed.values()), len(values) + sum(held.count if held else ()), len(firsts))
        record = r.EndpointMetrics(
            endpoint=draw(st.sampled_from(ENDPOINTS)), service="chat", class_=draw(st.sampled_from(CLASSES)),
            observer=draw(st.sampled_from(OBSERVERS)), vantage=draw(st.sampled_from(vantages)), boot=1, seq=seq,  # type: ignore[arg-type]
            at_s=T0 + stamp_s - behind_s, requests=fewest + draw(st.integers(0, 20)), errors=failed,  # type: ignore[arg-type]
            latency_ms=values, latency=held, ttft_ms=firsts,
            hard_streak=draw(st.sampled_from([0, 0, 1, 3, 4])),
            first_error_at_s=draw(st.one_of(st.none(), st.just(T0 + stamp_s - 5))),
            last_ok_at_s=draw(st.one_of(st.none(), st.just(T0 + stamp_s - 2))),
            in_flight=draw(st.one_of(st.none(), st.integers(0, 9))),
            queue=draw(st.one_of(st.none(), st.integers(0, 9))),
        )  # fmt: skip
        said.append(Sent(ENDPOINT_METRICS, record, T0 + stamp_s))
    return said


@st.composite
def arrivals(draw: st.DrawFn) -> list[Sent]:
    """Arrivals of two gateways with slots of several lengths; some late, some by a fast clock."""
    said: list[Sent] = []
    for seq, stamp_s in enumerate(sorted(draw(st.lists(st.floats(0, 30), max_size=20)))):
        classes = draw(st.lists(st.sampled_from(CLASSES), max_size=2, unique=True))
        counts = [tuple(draw(st.integers(0, 9)) for _ in classes) for _ in range(4)]
        record = r.Arrivals(
            gateway=draw(st.sampled_from(["gw-a", "gw-b"])), origin=draw(st.sampled_from(["eu", "us"])), boot=1,
            seq=seq,
            at_s=T0 + stamp_s - draw(st.floats(-3, 10)), slot_s=draw(st.sampled_from([1.0, 1.0, 2.0, 0.1])),
            service=("chat",) * len(classes), class_=tuple(classes),
            arrived=counts[0], admitted=counts[1], shed=counts[2], failed=counts[3],
        )  # fmt: skip
        said.append(Sent(ARRIVALS, record, T0 + stamp_s))
    return said


@st.composite
def summaries(draw: st.DrawFn) -> list[Sent]:
    """What the router hears: health and demand as room 1 says them, and orders of operators."""
    said: list[Sent] = []
    for n, stamp_s in enumerate(sorted(draw(st.lists(st.floats(0, 30), max_size=10)))):
        source = draw(st.sampled_from(["0", "1"]))
        kind = draw(st.sampled_from(["health", "health", "demand", "order", "hold"]))
        if kind == "hold":
            gone = draw(st.sampled_from([False] * 3 + [True]))
            said.append(Sent(TABLE_ORDERS, draw(holds(T0 + stamp_s)), T0 + stamp_s, gone))
        elif kind == "order":
            said.append(
                Sent(ORDERS, draw(orders(T0 + stamp_s)), T0 + stamp_s, draw(st.sampled_from([False] * 3 + [True])))
            )
        elif kind == "health":
            verdict = draw(st.sampled_from(["up", "up", "degraded", "down", "silent"]))
            record: msgspec.Struct = health_row(
                ENDPOINTS[n % 3], verdict, T0 + stamp_s, f"endpoint-metrics.v1/{source}"
            )
            said.append(Sent(ENDPOINT_HEALTH, record, T0 + stamp_s))
        else:
            arrived = draw(st.integers(0, 60))
            record = r.Demand(
                source=f"arrivals.v1/{source}", at_s=float(int(T0 + stamp_s)), service=("chat",), origin=("eu",),
                class_=("interactive",), arrived=(arrived,), admitted=(arrived,), shed=(0,), failed=(0,),
            )  # fmt: skip
            said.append(Sent(DEMAND, record, T0 + stamp_s))
    return said


@st.composite
def orders(draw: st.DrawFn, at_s: float) -> r.Order:
    """An order given at `at_s`; some are over before the router is asked."""
    until_s = draw(st.one_of(st.none(), st.floats(1, 90).map(lambda s: at_s + s)))
    endpoint = draw(st.sampled_from(ENDPOINTS))
    return r.Order(endpoint=endpoint, drain=draw(st.sampled_from([True, True, False])), at_s=at_s, until_s=until_s)


@st.composite
def holds(draw: st.DrawFn, at_s: float) -> r.TableOrder:
    """An order that holds the table given at `at_s`, as it is or as it was."""
    until_s = draw(st.one_of(st.none(), st.floats(1, 90).map(lambda s: at_s + s)))
    names = draw(st.lists(st.sampled_from(ENDPOINTS), max_size=3, unique=True))
    shares = tuple(1.0 / len(names) for _ in names)
    route = r.Route(origin="eu", class_="batch", slo_p95_ms=400, endpoints=tuple(names), shares=shares)
    hold = draw(st.sampled_from([True, True, False]))
    return r.TableOrder(service="chat", hold=hold, routes=(route,) if names else (), at_s=at_s, until_s=until_s)


@st.composite
def waiting(draw: st.DrawFn) -> list[Sent]:
    """What deferred work is decided by: jobs, some taken back, words of a worker before, prices and carbon."""
    said: list[Sent] = []
    for stamp_s in sorted(draw(st.lists(st.floats(0, 30), max_size=12))):
        at_s, name = T0 + stamp_s, draw(st.sampled_from(["a", "b", "c"]))
        kind = draw(st.sampled_from(["job", "job", "word", "price", "carbon", "carbon"]))
        if kind == "job":
            job = r.Deferred(
                job=name, service="chat", class_=draw(st.sampled_from(CLASSES)), origin="eu", submitted_at_s=at_s,
                requests=draw(st.integers(1, 500_000)), deadline_at_s=at_s + draw(st.floats(10, 20_000)),
            )  # fmt: skip
            said.append(Sent(DEFERRED, job, at_s, draw(st.sampled_from([False] * 4 + [True]))))
        elif kind == "word":
            word = r.Release(
                job=name, service="chat", made_at_s=at_s, release_at_s=at_s + draw(st.floats(0, 7200)),
                released=draw(st.booleans()), usd_per_request=1e-6, now_usd_per_request=2e-6,
            )  # fmt: skip
            said.append(Sent(RELEASES, word, at_s))
        elif kind == "price":
            pool = THE_FLEET.endpoints[0].pool
            usd = draw(st.floats(0, 3))
            price = r.SpotPrice(pool=pool, price_usd_per_h=usd, effective_at_s=at_s, observed_at_s=at_s)
            said.append(Sent(SPOT_PRICES, price, at_s))
        else:
            since_s = T0 + 1800.0 * draw(st.integers(-50, 6))
            grams = r.CarbonIntensity(
                grid_zone=draw(st.sampled_from(["eu", "us"])), kind="average", valid_from_s=since_s,
                basis=draw(st.sampled_from(["measured", "forecast"])), carbon_g_per_kwh=draw(st.floats(0, 900)),
                valid_until_s=since_s + draw(st.sampled_from([300.0, 1800.0, 3600.0, 10_000.0])),
            )  # fmt: skip
            said.append(Sent(CARBON_INTENSITY, grams, at_s))
    return said


def health_row(endpoint: str, verdict: Any, at_s: float, source: str) -> r.EndpointHealth:
    return r.EndpointHealth(
        source=source, made_at_s=at_s, endpoint=(endpoint,), service=("chat",), class_=("interactive",),
        verdict=(verdict,), reason=("",), observations=(50,), rps=(1.0,), p50_ms=(10.0,), p95_ms=(90.0,),
        p99_ms=(99.0,),
        ttft_p95_ms=(None,), in_flight=(None,), queue=(None,), age_s=(0.0,), first_error_at_s=(at_s - 1,),
        last_ok_at_s=(None,),
    )  # fmt: skip


POOLS = tuple(e.pool for e in THE_FLEET.endpoints)


@st.composite
def markets(draw: st.DrawFn) -> list[Sent]:
    """What is heard of pools: prices, notices, what actuators saw, what was planned and judged before."""
    said: list[Sent] = []
    for n, stamp_s in enumerate(sorted(draw(st.lists(st.floats(0, 30), max_size=14)))):
        pool, at_s = draw(st.sampled_from(POOLS)), T0 + stamp_s
        kind = draw(st.sampled_from(["price", "notice", "saw", "saw", "saw", "plan", "risk"]))
        record: msgspec.Struct
        if kind == "price":
            record = r.SpotPrice(
                pool=pool, price_usd_per_h=draw(st.floats(0.1, 9)), effective_at_s=at_s - draw(st.floats(0, 9)),
                observed_at_s=at_s,
            )  # fmt: skip
        elif kind == "notice":
            what = draw(st.sampled_from(["rebalance", "terminate", "preempt", "drain"]))
            record = r.Interruption(endpoint=draw(st.sampled_from(ENDPOINTS)), kind=what, notice_at_s=at_s)
        elif kind == "saw":
            record = r.Capacity(
                pool=pool, at_s=at_s - draw(st.floats(-2, 5)), ready=draw(st.integers(0, 5)),
                starting=draw(st.integers(0, 2)), failed=draw(st.integers(0, 2)), plan_id=f"p{n % 3}",
            )  # fmt: skip
        elif kind == "plan":
            record = r.CapacityPlan(
                pool=pool, plan_id=f"p{n % 3}", made_at_s=at_s, want=draw(st.integers(0, 6)), have=0, not_before_s=at_s,
                reason="", reserve=draw(st.floats(0.5, 2)),
            )  # fmt: skip
        else:
            evidence = r.SpotEvidence(
                until_s=at_s - 60, ready=draw(st.integers(0, 5)), failed=0, losses=draw(st.floats(0, 5)),
                exposure_h=draw(st.floats(0, 30)), up_since_s=T0 - 9000, usual_usd_per_h=draw(st.floats(0.1, 9)),
            )  # fmt: skip
            record = r.SpotRisk(
                pool=pool, made_at_s=at_s, hazard_per_h=1, low_per_h=1, high_per_h=1, risk_usd_per_h=0.1,
                evidence=evidence,
            )  # fmt: skip
        said.append(Sent(TOPIC_OF_KIND[kind], record, at_s))
    return said


@st.composite
def needs(draw: st.DrawFn) -> list[Sent]:
    """What the planner hears: of pools, and health, demand and orders."""
    heard = {reads.topic for reads in STEPS["plan"].reads}
    both = [*draw(markets()), *(said for said in draw(summaries()) if said.topic in heard)]
    return sorted(both, key=lambda one: one.stamp_s)


TOPIC_OF_KIND = {
    "price": SPOT_PRICES, "notice": INTERRUPTIONS, "saw": CAPACITY, "plan": CAPACITY_PLAN, "risk": SPOT_RISK,
}  # fmt: skip
FLEET_SENT = Sent(FLEET, THE_FLEET, T0)
HEARD: dict[str, st.SearchStrategy[list[Sent]]] = {
    "health": reports(), "demand": arrivals(), "router": summaries(),
    "spot-risk": markets(), "plan": needs(), "defer": waiting(),
}  # fmt: skip


def first(name: str) -> list[Sent]:
    """What comes before everything else: the fleet, for those who read it."""
    return [FLEET_SENT] if any(reads.topic is FLEET for reads in STEPS[name].reads) else []


# ---------------------------------------------------------------- how it is heard


def batches(sent: Iterable[Sent], cuts: Iterable[bool]) -> Iterator[Batch]:
    """Messages in this order as batches: cut where the topic changes, and where `cuts` says so."""
    offsets: dict[str, int] = {}
    held: list[Message] = []
    topic = ""
    for one, cut in zip(sent, cuts, strict=False):
        if held and (cut or one.topic.name != topic):
            yield Batch(topic, 0, held)
            held = []
        topic = one.topic.name
        key, value = one.topic.key_of(one.record).encode(), None if one.tombstone else msgspec.json.encode(one.record)
        held.append(Message(offsets.setdefault(topic, 0), int(one.stamp_s * 1000), key, value))
        offsets[topic] += 1
    if held:
        yield Batch(topic, 0, held)


def folded(name: str, given_batches: Iterable[Batch], ticks_s: Sequence[float] | None = None) -> Any:
    """The state after these batches; with `ticks_s`, time passes before each of them."""
    step = STEPS[name]
    edges: dict[str, Edge[Any]] = {reads.topic.name: Edge(reads.topic) for reads in step.reads}
    state = step.stage.empty()
    for number, batch in enumerate(given_batches):
        heard, refused = edges[batch.topic].open(batch)
        assert not refused
        if isinstance(step.stage, Screens):
            heard = heard.without(list(step.stage.screen(state, heard)))
        if ticks_s is not None:
            state = step.stage.advance(state, ticks_s[number])
        # as the runner does: where only tombstones are left, stages that ask for them are told
        if heard.records or batch.topic in {reads.topic.name for reads in step.reads if reads.tombstones}:
            state = step.stage.fold(state, heard)
    return state


def seen(name: str, state: Any, now_s: float) -> bytes:
    """What the stage says at `now_s`, as bytes."""
    stage = STEPS[name].stage
    return msgspec.json.encode(list(stage.view(stage.advance(state, now_s), now_s)))


def whole(name: str, sent: Sequence[Sent]) -> Any:
    return folded(name, batches([*first(name), *sent], iter(bool, True)))


def copied(state: Any) -> Any:
    return pickle.loads(pickle.dumps(state))


def table(said: bytes) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = msgspec.json.decode(said)
    return decoded


def rows(said: bytes) -> dict[tuple[str, str], dict[str, Any]]:
    """Health by (endpoint, class), without what is said of the partition as a whole."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for record in table(said):
        columns = {k: v for k, v in record.items() if isinstance(v, list)}
        columns |= {f"errors.{kind}": v for kind, v in record.get("errors", {}).items()}
        for n, at in enumerate(zip(record["endpoint"], record["class"], strict=True)):
            # a kind nobody met is left out of the record
            found[at] = {k: v[n] for k, v in columns.items() if not (k.startswith("errors.") and v[n] == 0)}
    return found


every_stage = pytest.mark.parametrize("name", STEPS)
later_s = st.sampled_from([30.0, 41.0, 45.5, 70.0, 99.0, 200.0])

# ---------------------------------------------------------------- 1: cut and interleaving


@every_stage
@quick
@given(data=st.data(), after_s=later_s)
def test_how_batches_are_cut_does_not_matter(name: str, data: st.DataObject, after_s: float) -> None:
    sent = data.draw(HEARD[name])
    cuts = data.draw(st.lists(st.booleans(), min_size=len(sent) + 1, max_size=len(sent) + 1))
    in_parts = folded(name, batches([*first(name), *sent], cuts))
    assert seen(name, in_parts, T0 + after_s) == seen(name, whole(name, sent), T0 + after_s)


@every_stage
@quick
@given(data=st.data(), after_s=later_s)
def test_how_topics_are_interleaved_does_not_matter(name: str, data: st.DataObject, after_s: float) -> None:
    sent = [*first(name), *data.draw(HEARD[name])]
    queues = [[one for one in sent if one.topic is topic] for topic in dict.fromkeys(s.topic for s in sent)]
    mixed: list[Sent] = []
    while queues := [queue for queue in queues if queue]:
        mixed.append(queues[data.draw(st.integers(0, len(queues) - 1))].pop(0))
    together = folded(name, batches(sent, iter(bool, True)))
    assert seen(name, folded(name, batches(mixed, iter(bool, True))), T0 + after_s) == seen(
        name, together, T0 + after_s
    )


@pytest.mark.parametrize("name", ["health", "demand"])
@quick
@given(data=st.data(), after_s=later_s)
def test_whether_time_passed_meanwhile_does_not_matter(name: str, data: st.DataObject, after_s: float) -> None:
    """A worker that ticked all along and one that was restored say the same; a router's past views are its state."""
    sent = data.draw(HEARD[name])
    ticked = folded(name, batches([*first(name), *sent], iter(lambda: True, False)), [T0, *(s.stamp_s for s in sent)])
    assert seen(name, ticked, T0 + after_s) == seen(name, whole(name, sent), T0 + after_s)


# ---------------------------------------------------------------- 2: duplicates


@every_stage
@quick
@given(data=st.data())
def test_redelivery_changes_nothing(name: str, data: st.DataObject) -> None:
    sent = data.draw(HEARD[name])
    shared = {reads.topic.name for reads in STEPS[name].shared}
    cut_up = list(batches([*first(name), *sent], iter(lambda: True, False)))

    def run(given_batches: Iterable[Batch]) -> list[Any]:
        runner = Runner(STEPS[name])
        runner.assign(0)
        for batch in given_batches:
            # heard while restoring would be silent too: here nothing is due before the tick
            runner.partitions[0].restoring = {"held": 1}
            (runner.hear_shared if batch.topic in shared else runner.hear)(batch, T0)
        runner.partitions[0].restoring = {}
        return [(o.topic, o.key, o.value) for o in runner.tick(T0 + 45)]

    again = [
        batch for n, one in enumerate(cut_up) for batch in [one, *cut_up[: n + 1][-data.draw(st.integers(1, 4)) :]]
    ]
    assert run(again) == run(cut_up)


@pytest.mark.parametrize("name", ["health", "demand"])
@quick
@given(data=st.data(), after_s=later_s)
def test_what_a_sender_sends_twice_counts_once(name: str, data: st.DataObject, after_s: float) -> None:
    sent = data.draw(HEARD[name])
    twice = [copy for one in sent for copy in [one] * data.draw(st.integers(1, 3))]
    once, more = (table(seen(name, whole(name, said), T0 + after_s)) for said in (sent, twice))
    counted = sum(record.pop("duplicates", 0) for record in more)
    assert more == once
    if name == "health" and more:
        assert counted == len(twice) - len(sent)


# ---------------------------------------------------------------- 3: order of arrival


@quick
@given(data=st.data())
def test_records_within_lateness_may_come_in_any_order(data: st.DataObject) -> None:
    sent = [
        Sent(one.topic, one.record, T0 + 40)
        for one in data.draw(reports(span_s=4.0, late_s=0.5))
        if isinstance(one.record, r.EndpointMetrics) and T0 < one.record.at_s < T0 + LATENESS_S
    ]
    shuffled = data.draw(st.permutations(sent))
    ordered, mixed = (rows(seen("health", whole("health", said), T0 + 41)) for said in (sent, shuffled))
    assert mixed.keys() == ordered.keys()
    for at, row in ordered.items():
        same = row.keys() - {"verdict", "reason", "in_flight", "queue", "first_error_at_s"}
        assert {k: mixed[at].get(k) for k in same} == {k: row[k] for k in same}


@quick
@given(data=st.data())
def test_of_several_words_the_newest_holds_in_whatever_order_they_come(data: st.DataObject) -> None:
    times = data.draw(st.lists(st.floats(0.01, 4), min_size=1, max_size=6, unique=True))
    sent = [
        Sent(ENDPOINT_METRICS, metrics(at_s=T0 + t, seq=n, hard_streak=3 * (n % 2), in_flight=n), T0 + 5)
        for n, t in enumerate(times)
    ]
    newest = max(range(len(times)), key=times.__getitem__)
    (row,) = rows(seen("health", whole("health", data.draw(st.permutations(sent))), T0 + 5)).values()
    assert row["verdict"] == ("down" if newest % 2 else "up")
    assert row["in_flight"] == newest


@quick
@given(data=st.data())
def test_arrivals_may_come_in_any_order(data: st.DataObject) -> None:
    sent = [Sent(one.topic, one.record, T0 + 40) for one in data.draw(arrivals())]
    shuffled = data.draw(st.permutations(sent))
    assert seen("demand", whole("demand", shuffled), T0 + 41) == seen("demand", whole("demand", sent), T0 + 41)


# ---------------------------------------------------------------- 4 and 5: view reads, advance is the same twice


@every_stage
@quick
@given(data=st.data(), after_s=later_s)
def test_a_view_only_reads(name: str, data: st.DataObject, after_s: float) -> None:
    stage = STEPS[name].stage
    state = stage.advance(whole(name, data.draw(HEARD[name])), T0 + after_s)
    before = pickle.dumps(state)
    said = list(stage.view(state, T0 + after_s))
    assert list(stage.view(state, T0 + after_s)) == said
    assert pickle.dumps(state) == before


@pytest.mark.parametrize("name", ["health", "demand"])
@quick
@given(data=st.data(), after_s=later_s, back_s=st.floats(0, 50))
def test_time_passes_once_and_never_back(name: str, data: st.DataObject, after_s: float, back_s: float) -> None:
    stage = STEPS[name].stage
    state = stage.advance(whole(name, data.draw(HEARD[name])), T0 + after_s)
    before, said = pickle.dumps(state), msgspec.json.encode(list(stage.view(state, T0 + after_s)))
    state = stage.advance(state, T0 + after_s)
    assert pickle.dumps(state) == before
    state = stage.advance(stage.advance(state, T0 + after_s - back_s), T0 + after_s)
    assert msgspec.json.encode(list(stage.view(state, T0 + after_s))) == said


@pytest.mark.parametrize("name", ["health", "demand"])
@quick
@given(data=st.data(), steps_s=st.lists(st.floats(0, 60), max_size=5))
def test_time_that_passes_in_small_steps_passes_as_in_one(name: str, data: st.DataObject, steps_s: list[float]) -> None:
    sent = data.draw(HEARD[name])
    at_once, slowly, now_s = whole(name, sent), whole(name, sent), T0 + 40
    for step_s in steps_s:
        now_s += step_s
        slowly = STEPS[name].stage.advance(slowly, now_s)
    assert seen(name, slowly, now_s) == seen(name, at_once, now_s)


@quick
@given(data=st.data(), after_s=later_s)
def test_a_router_says_a_table_once(data: st.DataObject, after_s: float) -> None:
    state = whole("router", data.draw(summaries()))
    assert len(table(seen("router", state, T0 + after_s))) == 2
    assert table(seen("router", state, T0 + after_s)) == []
    number = state.number
    STEPS["router"].stage.advance(state, T0 + after_s)
    assert state.number == number


@pytest.mark.parametrize("name", ["spot-risk", "plan"])
@quick
@given(data=st.data(), after_s=later_s)
def test_what_is_expected_is_said_once(name: str, data: st.DataObject, after_s: float) -> None:
    state = whole(name, data.draw(HEARD[name]))
    seen(name, state, T0 + after_s)
    assert table(seen(name, state, T0 + after_s)) == []


@quick
@given(data=st.data(), after_s=later_s)
def test_a_drained_endpoint_is_in_no_route_whatever_else_is_heard(data: st.DataObject, after_s: float) -> None:
    sent = data.draw(summaries())
    drained: dict[str, r.Order] = {}
    for one in sent:
        if isinstance(one.record, r.Order):
            drained.pop(one.record.endpoint, None)
            if one.record.drain and not one.tombstone:
                drained[one.record.endpoint] = one.record
    now = {name for name, order in drained.items() if order.until_s is None or T0 + after_s < order.until_s}
    (said, _) = table(seen("router", whole("router", sent), T0 + after_s))
    assert {e["name"] for e in said["endpoints"] if e.get("state") == "drain"} == now
    for route in said["routes"]:
        assert not now & {*route["endpoints"], *route.get("fallbacks", ())}
        assert bool(route["endpoints"]) == (now != set(ENDPOINTS))


@quick
@given(data=st.data(), after_s=later_s)
def test_held_shares_lie_where_the_order_has_them_as_far_as_they_may(data: st.DataObject, after_s: float) -> None:
    sent = data.draw(summaries())
    last = next((one for one in reversed(sent) if one.topic is TABLE_ORDERS), None)
    (said, _) = table(seen("router", whole("router", sent), T0 + after_s))
    order = last.record if last is not None and not last.tombstone else None
    if not isinstance(order, r.TableOrder) or not order.hold or (order.until_s or math.inf) <= T0 + after_s:
        assert not said.get("held")
        return
    if not order.routes:
        return  # the first table of this router is what it holds
    assert said["held"].startswith("held by an operator")
    route = next(one for one in said["routes"] if one["class"] == "batch")
    ready = {e["name"] for e in said["endpoints"] if e.get("state", "ready") == "ready"}
    kept = [name for name in order.routes[0].endpoints if name in ready]
    if kept:
        assert set(route["endpoints"]) == set(kept)
        assert max(route["shares"]) - min(route["shares"]) <= 2e-4
    elif ready:
        assert "nothing is left of 1 of its routes" in said["held"]


# ---------------------------------------------------------------- 6: silence ages


def metrics(endpoint: str = "eu-1", at_s: float = T0, seq: int = 1, **more: Any) -> r.EndpointMetrics:
    told: dict[str, Any] = {"service": "chat", "class_": "interactive", "observer": "gw-a", "boot": 1, "requests": 5}
    return r.EndpointMetrics(endpoint=endpoint, at_s=at_s, seq=seq, **(told | more))


@quick
@given(data=st.data())
def test_an_endpoint_unheard_is_silent_after_10_s_and_forgotten_after_15_min(data: st.DataObject) -> None:
    sent = data.draw(reports(late_s=0.0))
    assume(sent)
    heard_s: dict[str, float] = {}
    for one in sent:
        assert isinstance(one.record, r.EndpointMetrics)
        at_s = min(one.record.at_s, int(one.stamp_s * 1000) / 1000)
        heard_s[one.record.endpoint] = max(heard_s.get(one.record.endpoint, 0.0), at_s)
    state = whole("health", sent)
    for after_s in (9.9, 10.1, 400.0, 899.0, 901.0, 2000.0):
        now_s = max(heard_s.values()) + after_s
        said = rows(seen("health", state, now_s))
        assert {at for at, _ in said} >= {e for e, s in heard_s.items() if now_s - s < 899}
        assert {at for at, _ in said}.isdisjoint(e for e, s in heard_s.items() if now_s - s > 901)
        for (endpoint, _), row in said.items():
            quiet_s = now_s - heard_s[endpoint]
            if quiet_s > 20:
                assert row["verdict"] == "silent"
            if quiet_s < 10:
                assert row["verdict"] != "silent"
            if quiet_s > 61:
                assert (row["observations"], row["rps"], row["p95_ms"], row["in_flight"]) == (0, 0.0, None, None)


@quick
@given(data=st.data())
def test_rows_given_to_others_leak_nothing(data: st.DataObject) -> None:
    """After everybody was forgotten, what is heard anew is seen as by a stage that never heard anybody else."""
    old, new = data.draw(reports()), data.draw(reports())
    shift_s = 2000.0
    moved = [
        Sent(
            one.topic,
            msgspec.structs.replace(
                one.record, boot=2, at_s=one.record.at_s + shift_s,
                first_error_at_s=one.record.first_error_at_s and one.record.first_error_at_s + shift_s,
                last_ok_at_s=one.record.last_ok_at_s and one.record.last_ok_at_s + shift_s,
            ),
            one.stamp_s + shift_s,
        )
        for one in new
        if isinstance(one.record, r.EndpointMetrics)
    ]  # fmt: skip
    stage, now_s = STEPS["health"].stage, T0 + shift_s + 45
    used = stage.advance(whole("health", old), T0 + shift_s - 500)
    assert rows(msgspec.json.encode(list(stage.view(used, T0 + shift_s - 500)))) == {}
    edge: Edge[Any] = Edge(ENDPOINT_METRICS)
    for batch in batches(moved, iter(bool, True)):
        heard, _ = edge.open(batch)
        used = stage.fold(used, heard)
    assert rows(seen("health", used, now_s)) == rows(seen("health", whole("health", moved), now_s))


def test_a_forgotten_slot_does_not_come_back_half_empty() -> None:
    stage = STEPS["demand"].stage
    slot = r.Arrivals(
        gateway="gw-a", origin="eu", boot=1, seq=1, at_s=T0, service=("chat",), class_=("batch",), arrived=(5,),
        admitted=(5,), shed=(0,), failed=(0,),
    )  # fmt: skip
    state = stage.advance(whole("demand", [Sent(ARRIVALS, slot, T0)]), T0 + 61)
    edge: Edge[Any] = Edge(ARRIVALS)
    (late,) = batches([Sent(ARRIVALS, msgspec.structs.replace(slot, seq=2), T0 + 61)], [True])
    state = stage.fold(state, edge.open(late)[0])
    assert table(seen("demand", state, T0 + 61)) == []


# ---------------------------------------------------------------- 7: vantages


@quick
@given(data=st.data(), after_s=later_s)
def test_what_an_endpoint_says_of_itself_is_added_to_nothing(data: st.DataObject, after_s: float) -> None:
    outside = data.draw(reports())
    inside = [
        Sent(one.topic, msgspec.structs.replace(one.record, observer=f"agent-{one.record.endpoint}"), one.stamp_s)
        for one in data.draw(reports(vantages=["endpoint"]))
        if isinstance(one.record, r.EndpointMetrics)
    ]
    both = sorted([*outside, *inside], key=lambda one: one.stamp_s)
    alone, beside = (rows(seen("health", whole("health", said), T0 + after_s)) for said in (outside, both))
    for at, row in beside.items():
        same = row.keys() - {"queue", "age_s"}
        if at in alone:
            assert {k: row[k] for k in same} == {k: alone[at].get(k) for k in same}
        else:
            assert (row["observations"], row["rps"], row["p95_ms"], row["ttft_p95_ms"]) == (0, 0.0, None, None)
            assert row["in_flight"] is None
    silent_alone = {end: row["verdict"] for (end, _), row in alone.items()}
    assert all(row["verdict"] == silent_alone.get(end, "unknown") for (end, _), row in beside.items())


def test_queues_are_taken_from_endpoints_only_and_fade() -> None:
    gateway = Sent(ENDPOINT_METRICS, metrics(queue=7), T0)
    agent = Sent(ENDPOINT_METRICS, metrics(queue=3, vantage="endpoint", observer="agent", seq=2), T0)
    for sent, after_s, queue in (([gateway], 1, None), ([gateway, agent], 1, 3), ([gateway, agent], 11, None)):
        (row,) = rows(seen("health", whole("health", sent), T0 + after_s)).values()
        assert row["queue"] == queue
