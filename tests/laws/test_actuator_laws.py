"""What holds of who carries plans out, whatever is planned, by whom, in which order, however the cloud behaves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_sync.actuators.bounds import bounds_of, clamped
from router_sync.actuators.section import Actuators
from router_sync.actuators.stage import CarryOut, Pools
from router_sync.actuators.standing import Order, Trouble
from streams.contract import topics
from streams.contract.records import Capacity, CapacityPlan
from streams.contract.topics import Topic
from streams.runtime.batch import Batch, Message
from streams.runtime.edge import Edge
from tests.unit.pretend_cloud import T0, Cloud, CloudEntry, Shop, end
from tests.unit.router_fleet import fleet

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ENDS = [end("e0", least_replicas=1), end("e1", most_replicas=6)]
POOLS = [e.pool for e in ENDS]
FLEET = fleet(endpoints=ENDS)


@dataclass(frozen=True)
class Deed:
    """Something that happens `after_s` after the one before."""

    after_s: float
    plan: dict[str, Any] | None = None
    pool: int = 0
    trouble: Trouble | None = None
    stuck: bool = False


@st.composite
def plans(draw: st.DrawFn) -> dict[str, Any]:
    operator = draw(st.booleans()) and draw(st.booleans())
    return {
        "want": draw(st.integers(0, 15)),
        "late_s": draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 30.0])),
        "old_s": draw(st.sampled_from([0.0, 0.0, 0.0, 0.0, 5.0, 1000.0])),
        "by": "ann" if operator else "",
        "for_s": draw(st.sampled_from([50.0, 200.0])),
    }


TROUBLES = (
    *[None] * 8,
    Trouble("later", "away"),
    Trouble("later", "busy", 30.0),
    Trouble("refused", "no"),
    Trouble("stop", "no"),
)
troubles = st.sampled_from(TROUBLES)
deeds = st.lists(
    st.builds(
        Deed,
        after_s=st.one_of(st.floats(0, 15), st.floats(0, 90)),
        plan=st.one_of(plans(), plans(), st.none()),
        pool=st.sampled_from([0, 0, 1]),
        trouble=troubles,
        stuck=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def lived(days: Iterable[Deed], entry: CloudEntry) -> tuple[Shop, dict[str, CapacityPlan]]:
    """A shop after all of it; and the plans that were made, by id."""
    shop = Shop(entry, cloud=Cloud(cold_start_s=15.0))
    shop.publish(FLEET if shop.ends == ENDS else fleet(endpoints=ENDS, version=2))
    made: dict[str, CapacityPlan] = {}
    for number, deed in enumerate(days):
        shop.run(deed.after_s)
        shop.cloud.trouble = {POOLS[deed.pool]: deed.trouble} if deed.trouble else {}
        shop.cloud.stuck = deed.stuck
        if deed.plan is not None:
            told = _told(deed.plan, number, shop.carrier.now_s)
            made[told["plan_id"]] = shop.plan(pool=POOLS[deed.pool], **told)
    shop.run(30)
    return shop, made


def _told(plan: dict[str, Any], number: int, now_s: float) -> dict[str, Any]:
    at_s = now_s - plan["old_s"]
    by = {"by": plan["by"], "until_s": now_s + plan["for_s"]} if plan["by"] else {}
    return {
        "plan_id": f"p{number}", "want": plan["want"], "made_at_s": at_s, "not_before_s": at_s + plan["late_s"], **by,
    }  # fmt: skip


@quick
@given(days=deeds)
def test_every_number_set_is_a_plans_own_within_bounds_not_before_its_time_and_taken_once(days: list[Deed]) -> None:
    entry = CloudEntry(pool="*", cool_down_s=40.0)
    shop, made = lived(days, entry)
    bounds, taken = bounds_of(FLEET), set()
    for pool, plan_id, want, at_s in shop.cloud.ran:
        if plan_id is None:
            continue
        plan = made[plan_id]
        assert plan.pool == pool
        assert want == clamped(plan.want, bounds[pool], entry)[0]
        assert T0 + at_s >= plan.not_before_s - 0.001
        until_s = plan.until_s if plan.until_s is not None else plan.made_at_s + entry.plan_age_s
        assert T0 + at_s < until_s
        if (receipts := [said for said in shop.said if said.plan_id == plan_id]) and T0 + at_s > receipts[0].at_s + 60:
            taken.add(plan_id)
    again = {said.plan_id for said in shop.said} & taken
    assert all(made[plan_id].by == "" for plan_id in again if plan_id), "only what an operator interrupted comes back"


@quick
@given(days=deeds)
def test_while_an_operator_holds_a_pool_no_other_plan_is_carried_out(days: list[Deed]) -> None:
    shop, made = lived(days, CloudEntry(pool="*"))
    sent = {
        msgspec.json.decode(m.value)["plan_id"]: m.timestamp / 1000 for m in shop.carrier.said(topics.CAPACITY_PLAN)
    }
    for pool, plan_id, _, at_s in shop.cloud.ran:
        if plan_id is None or made[plan_id].by:
            continue
        theirs = [plan for plan in made.values() if plan.pool == pool and plan.by]
        if any(abs(sent[plan.plan_id] - T0 - at_s) < 0.01 for plan in theirs):
            continue  # which of the two came first is not told by their times
        known = [plan for plan in theirs if sent[plan.plan_id] < T0 + at_s]
        last = max(known, key=lambda plan: (plan.made_at_s, int(plan.plan_id[1:])), default=None)
        assert last is None or last.until_s is None or T0 + at_s >= last.until_s


@quick
@given(days=deeds)
def test_nothing_is_taken_away_while_a_pool_cools_down_unless_an_operator_says_so(days: list[Deed]) -> None:
    entry = CloudEntry(pool="*", cool_down_s=40.0)
    shop, made = lived(days, entry)
    now = dict.fromkeys(POOLS, 2)
    changed_s = dict.fromkeys(POOLS, -1000.0)
    for pool, plan_id, want, at_s in shop.cloud.ran:
        if plan_id is None or want is None or (pool, at_s) in shop.cloud.failures:
            continue
        if want < now[pool] and not made[plan_id].by:
            assert at_s - changed_s[pool] >= entry.cool_down_s - 0.001
        if want != now[pool]:
            now[pool], changed_s[pool] = want, at_s


@quick
@given(days=deeds)
def test_what_is_said_is_what_is_there_and_failures_only_grow(days: list[Deed]) -> None:
    shop, made = lived(days, CloudEntry(pool="*"))
    failed = dict.fromkeys(POOLS, 0)
    for said in shop.said:
        assert said.failed >= failed[said.pool]
        failed[said.pool] = said.failed
        assert said.plan_id is None or said.plan_id in made
        assert said.at_s <= shop.carrier.now_s
    for pool, target in shop.cloud.targets.items():
        last = [said for said in shop.said if said.pool == pool][-1]
        if not shop.cloud.trouble:
            assert last.ready + last.starting <= max(10, target.want)


# ---------------------------------------------------------------- however it is cut


@st.composite
def heard(draw: st.DrawFn) -> list[tuple[Topic, str, msgspec.Struct | None]]:
    """Plans, tombstones and words of an owner before us, in the order of each topic."""
    said: list[tuple[Topic, str, msgspec.Struct | None]] = []
    for number in range(draw(st.integers(0, 6))):
        pool = draw(st.sampled_from(POOLS))
        plan = CapacityPlan(pool=pool, have=2, reason="noon", **_told(draw(plans()), number, T0 + number))
        said.append((topics.CAPACITY_PLAN, pool, None if draw(st.integers(0, 4)) == 0 else plan))
    for number in range(draw(st.integers(0, 4))):
        pool = draw(st.sampled_from(POOLS))
        word = Capacity(
            pool=pool, at_s=T0 + number, ready=draw(st.integers(0, 5)),
            plan_id=draw(st.sampled_from([None, "p0", "p1"])), failed=draw(st.integers(0, 3)),
            held_until_s=draw(st.sampled_from([None, T0 + 60, T0 + 500])),
        )  # fmt: skip
        said.append((topics.CAPACITY, pool, word))
    return said


def folded(said: list[tuple[Topic, str, msgspec.Struct | None]], cuts: Any, first: Topic) -> Pools:
    """The state after all of it, topic by topic (`first` first), in batches as `cuts` says, and the fleet somewhere."""
    stage, by_topic = CarryOut(Actuators(mode="act", pools=(CloudEntry(pool="*"),))), {}
    for topic in sorted({t.name for t, *_ in said} | {topics.FLEET.name}, key=lambda name: (name != first.name, name)):
        these = [(k, v) for t, k, v in said if t.name == topic] or [("default", FLEET)]
        if topic == topics.FLEET.name:
            these = [("default", FLEET)]
        by_topic[topic] = [
            Message(n, int((T0 + n) * 1000), key.encode(), None if value is None else msgspec.json.encode(value))
            for n, (key, value) in enumerate(these)
        ]
    state = stage.empty()
    edges = {t.name: Edge[Any](t) for t in (topics.FLEET, topics.CAPACITY_PLAN, topics.CAPACITY)}
    for topic, messages in by_topic.items():
        while messages:
            upto = 1 + cuts(len(messages))
            batch, messages = Batch(topic, 0, messages[:upto]), messages[upto:]
            state = stage.fold(state, edges[topic].open(batch)[0])
    return state


@quick
@given(said=heard(), data=st.data(), after_s=st.floats(0, 600))
def test_however_batches_are_cut_and_topics_come_the_same_is_done_and_said(
    said: list[tuple[Topic, str, msgspec.Struct | None]], data: st.DataObject, after_s: float
) -> None:
    stage = CarryOut(Actuators(mode="act", pools=(CloudEntry(pool="*"),)))

    def then(state: Pools) -> tuple[Any, ...]:
        state = stage.advance(state, T0 + 10 + after_s)
        looks = {e.on: None if e.what is None else (e.what.of, e.what.plan.want) for e in stage.errands(state)}
        return looks, tuple(stage.view(state, T0 + 10 + after_s))

    whole = folded(said, lambda _: 10**6, topics.FLEET)
    parts = folded(
        said,
        lambda left: data.draw(st.integers(0, left - 1)),
        data.draw(st.sampled_from([topics.FLEET, topics.CAPACITY, topics.CAPACITY_PLAN])),
    )
    assert then(whole) == then(parts)


@quick
@given(said=heard(), after_s=st.floats(0, 600))
def test_a_view_and_a_look_at_errands_change_nothing(
    said: list[tuple[Topic, str, msgspec.Struct | None]], after_s: float
) -> None:
    stage = CarryOut(Actuators(mode="act", pools=(CloudEntry(pool="*"),)))
    state = stage.advance(folded(said, lambda _: 10**6, topics.FLEET), T0 + after_s)
    first = (tuple(stage.errands(state)), tuple(stage.view(state, T0 + after_s)))
    assert (tuple(stage.errands(state)), tuple(stage.view(state, T0 + after_s))) == first
    assert all(errand.what is None or isinstance(errand.what, Order) for errand in first[0])
    state = stage.advance(state, T0 + after_s)
    assert tuple(stage.view(state, T0 + after_s)) == (), "news is said once"
