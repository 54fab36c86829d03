"""Every generated page: file name to text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from router_sync.actuators.entry import Entry
from router_sync.actuators.kinds import KINDS, Kind
from router_sync.gateway.config import GatewayConfig
from router_sync.gateway.secret import Reference
from streams import signals
from streams.contract.records import Budget, Endpoint, Fleet, Origin, Policy, RequestClass, Rule, Service
from streams.contract.rights import ROLES, Role
from streams.contract.topics import TOPICS, Topic
from streams.settings import Settings
from tradewind.reference.commands import cli_page
from tradewind.reference.markdown import anchor, cell, prose, table
from tradewind.reference.structs import attribute_docs, fields, inside, section, sections
from tradewind.reference.words import default_in_words, kind_of
from tradewind.world.scenario import Scenario

_HEAD: Final = "<!-- Written by `make reference`: edit the code it comes from. -->\n"
_HOUR_S, _DAY_S = 3600, 86400
_NAMES: Final = (
    "A *name* has letters, digits and `_ . : / @ + -`, starts with a letter or digit, and is at most 128 long.\n\n"
)


def pages(decisions: Path | None = None) -> dict[str, str]:
    """File name to text of every generated page; `decisions` is the folder of theirs, which are listed by title."""
    made = {
        "cli.md": cli_page(),
        "settings.md": settings_page(),
        "gateway.md": gateway_page(),
        "fleet.md": fleet_page(),
        "actuators.md": actuators_page(),
        "scenario.md": scenario_page(),
        "topics.md": topics_page(),
        "metrics.md": metrics_page(),
        "rights.md": rights_page(),
        "decisions.md": decisions_page(sorted(decisions.glob("[0-9]*.md")) if decisions else []),
    }
    return {name: f"{_HEAD}\n{text.strip()}\n" for name, text in made.items()}


def drift(folder: Path) -> list[str]:
    """Names of generated pages that are not in `folder` as they would be written now."""
    made = pages(folder.parent / "decisions")
    return sorted(n for n, text in made.items() if not (p := folder / n).exists() or p.read_text("utf-8") != text)


def settings_page() -> str:
    """Every field of Settings, with its environment variable."""
    docs, schema = attribute_docs(Settings), Settings.model_json_schema()
    rows = (
        [
            f"`{name}`",
            kind_of(part),
            default_in_words(Settings.model_fields[name].default),
            cell(docs.get(name) or Settings.model_fields[name].description or ""),
        ]
        for name, part in schema["properties"].items()
    )
    return (
        "# Settings\n\nRead once at start, by every process. The environment variable of a setting is `TRADEWIND_` and "
        "its name in capitals. A value that cannot be used stops the process, with the field's name and what would be "
        "right.\n\n" + table(("Setting", "Value", "Default", "What"), rows)
    )


def gateway_page() -> str:
    """Every field of GatewayConfig and of what is inside it."""
    return (
        "# Gateway configuration\n\nFields of a file for `tradewind gateway --config FILE`, and of the section "
        "`gateway:` of `tradewind.yaml`. Unknown fields are refused.\n\n" + _NAMES + sections(GatewayConfig)
    )


def fleet_page() -> str:
    """The sections of tradewind.yaml that say what there is."""
    parts = (section(kind) for kind in (Fleet, Service, RequestClass, Origin, Endpoint, Policy, Rule, Budget))
    return (
        "# Fleet file\n\nThe sections of `tradewind.yaml` that say what there is: services, origins, endpoints. "
        "`tradewind fleet check FILE` names every problem with its line.\n\n" + _NAMES + "\n\n".join(parts)
    )


def actuators_page() -> str:
    """The section of actuators: what all entries have in common, and each kind with what it adds."""
    kinds = "\n\n".join(_kind(name, kind) for name, kind in KINDS.items())
    return (
        "# Actuators\n\nThe section `actuators:` of `tradewind.yaml`: `mode` (`dry_run` or `act`, default `dry_run`) "
        "and `pools`, a list of entries. Unknown fields are refused. How to begin: [Actuators](../actuators.md).\n\n"
        + section(Entry)
        + f"\n\n{kinds}\n\n{section(Reference)}"
    )


def _kind(name: str, kind: Kind) -> str:
    """The fields of a kind that are not everybody's, below what its file says of it."""
    says = inspect.getdoc(inspect.getmodule(kind.entry)) or ""
    return f"## {name}\n\n{says}\n\n{fields(kind.entry, besides=Entry)}"


def scenario_page() -> str:
    """What a scenario file for `tradewind replay` may say."""
    return (
        "# Scenario file\n\nWhat happens in a world that `tradewind replay FILE` lives through. Besides what is below "
        "it has `fleet`: services, origins and endpoints ([fleet file](fleet.md)), or the name of such a file beside "
        "this one; each endpoint has a pool of its own. Lengths of time are written as in `90s`, `30m`, `9h30m`; `at` "
        "is one after the start. [Replay](../replay.md) has an example.\n\n" + sections(Scenario)
    )


def topics_page() -> str:
    """Every topic, and every record by field."""
    head = ("Topic", "Key", "Cleanup", "Partitions", "Kept", "What")
    rows = (
        [f"[`{t.name}`](#{anchor(t.name)})", _key(t), t.cleanup, _width(t), _kept(t), cell(_says(t))] for t in TOPICS
    )
    return (
        "# Topics and records\n\nEvery name begins with a prefix, `tradewind.` unless configured. Values are JSON "
        "(msgpack where the header `content-type` says `application/msgpack`), keys are printable, partitions are "
        "chosen by murmur2 of the key. Unknown fields are ignored. For machines: "
        "[AsyncAPI 3.1](contract/asyncapi.json), and JSON Schema beside it.\n\n"
        + table(head, rows)
        + "".join(f"\n\n## {t.name}\n\n{_says(t)}\n\n{_record(t)}" for t in TOPICS)
        + "".join(f"\n\n{section(kind, 3)}" for kind in _shared())
    )


def _record(topic: Topic) -> str:
    if topic.record is None:
        return "The bytes as they came; where they stood and why they were refused is in the headers `tw-…`."
    schema = f"`{topic.record.__name__}` ([JSON Schema](contract/{topic.name}.schema.json))"
    return f"{schema}: {prose(topic.record.__doc__ or '')}\n\n{fields(topic.record)}"


def _link(topic: Topic) -> str:
    return f"[`{topic.name}`](#{anchor(topic.name)})"


def _shared() -> list[type[msgspec.Struct]]:
    """Structs that are inside records, each once."""
    records = [t.record for t in TOPICS if t.record is not None]
    return list(dict.fromkeys(inner for record in records for inner in inside(record) if inner not in records))


def _says(topic: Topic) -> str:
    return topic.says + (" Experimental: only demos produce it yet." if topic.experimental else "")


def _key(topic: Topic) -> str:
    return "/".join(f"`{field.rstrip('_')}`" for field in topic.key) or "as it came"


def _width(topic: Topic) -> str:
    return "many" if topic.width == "wide" else "1"


def _kept(topic: Topic) -> str:
    if topic.retention_s is None:
        return "for ever"
    return f"{topic.retention_s // _DAY_S} d" if topic.retention_s >= _DAY_S else f"{topic.retention_s // _HOUR_S} h"


def metrics_page() -> str:
    """Every metric declared in `streams.signals`."""
    rows = ([f"`{_exposed(m)}`", str(m._type), _labels(m), cell(m._documentation)] for m in _metrics())
    return (
        "# Metrics\n\n`GET /metrics` of workers and gateways, in Prometheus' text format. Counters only grow; a "
        "histogram has `_bucket`, `_sum` and `_count`.\n\n" + table(("Metric", "Kind", "Labels", "What"), rows)
    )


def _metrics() -> list[MetricWrapperBase]:
    return [m for m in vars(signals).values() if isinstance(m, Counter | Gauge | Histogram)]


def _exposed(metric: MetricWrapperBase) -> str:
    return str(metric._name) + ("_total" if isinstance(metric, Counter) else "")


def _labels(metric: MetricWrapperBase) -> str:
    return ", ".join(f"`{label}`" for label in metric._labelnames)


def rights_page() -> str:
    """The least rights of each role, as `tradewind topics plan` grants them."""
    head = ("Role", "Is", "READ", "WRITE", "On every topic of the prefix", "Consumer groups")
    return (
        "# Rights per role\n\nThe least that each role needs on Kafka. Topics and groups begin with the topic prefix. "
        "READ and WRITE imply DESCRIBE. `tradewind topics plan` prints these for your prefix, also as commands for "
        "`kafka-acls.sh`. A role that lacks a right says so when it starts.\n\n"
        + table(head, ([f"`{r.name}`", cell(r.says), *_topics(r), _every(r), _groups(r)] for r in ROLES))
    )


def _topics(role: Role) -> tuple[str, str]:
    reads, writes = (", ".join(f"`{topic.name}`" for topic in names) or "-" for names in (role.reads, role.writes))
    return reads, writes


def _every(role: Role) -> str:
    return ", ".join(role.every) or "-"


def _groups(role: Role) -> str:
    member, sees = (", ".join(f"`…-{room}`" for room in rooms) for rooms in (role.rooms, role.watches))
    return "; ".join(said for said in (member and f"READ {member}", sees and f"DESCRIBE {sees}") if said) or "-"


def decisions_page(files: Sequence[Path]) -> str:
    """The decisions, one line each: their titles, which begin with their numbers."""
    says = "# Decisions\n\nChoices that were hard, a page each: motive, choice, edge cases, what was refused.\n\n"
    return says + "\n".join(f"* [{_title(file)}](../decisions/{file.name})" for file in files)


def _title(file: Path) -> str:
    return file.read_text("utf-8").partition("\n")[0].lstrip("# ")
