"""The contract for others: JSON Schema of every record, AsyncAPI 3.1 of every topic, generated from the structs.

`python -m streams.contract.schema --write docs/reference/contract` writes it; without `--write` the files that differ
are named, and the exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from streams.contract.topics import TOPICS, Topic

VERSION = "1.0.0"


def schema_of(topic: Topic) -> dict[str, Any]:
    """JSON Schema (2020-12) of a topic's value; of a dead letter: any bytes."""
    if topic.record is None:
        return {"description": topic.says}
    schema = msgspec.json.schema(topic.record)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": topic.record.__name__, **schema}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.1 document: a channel, a message and an operation for each topic."""
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Tradewind",
            "version": VERSION,
            "description": "Topics of Tradewind. Names begin with a prefix, 'tradewind' unless configured.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {_id(t): _channel(t) for t in TOPICS},
        "operations": {
            f"{verb}_{_id(t)}": {"action": verb, "channel": {"$ref": f"#/channels/{_id(t)}"}}
            for t in TOPICS
            for verb in ("send", "receive")
        },
        "components": {"messages": {_id(t): _message(t) for t in TOPICS}},
    }


def _id(topic: Topic) -> str:
    return topic.name.replace("-", "_").replace(".", "_")


def _channel(topic: Topic) -> dict[str, Any]:
    kept = {"cleanup.policy": topic.cleanup.split(",")}
    if topic.retention_s is not None:
        kept["retention.ms"] = topic.retention_s * 1000  # type: ignore[assignment]
    return {
        "address": f"tradewind.{topic.name}",
        "description": topic.says + (" Experimental: it may still change." if topic.experimental else ""),
        "messages": {_id(topic): {"$ref": f"#/components/messages/{_id(topic)}"}},
        "bindings": {"kafka": {"topicConfiguration": kept, "bindingVersion": "0.5.0"}},
    }


def _message(topic: Topic) -> dict[str, Any]:
    key = {"type": "string", "description": "/".join(f.rstrip("_") for f in topic.key) or "as it came"}
    payload: dict[str, Any] = {"schemaFormat": "application/schema+json;version=draft-2020-12"}
    return {
        "name": topic.record.__name__ if topic.record else "DeadLetter",
        "title": topic.says,
        "contentType": "application/json" if topic.record else "application/octet-stream",
        "headers": {"type": "object", "properties": {h: {"type": "string"} for h in _HEADERS}},
        "payload": {**payload, "schema": _inlined(schema_of(topic))} if topic.record else {"type": "string"},
        "bindings": {"kafka": {"key": key, "bindingVersion": "0.5.0"}},
    }


_HEADERS = ("content-type", "ce_specversion", "ce_type", "ce_id", "ce_source", "ce_time")


def _inlined(schema: dict[str, Any]) -> Any:
    """The schema with its local references written out, so that it can stand inside another document."""
    definitions = schema.get("$defs", {})

    def expand(node: Any) -> Any:
        if isinstance(node, list):
            return [expand(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return expand(definitions[node["$ref"].rsplit("/", 1)[1]])
        return {name: expand(value) for name, value in node.items() if name not in ("$defs", "$schema")}

    return expand(schema)


def files() -> dict[str, bytes]:
    """File name to contents of all that is generated."""
    documents = {f"{t.name}.schema.json": schema_of(t) for t in TOPICS if t.record is not None}
    documents["asyncapi.json"] = asyncapi()
    return {name: msgspec.json.format(msgspec.json.encode(d), indent=2) + b"\n" for name, d in documents.items()}


def drift(folder: Path) -> list[str]:
    """Names of files in `folder` that are not as generated: missing, different or left over."""
    want = files()
    have = {p.name: p.read_bytes() for p in folder.glob("*.json")}
    return sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))


def main() -> int:
    """Write or check the folder; exit status 1 when something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/reference/contract"))
    parser.add_argument("--write", action="store_true", help="write the files instead of checking them")
    args = parser.parse_args()
    if args.write:
        args.folder.mkdir(parents=True, exist_ok=True)
        for name, content in files().items():
            (args.folder / name).write_bytes(content)
        return 0
    if differ := drift(args.folder):
        print(f"not as generated: {', '.join(differ)}; run `make contract`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
