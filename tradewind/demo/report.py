"""What a demo came to: one object, the same for people and for machines."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec

from tradewind.demo import parts
from tradewind.demo.book import Book
from tradewind.demo.outage import Outage
from tradewind.demo.parts.run import Found
from tradewind.demo.restarts import Restart
from tradewind.demo.scenarios import DEFAULT, load
from tradewind.demo.watch import Onlooker
from tradewind.load import Outcome, phases, quantile_ms

SHARES_EVERY_S = 5.0
NOT_SERVABLE = frozenset({"client_4xx", "not_sent"})
"""The caller's own doing, or never sent: every other failure counts as one that another endpoint could have served."""


class Broker(msgspec.Struct, frozen=True):
    """Which broker carried it."""

    name: str
    version: str
    embedded: bool


class Spread(msgspec.Struct, frozen=True):
    """How a time spread, in ms; None where there was none."""

    n: int
    p50: float | None
    max: float | None


class ShareAt(msgspec.Struct, frozen=True):
    """The share of answered requests that a region served in the slot that began `at_s` after the load."""

    at_s: float
    region: str
    share: float


class BrokerOutage(msgspec.Struct, frozen=True):
    """The broker was killed and came back; `table_at_s` is the first table after that, None if none came.

    All in seconds after the load began; `failed` counts requests due between.
    """

    at_s: float
    back_at_s: float
    table_at_s: float | None
    failed: int


class Report(msgspec.Struct, frozen=True):
    """The figures of one run. Latencies are times to first token of streamed answers that came whole.

    `continued`: streams that broke off and went on at another endpoint; None when no gateway could be asked.
    `restarts`: processes that died unasked. `ended_early`: why the run ended before its time, None if it did not.
    `shed`: requests that gateways refused so that others were in time; they are not `failed`.
    """

    broker: Broker
    seconds: float
    requests: int
    failed: int
    lost_servable: int
    errors: dict[str, int]
    retried: int
    p95_ms: dict[str, float | None]
    total_p95_ms: dict[str, float | None]
    evidence_to_table_ms: Spread
    tables_published: int
    dead_letters: int
    shares: list[ShareAt]
    moves: list[str]
    startup_s: float
    broker_outage: BrokerOutage | None = None
    continued: int | None = None
    restarts: list[Restart] = []
    ended_early: str | None = None
    scenario: str = DEFAULT
    shed: int = 0
    parts: Found = {}

    def fields(self) -> Found:
        """What machines are told: parts that the scenario asked for are fields like any other."""
        whole = msgspec.structs.asdict(self)
        found: Found = whole.pop("parts")
        return whole | found


def make(
    book: Book, onlooker: Onlooker, broker: Broker, outage: Outage | None, *, seconds: float, startup_s: float
) -> Report:
    """The report of a run of `seconds`; without an outage all of it is "before".

    Counts are of all requests; quantiles and shares of those that `book` still has.
    """
    from_s, to_s = (outage.at_s, outage.until_s) if outage else (float("inf"), float("inf"))
    outcomes = list(book.last)
    first, whole = phases(outcomes, from_s, to_s, "ttft_ms"), phases(outcomes, from_s, to_s)
    return Report(
        broker=broker,
        seconds=round(seconds, 1),
        requests=book.requests,
        failed=book.failed,
        lost_servable=sum(count for error, count in book.errors.items() if error not in NOT_SERVABLE),
        errors=dict(book.errors),
        shed=book.shed,
        retried=book.retried,
        p95_ms={name: _round(getattr(first, name).p95_ms) for name in ("before", "during", "after")},
        total_p95_ms={name: _round(getattr(whole, name).p95_ms) for name in ("before", "during", "after")},
        evidence_to_table_ms=Spread(
            len(onlooker.evidence_ms),
            _round(quantile_ms(onlooker.evidence_ms, 0.5)),
            _round(max(onlooker.evidence_ms, default=None)),
        ),
        tables_published=onlooker.published,
        dead_letters=onlooker.dead_letters,
        shares=shares(outcomes),
        moves=[why for _, _, why in onlooker.moves if why],
        startup_s=round(startup_s, 1),
    )


def broker_outage(
    outcomes: Sequence[Outcome], onlooker: Onlooker, at_s: float, back_at_s: float, began_at_s: float
) -> BrokerOutage:
    """What the outage from `at_s` to `back_at_s` did; the load began at `began_at_s`, unix seconds."""
    after = [table - began_at_s for table in onlooker.table_at_s if table - began_at_s > back_at_s]
    failed = sum(not o.ok for o in outcomes if at_s <= o.at_s < back_at_s)
    return BrokerOutage(round(at_s, 1), round(back_at_s, 1), _round(min(after, default=None)), failed)


def shares(outcomes: Sequence[Outcome], every_s: float = SHARES_EVERY_S) -> list[ShareAt]:
    """Shares by region of the good answers in each slot of `every_s` seconds."""
    slots: dict[float, Counter[str]] = defaultdict(Counter)
    for one in outcomes:
        if one.ok and one.region:
            slots[one.at_s - one.at_s % every_s][one.region] += 1
    return [
        ShareAt(at_s, region, round(count / slot.total(), 3))
        for at_s, slot in sorted(slots.items())
        for region, count in sorted(slot.items())
    ]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def told(report: Report) -> str:
    """The report in the words for people, some lines."""
    lines = [
        f"{report.requests} requests in {report.seconds:.0f} s, {report.failed} failed, "
        f"{report.lost_servable} of them though another endpoint could have served; {report.retried} were retried"
        + (f", {report.shed} shed" if report.shed else ""),
        _continued(report.continued),
        "p95 to first token: "
        + ", ".join(f"{name} {p95} ms" for name, p95 in report.p95_ms.items() if p95 is not None),
        _evidence(report.evidence_to_table_ms),
        f"{report.tables_published} tables published, {report.dead_letters} dead letters",
        *(_restarted(one) for one in report.restarts),
        *parts.told(report.parts, load(report.scenario).scenario.shows if report.parts else ()),
    ]
    return "\n".join(filter(None, lines))


def _continued(number: int | None) -> str:
    if number is None:
        return "no gateway could say how many streams went on elsewhere"
    streams = "1 stream" if number == 1 else f"{number} streams"
    return f"{streams} broke off and went on at another endpoint" if number else ""


def _evidence(spread: Spread) -> str:
    if not spread.n:
        return ""
    return f"from the first failed attempt to a table without the endpoint: at most {spread.max} ms ({spread.n})"


def _restarted(one: Restart) -> str:
    back = "and did not come back" if one.back_at_s is None else f"and was back at {one.back_at_s:g} s"
    return f"{one.name} was gone at {one.at_s:g} s ({one.why}) {back}"
