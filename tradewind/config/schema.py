"""JSON Schema 2020-12 of a tradewind.yaml, for editors: written from the types that read the file.

`python -m tradewind.config.schema --write` writes docs/reference/tradewind.schema.json; without `--write` the exit
status is 1 when that file is not as generated.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from router_sync.actuators.kinds import KINDS
from router_sync.policy.file import ASKS
from streams.contract.records import Budget, Endpoint, Fleet, Origin, Policy, RequestClass, Rule, Service
from streams.settings import Settings
from tradewind.config.gateway import common

PLACE: Final = Path("docs/reference/tradewind.schema.json")
_REF: Final = "#/$defs/{name}"
_CLOSED: Final = (Endpoint, Origin, RequestClass, Service, Policy, Rule, Budget)
_SAYS: Final = {
    "fleet": "What there is as a whole is called.",
    "version": "Grows with each change; left out: whoever publishes the fleet numbers it.",
    "services": "Models or APIs that callers name.",
    "origins": "Where requests come from, each with a gateway.",
    "endpoints": "Who answers requests.",
    "policies": "Rules of law and preference: names of shipped ones, paths like ./ours.yaml, or written here.",
    "budgets": "What may be spent in a day, in dollars or grams of CO2; kept by a price, no request is refused for it.",
    "lists": "Values by name; $name stands for them in this policy.",
    "settings": "What all roles need to know; flags and TRADEWIND_ variables go before it.",
    "gateway": "What all gateways have in common. Paths start where this file is.",
    "actuators": "Who carries capacity plans out, pool by pool; left out: nobody does. Paths start at this file.",
    "ports": "Origin to the port of its gateway under `tradewind up`; else 8080, 8081 and so on.",
}


def schema() -> dict[str, Any]:
    """The whole document."""
    kinds = (Fleet, _gateway_section(), *(kind.entry for kind in KINDS.values()))
    (fleet_ref, gateway_ref, *entries), definitions = msgspec.json.schema_components(
        kinds, schema_hook=_hook, ref_template=_REF
    )
    fleet, gateway = (definitions.pop(ref["$ref"].rsplit("/", 1)[1]) for ref in (fleet_ref, gateway_ref))
    for kind in _CLOSED:
        definitions[kind.__name__]["additionalProperties"] = False  # the reader refuses what it does not know
    _as_written(definitions)
    for entry in (definitions[one.entry.__name__] for one in KINDS.values()):
        entry["required"] = ["kind", *entry["required"]]
    settings = Settings.model_json_schema()
    properties = {name: {**field} for name, field in fleet["properties"].items()}
    properties["policies"]["items"] = {"anyOf": [{"type": "string", "minLength": 1}, properties["policies"]["items"]]}
    properties |= {"settings": _settings(settings), "gateway": _gateway(gateway)}
    properties["actuators"] = _actuators(entries)
    for name, said in properties.items():
        said["description"] = _SAYS.get(name, said.get("description", ""))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tradewind.yaml",
        "description": "The fleet, and how Tradewind runs for it. `tradewind config check` finds more than a schema.",
        "type": "object",
        "properties": properties,
        "required": ["services", "origins", "endpoints"],
        "additionalProperties": False,
        "$defs": definitions | settings.get("$defs", {}),
    }


def text() -> bytes:
    """The document as its file holds it."""
    return msgspec.json.format(msgspec.json.encode(schema(), order="deterministic"), indent=2) + b"\n"


def _as_written(definitions: dict[str, Any]) -> None:
    """Policies as people write them: lists that have names, and one text where a list of one would stand."""
    rule, policy = definitions["Rule"]["properties"], definitions["Policy"]["properties"]
    values = {"anyOf": [rule["when"]["additionalProperties"], {"type": "string", "minLength": 1, "maxLength": 128}]}
    for field, facts in ASKS.items():
        rule[field] |= {"propertyNames": {"enum": list(facts)}, "additionalProperties": values, "minProperties": 1}
        del rule[field]["default"]
    policy["lists"] = {"description": _SAYS["lists"], "type": "object", "additionalProperties": values}


def _settings(said: dict[str, Any]) -> dict[str, Any]:
    fields = {name: _without(field, "title") for name, field in said["properties"].items()}
    return {"type": ["object", "null"], "properties": fields, "additionalProperties": False}


def _gateway_section() -> type[msgspec.Struct]:
    """The common fields of a GatewayConfig as a struct of their own; none of them is required in a file."""
    fields = [(name, info.type, info.default if not info.required else None) for name, info in common().items()]
    return msgspec.defstruct("GatewaySection", fields, kw_only=True)


def _gateway(said: dict[str, Any]) -> dict[str, Any]:
    port = {"type": "integer", "minimum": 1, "maximum": 65535}
    ports = {"description": _SAYS["ports"], "type": "object", "additionalProperties": port}
    fields = {
        name: _without(field, "default") if field.get("default") is None else field
        for name, field in said["properties"].items()
    }
    return {"type": ["object", "null"], "properties": {**fields, "ports": ports}, "additionalProperties": False}


def _actuators(entries: list[dict[str, Any]]) -> dict[str, Any]:
    fields = {
        "mode": {"enum": ["dry_run", "act"], "default": "dry_run", "description": "dry_run says what it would do."},
        "pools": {"type": "array", "items": {"anyOf": entries}, "description": "The first that fits a pool has it."},
    }
    return {"type": ["object", "null"], "properties": fields, "additionalProperties": False}


def _without(field: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in field.items() if key not in names}


def _hook(kind: type) -> dict[str, Any]:
    if issubclass(kind, Path):
        return {"type": "string", "format": "path"}
    raise NotImplementedError(kind)


def main() -> int:
    """Write or check the file; exit status 1 when it differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=PLACE)
    parser.add_argument("--write", action="store_true", help="write the file instead of checking it")
    args = parser.parse_args()
    if args.write:
        args.file.write_bytes(text())
        return 0
    if not args.file.is_file() or args.file.read_bytes() != text():
        print(f"{args.file} is not as generated: run `python -m tradewind.config.schema --write`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
