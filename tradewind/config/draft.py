"""A first tradewind.yaml, written from a few answers: valid, commented, to be grown by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from router_sync.countries import COUNTRIES
from streams.contract.errors import BadSetting
from streams.contract.records import Name

NEAR_MS: Final = 10
FAR_MS: Final = 90
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./:-]*")
_MEANT_AS_OTHER: Final = frozenset(["yes", "no", "on", "off", "true", "false", "null", "y", "n"])
_FORM: Final = "Write NAME=URL@REGION/COUNTRY, and behind commas what you know of price=USD, rps=N, replicas=N."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An endpoint as asked for: price in US dollars per hour and rps are those of one replica."""

    name: str
    url: str
    region: str
    country: str
    price_usd_per_h: float = 1.0
    rps: float = 20.0
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """Where callers are."""

    name: str
    country: str


EXAMPLE: Final = (
    Place(name="one", url="http://127.0.0.1:8001", region="eu", country="DE", price_usd_per_h=1.0),
    Place(name="two", url="http://127.0.0.1:8002", region="us", country="US", price_usd_per_h=0.8),
)


def parse_endpoint(text: str) -> Place:
    """The endpoint that a flag says.

    >>> parse_endpoint("a=http://10.0.0.1:8000@eu/DE,price=1.2")
    Place(name='a', url='http://10.0.0.1:8000', region='eu', country='DE', price_usd_per_h=1.2, rps=20.0, replicas=1)

    Raises BadSetting with what would be right.
    """
    name, is_one, rest = text.partition("=")
    url, at, where = rest.rpartition("@")
    place, *known = where.split(",")
    region, slash, country = place.partition("/")
    if not (is_one and at and slash):
        raise BadSetting("flag", "--endpoint", text, _FORM)
    numbers = _numbers(text, known)
    return Place(
        name=named(name, "--endpoint"), url=address(url), region=named(region, "--endpoint"), country=nation(country),
        price_usd_per_h=numbers.get("price", 1.0), rps=numbers.get("rps", 20.0),
        replicas=int(numbers.get("replicas", 1)),
    )  # fmt: skip


def _numbers(text: str, known: Sequence[str]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for one in known:
        field, _, value = one.partition("=")
        try:
            numbers[field] = number(value, least=0.0)
        except BadSetting:
            raise BadSetting("flag", "--endpoint", text, _FORM) from None
        if field not in ("price", "rps", "replicas"):
            raise BadSetting("flag", "--endpoint", text, _FORM)
    return numbers


def parse_origin(text: str) -> Origin:
    """The origin that a flag says: NAME/COUNTRY. Raises BadSetting with what would be right."""
    name, slash, country = text.partition("/")
    if not slash:
        raise BadSetting("flag", "--origin", text, "Write NAME/COUNTRY, like eu/DE.")
    return Origin(named(name, "--origin"), nation(country))


def named(text: str, field: str = "name") -> str:
    """`text` when it can be a name. Raises BadSetting."""
    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError:
        remedy = "Use letters, digits and _ . : / @ + - only, a letter or digit first."
        raise BadSetting("flag", field, text, remedy) from None


def nation(text: str) -> str:
    """`text` as a country code. Raises BadSetting."""
    code = text.strip().upper()
    if code not in COUNTRIES:
        meant = {"UK": " The United Kingdom is GB.", "EU": " Name a country."}
        remedy = f"Use an ISO 3166-1 alpha-2 country code, like DE.{meant.get(code, '')}"
        raise BadSetting("flag", "country", text, remedy)
    return code


def address(text: str) -> str:
    """`text` when it can be an endpoint's address. Raises BadSetting."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or parts.query or parts.fragment or parts.username or re.search(r"\s", text):
        raise BadSetting("flag", "url", text, "Write http(s)://host:port, without user, query or fragment.")
    return text


def number(text: str, least: float) -> float:
    """`text` as a finite number above `least`, or `least` itself. Raises BadSetting."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < 1e9:
        raise BadSetting("flag", "number", text, f"Write a number of at least {least:g}.")
    return value


def draft(service: str, places: Sequence[Place], origins: Sequence[Origin], *, example: bool = False) -> str:
    """The file's text. `example`: its endpoints are made up, and it says so."""
    parts = (_head(example), _service(service), _origins(origins, places), _endpoints(service, places), _FOOT)
    return "\n".join(parts)


def _head(example: bool) -> str:
    warning = "# THIS IS AN EXAMPLE: put your endpoints' addresses, places and prices in place of those below.\n"
    return (
        f"{warning if example else ''}"
        "# What Tradewind balances: services, where requests come from, and the endpoints that answer them.\n"
        "# Check it with `tradewind config check`, run it with `tradewind up`. Changes are taken over while it runs.\n"
        "fleet: default                # its name; one fleet per topic prefix\n"
    )


def _service(service: str) -> str:
    return f"""\
services:
  - name: {word(service)}                # what callers write as `model`
    default_class: interactive
    classes:                  # an SLO, and who keeps capacity when it runs short
      - name: interactive
        slo_p95_ms: 1000      # to the first token where answers are streamed, else to the whole answer
        tier: premium         # premium, standard or sheddable
        # jurisdictions: [DE, FR]   # where requests may be processed; left out: anywhere. Law: it fails closed
      - name: batch
        slo_p95_ms: 10000
        tier: sheddable
"""


def _origins(origins: Sequence[Origin], places: Sequence[Place]) -> str:
    countries = {place.region: place.country for place in places}
    lines = ["origins:                      # where requests come from; each has a gateway"]
    for origin in origins:
        trips = ", ".join(f"{word(region)}: {_trip(origin, region, at)}" for region, at in countries.items())
        lines += [
            f"  - name: {word(origin.name)}",
            f"    jurisdiction: {word(origin.country)}",
            f"    rtt_ms: {{{trips}}}   # guessed round trips to each region: measure yours",
        ]
    return "\n".join([*lines, ""])


def _trip(origin: Origin, region: str, country: str) -> int:
    return NEAR_MS if origin.name == region or origin.country == country else FAR_MS


def _endpoints(service: str, places: Sequence[Place]) -> str:
    lines = ["endpoints:                    # capacity and price are those of one replica"]
    for number_, place in enumerate(places):
        told = _SAYS if number_ == 0 else {}
        fields = {
            "name": word(place.name), "url": word(place.url), "services": f"[{word(service)}]",
            "provider": "own", "region": word(place.region), "zone": word(f"{place.region}-1"),
            "jurisdiction": word(place.country), "replicas": str(place.replicas), "capacity_rps": f"{place.rps:g}",
            "price_usd_per_h": f"{place.price_usd_per_h:g}",
        }  # fmt: skip
        written = [_commented(f"{field}: {value}", told.get(field, "")) for field, value in fields.items()]
        lines += [f"  - {written[0]}", *(f"    {line}" for line in written[1:])]
    return "\n".join([*lines, ""])


_SAYS: Final = {
    "provider": "what fails together: provider, region, zone",
    "jurisdiction": "country of the place of processing, ISO 3166-1 alpha-2",
    "capacity_rps": "requests per second one replica serves within SLO",
    "price_usd_per_h": "of the instance, US dollars",
}

_FOOT: Final = """\
# settings:                     # for all roles; flags and TRADEWIND_ variables go before it
#   bootstrap_servers: kafka:9092   # your Kafka; left out: `tradewind up` brings its own
#   topic_prefix: tradewind

# gateway:                      # for all gateways; paths start where this file is
#   ports: {eu: 8080}             # by origin; left out: 8080, 8081 and so on
#   keys: api-keys.yaml           # who may call; left out: `tradewind up` makes a key
"""


def _commented(line: str, comment: str) -> str:
    return f"{line:<26}# {comment}" if comment else line


def word(text: str) -> str:
    """`text` as YAML reads it back, in quotes where it might be taken for something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _MEANT_AS_OTHER and not text.endswith(":"):
        return text
    return msgspec.json.encode(text).decode()
