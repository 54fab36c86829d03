"""The parts of who carries plans out: entries, bounds, launches, and the hands that nothing surprises."""

from __future__ import annotations

import asyncio
import doctest
import time
from typing import Any

import msgspec
import pytest

from router_sync.actuators import aws_asg, bounds, entry, hands, kubernetes, launches, told, webhook
from router_sync.actuators.around import Around, threads
from router_sync.actuators.bounds import Bounds, bounds_of, clamped
from router_sync.actuators.dry_run import DryRunEntry
from router_sync.actuators.entry import filled
from router_sync.actuators.hands import AT_ONCE, Hands, _Arm
from router_sync.actuators.launches import KEPT, Launches
from router_sync.actuators.protocol import Later, Receipt, Replicas
from router_sync.actuators.section import Actuators
from router_sync.actuators.standing import Brought, Order, Patience, Trouble
from router_sync.actuators.webhook import WebhookEntry
from router_sync.gateway.secret import Reference
from streams.contract.errors import Refused, Retry, Stop
from streams.contract.records import CapacityPlan
from streams.runtime.step import Errand
from tests.unit.pretend_cloud import CloudEntry, end
from tests.unit.router_fleet import fleet

POOL = "aws/eu/eu-a/g6/spot"
PLAN = CapacityPlan(pool=POOL, plan_id="p-1", made_at_s=9.0, want=4, have=2, not_before_s=9.0, reason="noon")


# ---------------------------------------------------------------- entries


def test_the_first_entry_that_fits_has_a_pool_and_what_none_fits_is_dry_run() -> None:
    section = Actuators(pools=(CloudEntry(pool="aws/*/spot"), CloudEntry(pool="aws/*"), CloudEntry(pool="aws/eu/*")))
    assert [section.number(pool) for pool in (POOL, "aws/eu/a/g6/on_demand", "gcp/x")] == [0, 1, 3]
    assert isinstance(section.entries[3], DryRunEntry)


@pytest.mark.parametrize(
    ("section", "own", "acts"),
    [("dry_run", None, False), ("act", None, True), ("dry_run", "act", True), ("act", "dry_run", False)],
)
def test_an_entrys_mode_goes_before_the_sections_and_the_default_does_nothing(
    section: Any, own: Any, acts: bool
) -> None:
    assert Actuators(mode=section).acts(CloudEntry(pool="*", mode=own)) == acts
    assert not Actuators(mode="act").acts(DryRunEntry(pool="*", mode="act"))
    assert Actuators().mode == "dry_run"


def test_the_parts_of_a_pool_stand_where_they_are_named() -> None:
    assert filled("{provider}-{region}-{zone}-{instance}-{market}", POOL) == "aws-eu-eu-a-g6-spot"
    assert filled("vllm", "whatever") == "vllm"
    with pytest.raises(Stop, match="not just the parts"):
        filled("{zone}", "a/b/c/d/e/f")


def test_bounds_are_those_of_all_endpoints_of_a_pool_together() -> None:
    twins = [
        end("a", replicas=2, least_replicas=1, most_replicas=5, cold_start_s=30.0),
        end("b", zone="a", replicas=3, most_replicas=None, cold_start_s=90.0),
        end("c", replicas=1),
    ]
    found = bounds_of(fleet(endpoints=twins))
    assert found[twins[0].pool] == Bounds(least=1, most=8, replicas=5, cold_start_s=90.0)
    assert len(found) == 2


def test_where_bounds_cross_the_upper_one_holds() -> None:
    assert clamped(1, Bounds(least=2, most=4), CloudEntry(pool="*", least=9)) == (
        4,
        "wants 1, the actuator's least is 9",
    )


# ---------------------------------------------------------------- launches


def test_nine_in_ten_launches_were_as_quick_as_the_cold_start_says() -> None:
    assert Launches(took_s=[float(n) for n in range(1, 21)]).cold_start_s == 18.0
    assert Launches(took_s=[5.0, 6.0], before_s=40.0).cold_start_s == 40.0
    assert Launches(took_s=[5.0]).cold_start_s is None


def test_the_oldest_launch_is_ready_first_and_only_the_last_are_looked_back_on() -> None:
    mine = Launches()
    mine.begin(2, 100.0)
    mine.begin(1, 110.0)
    assert mine.arrive(1, 130.0) == [30.0]
    assert mine.arrive(5, 140.0) == [40.0, 30.0], "what else became ready was not ours"
    mine.begin(50, 0.0)
    mine.arrive(50, 7.0)
    assert mine.took_s == [7.0] * KEPT


def test_patience_is_three_cold_starts_measured_before_declared_and_a_minute_at_least() -> None:
    assert Launches().patience_s(100.0) == 300.0
    assert Launches(before_s=50.0).patience_s(100.0) == 150.0
    assert Launches(before_s=1.0).patience_s(100.0) == 60.0


def test_waits_double_up_to_a_minute_and_one_success_ends_them() -> None:
    patience, waits = Patience(), []
    for _ in range(9):
        patience.failed(Trouble("later", "away"), 0.0)
        waits.append(patience.again_at_s)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    patience.over()
    patience.failed(Trouble("stop", "no right"), 0.0)
    assert patience.again_at_s == 60


# ---------------------------------------------------------------- examples


@pytest.mark.parametrize("module", [aws_asg, bounds, entry, kubernetes, launches, told, webhook])
def test_examples_in_the_code_say_what_comes_back(module: Any) -> None:
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)


# ---------------------------------------------------------------- hands


class Says:
    """An actuator that answers with what it is given, an error included, after a while."""

    def __init__(self, seen: Any = None, done: Any = None, takes_s: float = 0.0) -> None:
        self.seen, self.done, self.takes_s, self.under_way, self.most = seen, done, takes_s, 0, 0

    async def observe(self, pool: str) -> Replicas | None:
        return await self._say(self.seen)

    async def apply(self, plan: CapacityPlan) -> Receipt:
        return await self._say(self.done)

    async def _say(self, what: Any) -> Any:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.under_way -= 1
        if isinstance(what, Exception):
            raise what
        return what


def holding(*actuators: Says, **more: Any) -> Hands:
    entries = [CloudEntry(pool=f"p{n}/*", **({"deadline_s": 1.0} | more)) for n in range(len(actuators))]
    arms = [_Arm(e, a, asyncio.Semaphore(AT_ONCE)) for e, a in zip(entries, actuators, strict=True)]
    return Hands(Actuators(pools=tuple(entries)), arms, Around(now_s=lambda: 50.0))


def order(pool: str = "p0/x") -> Order:
    return Order("p-1", msgspec.structs.replace(PLAN, pool=pool))


async def test_an_order_is_carried_out_and_then_the_pool_is_looked_at() -> None:
    mine = holding(Says(Replicas(4, 0, 4), Receipt(4)))
    assert await mine.run(Errand("p0/x", order())) == Brought(50.0, 50.0, Replicas(4, 0, 4), Receipt(4))
    assert await mine.run(Errand("p0/x", None)) == Brought(50.0, 50.0, Replicas(4, 0, 4))


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (Later("busy", 7.0), Trouble("later", "busy", 7.0)),
        (Retry("busy"), Trouble("later", "busy")),
        (Refused("want", 4, "too many"), Trouble("refused", "want: too many (got 4)")),
        (Stop("No right", "Grant it"), Trouble("stop", "No right. Grant it")),
        (KeyError("mistake"), Trouble("later", "KeyError('mistake')")),
        (TimeoutError(), Trouble("later", "no answer within 1 s")),
    ],
)
async def test_whatever_an_actuator_raises_comes_back_as_trouble(error: Exception, trouble: Trouble) -> None:
    brought = await holding(Says(Replicas(2), error)).run(Errand("p0/x", order()))
    assert (brought.receipt, brought.trouble, brought.seen, brought.blind) == (None, trouble, Replicas(2), None)
    brought = await holding(Says(error, Receipt(4))).run(Errand("p0/x", order()))
    assert (brought.receipt, brought.trouble, brought.seen, brought.blind) == (Receipt(4), None, None, trouble)


async def test_an_actuator_that_hangs_is_given_up_at_its_deadline_and_holds_up_no_other() -> None:
    hangs, works = Says(Replicas(2), Receipt(4), takes_s=60.0), Says(Replicas(2), Receipt(4))
    mine = holding(hangs, works)
    stuck = [asyncio.create_task(mine.run(Errand(f"p0/{n}", None))) for n in range(3 * AT_ONCE)]
    await asyncio.sleep(0)
    began_s = time.monotonic()
    assert (await mine.run(Errand("p1/x", None))).seen == Replicas(2)
    assert time.monotonic() - began_s < 0.5
    assert (await stuck[0]).blind == Trouble("later", "no answer within 1 s")
    assert hangs.most == AT_ONCE
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_a_thread_that_hangs_is_not_waited_for() -> None:
    began_s = time.monotonic()
    with threads("slow", 2) as call:
        hanging = asyncio.ensure_future(call(time.sleep, 1.0))
        assert await call(lambda: 5) == 5
    assert time.monotonic() - began_s < 0.9
    await hanging


def test_what_an_actuator_lacks_is_found_before_anything_runs() -> None:
    hands.examine(Actuators(), Around())
    hook = WebhookEntry(pool="*", url="https://hook.example", secret=Reference(env="HOOK"))
    with pytest.raises(Stop, match="HOOK"):
        hands.examine(Actuators(pools=(hook,)), Around())
