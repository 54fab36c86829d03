"""An explanation as one reads it at three in the morning: what is used, what it costs, what would change it."""

from __future__ import annotations

from collections.abc import Iterator

from router_sync.margin import PARTS, Weighed, Weighing
from tradewind.hands.explain import Explained
from tradewind.hands.text import ago, at, columns, percent

SHOWN = 8
"""Endpoints of a route that are told in full, unless one route alone was asked for."""
_SO = {
    "all": "it has all of the route",
    "balanced": "as good as what is used: nothing is gained by a move",
    "full": "it is full: more capacity, a lower price changes nothing",
    "unnamed": "this decision does not name it: others cost less, or it is one of many that cannot be used",
}
_NEEDS = {
    "law": ("forbidden", "a rule that allows it"),
    "order": ("drained", "`tradewind undrain {endpoint}`"),
    "health": ("down", "it to answer: it is probed, and let in over ten seconds"),
    "capacity": ("empty", "a ready replica"),
}
"""What an endpoint is that cannot be used, and what it needs."""
NEAR = "Enough, while all else stays as it was decided; less may do. A table moves only for a gain of half a percent."


def lines(found: Explained, now_s: float) -> Iterator[str]:
    """All of it for a terminal."""
    yield from _head(found, now_s)
    shown = None if len(found.routes) == 1 else SHOWN
    for route in found.routes:
        yield ""
        yield from _route(route, shown)
    if any(e.state == "cheaper" for route in found.routes for e in route.endpoints):
        yield ""
        yield NEAR
    if found.held:
        yield f"The table is {found.held}. Until `tradewind table unfreeze {found.service}` no cost moves a share."


def _head(found: Explained, now_s: float) -> Iterator[str]:
    said = f", said {ago(now_s - found.said_at_s)} ago" if found.said_at_s is not None else ""
    gap = "" if found.gap is None else f", within {percent(found.gap)} of the optimum"
    vouched = _VOUCHED[found.vouched]
    yield f"{found.service}  table {found.number}{said}"
    yield f"  decided as {found.decided} at {at(found.made_at_s)} by {_METHOD[found.method]}{gap}{vouched}"
    yield f"  why: {found.reason or 'no reason given'}"


_VOUCHED = {
    True: "", False: "; no signed table vouches for this decision", None: "; signature not checked (--trust FILE)"
}  # fmt: skip
_METHOD = {"lp": "the optimiser", "greedy": "the greedy filler (at once; the optimiser follows)"}


def _route(route: Weighing, shown: int | None) -> Iterator[str]:
    yield (
        f"{route.class_} from {route.origin}  {route.demand_rps:.4g} requests/s, p95 below {route.slo_p95_ms:g} ms, "
        f"{millions(route.usd_per_request)} $ per million requests"
    )
    if route.unserved_rps:
        yield f"  {route.unserved_rps:.4g} requests/s more than what is used can serve"
    weighed = [e for e in route.endpoints if e.total_usd is not None]
    yield from columns(_costs(weighed[:shown]), "  ")
    needs = _grouped(route)
    yield from columns([("", _several(names), says) for says, names in needs[:shown]], "  ")
    more = route.left_out + sum(len(names) for _, names in needs[len(needs[:shown]) :])
    if more:
        yield f"    and {more} more endpoints (--json, or --endpoint NAME)"


def _grouped(route: Weighing) -> list[tuple[str, list[str]]]:
    """What would have to change, and the endpoints of which it is true."""
    groups: dict[str, list[str]] = {}
    for e in route.endpoints:
        if e.state != "all":
            groups.setdefault(_needs(e), []).append(e.endpoint)
    return list(groups.items())


def _several(names: list[str], most: int = 3) -> str:
    """
    >>> _several(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _costs(weighed: list[Weighed]) -> list[tuple[str, ...]]:
    """A row each; parts that are nothing everywhere have no column."""
    if not weighed:
        return []
    told = [part for part in PARTS if any(e.parts[part] for e in weighed)]
    head = (
        "share".rjust(7),
        "endpoint",
        *(part.rjust(8) for part in told),
        "all".rjust(8),
        "+ crowd".rjust(8),
        "load",
        "p95",
    )
    return [head] + [
        (
            percent(e.share).rjust(7), e.endpoint, *(millions(e.parts[part]).rjust(8) for part in told),
            millions(e.total_usd or 0.0).rjust(8), millions(e.crowd_usd or 0.0).rjust(8),
            "?" if e.load is None else f"{e.load:.0%}".replace("%", " %"),
            "?" if e.p95_ms is None else f"{e.p95_ms:.0f} ms",
        )
        for e in weighed
    ]  # fmt: skip


def _needs(e: Weighed) -> str:
    """What would have to change, in words."""
    if e.state in _NEEDS:
        word, needs = _NEEDS[e.state]
        return f"{word}: {e.why_not}; needs {needs.format(endpoint=e.endpoint)}"
    if e.state != "cheaper":
        return _SO[e.state]
    ways = [f"{millions(e.cheaper_usd or 0.0)} $ per million cheaper"]
    if e.price_part is not None:
        ways[0] += f" (its price {percent(e.price_part)} lower)"
    if e.faster_ms is not None:
        ways.append(f"p95 {e.faster_ms:.0f} ms lower")
    if e.grows:
        ways.append("as soon as demand grows")
    return f"gets {'more' if e.share else 'a share'} when {', or '.join(ways)}"


def millions(usd: float) -> str:
    """Dollars per request as dollars per million requests, three digits.

    >>> [millions(usd) for usd in (0.0, 2.5e-6, 0.000123, 0.0123, 4e-10)]
    ['0', '2.50', '123', '12,300', '0.0004']
    """
    value = usd * 1e6
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.1g}"
