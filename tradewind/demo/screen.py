"""What a person sees while the demo runs: endpoints, shares, versions, outages, and why the table moved.

Everything fits the terminal: lines are cut at its width, reasons at its height, and a narrow one has fewer columns.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from streams.contract.records import Endpoint, EndpointHealth, Fleet
from tradewind.demo.watch import Onlooker
from tradewind.load import Counters, Outcome

SHARE_S = 4.0
"""Shares are of the requests due in the last seconds: who died serves nothing soon after."""
WIDE = 100
_RECENT = 4000
_NOTES = 3
_BAR = 20
_COLOURS = {"up": "green", "degraded": "yellow", "down": "red", "silent": "magenta", "unknown": "dim"}


class Screen:
    """Draws the state of a run. Holds only the last outcomes, for shares as they are now."""

    def __init__(self, fleet: Fleet, onlooker: Onlooker, counters: Counters, hint: str = "") -> None:
        self.fleet, self.onlooker, self.counters, self.hint = fleet, onlooker, counters, hint
        self.recent: deque[Outcome] = deque(maxlen=_RECENT)
        self.notes: deque[str] = deque(maxlen=_NOTES)

    def drawn(self, at_s: float, now_s: float, width: int, height: int) -> RenderableType:
        """The picture at `at_s` seconds after the load began, `width` characters wide and at most `height` high."""
        head = self._head(at_s, now_s)
        table = self._endpoints(at_s, wide=width >= WIDE)
        room = height - len(head) - (len(self.fleet.endpoints) + 2) - 3  # two rules of the panel, and the cursor's line
        moves = Panel(self._moves(now_s, max(1, room)), title="why the table moved, newest first", padding=(0, 1))
        return Group(*head, table, moves)

    def _head(self, at_s: float, now_s: float) -> list[Text]:
        counts = self.counters
        numbers = " ".join(
            f"{t.service} {t.epoch}.{t.version} ({now_s - t.issued_at_s:.1f} s old)"
            for t in self.onlooker.tables.values()
        )
        worst = max(self.onlooker.evidence_ms, default=None)
        evidence = "" if worst is None else f"   evidence to table ≤ {worst:.0f} ms"
        lines = [
            f"{at_s:.0f} s   requests {counts.due}   failed {counts.failed}   open {counts.open}{evidence}",
            f"table {numbers or '–'}",
            *self.hint.splitlines(),
            *reversed(self.notes),
        ]
        return [_line(line) for line in lines]

    def _endpoints(self, at_s: float, *, wide: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True)
        for name in _columns(wide):
            table.add_column(name, no_wrap=True, ratio=1 if name == "share" else None)
        served = Counter(o.endpoint for o in self.recent if o.ok and o.at_s > at_s - SHARE_S)
        rows = _by_endpoint(list(self.onlooker.health.values()))
        for endpoint in self.fleet.endpoints:
            cells = _cells(endpoint, rows.get(endpoint.name), served[endpoint.name] / (served.total() or 1))
            table.add_row(*(cells[name] for name in _columns(wide)))
        return table

    def _moves(self, now_s: float, most: int) -> RenderableType:
        moves = list(self.onlooker.moves)[-most:][::-1]
        lines = "\n".join(f"{at_s - now_s:6.1f} s  v{version}  {why}" for at_s, version, why in moves)
        return _line(lines or "–")


def hint(gateways: Mapping[str, str], regions: Sequence[str]) -> str:
    """Two lines: where gateways listen, and what the keys do."""
    breaks = ", ".join(f"{number} {region}" for number, region in enumerate(regions, 1))
    doors = ", ".join(f"{origin} :{urlsplit(url).port}" for origin, url in gateways.items())
    return f"gateways on 127.0.0.1: {doors}\nbreak or mend a region: {breaks}   end: q"


def _line(words: str) -> Text:
    return Text(words, no_wrap=True, overflow="ellipsis")


def _columns(wide: bool) -> tuple[str, ...]:
    if wide:
        return ("endpoint", "region", "provider", "$/h", "verdict", "p95 ms", "req/s", "share")
    return ("endpoint", "verdict", "p95 ms", "share")


def _cells(endpoint: Endpoint, row: tuple[str, float | None, float] | None, share: float) -> dict[str, RenderableType]:
    verdict, p95_ms, rps = row or ("unknown", None, 0.0)
    return {
        "endpoint": endpoint.name,
        "region": endpoint.region,
        "provider": endpoint.provider,
        "$/h": f"{endpoint.price_usd_per_h * endpoint.replicas:.2f}",
        "verdict": Text(verdict, _COLOURS[verdict]),
        "p95 ms": "–" if p95_ms is None else f"{p95_ms:.0f}",
        "req/s": f"{rps:.1f}",
        "share": f"{share:4.0%} " + "█" * round(_BAR * share),
    }


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
