"""Every record that crosses a topic: frozen structs of plain values, the unit at the end of each name.

`None` means unknown, never zero. A record grows by fields with defaults; a changed meaning is a new topic version.
Ranges stand in the types, so the decoder refuses what lies outside and the JSON Schema says the same.
Columns (`…Columns` in a docstring: parallel tuples) are used where one record summarises many rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import Meta

# a bare $ would let a newline pass at the end
Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+-]*$(?!\n)")]
"""A name in keys, labels and metrics: letters, digits and _ . : / @ + - ; at most 128 characters."""
Ref = Annotated[str, Meta(min_length=1, max_length=128)]
"""A name met by the million: its length is checked here, its letters once, when it is first met (`edge`)."""
Label = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=2000)]
Url = Annotated[str, Meta(max_length=2000, pattern=r"^https?://[^\s]+$(?!\n)")]
UnixS = Annotated[float, Meta(ge=0, le=1e11)]
"""Unix seconds, UTC."""
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Ms = Annotated[float, Meta(ge=0, le=1e8)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Requests = Annotated[int, Meta(ge=0, le=10_000_000)]
"""Requests one sender can have met in one record: a million a second for the longest slot, ten seconds."""
Amount = Annotated[float, Meta(ge=0, le=1e15)]
Share = Annotated[float, Meta(ge=0, le=1)]
Usd = Annotated[float, Meta(ge=0, le=1e9)]

Vantage = Literal["gateway", "endpoint", "probe"]
ErrorKind = Literal[
    "connect", "reset", "first_byte_timeout", "stall", "truncated", "http_5xx", "http_429", "client_4xx"
]
_KINDS_ONLY: Final = Meta(extra_json_schema={"propertyNames": {"enum": list(get_args(ErrorKind))}})
"""The decoder knows the closed list from the type; the JSON Schema has to be told."""
HARD_ERRORS: Final[frozenset[str]] = frozenset(
    {"connect", "reset", "first_byte_timeout", "stall", "truncated", "http_5xx"}
)
"""Kinds that speak of a failing endpoint; http_429 counts for the success rate only, client_4xx never."""
Verdict = Literal["up", "degraded", "down", "silent", "unknown"]
Market = Literal["on_demand", "spot", "reserved", "owned"]
Tier = Literal["premium", "standard", "sheddable"]
EndpointState = Literal["ready", "drain", "down"]
Complexity = Literal["", "simple", "complex"]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
"""ISO 3166-1 alpha-2."""
RequestFact = Literal[
    "service", "class", "tenant", "data_class", "purpose", "tier", "complexity", "origin", "origin_country"
]
"""What a rule may ask of a request."""
TargetFact = Literal[
    "endpoint", "country", "region", "zone", "provider", "parent", "parent_country", "certificate", "market", "place",
    "instance",
]  # fmt: skip
"""What a rule may ask of an endpoint; `place` is edge or cloud."""
Part = Literal["price", "egress", "carbon", "latency", "risk"]
"""Of the objective, each in dollars per request."""
Api = Literal["openai", "http"]
UpstreamModel = Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
"""What an endpoint itself calls a model; empty: as the service is called."""
HealthPath = Annotated[str, Meta(max_length=500, pattern=r"^(/[^\s]*)?$(?!\n)")]
"""Where an endpoint tells of its health; empty: where the gateway usually asks."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What crosses a topic. Unknown fields are ignored, defaults are left out on the wire."""


def _check_columns(record: Record, *fields: str) -> None:
    """Parallel columns are of one length; ValueError names the one that is not."""
    want = len(getattr(record, fields[0]))
    if len({len(getattr(record, field)) for field in fields}) == 1:
        return
    for field in fields[1:]:
        if (have := len(getattr(record, field))) != want:
            raise ValueError(f"{field.rstrip('_')} has {have} rows, {fields[0]} has {want}: send one for each")


# ---------------------------------------------------------------- configured: the fleet


class Endpoint(Record, frozen=True, kw_only=True):
    """One place that answers requests. Capacity is per replica; prices are list prices of the instance."""

    name: Name
    url: Url
    services: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    provider: Name
    region: Name
    zone: Name
    instance: Name = "unknown"
    market: Market = "on_demand"
    jurisdiction: Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
    """ISO 3166-1 alpha-2 of the place of processing."""
    grid_zone: Label = ""
    edge: bool = False
    replicas: Annotated[int, Meta(ge=0, le=100_000)] = 1
    capacity_rps: Annotated[float, Meta(gt=0, le=1e6)]
    """Requests per second one replica serves within SLO."""
    concurrency: Annotated[int, Meta(ge=1, le=100_000)] = 64
    """Requests one replica holds at once."""
    price_usd_per_h: Usd
    """Of one replica."""
    latency_ms: Ms = 100.0
    """Expected p95 inside the endpoint before anything was measured."""
    continues: bool = False
    """It can go on with an answer begun elsewhere (vLLM's and SGLang's `continue_final_message`)."""
    api: Api = "openai"
    """`http`: any method and path is passed on as it came; the same for all endpoints of a service."""
    models: dict[Name, UpstreamModel] = {}
    """By service: what this endpoint calls the model, where it is not what the service is called."""
    health_path: HealthPath = ""
    parent: Label = ""
    """Who owns the provider, as far as law asks; empty: unknown, which no rule that asks for a parent accepts."""
    parent_country: Annotated[str, Meta(pattern=r"^([A-Z]{2})?$(?!\n)")] = ""
    certificates: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    """What it is certified for: pci-dss, hds, iso-27001 ..."""
    power_w: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    """Of one replica at capacity; 0: unknown, and carbon has no price there."""
    egress_usd_per_gb: Usd = 0.0
    least_replicas: Annotated[int, Meta(ge=0, le=100_000)] = 0
    most_replicas: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    """How many a capacity plan may ask for; None: as many as `replicas`, so that nothing is planned."""
    cold_start_s: Seconds = 300.0
    """From a launch to the first answer, before any launch was measured."""

    @property
    def pool(self) -> str:
        """provider/region/zone/instance/market: what prices, interruptions and plans are said of."""
        return "/".join((self.provider, self.region, self.zone, self.instance, self.market))


class Origin(Record, frozen=True, kw_only=True):
    """Where requests come from: a gateway's own setting. RTT to each region it may use."""

    name: Name
    jurisdiction: Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
    rtt_ms: dict[Name, Ms]
    demand_rps: Amount = 1.0
    """Expected demand per class before anything was measured."""


class RequestClass(Record, frozen=True, kw_only=True):
    """An SLO and a data class, with exactly one tier."""

    name: Name
    slo_p95_ms: Annotated[float, Meta(gt=0, le=1e7)]
    """At the caller: to the first token where answers are streamed, else to the whole answer."""
    tier: Tier = "standard"
    data_class: Name = "public"
    jurisdictions: tuple[Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")], ...] = ()
    """Where requests may be processed; empty: anywhere. Law: it fails closed."""
    tenant: Label = ""
    """Whose requests these are; empty: anybody's."""
    purpose: Label = ""
    complexity: Complexity = ""
    simple_class: Label = ""
    """Requests of at most `simple_tokens` are taken as of this class of the same service; empty: none are."""
    simple_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    """Of input, estimated at the gateway, and of output where the caller limits it."""
    response_kb: Annotated[float, Meta(ge=0, le=1e7)] = 4.0
    """Sent back per request, for the price of egress."""
    defer_s: Seconds = 0.0
    """Work of this class may wait so long for a cheaper or greener hour; 0: it does not."""


class Service(Record, frozen=True, kw_only=True):
    """A model or API that callers name."""

    name: Name
    classes: Annotated[tuple[RequestClass, ...], Meta(min_length=1, max_length=64)]
    default_class: Name
    error_budget: Annotated[float, Meta(gt=0, lt=1)] = 0.001
    """Of its requests that may be shed, fail or come late; the reserve is tuned to it."""


Values = Annotated[tuple[Label, ...], Meta(min_length=1, max_length=512)]


class Rule(Record, frozen=True, kw_only=True):
    """One rule: for which requests (`when` all of it and not `unless`, whole), and what follows for which targets.

    A fact is met when the request or the target has one of the values listed for it. Effects of law: `require` (all
    facts, or it is denied), `deny` (a target with all facts is denied), `allow` (where the policy's default is deny).
    Deny wins. Effects of preference: `limit_p95_ms`, `weigh` (factors on parts of the objective), `prefer` (other
    targets cost `worth_usd` more per request). A rule has one effect.
    """

    id: Name
    when: dict[RequestFact, Values] = {}
    unless: dict[RequestFact, Values] = {}
    require: dict[TargetFact, Values] = {}
    deny: dict[TargetFact, Values] = {}
    allow: dict[TargetFact, Values] = {}
    limit_p95_ms: Annotated[float, Meta(gt=0, le=1e7)] | None = None
    weigh: dict[Part, Annotated[float, Meta(ge=0, le=1000)]] = {}
    prefer: dict[TargetFact, Values] = {}
    worth_usd: Usd = 0.0
    reason: Text = ""
    source: Text = ""
    """The article or contract it follows from."""


class Policy(Record, frozen=True, kw_only=True):
    """Rules that were reviewed together. Of several policies each has to permit a pair."""

    name: Name
    default: Literal["allow", "deny"] = "allow"
    """For pairs that no rule of law speaks of."""
    rules: Annotated[tuple[Rule, ...], Meta(max_length=1000)]


class Budget(Record, frozen=True, kw_only=True):
    """What may be spent in a day (UTC) by requests of a scope; empty fields: of all.

    It is kept by a price on each dollar or gram, raised while spending runs ahead: no request is refused for it.
    """

    name: Name
    unit: Literal["usd", "gco2"]
    per_day: Annotated[float, Meta(gt=0, le=1e15)]
    tenant: Label = ""
    service: Label = ""
    class_: Label = msgspec.field(name="class", default="")
    most_price: Annotated[float, Meta(gt=0, le=1e6)] = 10.0
    """The highest price: extra dollars per dollar, or dollars per kilogram."""


class Fleet(Record, frozen=True, kw_only=True):
    """The validated fleet, services, classes and origins, with its version (grows with each change)."""

    fleet: Name = "default"
    version: Count
    services: tuple[Service, ...]
    origins: tuple[Origin, ...]
    endpoints: tuple[Endpoint, ...]
    policies: Annotated[tuple[Policy, ...], Meta(max_length=64)] = ()
    budgets: Annotated[tuple[Budget, ...], Meta(max_length=64)] = ()


class Order(Record, frozen=True, kw_only=True):
    """An operator's word on an endpoint: it gets no new requests, or it does again. The last word holds."""

    endpoint: Name
    drain: bool
    """False: an order before this one ends."""
    reason: Text = ""
    by: Label = ""
    """Who says so; empty: an operator."""
    at_s: UnixS
    until_s: UnixS | None = None
    """From then on the order is as if it had not been given; None: until another is."""

    def __post_init__(self) -> None:
        """Refuse an order that ends before it begins."""
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"until_s {self.until_s:.0f} is not after at_s {self.at_s:.0f}")


class TableOrder(Record, frozen=True, kw_only=True):
    """An operator's word on a service's table: hold the shares it has, or those of `routes`; or end that.

    While it holds, law, health and drains still move what they must; prices and latencies move nothing.
    """

    service: Name
    hold: bool
    routes: tuple[Route, ...] = ()
    """Of the table rolled back to; empty: of the table in force."""
    of: Label = ""
    """The epoch.version that `routes` are of."""
    reason: Text = ""
    by: Label = ""
    at_s: UnixS
    until_s: UnixS | None = None

    def __post_init__(self) -> None:
        """Refuse an order that ends before it begins."""
        if self.until_s is not None and self.until_s <= self.at_s:
            raise ValueError(f"until_s {self.until_s:.0f} is not after at_s {self.at_s:.0f}")


class Deferred(Record, frozen=True, kw_only=True):
    """Work that may wait: so many requests of a class, any time before the deadline."""

    job: Name
    service: Name
    class_: Name = msgspec.field(name="class")
    origin: Name
    requests: Annotated[int, Meta(ge=1, le=10**12)]
    submitted_at_s: UnixS
    deadline_at_s: UnixS

    def __post_init__(self) -> None:
        """Refuse a deadline that is not after the submission."""
        if self.deadline_at_s <= self.submitted_at_s:
            raise ValueError(f"deadline_at_s {self.deadline_at_s:.0f} is not after {self.submitted_at_s:.0f}")


class Release(Record, frozen=True, kw_only=True):
    """When deferred work should run: a plan until `released`, then the word to begin."""

    job: Name
    service: Name
    made_at_s: UnixS
    release_at_s: UnixS
    released: bool = False
    usd_per_request: Usd
    """Expected at `release_at_s`, carbon at its price."""
    now_usd_per_request: Usd
    """What it would have cost when it was submitted."""
    reason: Text = ""


# ---------------------------------------------------------------- heard


class Buckets(Record, frozen=True, kw_only=True):
    """A log histogram: `count[i]` values lie in (gamma^(index[i]-1), gamma^index[i]]; `index` grows strictly."""

    gamma: Annotated[float, Meta(gt=1.0001, le=4)]
    index: Annotated[tuple[Annotated[int, Meta(ge=-10_000, le=10_000)], ...], Meta(max_length=4096)]
    count: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**24)], ...], Meta(max_length=4096)]
    exact: bool = True
    """False: converted from foreign bounds."""

    def __post_init__(self) -> None:
        """Refuse unequal columns, and a bucket that is named twice or out of order."""
        _check_columns(self, "index", "count")
        for before, after in pairwise(self.index):
            if after <= before:
                raise ValueError(f"index has {after} after {before}: name each bucket once, in growing order")


class EndpointMetrics(Record, frozen=True, kw_only=True):
    """One interval of one endpoint, service and class, as one observer saw it: one observation or many.

    `latency_ms` holds values, `latency` buckets; a record carries either. Rates and latency come from gateways and
    probes, queue and cache from endpoints; vantages are never added up. (observer, boot, seq) recognises duplicates.
    No more values than `requests`, no more errors either (`streams.health` refuses what contradicts itself).
    """

    endpoint: Ref
    service: Ref
    class_: Ref = msgspec.field(name="class", default="default")
    observer: Ref
    vantage: Vantage = "gateway"
    boot: Count
    seq: Count
    at_s: UnixS
    interval_s: Seconds = 0.0
    requests: Requests = 1
    errors: Annotated[dict[ErrorKind, Requests], _KINDS_ONLY] = {}
    latency_ms: Annotated[tuple[Ms, ...], Meta(max_length=10_000)] = ()
    latency: Buckets | None = None
    ttft_ms: Annotated[tuple[Ms, ...], Meta(max_length=10_000)] = ()
    ttft: Buckets | None = None
    hard_streak: Count = 0
    """Hard failures in a row up to now, at this observer."""
    first_error_at_s: UnixS | None = None
    last_ok_at_s: UnixS | None = None
    in_flight: Count | None = None
    queue: Count | None = None
    running: Count | None = None
    kv_cache_share: Share | None = None
    gpu_share: Share | None = None
    tokens_in: Count | None = None
    tokens_out: Count | None = None
    bytes_in: Count | None = None
    bytes_out: Count | None = None


class Arrivals(Record, frozen=True, kw_only=True):
    """What one gateway was asked in one slot: columns over (service, class); the origin is the gateway's own."""

    gateway: Ref
    origin: Ref
    boot: Count
    seq: Count
    at_s: UnixS
    """Start of the slot."""
    slot_s: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    """0.1, 0.2, 0.5, 1, 2, 5 or 10; slots of other lengths are refused."""
    service: tuple[Ref, ...]
    class_: tuple[Ref, ...] = msgspec.field(name="class")
    arrived: tuple[Requests, ...]
    admitted: tuple[Requests, ...]
    shed: tuple[Requests, ...]
    failed: tuple[Requests, ...]

    def __post_init__(self) -> None:
        """Refuse unequal columns."""
        _check_columns(self, "service", "class_", "arrived", "admitted", "shed", "failed")


class SpotPrice(Record, frozen=True, kw_only=True):
    """Price of one pool, in force since `effective_at_s`."""

    pool: Name
    """provider/region/zone/instance/market"""
    price_usd_per_h: Usd
    effective_at_s: UnixS
    observed_at_s: UnixS
    interruption_band: Annotated[int, Meta(ge=0, le=4)] | None = None


class CarbonIntensity(Record, frozen=True, kw_only=True):
    """Grams of CO2-equivalent per kWh in a power grid's zone; average and marginal are different series."""

    grid_zone: Name
    kind: Literal["average", "marginal"]
    basis: Literal["measured", "forecast"]
    carbon_g_per_kwh: Annotated[float, Meta(ge=0, le=5000)]
    valid_from_s: UnixS
    valid_until_s: UnixS


class Interruption(Record, frozen=True, kw_only=True):
    """Somebody said that an endpoint is about to go."""

    endpoint: Name
    kind: Literal["rebalance", "terminate", "preempt", "stop", "maintenance", "outage", "drain"]
    notice_at_s: UnixS
    deadline_at_s: UnixS | None = None
    replicas: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Of its replicas that go, besides those of other notices; None: all of them."""
    reason: Text = ""
    """What its source said besides; shown in the reasons of tables."""


class EndpointHealth(Record, frozen=True, kw_only=True):
    """What one source partition knows of its endpoints now: columns over (endpoint, service, class)."""

    source: Name
    """The partition it speaks for; a row of another source is not touched by it."""
    part: Count = 0
    parts: Count = 1
    made_at_s: UnixS
    endpoint: tuple[Name, ...]
    service: tuple[Name, ...]
    class_: tuple[Name, ...] = msgspec.field(name="class")
    verdict: tuple[Verdict, ...]
    reason: tuple[Text, ...]
    observations: tuple[Count, ...]
    """Latency values in the window, of the vantage gateway or probe."""
    rps: tuple[Amount, ...]
    """Requests per second over the last 10 s, whatever the window of the quantiles: a surge shows at once."""
    p50_ms: tuple[Ms | None, ...]
    p95_ms: tuple[Ms | None, ...]
    p99_ms: tuple[Ms | None, ...]
    ttft_p95_ms: tuple[Ms | None, ...]
    errors: Annotated[dict[ErrorKind, tuple[Count, ...]], _KINDS_ONLY] = {}
    in_flight: tuple[Count | None, ...]
    queue: tuple[Count | None, ...]
    tokens_in: tuple[Amount | None, ...] = ()
    """Mean of a request, over the window; empty: nobody said."""
    age_s: tuple[Seconds | None, ...]
    """Since anything was heard of the row; None: never."""
    first_error_at_s: tuple[UnixS | None, ...]
    last_ok_at_s: tuple[UnixS | None, ...]
    late: Count = 0
    duplicates: Count = 0

    def __post_init__(self) -> None:
        """Refuse unequal columns."""
        _check_columns(
            self, "endpoint", "service", "class_", "verdict", "reason", "observations", "rps", "p50_ms", "p95_ms",
            "p99_ms", "ttft_p95_ms", "in_flight", "queue", "age_s", "first_error_at_s", "last_ok_at_s",
        )  # fmt: skip
        for kind, column in self.errors.items():
            if len(column) != len(self.endpoint):
                raise ValueError(f"errors.{kind} has {len(column)} rows, endpoint has {len(self.endpoint)}")
        if self.tokens_in:
            _check_columns(self, "endpoint", "tokens_in")


class Demand(Record, frozen=True, kw_only=True):
    """Arrivals of one slot summed over the gateways of one source partition: columns over (service, origin, class)."""

    source: Name
    at_s: UnixS
    slot_s: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    service: tuple[Name, ...]
    origin: tuple[Name, ...]
    class_: tuple[Name, ...] = msgspec.field(name="class")
    arrived: tuple[Count, ...]
    admitted: tuple[Count, ...]
    shed: tuple[Count, ...]
    failed: tuple[Count, ...]

    def __post_init__(self) -> None:
        """Refuse unequal columns."""
        _check_columns(self, "service", "origin", "class_", "arrived", "admitted", "shed", "failed")


# ---------------------------------------------------------------- expected


class Horizon(Record, frozen=True, kw_only=True):
    """Demand in the slot that begins `ahead_s` after `made_at_s`, by quantile."""

    ahead_s: Seconds
    rps: dict[Annotated[str, Meta(pattern=r"^0\.[0-9]+$(?!\n)")], Amount]
    """Quantile ("0.95") to requests per second."""
    slot_s: Seconds = 60.0
    """Length of the slot it is the mean of."""
    provide_rps: Amount | None = None
    """What to provide for, so that about 1 % of demand goes unmet: learnt from what would have been, lately."""


Pattern = Literal["steady", "on_off", "young"]
"""How a series behaves: on_off ones rest and burst, and no quantile helps them (let them queue); young: under a day."""


class DemandForecast(Record, frozen=True, kw_only=True):
    """Demand per service, origin and class, some horizons ahead."""

    service: Name
    origin: Name
    class_: Name = msgspec.field(name="class")
    made_at_s: UnixS
    model: Name
    horizons: tuple[Horizon, ...]
    spike: Share | None = None
    """Probability that demand exceeds twice the trailing hour's mean within `spike_within_s`."""
    spike_within_s: Seconds = 600.0
    pattern: Pattern = "steady"


class DemandHistory(Record, frozen=True, kw_only=True):
    """What a series held for the last week: how a forecaster that starts anew knows the time of day and of the week."""

    service: Name
    origin: Name
    class_: Name = msgspec.field(name="class")
    made_at_s: UnixS
    slot_s: Annotated[float, Meta(ge=60, le=3600)] = 300.0
    first_at_s: UnixS
    """Where the first slot begins: a whole multiple of `slot_s`."""
    rpm: Annotated[tuple[Annotated[float, Meta(ge=0, le=1e12)] | None, ...], Meta(max_length=10_000)]
    """Requests per minute, slot by slot; None: nobody measured."""


class SpotEvidence(Record, frozen=True, kw_only=True):
    """What a pool has shown of itself up to `until_s`: who judges it next goes on from here."""

    until_s: UnixS
    ready: Count | None = None
    failed: Count | None = None
    """As an actuator reported last; None: none did."""
    losses: Amount
    """Parts of the pool that were taken away, older ones counting less."""
    exposure_h: Amount
    """Hours it was there to be lost, older ones counting less."""
    up_since_s: UnixS | None = None
    lost_at_s: UnixS | None = None
    failed_at_s: UnixS | None = None
    """The last launch that failed."""
    usual_usd_per_h: Usd | None = None
    """Median of its price."""


class SpotRisk(Record, frozen=True, kw_only=True):
    """Hazard of losing a replica of a pool, over the next hour."""

    pool: Name
    made_at_s: UnixS
    hazard_per_h: Amount
    low_per_h: Amount
    high_per_h: Amount
    risk_usd_per_h: Usd = 0.0
    """Of one replica: what its loss is expected to cost in an hour."""
    reasons: tuple[Text, ...] = ()
    evidence: SpotEvidence | None = None


class CapacityPlan(Record, frozen=True, kw_only=True):
    """How many replicas a pool should have, from when on, and why."""

    pool: Name
    plan_id: Name
    made_at_s: UnixS
    want: Count
    have: Count
    not_before_s: UnixS
    reason: Text
    reserve: Annotated[float, Meta(ge=0, le=100)] = 1.0
    """How much of the largest spot zone, and of what forecasts are unsure of, is held ready; tuned to error budgets."""
    by: Label = ""
    """Whose word it is; empty: the planner's. While an operator's holds, no plan of the planner is carried out."""
    until_s: UnixS | None = None
    """From then on it is as if it had not been made; None: it grows old at whoever carries plans out."""

    def __post_init__(self) -> None:
        """Refuse a plan that ends before it begins, and an operator's without an end."""
        if self.until_s is not None and self.until_s <= max(self.made_at_s, self.not_before_s):
            raise ValueError(f"until_s {self.until_s:.0f} is not after made_at_s and not_before_s")
        if self.by and self.until_s is None:
            raise ValueError("until_s is missing: an operator's plan says how long it holds")


class Capacity(Record, frozen=True, kw_only=True):
    """What an actuator saw and did in a pool."""

    pool: Name
    at_s: UnixS
    ready: Count
    starting: Count = 0
    failed: Count = 0
    """Launches that failed, since the actuator began."""
    cold_start_s: Seconds | None = None
    """From a launch to readiness, measured: nine in ten were as quick; None: too few were seen."""
    plan_id: Name | None = None
    """Receipt: the plan that was carried out last."""
    note: Text = ""
    held_until_s: UnixS | None = None
    """An operator's plan holds the pool until then: no other is carried out."""


# ---------------------------------------------------------------- decided


class TableEndpoint(Record, frozen=True, kw_only=True):
    """An endpoint as gateways need it. `down` ones are listed so that gateways know what to probe."""

    name: Name
    url: Url
    provider: Name
    region: Name
    zone: Name
    jurisdiction: Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
    state: EndpointState = "ready"
    capacity_rps: Amount
    """Of all ready replicas together."""
    concurrency: Count
    cost_usd_per_request: Usd
    latency_p95_ms: Ms
    """Inside the endpoint, without the way to it."""
    continues: bool = False
    """It can go on with an answer begun elsewhere."""
    api: Api = "openai"
    model: UpstreamModel = ""
    """What this endpoint calls the table's service."""
    health_path: HealthPath = ""
    instance: Name = "unknown"
    market: Market = "on_demand"
    edge: bool = False
    parent: Label = ""
    parent_country: Annotated[str, Meta(pattern=r"^([A-Z]{2})?$(?!\n)")] = ""
    certificates: tuple[Name, ...] = ()
    leave_by_s: UnixS | None = None
    """Live sessions have to be elsewhere by then; None: nobody has to leave."""


class Route(Record, frozen=True, kw_only=True):
    """Where requests of one origin and class go: shares add up to 1; fallbacks in order when all shares fail.

    Or the route is empty: nothing may be asked.
    """

    origin: Name
    class_: Name = msgspec.field(name="class")
    tier: Tier = "standard"
    slo_p95_ms: Annotated[float, Meta(gt=0, le=1e7)]
    endpoints: tuple[Name, ...]
    shares: tuple[Share, ...]
    fallbacks: tuple[Name, ...] = ()
    reason: Text = ""
    admit: Share = 1.0
    """Of its requests; gateways shed the rest: there is not capacity for all, and this tier is declared to give way."""
    data_class: Name = "public"
    jurisdictions: tuple[Country, ...] = ()
    origin_country: Annotated[str, Meta(pattern=r"^([A-Z]{2})?$(?!\n)")] = ""
    tenant: Label = ""
    purpose: Label = ""
    complexity: Complexity = ""
    simple_class: Label = ""
    simple_tokens: Annotated[int, Meta(ge=0, le=10_000_000)] = 0

    def __post_init__(self) -> None:
        """Refuse unequal columns."""
        _check_columns(self, "endpoints", "shares")


class Spent(Record, frozen=True, kw_only=True):
    """How a budget stands: spent since the day began, and the price that keeps it."""

    budget: Name
    day_at_s: UnixS
    spent: Amount
    price: Amount


class RoutingTable(Record, frozen=True, kw_only=True):
    """An immutable, complete, numbered snapshot for one service. (epoch, version) only ever grows."""

    service: Name
    epoch: Count
    version: Count
    issued_at_s: UnixS
    expires_at_s: UnixS
    fleet_version: Count
    default_class: Name
    endpoints: tuple[TableEndpoint, ...]
    routes: tuple[Route, ...]
    reason: Text = ""
    """Why this table differs from the one before it."""
    evidence_at_s: UnixS | None = None
    """When the failure that caused this table was first seen at a gateway; None: no failure did."""
    policies: tuple[Policy, ...] = ()
    """The law of the fleet, for gateways to check each pick by; preferences are left out."""
    budgets: tuple[Spent, ...] = ()
    held: Text = ""
    """By whose order shares are held, and why; empty: by nobody's."""
    decision: Label = ""
    """Digest of the decision that made these shares: the table's signature anchors the chain of decisions."""


class GatewayStatus(Record, frozen=True, kw_only=True):
    """What a gateway follows. Refusals are counted by reason."""

    gateway: Name
    service: Name
    at_s: UnixS
    epoch: Count | None = None
    version: Count | None = None
    applied_at_s: UnixS | None = None
    age_s: Seconds | None = None
    expired: bool = False
    refused: dict[Annotated[str, Meta(max_length=128)], Count] = {}
    dropped: dict[Annotated[str, Meta(max_length=128)], Count] = {}
    """Reports that could not be kept while the broker was away, by topic."""


class Exclusion(Record, frozen=True, kw_only=True):
    """An endpoint that a route may not or cannot use, and why."""

    endpoint: Name
    reason: Text
    kind: Literal["", "law", "order", "notice", "health", "capacity"] = ""
    """What speaks against it: a rule, an operator, its health, or that it has no ready replica. Empty: not told."""


class Candidate(Record, frozen=True, kw_only=True):
    """An endpoint that was considered for a route: its objective by parts, in dollars per request."""

    endpoint: Name
    price_usd: Usd
    latency_usd: Usd
    share: Share
    egress_usd: Usd = 0.0
    carbon_usd: Usd = 0.0
    risk_usd: Usd = 0.0
    rule_usd: Usd = 0.0
    """What rules of preference and budgets add."""
    crowd_usd: Usd = 0.0
    """What one more request there would add by crowding, at the load that was decided on."""
    last_crowd_usd: Usd | None = None
    """What the last request there added, where a segment of its capacity is just full; None: as much as the next."""
    load: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    """Of its capacity, by all flows together; from 1 on it is full. None: not known."""
    p95_ms: Ms | None = None
    """At the caller, the way included."""


class Considered(Record, frozen=True, kw_only=True):
    """What was considered for one origin and class."""

    origin: Name
    class_: Name = msgspec.field(name="class")
    demand_rps: Amount
    candidates: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...] = ()
    left_out: Count = 0
    """Candidates and exclusions that are not named, so that the record stays small; those in use are named first."""
    unserved_rps: Amount = 0.0


class Decision(Record, frozen=True, kw_only=True):
    """Why a table changed: inputs by offset, what was considered, how it was shared out."""

    service: Name
    epoch: Count
    version: Count
    made_at_s: UnixS
    reason: Text
    method: Literal["greedy", "lp"]
    inputs: dict[Annotated[str, Meta(max_length=200)], Count] = {}
    """"topic/partition" to the next offset: everything before it was known."""
    considered: tuple[Considered, ...]
    gap: Amount | None = None
    """How much dearer the shares are than the optimum's bound, as a share; None: not known."""
    previous: Label = ""
    """`digest` of the service's decision before; empty: it is the first."""
    digest: Label = ""
    """SHA-256 in hex over this record's JSON with `digest` empty; it holds `previous`, so decisions are a chain."""


class Session(Record, frozen=True, kw_only=True):
    """Where a live session has its home, and until when it has to move."""

    session: Name
    service: Name
    class_: Label = msgspec.field(name="class", default="")
    home: Name
    attempt: Count
    """Grows with each move; what an older attempt still says is not listened to."""
    gateway: Label = ""
    at_s: UnixS
    move_by_s: UnixS | None = None
