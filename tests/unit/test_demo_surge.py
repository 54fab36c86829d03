"""The surge scenario: a cloud that launches, the hook before it, endpoints that grow, and what is made of a run."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from router_sync.actuators import webhook
from router_sync.actuators.around import Around
from router_sync.actuators.webhook import Webhook, WebhookEntry
from streams.contract.errors import BadSetting, Stop
from streams.contract.records import Capacity, CapacityPlan, Fleet
from tests.unit.router_fleet import fleet
from tests.unit.test_demo_scenarios import outcome, shed
from tradewind.config.actuators import actuators_of
from tradewind.demo import hook, parts, scenarios
from tradewind.demo.checks import check_cold_start
from tradewind.demo.cloud import Cloud, Machines, declaring
from tradewind.demo.options import Options
from tradewind.demo.parts.run import Run
from tradewind.load import load, parse_surges

SURGE = scenarios.load("surge")
NAMES = [e.name for e in SURGE.fleet.endpoints]
POOLS = [e.pool for e in SURGE.fleet.endpoints]
KEY = b"0123456789abcdef0123456789abcdef"

# ---------------------------------------------------------------- the scenario


def test_the_standing_fleet_holds_the_usual_and_the_largest_one_ten_times_as_much() -> None:
    ends, usual_rps = SURGE.fleet.endpoints, SURGE.scenario.rps
    assert sum(e.replicas * e.capacity_rps for e in ends) >= 2 * usual_rps
    assert sum(e.replicas * e.capacity_rps for e in ends) < 10 * usual_rps
    assert sum((e.most_replicas or 0) * e.capacity_rps for e in ends) >= 20 * usual_rps
    assert {c.tier for c in SURGE.fleet.services[0].classes} == {"premium", "standard", "sheddable"}
    assert len(set(POOLS)) == len(POOLS), "an endpoint has its pool's replicas, all of them"


def test_arrivals_are_even_so_that_tenfold_is_tenfold() -> None:
    options = Options(scenario="surge").settled(SURGE.scenario)
    assert (options.surge, options.cold_start_s, options.rps) == ("10x@30", 20.0, 8.0)
    assert options.trace is not None
    at_s = load(options.trace, seconds=60, seed=1, mean_rps=8.0, surges=parse_surges(options.surge)).at_s
    usual, surge = (at_s < 30).sum() / 30, (at_s >= 30).sum() / 30
    assert usual == pytest.approx(8.0, rel=0.2)
    assert surge == pytest.approx(80.0, rel=0.1)


def test_what_the_command_says_goes_before_the_scenario(tmp_path: Path) -> None:
    given = Options(surge="3x@5", cold_start_s=7.0, rps=3.0, trace=tmp_path)
    assert given.settled(SURGE.scenario) == given


@pytest.mark.parametrize(
    ("seconds", "scenario", "remedy"),
    [(60.0, "surge", "--seconds 70 or more"), (90.0, "spot", "Only --scenario surge")],
)
def test_a_cold_start_that_nobody_would_see_is_refused(seconds: float, scenario: str, remedy: str) -> None:
    of = scenarios.load(scenario).scenario
    with pytest.raises(BadSetting, match=remedy):
        check_cold_start(Options(seconds=seconds, cold_start_s=20.0).settled(of), of)
    for lasts_s in (61.0, None):
        check_cold_start(Options(seconds=lasts_s).settled(SURGE.scenario), SURGE.scenario)
    check_cold_start(Options().settled(scenarios.load("loop").scenario), scenarios.load("loop").scenario)


def test_the_fleet_says_how_slowly_its_pools_start() -> None:
    assert {e.cold_start_s for e in declaring(SURGE.fleet, 7.0).endpoints} == {7.0}
    fixed = fleet()
    assert declaring(fixed, 7.0) == fixed, "what is not planned is as it was"


# ---------------------------------------------------------------- the cloud


def test_launches_are_ready_a_cold_start_later_each_by_itself() -> None:
    machines = Machines(1, most=10)
    machines.set(4, 120.0)
    machines.set(4, 121.0)
    machines.set(6, 125.0)
    assert (machines.ready, machines.due_at_s, machines.want) == (1, [120.0, 120.0, 120.0, 125.0, 125.0], 6)
    machines.advance(119.9)
    assert machines.ready == 1
    machines.advance(120.0)
    assert (machines.ready, machines.want) == (4, 6)


def test_what_is_let_go_are_the_last_launches_and_then_what_is_ready_within_bounds() -> None:
    machines = Machines(3, [120.0, 130.0], least=2, most=10)
    machines.set(4, 200.0)
    assert (machines.ready, machines.due_at_s) == (3, [120.0])
    machines.set(0, 200.0)
    assert (machines.ready, machines.due_at_s) == (2, [])
    machines.set(99, 200.0)
    assert machines.want == 10


async def test_endpoints_hear_of_replicas_until_they_have_heard() -> None:
    now_s, heard, notes, answers = 100.0, list[tuple[str, int]](), asyncio.Queue[str](), [True, False]

    async def scale(name: str, ready: int) -> bool:
        heard.append((name, ready))
        return answers.pop()

    cloud = Cloud(SURGE.fleet, 20.0, lambda: now_s)
    running = asyncio.create_task(cloud.run(scale, notes.put_nowait))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        cloud.set(POOLS[1], 3)
        assert await notes.get() == f"{NAMES[1]}: 1 ready, 2 starting"
        assert heard == []
        now_s = 120.0
        assert await notes.get() == f"{NAMES[1]}: 3 ready, 0 starting"
    running.cancel()
    assert heard == [(NAMES[1], 3)] * 2, "the first time it was away"


# ---------------------------------------------------------------- the hook


def plan(pool: str = POOLS[0], want: int = 5, plan_id: str = "p", made_at_s: float = 100.0) -> CapacityPlan:
    return CapacityPlan(
        pool=pool, plan_id=plan_id, made_at_s=made_at_s, want=want, have=1, not_before_s=made_at_s, reason="surge"
    )


@contextlib.asynccontextmanager
async def served(cloud: Cloud, now_s: float = 100.0) -> AsyncIterator[str]:
    runner = web.AppRunner(hook.Hook(cloud, KEY, lambda: now_s).app(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, hook.HOST, 0).start()
        yield f"http://{hook.HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def actuator(url: str, key: bytes = KEY, now_s: float = 100.0) -> AsyncIterator[Webhook]:
    entry: dict[str, Any] = {"pool": "*", "url": f"{url}/plans", "observe_url": f"{url}/replicas"}
    around = Around({"HOOK": f"whsec_{base64.b64encode(key).decode()}"}, lambda: now_s)
    made = WebhookEntry(secret=hook.Reference(env="HOOK"), **entry)
    async with webhook.opened(made, True, around) as actuates:
        yield actuates


async def test_the_products_own_actuator_has_its_plans_carried_out_and_sees_what_there_is() -> None:
    cloud = Cloud(SURGE.fleet, 20.0, lambda: 100.0)
    async with served(cloud) as url, actuator(url) as ours:
        for _ in range(2):  # the same plan again changes nothing
            assert (await ours.apply(plan(want=5))).want == 5
            seen = await ours.observe(POOLS[0])
            assert seen is not None
            assert (seen.ready, seen.starting, seen.want) == (1, 4, 5)
    assert cloud.pools[POOLS[0]].due_at_s == [120.0] * 4


@pytest.mark.parametrize(("key", "now_s"), [(b"another key, of thirty-two bytes", 100.0), (KEY, 401.0)])
async def test_what_is_signed_by_others_or_long_ago_changes_nothing(key: bytes, now_s: float) -> None:
    cloud = Cloud(SURGE.fleet, 20.0, lambda: now_s)
    async with served(cloud, now_s) as url, actuator(url, key) as ours:
        with pytest.raises(Stop, match="no signature of ours"):
            await ours.apply(plan())
        with pytest.raises(Stop, match="no signature of ours"):
            await ours.observe(POOLS[0])
        async with aiohttp.ClientSession() as http, http.post(f"{url}/plans", data=b"{}") as answer:
            assert answer.status == 401
    assert cloud.pools[POOLS[0]].want == 1


async def test_pools_and_plans_that_are_none_are_refused() -> None:
    cloud = Cloud(SURGE.fleet, 20.0, lambda: 100.0)
    async with served(cloud) as url, actuator(url) as ours, aiohttp.ClientSession() as http:
        with pytest.raises(Stop, match="no pool lab"):
            await ours.apply(plan(pool="lab"))
        with pytest.raises(Stop, match="no pool lab"):
            await ours.observe("lab")
        for body in (b"{}", b"\xff", b'{"data": {"pool": "a", "want": -1}}'):
            signed = webhook.headers_of("p", body, [KEY], 100.0)
            async with http.post(f"{url}/plans", data=body, headers=signed) as answer:
                assert answer.status == 400


async def test_the_actuators_worker_is_told_where_to_post_and_the_secret_is_nobody_elses(tmp_path: Path) -> None:
    cloud = Cloud(SURGE.fleet, 20.0, lambda: 100.0)
    async with hook.listening(cloud, tmp_path, 0, lambda: 100.0) as config:
        section = actuators_of(config)
    (entry,) = section.pools
    assert isinstance(entry, WebhookEntry)
    assert section.acts(entry)
    assert entry.secret.file is not None
    assert stat.S_IMODE(entry.secret.file.stat().st_mode) == 0o600
    assert entry.secret.file.read_text() not in config.read_text()


# ---------------------------------------------------------------- measured

TENFOLD = {"surges": parse_surges("10x@30"), "cold_start_s": 20.0}


def found(of: Fleet = SURGE.fleet, **more: Any) -> dict[str, Any]:
    return parts.measured(Run(**{"fleet": of, "outcomes": (), **TENFOLD, **more}), ["admitted_in_slo", "plans"])


def asked(at_s: float, cls: str = "interactive", **more: Any) -> Any:
    return outcome(at_s, cls, **more)


def test_only_what_was_let_in_after_a_cold_start_and_an_interval_counts() -> None:
    told = found(
        outcomes=[
            asked(10, total_ms=900.0),  # no surge yet
            asked(59.9, total_ms=900.0),  # not promised yet
            shed(40, "batch"), shed(59, "reports"), shed(61, "batch"),
            asked(60), asked(61), asked(62, total_ms=301.0), asked(63, "batch", total_ms=4999.0),
            asked(64, ok=False, error="connect"),
        ]
    )  # fmt: skip
    assert (told["promised_at_s"], told["admitted_in_slo"]) == (60.0, 0.6)
    after = told["admitted"]["premium"]["after"]
    assert (after.admitted, after.in_slo, after.failed, after.p95_ms) == (4, 2, 1, 301.0)
    before = told["admitted"]["premium"]["before"]
    assert (before.admitted, before.in_slo) == (1, 0), "what was late before is told too"
    batch = told["shed_by_tier"]["sheddable"]
    assert (batch["before"].arrived, batch["before"].shed) == (1, 1)
    assert (batch["after"].arrived, batch["after"].shed) == (2, 1)
    assert "after" not in told["shed_by_tier"]["standard"]


def test_after_the_surge_nothing_is_promised_and_without_one_nothing_is_told() -> None:
    assert (
        found(surges=parse_surges("10x@30-62"), outcomes=[asked(61), asked(62, total_ms=999.0)])["admitted_in_slo"] == 1
    )
    told = found(surges=(), outcomes=[asked(61)])
    assert (told["promised_at_s"], told["admitted_in_slo"], told["shed_by_tier"]) == (None, None, {})
    assert (told["plans"].first_after_s, told["plans"].ready_after_s, told["plans"].needed_rps) == (None, None, None)
    assert parts.told(told, ["admitted_in_slo"]) == []


def seen(ready: int, starting: int = 0, pool: str = POOLS[0], plan_id: str | None = None) -> Capacity:
    return Capacity(pool=pool, at_s=0.0, ready=ready, starting=starting, plan_id=plan_id, cold_start_s=21.0)


def test_plans_are_told_by_what_the_topics_said_and_when() -> None:
    load_ = [asked(30 + n / 60) for n in range(60 * 60)]  # 60 a second
    told = found(
        outcomes=load_,
        plans=[(-1.0, plan(want=1)), (29.0, plan(want=2, plan_id="early")), (34.2, plan(want=7, plan_id="up")),
               (36.0, plan(want=7, plan_id="same")), (37.0, plan(POOLS[1], 1, "first"))],
        capacity=[(-0.5, seen(1, plan_id="p")), (35.0, seen(1, 6, plan_id="up")), (55.5, seen(7, plan_id="up"))],
    )  # fmt: skip
    plans = told["plans"]
    assert (plans.made, plans.raised, plans.carried_out) == (5, 1, 2)
    assert (plans.first_after_s, plans.needed_rps, plans.cold_start_s) == (4.2, 60.0, 21.0)
    assert (plans.ready_after_s, plans.early_s) == (25.5, 4.5)
    assert [(at.at_s, at.want, at.ready, at.starting) for at in told["replicas"]] == [
        (-1.0, 4, 4, 0), (29.0, 5, 4, 0), (34.2, 10, 4, 0), (35.0, 10, 4, 6), (55.5, 10, 10, 0)
    ]  # fmt: skip
    said = parts.told(told, ["plans"])
    assert said[1:3] == [
        "the first came 4.2 s after the surge began",
        "capacity for 60 requests/s was ready 25.5 s after it, 4.5 s before it was due",
    ]
    assert "██████████ 10 ready, 0 starting, 10 planned" in said[-1]


def test_capacity_that_goes_again_was_not_there_and_what_never_came_is_said() -> None:
    load_ = [asked(30 + n / 60) for n in range(60 * 60)]
    went = found(outcomes=load_, capacity=[(50.0, seen(7)), (60.0, seen(2)), (75.0, seen(7))])
    assert (went["plans"].ready_after_s, went["plans"].early_s) == (45.0, -15.0)
    assert "15 s after it was due" in "\n".join(parts.told(went, ["plans"]))
    never = found(outcomes=load_, capacity=[(50.0, seen(2))])
    assert (never["plans"].ready_after_s, never["plans"].early_s) == (None, None)
    assert "was not ready when the surge ended" in "\n".join(parts.told(never, ["plans"]))


def test_what_was_ready_before_the_surge_was_ready_at_once() -> None:
    load_ = [asked(30 + n / 60) for n in range(60 * 60)]
    assert found(outcomes=load_, capacity=[(5.0, seen(9))])["plans"].ready_after_s == 0.0


def test_people_are_told_who_was_shed_and_who_was_late() -> None:
    told = found(outcomes=[shed(40, "batch"), asked(40, total_ms=400.0), asked(61), asked(62)])
    assert parts.told(told, ["admitted_in_slo"]) == [
        "from 60 s on (the surge, a cold start, an interval of the planner) 100.00% of what was let in was in SLO",
        "  until then, premium: 0 of 1 shed; of 1 let in 0 were in SLO (p95 400 ms), 0 failed",
        "  until then, sheddable: 1 of 1 shed; of 0 let in 0 were in SLO, 0 failed",
        "  from then on, premium: 0 of 2 shed; of 2 let in 2 were in SLO (p95 50 ms), 0 failed",
    ]
    machines_are_told = msgspec.to_builtins(told)["shed_by_tier"]
    assert machines_are_told["sheddable"] == {"before": {"arrived": 1, "shed": 1}}
