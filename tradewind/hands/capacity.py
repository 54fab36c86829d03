"""Capacity as the topics have it: what is planned of each pool, what actuators said; and an operator's own plan."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from router_sync.actuators.bounds import Bounds, bounds_of
from router_sync.actuators.told import UNDER_WAY
from router_sync.orders import meant
from streams.contract import topics
from streams.contract.errors import BadSetting, Missing
from streams.contract.records import Capacity, CapacityPlan
from streams.runtime import cloudevents
from streams.settings import Settings
from tradewind.hands import facts, kafka
from tradewind.hands.text import ago, at, columns

WAIT_S: Final = 10.0


class PoolState(msgspec.Struct, frozen=True, kw_only=True):
    """One pool: the last plan, and the last word of whoever carries plans out; None where there is none."""

    pool: str
    least: int
    most: int
    declared: int
    """Replicas of the fleet file."""
    plan: CapacityPlan | None
    plan_age_s: float | None
    capacity: Capacity | None
    capacity_age_s: float | None
    """Since its actuator saw the pool."""
    carried_out: bool
    """Whether the plan is the one that was carried out last."""


async def pools(consumer: Any, settings: Settings, now_s: float) -> list[PoolState]:
    """All pools of the fleet, by name. Raises as `kafka.answering` does."""
    fleet = await facts.fleet(consumer, settings)
    plans = facts.last_words(await kafka.held(consumer, settings, topics.CAPACITY_PLAN), CapacityPlan)
    said = facts.last_words(await kafka.held(consumer, settings, topics.CAPACITY), Capacity)
    return [
        _state(pool, bounds, _record(plans, pool), _record(said, pool), now_s)
        for pool, bounds in sorted(bounds_of(fleet).items())
    ]


def _record(facts_: dict[str, facts.Fact], pool: str) -> Any:
    return facts_[pool].record if pool in facts_ else None


def _state(pool: str, bounds: Bounds, plan: CapacityPlan | None, capacity: Capacity | None, now_s: float) -> PoolState:
    return PoolState(
        pool=pool, least=bounds.least, most=bounds.most, declared=bounds.replicas,
        plan=plan, plan_age_s=None if plan is None else round(now_s - plan.made_at_s, 3),
        capacity=capacity, capacity_age_s=None if capacity is None else round(now_s - capacity.at_s, 3),
        carried_out=plan is not None and capacity is not None and capacity.plan_id == plan.plan_id,
    )  # fmt: skip


# ---------------------------------------------------------------- in words


def lines(states: Sequence[PoolState]) -> Iterator[str]:
    """A table for people, and below it what is to be said of single pools."""
    head = ("POOL", "WANT", "READY", "STARTING", "FAILED", "COLD START", "SEEN", "PLAN")
    yield from columns([head, *(_row(state) for state in states)])
    for state in states:
        if state.capacity is not None and state.capacity.note:
            yield f"{state.pool}: {state.capacity.note}"


def _row(state: PoolState) -> tuple[object, ...]:
    said, plan = state.capacity, state.plan
    cold_s = None if said is None else said.cold_start_s
    return (
        state.pool,
        "-" if plan is None else plan.want,
        f"({state.declared})" if said is None else said.ready,
        "-" if said is None else said.starting,
        "-" if said is None else said.failed,
        "-" if cold_s is None else f"{cold_s:.0f} s",
        "never" if state.capacity_age_s is None else f"{ago(state.capacity_age_s)} ago",
        _of_plan(state),
    )


def _of_plan(state: PoolState) -> str:
    plan = state.plan
    if plan is None:
        return "none"
    whose = f" by {plan.by} until {at(plan.until_s)}" if plan.by and plan.until_s is not None else ""
    done = "carried out" if state.carried_out else "not carried out"
    return f"{plan.plan_id}{whose}, {done}, {ago(state.plan_age_s)} old: {plan.reason}"


# ---------------------------------------------------------------- an operator's own


def pool_of(states: Sequence[PoolState], name: str) -> PoolState:
    """The pool of that name. Raises BadSetting with the name that was meant."""
    known = {state.pool: state for state in states}
    if name in known:
        return known[name]
    hint = meant(name, known).lstrip(": ") or f"The fleet has {', '.join(sorted(known)[:12])}"
    raise BadSetting("argument", "POOL", name, f"{hint[:1].upper()}{hint[1:]}")


def check(state: PoolState, want: int) -> None:
    """Raises BadSetting for a number that the fleet does not let anybody plan."""
    if want > state.most:
        remedy = f"The fleet lets plans ask for {state.most} at most: raise most_replicas of its endpoints"
        raise BadSetting("flag", "--want", want, remedy)
    if want < state.least:
        remedy = f"The fleet asks for {state.least} at least: lower least_replicas of its endpoints"
        raise BadSetting("flag", "--want", want, remedy)


def has(state: PoolState) -> int:
    """Replicas that there are, or are coming; as declared where nobody has said."""
    return state.declared if state.capacity is None else state.capacity.ready + state.capacity.starting


async def give(
    settings: Settings, pool: str, plan: CapacityPlan | None, clock: Callable[[], float], wait: bool
) -> Capacity | None:
    """Send `plan` (None: all plans for `pool` are taken back); with `wait` what the actuator says to it.

    Raises Missing when Kafka does not take it, or no actuator says anything within WAIT_S: then it stands all the same.
    """
    async with kafka.reader(settings) as consumer:
        place = await kafka.place_of(consumer, settings, topics.CAPACITY)
        consumer.seek(place, await kafka.begin(consumer, settings, place))
        await _send(settings, pool, plan, clock())
        return await _answer(consumer, place, pool, plan) if wait and plan is not None else None


async def _answer(consumer: Any, place: Any, pool: str, plan: CapacityPlan) -> Capacity:
    """What is said of the plan when it is not under way any more, or else what was said last."""
    last: Capacity | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            while last is None or UNDER_WAY in last.note:
                for record in (await consumer.getmany(place, timeout_ms=100)).get(place, []):
                    said = _said(record, pool)
                    last = said if said is not None and _is_about(said, plan) else last
    if last is not None:
        return last
    raise Missing(
        f"The plan for {pool} was sent, and no actuator has said anything to it within {WAIT_S:g} s",
        "It stands, and is carried out as soon as one reads it: does a `tradewind worker actuators` run? In case it "
        "was refused: `tradewind dead-letters list --topic capacity-plan.v1`",
    )


def _said(record: Any, pool: str) -> Capacity | None:
    try:
        return msgspec.json.decode(record.value or b"", type=Capacity) if record.key == pool.encode() else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _is_about(said: Capacity, plan: CapacityPlan) -> bool:
    return plan.plan_id in (said.plan_id, *said.note.replace(":", " ").split())


async def _send(settings: Settings, pool: str, plan: CapacityPlan | None, now_s: float) -> None:
    topic = topics.CAPACITY_PLAN
    headers = cloudevents.headers(topic.name, source="tradewind-hands", event_id=f"{pool}/{now_s:.6f}", now_s=now_s)
    value = None if plan is None else msgspec.json.encode(plan)
    async with kafka.sender(settings) as producer, kafka.answering(settings, operation="WRITE"):
        await producer.send_and_wait(
            topic.full(settings.topic_prefix), value, key=pool.encode(), headers=headers if value else None
        )
