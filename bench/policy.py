"""How fast law is compiled, and whether it is right: `python -m bench.policy [--json]`.

evals_per_s  One evaluation is one (flow, endpoint) pair of one fleet brought under all rules of its policies: RULES of
             the usual kinds (residency, certificates, ownership, contracts of tenants, dedicated machines). The clock
             runs over all of `law_of(fleet)`, from the records to the finished mask, and every fleet is another one:
             nothing is kept from one to the next, and no pair is looked up in a mask that was there. Seconds are of
             one core: of this process, which has one thread. `by_size` has flows x endpoints; `evals_per_s` is that
             of the first. `one_by_one_per_s` is the same by `rules`, pair by pair, as a guard does it; `table_per_s`
             as a gateway does it when it takes over a table.
fuzz         Random fleets with random policies, unknown facts among them, every pair judged by the mask and by Cedar
             (`bench.cedar`). `breaches`: pairs we allow and Cedar denies; `strict`: pairs we deny and Cedar allows;
             `reasons`: pairs denied for other rules than Cedar says. All three have to be 0.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from bench.cedar import Cedar, of_request
from bench.machine import described
from router_sync.client.law import TableLaw
from router_sync.policy.facts import of_target, requests_of
from router_sync.policy.law import Law, law_of
from router_sync.policy.rules import Judge
from streams.contract.records import (
    Endpoint,
    Fleet,
    Origin,
    Policy,
    RequestClass,
    Route,
    RoutingTable,
    Rule,
    Service,
    TableEndpoint,
)

SEED: Final = 5
CASES: Final = 120_000
SIZES: Final = {"100x100": (10, 10, 100, 60), "500x1000": (50, 10, 1000, 6)}
"""Origins, classes, endpoints, fleets."""
EU: Final = ("AT", "BE", "DE", "ES", "FR", "IE", "IT", "NL", "NO", "SE")
COUNTRIES: Final = (*EU, "US", "GB", "IN", "CH", "BR", "JP")
_OF_REQUESTS: Final[dict[str, tuple[str, ...]]] = {
    "service": ("chat", "embed"), "class": ("c0", "c1", "c2", "c3"), "tenant": ("acme", "globex", "initech"),
    "data_class": ("public", "personal", "health", "cardholder"), "purpose": ("support", "ads", "research"),
    "tier": ("premium", "standard", "sheddable"), "complexity": ("simple", "complex"),
    "origin": ("o0", "o1", "o2", "o3"), "origin_country": COUNTRIES,
}  # fmt: skip
_OF_TARGETS: Final[dict[str, tuple[str, ...]]] = {
    "endpoint": ("e0", "e1", "e2", "e3"), "country": COUNTRIES, "region": ("r0", "r1", "r2", "r3"),
    "zone": ("z0", "z1", "z2"), "provider": ("aws", "gcp", "ovh"), "parent": ("Amazon", "Alphabet"),
    "parent_country": ("US", "FR", "IN"), "certificate": ("pci-dss", "hds", "iso-27001"),
    "market": ("on_demand", "spot", "reserved", "owned"), "place": ("edge", "cloud"), "instance": ("h100", "l4"),
}  # fmt: skip
Random = random.Random


def usual() -> tuple[Policy, ...]:
    """RULES rules as they are met in contracts and acts."""
    asia = ("IN", "JP")
    law = (
        Rule(id="eu", when={"data_class": ("personal",), "origin_country": EU}, require={"country": (*EU, "CH", "GB")}),
        Rule(id="uk", when={"data_class": ("personal",), "origin_country": ("GB",)}, require={"country": (*EU, "GB")}),
        Rule(id="ch", when={"data_class": ("personal",), "origin_country": ("CH",)}, require={"country": (*EU, "CH")}),
        Rule(id="in", when={"data_class": ("personal",), "origin_country": ("IN",)}, require={"country": asia}),
        Rule(id="br", when={"origin_country": ("BR",)}, unless={"data_class": ("public",)}, deny={"country": asia}),
        Rule(id="health", when={"data_class": ("health",)}, require={"certificate": ("hds",)}),
        Rule(id="health-home", when={"data_class": ("health",), "origin_country": EU}, require={"country": EU}),
        Rule(id="cards", when={"data_class": ("cardholder",)}, require={"certificate": ("pci-dss",)}),
        Rule(id="cards-owned", when={"data_class": ("cardholder",)}, deny={"market": ("spot", "on_demand")}),
        Rule(
            id="no-us-parent", when={"data_class": ("health",), "origin_country": EU}, deny={"parent_country": ("US",)}
        ),
        Rule(id="no-spot", when={"tier": ("premium",)}, deny={"market": ("spot",)}),
        Rule(id="research", when={"purpose": ("research",)}, unless={"tenant": ("acme",)}, deny={"provider": ("gcp",)}),
        Rule(id="ads", when={"purpose": ("ads",)}, deny={"place": ("edge",)}),
        Rule(id="edge", when={"complexity": ("complex",)}, deny={"place": ("edge",), "instance": ("l4",)}),
        Rule(id="sanctions", deny={"country": ("KP", "IR")}),
    )
    contracts = (
        Rule(id="acme", when={"tenant": ("acme",)}, require={"provider": ("aws", "ovh"), "country": EU}),
        Rule(id="globex", when={"tenant": ("globex",)}, deny={"parent": ("Amazon",)}),
        Rule(id="initech", when={"tenant": ("initech",)}, require={"certificate": ("iso-27001",)}),
        Rule(id="embed", when={"service": ("embed",)}, unless={"tier": ("premium",)}, deny={"instance": ("h100",)}),
        Rule(id="batch-away", when={"tier": ("sheddable",), "origin": ("o0",)}, deny={"region": ("r0",)}),
    )
    return Policy(name="law", rules=law), Policy(name="contracts", rules=contracts)


RULES: Final = sum(len(policy.rules) for policy in usual())


# ---------------------------------------------------------------- fleets


def fleet(rng: Random, origins: int, classes: int, ends: int, policies: tuple[Policy, ...]) -> Fleet:
    """A fleet nobody has seen before: facts at random, some of them not declared."""
    services = _OF_REQUESTS["service"]
    kinds = [_class(rng, f"c{n}") for n in range(classes)]
    half = -(-classes // len(services))
    return Fleet(
        version=1,
        services=tuple(
            Service(
                name=name, classes=tuple(kinds[n * half : (n + 1) * half] or kinds[:1]), default_class=kinds[0].name
            )
            for n, name in enumerate(services)
        ),
        origins=tuple(Origin(name=f"o{n}", jurisdiction=rng.choice(COUNTRIES), rtt_ms={}) for n in range(origins)),
        endpoints=tuple(_endpoint(rng, f"e{n}", services) for n in range(ends)),
        policies=policies,
    )


def _maybe(rng: Random, values: tuple[str, ...]) -> str:
    return rng.choice(values) if rng.random() < 0.75 else ""


def _class(rng: Random, name: str) -> RequestClass:
    said: dict[str, Any] = {fact: _maybe(rng, _OF_REQUESTS[fact]) for fact in ("tenant", "purpose", "complexity")}
    own = tuple(rng.sample(COUNTRIES, 6)) if rng.random() < 0.2 else ()
    kind, tier = rng.choice(_OF_REQUESTS["data_class"]), rng.choice(_OF_REQUESTS["tier"])
    return RequestClass(name=name, slo_p95_ms=300, data_class=kind, tier=tier, jurisdictions=own, **said)  # type: ignore[arg-type]


def _endpoint(rng: Random, name: str, services: tuple[str, ...]) -> Endpoint:
    said: dict[str, Any] = {fact: _maybe(rng, _OF_TARGETS[fact]) for fact in ("parent", "parent_country")}
    said |= {fact: rng.choice(_OF_TARGETS[fact]) for fact in ("provider", "region", "zone", "market")}
    return Endpoint(
        name=name,
        url="http://127.0.0.1:1",
        services=services,
        jurisdiction=rng.choice(COUNTRIES),
        instance=_maybe(rng, _OF_TARGETS["instance"]) or "unknown",
        edge=rng.random() < 0.3,
        certificates=tuple(rng.sample(_OF_TARGETS["certificate"], rng.randrange(3))),
        capacity_rps=10,
        price_usd_per_h=1,
        **said,
    )


def policies(rng: Random) -> tuple[Policy, ...]:
    """One to three policies of random rules of law."""
    return tuple(_policy(rng, f"p{n}") for n in range(rng.randint(1, 3)))


def _policy(rng: Random, name: str) -> Policy:
    default = rng.choice(("allow", "allow", "deny"))
    effects = ("require", "deny", "deny", "allow") if default == "deny" else ("require", "deny", "deny")
    rules = tuple(rule(rng, f"r{n}", rng.choice(effects)) for n in range(rng.randint(1, 6)))
    if default == "deny":
        rules += (rule(rng, "open", "allow"), Rule(id="wide", allow={"market": _OF_TARGETS["market"][:3]}))
    return Policy(name=name, default=default, rules=rules)  # type: ignore[arg-type]


def rule(rng: Random, id_: str, effect: str) -> Rule:
    """A rule at random, of that effect."""
    said: dict[str, Any] = {"when": _asked(rng, _OF_REQUESTS, 0 if effect == "allow" else 1), "unless": {}}
    if rng.random() < 0.3:
        said["unless"] = _asked(rng, _OF_REQUESTS, 1)
    return Rule(id=id_, **said, **{effect: _asked(rng, _OF_TARGETS, 1)})  # type: ignore[arg-type]


def _asked(rng: Random, facts: dict[str, tuple[str, ...]], least: int) -> dict[str, tuple[str, ...]]:
    chosen = rng.sample(list(facts), rng.randint(least, 2))
    return {fact: tuple(rng.sample(facts[fact], rng.randint(1, max(1, len(facts[fact]) // 2)))) for fact in chosen}


# ---------------------------------------------------------------- speed


def speed(origins: int, classes: int, ends: int, fleets: int) -> tuple[float, int]:
    """(pairs per second, pairs) of compiling the law of as many fleets."""
    rng = Random(SEED)
    made = [fleet(rng, origins, classes, ends, usual()) for _ in range(fleets + 1)]
    law_of(made.pop())
    began_s = time.process_time()
    pairs = sum(law_of(one).may.size for one in made)
    return pairs / (time.process_time() - began_s), pairs


def _rate(body: Callable[[], int]) -> float:
    began_s = time.process_time()
    done = body()
    return done / (time.process_time() - began_s)


def one_by_one(of: Fleet) -> int:
    """Every pair by itself; how many there were."""
    judge, targets = Judge(of.policies), [of_target(end) for end in of.endpoints]
    briefs = [judge.brief(request) for request in requests_of(of)]
    return sum(brief.allows(target) >= 0 for brief in briefs for target in targets)


def by_table(of: RoutingTable) -> int:
    """Every route's law at once, as when a gateway takes a table over; how many pairs there were."""
    law = TableLaw(of)
    return sum(len(law.forbidden(route)) >= 0 and len(of.endpoints) for route in of.routes)


def table(of: Fleet) -> RoutingTable:
    """The routes of the first service, with every endpoint."""
    service, names = of.services[0], tuple(end.name for end in of.endpoints)
    return RoutingTable(
        service=service.name, epoch=1, version=1, issued_at_s=0, expires_at_s=1e9, fleet_version=1,
        default_class=service.default_class, policies=of.policies,
        endpoints=tuple(_shown(end) for end in of.endpoints),
        routes=tuple(_routed(origin, class_, names) for origin in of.origins for class_ in service.classes),
    )  # fmt: skip


def _shown(end: Endpoint) -> TableEndpoint:
    same = ("name", "url", "provider", "region", "zone", "jurisdiction", "instance", "market", "edge", "parent",
            "parent_country", "certificates")  # fmt: skip
    said: dict[str, Any] = {field: getattr(end, field) for field in same}
    return TableEndpoint(**said, capacity_rps=1, concurrency=1, cost_usd_per_request=0, latency_p95_ms=1)


def _routed(origin: Origin, class_: RequestClass, names: tuple[str, ...]) -> Route:
    same = ("tier", "slo_p95_ms", "data_class", "jurisdictions", "tenant", "purpose", "complexity")
    said: dict[str, Any] = {field: getattr(class_, field) for field in same}
    shares = tuple(1 / len(names) for _ in names)
    return Route(origin=origin.name, class_=class_.name, endpoints=names, shares=shares,
                 origin_country=origin.jurisdiction, **said)  # fmt: skip


# ---------------------------------------------------------------- right or wrong


def fuzz(cases: int, seed: int = SEED) -> dict[str, float]:
    """At least `cases` random pairs by the mask and by Cedar."""
    rng, found = Random(seed), {"cases": 0, "fleets": 0, "denied": 0, "breaches": 0, "strict": 0, "reasons": 0}
    began_s = time.perf_counter()
    while found["cases"] < cases:
        of = fleet(rng, 4, 4, 30, policies(rng))
        found["fleets"] += 1
        for ours, theirs in _both(of):
            found["cases"] += 1
            found["denied"] += bool(ours)
            found["breaches"] += not ours and bool(theirs)
            found["strict"] += bool(ours) and not theirs
            found["reasons"] += ours != theirs
    return found | {"seconds": round(time.perf_counter() - began_s, 1)}


def _both(of: Fleet) -> Iterable[tuple[frozenset[str], frozenset[str]]]:
    """What denies each pair, as we say it and as Cedar says it; the mask has to agree with its reasons."""
    law, origins = law_of(of), {origin.name: origin for origin in of.origins}
    classes = {(service.name, kind.name): kind for service in of.services for kind in service.classes}
    keys = [(key, end.name) for key in law.rows for end in of.endpoints]
    asked = [(of_request(key[0], origins[key[1]], classes[key[0], key[2]]), name) for key, name in keys]
    theirs = Cedar(of.policies, of.endpoints).denied_by(asked)
    return zip((_ours(law, *pair) for pair in keys), theirs, strict=True)


def _ours(law: Law, key: tuple[str, str, str], name: str) -> frozenset[str]:
    if law.allows(key, name):
        return frozenset()
    return frozenset(denial.ref for denial in law.denials(key, name)) or frozenset({"(no reason)"})


def run(cases: int) -> dict[str, Any]:
    """All figures."""
    by_size, pairs = {}, 0
    for size, shape in SIZES.items():
        rate, count = speed(*shape)
        by_size[size], pairs = round(rate), pairs + count
    one = fleet(Random(SEED), 10, 10, 100, usual())
    shown = table(one)
    return {
        "evals_per_s": by_size[next(iter(SIZES))],
        "by_size": by_size,
        "pairs": pairs,
        "rules": RULES,
        "one_by_one_per_s": round(_rate(lambda: one_by_one(one))),
        "table_per_s": round(_rate(lambda: by_table(shown))),
        "fuzz": fuzz(cases),
    } | described()


def show(found: dict[str, Any]) -> None:
    """For people."""
    for size, rate in found["by_size"].items():
        print(f"{size:>9}  {rate / 1e6:.1f} million pairs a second under {found['rules']} rules")
    print(f"one by one {found['one_by_one_per_s']} pairs a second, a table's {found['table_per_s'] / 1e6:.1f} million")
    fuzzed = found["fuzz"]
    print(
        f"{fuzzed['cases']} random pairs of {fuzzed['fleets']} fleets against Cedar in {fuzzed['seconds']} s: "
        f"{fuzzed['breaches']} breaches, {fuzzed['strict']} too strict, {fuzzed['reasons']} for other reasons"
    )


def main() -> int:
    """Run and print; exit status 1 when ours and Cedar's answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--cases", type=int, default=CASES, help="random pairs at least")
    asked = parser.parse_args()
    found = run(asked.cases)
    print(json.dumps(found)) if asked.json else show(found)
    return int(any(found["fuzz"][wrong] for wrong in ("breaches", "strict", "reasons")))


if __name__ == "__main__":
    sys.exit(main())
