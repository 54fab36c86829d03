"""A run for a person: its timeline with reasons, then what it came to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from tradewind.hands.text import at, columns, percent
from tradewind.world.summary import Fates, Hour, Summary
from tradewind.world.timeline import Moment


def lines(summary: Summary) -> Iterator[str]:
    """The whole report."""
    yield f"{summary.scenario}, {at(summary.from_s)} to {at(summary.until_s)}, decided by {_by(summary)}"
    yield ""
    yield from timeline(summary)
    yield ""
    yield from _hours(summary)
    yield ""
    yield from _parts(summary)
    yield ""
    yield from _cost(summary)
    yield from _budgets(summary)
    yield ""
    yield from _checks(summary)
    yield ""
    yield "assumed:"
    yield from (f"  - {words}" for words in summary.assumptions)


def _by(summary: Summary) -> str:
    expected = {"forecast": "", "none": ", without a demand forecast", "hindsight": ", with hindsight"}
    return f"{summary.router}{expected[summary.expect]}, seed {summary.seed}"


def timeline(summary: Summary) -> Iterator[str]:
    """What moved when, and why; the most telling moments."""
    yield from columns([(_clock(moment.at_s), moment.what, words(moment)) for moment in summary.timeline])
    if summary.timeline_left_out:
        yield f"and {summary.timeline_left_out} smaller moves (--events N shows more, --json all)"


def words(moment: Moment) -> str:
    """One moment in a line."""
    if moment.what != "table":
        return moment.says
    most = max(moment.moved.values(), default=0.0)
    parts = [moment.number, moment.says]
    if most:
        parts.append(f"[up to {percent(most)} of a route, {len(moment.moved)} routes]")
    if moment.unserved_rps:
        parts.append(f"[no room for {moment.unserved_rps:g}/s]")
    return "  ".join(parts)


def _hours(summary: Summary) -> Iterator[str]:
    head = ("hour", "demand", "served", "late", "shed", "failed", "usd", "kg CO2e", "replica h")
    yield from columns([head, *(_hour(hour) for hour in summary.hours)])


def _hour(hour: Hour) -> tuple[str, ...]:
    return (_clock(hour.at_s)[:5], *_counts(hour.requests), f"{hour.usd:.2f}", f"{hour.carbon_kg:.2f}",
            f"{hour.replica_h:.1f}")  # fmt: skip


def _counts(fates: Fates) -> tuple[str, ...]:
    return tuple(str(n) for n in (fates.demand, fates.served, fates.late, fates.shed, fates.failed))


def _parts(summary: Summary) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [("requests", "demand", "served", "late", "shed", "failed", "not served")]
    for title, parts in (("class", summary.by_class), ("tier", summary.by_tier), ("origin", summary.by_origin)):
        rows += [(f"{title} {name}", *_counts(fates), percent(fates.violated)) for name, fates in parts.items()]
    rows.append(("all", *_counts(summary.requests), percent(summary.requests.violated)))
    yield from columns(rows)


def _cost(summary: Summary) -> Iterator[str]:
    cost = summary.cost
    per = "" if cost.usd_per_million is None else f", {cost.usd_per_million:.2f} a million requests served"
    yield f"paid {cost.usd:.2f} usd{per}: replicas {cost.replicas_usd:.2f}, egress {cost.egress_usd:.2f}"
    idle = cost.usd - cost.used_usd
    share = percent(idle / cost.usd) if cost.usd else percent(0.0)
    yield f"  used {cost.used_usd:.2f}, idle {idle:.2f} ({share}), of it starting or leaving {cost.start_usd:.2f}"
    yield f"carbon {cost.carbon_kg:.1f} kg CO2e over {cost.replica_h:.0f} replica hours"
    if (jobs := summary.jobs).submitted:
        began = (("released", jobs.released), ("unanswered", jobs.unanswered), ("at the last moment", jobs.last_moment))
        said = ", ".join(f"{count} {how}" for how, count in began if count)
        sent = f"{jobs.sent} of {jobs.requests} requests answered"
        yield f"jobs that may wait: {jobs.submitted} submitted, begun: {said or 'none'}; {sent}"


def _budgets(summary: Summary) -> Iterator[str]:
    for kept in summary.budgets:
        day, share = at(kept.day_at_s)[:10], percent(kept.spent / kept.per_day)
        yield f"budget {kept.budget}, {day}: {kept.spent:.4g} of {kept.per_day:g} {kept.unit} spent ({share})"


def _checks(summary: Summary) -> Iterator[str]:
    yield "demand = served + late + shed + failed in each hour and flow: " + ("yes" if summary.conserved else "NO")
    yield f"law: {summary.breaches} breaches in {summary.checked} requests sent to endpoints"
    yield from (f"  BREACH {b.flow} at {b.endpoint}: {b.requests} requests, {b.rule}" for b in summary.breached)
    tables = summary.tables
    yield f"tables: {tables.said} said, {tables.moved} moved something, {tables.refused} refused by gateways"
    if summary.dead_letters:
        yield f"dead letters: {summary.dead_letters}"
    pace = summary.simulated_s / summary.wall_s if summary.wall_s else 0.0
    lived = f"{summary.simulated_s:.0f} s lived in {summary.wall_s:.1f} s, {pace:.0f} times as fast"
    yield f"{lived}, in {summary.steps} steps"


def _clock(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%H:%M:%S")
