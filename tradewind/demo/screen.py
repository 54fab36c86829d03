"""What a person sees while the demo runs: endpoints, shares, versions, outages, and why the table moved."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.contract.records import EndpointHealth, Fleet
from tradewind.demo.watch import Onlooker
from tradewind.load import Counters, Outcome

RECENT = 400
_COLOURS = {"up": "green", "degraded": "yellow", "down": "red", "silent": "magenta", "unknown": "dim"}


class Screen:
    """Draws the state of a run. Holds only the last outcomes, for shares as they are now."""

    def __init__(self, fleet: Fleet, onlooker: Onlooker, counters: Counters, hint: str) -> None:
        self.fleet, self.onlooker, self.counters, self.hint = fleet, onlooker, counters, hint
        self.recent: deque[Outcome] = deque(maxlen=RECENT)
        self.notes: deque[str] = deque(maxlen=4)

    def drawn(self, at_s: float, now_s: float) -> RenderableType:
        """The picture at `at_s` seconds after the load began."""
        return Group(self._head(at_s, now_s), self._endpoints(), Panel(self._moves(now_s), title="why the table moved"))

    def _head(self, at_s: float, now_s: float) -> Text:
        counts = self.counters
        numbers = " ".join(
            f"{t.service} {t.epoch}.{t.version} ({now_s - t.issued_at_s:.1f} s old)"
            for t in self.onlooker.tables.values()
        )
        worst = max(self.onlooker.evidence_ms, default=None)
        evidence = "" if worst is None else f"   evidence to table ≤ {worst:.0f} ms"
        return Text(
            f"{at_s:5.0f} s   requests {counts.due}   failed {counts.failed}   open {counts.open}   table {numbers}"
            f"{evidence}\n{self.hint}" + "".join(f"\n{note}" for note in self.notes)
        )

    def _endpoints(self) -> Table:
        table = Table("endpoint", "region", "provider", "$/h", "verdict", "p95 ms", "req/s", "share", expand=True)
        served = Counter(o.endpoint for o in self.recent if o.ok)
        total = served.total() or 1
        rows = _by_endpoint(list(self.onlooker.health.values()))
        for e in self.fleet.endpoints:
            verdict, p95_ms, rps = rows.get(e.name, ("unknown", None, 0.0))
            table.add_row(
                e.name,
                e.region,
                e.provider,
                f"{e.price_usd_per_h * e.replicas:.2f}",
                Text(verdict, _COLOURS[verdict]),
                "–" if p95_ms is None else f"{p95_ms:.0f}",
                f"{rps:.1f}",
                f"{served[e.name] / total:4.0%} " + "█" * round(20 * served[e.name] / total),
            )
        return table

    def _moves(self, now_s: float) -> RenderableType:
        moves = list(self.onlooker.moves)[-6:]
        return Text("\n".join(f"{at_s - now_s:6.1f} s  v{version}  {why}" for at_s, version, why in moves) or "–")


def _by_endpoint(health: Sequence[EndpointHealth]) -> dict[str, tuple[str, float | None, float]]:
    """Endpoint to its verdict, the worst p95 of its classes (to the first token, where streamed), and its rate."""
    rows: dict[str, tuple[str, float | None, float]] = {}
    for record in health:
        columns = (record.endpoint, record.verdict, record.p95_ms, record.ttft_p95_ms, record.rps)
        for name, verdict, p95_ms, ttft_p95_ms, rps in zip(*columns, strict=True):
            _, before, rate = rows.get(name, ("", None, 0.0))
            shown = p95_ms if ttft_p95_ms is None else ttft_p95_ms
            worst = max((p for p in (before, shown) if p is not None), default=None)
            rows[name] = (verdict, worst, rate + rps)
    return rows
