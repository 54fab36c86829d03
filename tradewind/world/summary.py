"""What a run came to: requests by fate, money and carbon by hour, the law, the tables, and what was assumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from streams.contract.records import Budget
from tradewind.world.brain import Expect, House
from tradewind.world.demand import DAY_S
from tradewind.world.engine import SPREAD
from tradewind.world.gateway import RETRIES
from tradewind.world.ground import Flow
from tradewind.world.ledger import FATES, IDLE_POWER, Ledger
from tradewind.world.market import HOUR_S
from tradewind.world.replicas import COLD_NOISE, DRAIN_S
from tradewind.world.setup import Setup
from tradewind.world.timeline import Moment, telling
from tradewind.world.window import MOST
from tradewind.world.world import World


class Fates(msgspec.Struct, frozen=True, kw_only=True):
    """Requests by what became of them; the four add up to `demand`."""

    demand: int
    served: int
    late: int
    shed: int
    failed: int

    @property
    def violated(self) -> float:
        """The share that was not served."""
        return 1.0 - self.served / self.demand if self.demand else 0.0


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of the run."""

    at_s: float
    requests: Fates
    usd: float
    carbon_kg: float
    replica_h: float


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What was paid, in dollars; `carbon_kg` of CO2-equivalent."""

    usd: float
    replicas_usd: float
    start_usd: float
    """Of that: while replicas start and while they leave."""
    egress_usd: float
    used_usd: float
    """What the answers would have cost at full replicas; the rest of what was paid stood idle."""
    usd_per_million: float | None
    """Of requests served."""
    carbon_kg: float
    used_carbon_kg: float
    replica_h: float


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """Work that may wait."""

    submitted: int
    requests: int
    """Of the jobs submitted."""
    sent: int
    """Of those, answered by now; the others wait, or are under way."""
    released: int
    """Jobs that began by the word of a release."""
    unanswered: int
    """That began at once: nobody keeps a queue."""
    last_moment: int
    """That began since else they would have come late."""


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that went where law does not let them."""

    flow: str
    endpoint: str
    requests: int
    rule: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How a budget was kept on one day, by the world's own account of what the answers cost."""

    budget: str
    unit: str
    day_at_s: float
    per_day: float
    spent: float


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """What was said to gateways."""

    said: int
    moved: int
    """Tables in which a share, a state or what is let in changed."""
    refused: int
    """By gateways."""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    scenario: str
    router: str
    expect: Expect
    seed: int
    from_s: float
    """Unix seconds."""
    until_s: float
    simulated_s: float
    ended_early: bool
    wall_s: float
    """On this machine, now: the one figure that the seed does not decide."""
    steps: int
    requests: Fates
    by_class: dict[str, Fates]
    by_tier: dict[str, Fates]
    by_origin: dict[str, Fates]
    conserved: bool
    """Whether demand = served + late + shed + failed, in each hour and flow."""
    breaches: int
    breached: list[Breach]
    checked: int
    """Requests that were held against the law."""
    cost: Cost
    hours: list[Hour]
    jobs: Jobs
    budgets: list[Kept]
    tables: Tables
    dead_letters: int
    assumptions: list[str]
    timeline: list[Moment]
    timeline_left_out: int


def cut(of: Summary, moments: int) -> Summary:
    """The same with so many moments of its timeline, the most telling."""
    shown = telling(of.timeline, moments)
    left_out = of.timeline_left_out + len(of.timeline) - len(shown)
    return msgspec.structs.replace(of, timeline=shown, timeline_left_out=left_out)


def summary(world: World, *, scenario: str, expect: Expect, wall_s: float, ended_early: bool) -> Summary:
    """What `world` came to."""
    ledger, timeline = world.ledger, world.timeline
    house = world.brain if isinstance(world.brain, House) else None
    return Summary(
        scenario=scenario,
        router=world.brain.name,
        expect=expect,
        seed=world.setup.seed,
        from_s=world.setup.start_s,
        until_s=world.now_s,
        simulated_s=world.now_s - world.setup.start_s,
        ended_early=ended_early,
        wall_s=round(wall_s, 3),
        steps=world.steps,
        requests=_fates(ledger, range(len(world.ground.flows))),
        by_class=_by(world, lambda flow: flow.class_.name),
        by_tier=_by(world, lambda flow: flow.class_.tier),
        by_origin=_by(world, lambda flow: flow.origin),
        conserved=ledger.conserved,
        breaches=sum(ledger.breaches.values()),
        breached=_breached(world),
        checked=ledger.checked,
        cost=_cost(ledger),
        hours=list(_hours(world)),
        jobs=_jobs(world),
        budgets=list(_budgets(world)),
        tables=Tables(
            said=timeline.tables,
            moved=sum(moment.what == "table" for moment in timeline.moments),
            refused=sum(house.follower.refusals().values()) if house is not None else 0,
        ),
        dead_letters=house.dead_letters if house is not None else 0,
        assumptions=assumptions(world.setup),
        timeline=sorted(timeline.moments, key=lambda moment: moment.at_s),
        timeline_left_out=timeline.left_out,
    )


def _fates(ledger: Ledger, flows: Sequence[int], hour: int | None = None) -> Fates:
    rows = slice(None) if hour is None else slice(hour, hour + 1)
    counts = {fate: int(ledger.fates[fate][rows, list(flows)].sum()) for fate in FATES}
    return Fates(demand=int(ledger.demand[rows, list(flows)].sum()), **counts)


def _by(world: World, of: Callable[[Flow], str]) -> dict[str, Fates]:
    """Fates by what `of` says of each flow; what nobody asked is left out."""
    groups: dict[str, list[int]] = {}
    for n, flow in enumerate(world.ground.flows):
        groups.setdefault(of(flow), []).append(n)
    found = {name: _fates(world.ledger, flows) for name, flows in groups.items()}
    return {name: fates for name, fates in found.items() if fates.demand}


def _breached(world: World) -> list[Breach]:
    ground = world.ground
    return [
        Breach(flow=ground.flows[f].words, endpoint=ground.ends[e].name, requests=count, rule=ground.forbidden[f, e])
        for (f, e), count in sorted(world.ledger.breaches.items())
    ]


def _hours(world: World) -> Iterable[Hour]:
    ledger, start_s = world.ledger, world.setup.start_s
    for n, money in enumerate(ledger.money):
        if start_s + n * HOUR_S < world.now_s:
            yield Hour(
                at_s=start_s + n * HOUR_S,
                requests=_fates(ledger, range(len(world.ground.flows)), n),
                usd=round(money.usd, 4),
                carbon_kg=round(money.carbon_g / 1000.0, 4),
                replica_h=round(money.replica_h, 3),
            )


def _cost(ledger: Ledger) -> Cost:
    usd, served = sum(money.usd for money in ledger.money), int(ledger.fates["served"].sum())
    return Cost(
        usd=round(usd, 4),
        replicas_usd=round(sum(money.replicas_usd for money in ledger.money), 4),
        start_usd=round(sum(money.start_usd for money in ledger.money), 4),
        egress_usd=round(sum(money.egress_usd for money in ledger.money), 4),
        used_usd=round(float(ledger.used_usd.sum()), 4),
        usd_per_million=round(1e6 * usd / served, 4) if served else None,
        carbon_kg=round(sum(money.carbon_g for money in ledger.money) / 1000.0, 4),
        used_carbon_kg=round(float(ledger.used_g.sum()) / 1000.0, 4),
        replica_h=round(sum(money.replica_h for money in ledger.money), 3),
    )


def _budgets(world: World) -> Iterable[Kept]:
    ledger, start_s = world.ledger, world.setup.start_s
    for budget in world.setup.fleet.budgets:
        flows = [n for n, flow in enumerate(world.ground.flows) if _in_scope(budget, flow)]
        spent: dict[float, float] = {}
        for n, used in enumerate(ledger.used_usd if budget.unit == "usd" else ledger.used_g):
            at_s = start_s + n * HOUR_S
            day_s = at_s - at_s % DAY_S
            spent[day_s] = spent.get(day_s, 0.0) + float(used[flows].sum())
        for day_s, amount in spent.items():
            yield Kept(
                budget=budget.name, unit=budget.unit, day_at_s=day_s, per_day=budget.per_day, spent=round(amount, 4)
            )


def _in_scope(budget: Budget, flow: Flow) -> bool:
    asked = ((budget.service, flow.service), (budget.class_, flow.class_.name), (budget.tenant, flow.class_.tenant))
    return all(scope in ("", is_) for scope, is_ in asked)


def _jobs(world: World) -> Jobs:
    jobs = [job for job in world.work.jobs.values() if job.load.submitted_at_s < world.now_s]
    return Jobs(
        submitted=len(jobs),
        requests=sum(job.load.requests for job in jobs),
        sent=sum(job.load.requests - job.left for job in jobs),
        released=sum(job.begun == "released" for job in jobs),
        unanswered=sum(job.begun == "unanswered" for job in jobs),
        last_moment=sum(job.begun == "last moment" for job in jobs),
    )


ASSUMED: Final = (
    f"latencies lie lognormally around a median (deviation {SPREAD:g}); their p95 grows with load as in a public load "
    "test: declared + 6*x/(1-x) ms, x = 1.15 times the load",
    "beyond capacity requests wait, as many as the concurrency holds and gateways are patient for; who gives up leaves "
    "the queue without having been worked on",
    f"a gateway tries {RETRIES.attempts} endpoints, within its retry budget; in steps of a second it picks for each "
    f"request, in longer ones for {MOST}, and the others go as these do",
    "served is answered within the class's SLO at the caller, deferred work by its deadline; late is answered after it",
    "replicas are paid for from their launch until they are gone, in an outage too; "
    f"one that leaves is counted on no more, and serves on for {DRAIN_S:g} s, as behind a lifecycle hook",
    f"a replica without load draws {IDLE_POWER:.0%} of its power; used is what answers cost at full replicas",
    "no request carries a session or a prompt: caches and streams that break are not part of this world",
)


def assumptions(setup: Setup) -> list[str]:
    """What the figures rest on, in words."""
    cold = "as the fleet declares" if setup.cold_start_s is None else f"of {setup.cold_start_s:g} s"
    return [
        f"steps of 1 s where something happens, of {setup.calm_s} s where nothing does; the house ticks once a step",
        f"a table is followed from the next step on, {setup.table_delay_s:g} s after its step at least",
        f"gateways count arrivals in slots of {setup.slot_s:g} s, and are heard {setup.report_delay_s:g} s later",
        f"cold starts {cold}, give or take {COLD_NOISE:.0%}",
        *ASSUMED,
    ]
