"""Writes the list of the broker's jars anew: `python -m tradewind.embedded.lock [KAFKA_VERSION]`.

For maintainers, when the Kafka version changes. Resolves the endpoint with all its dependencies at Maven Central,
hashes each jar and replaces `tradewind/kafka_jars.json`; look at the difference before committing it.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import msgspec

from tradewind.embedded.jars import Jar, JarList, listed, sha256_of

# slf4j-simple and not log4j's binding: the bill of materials of that drags kafka-clients down to another version, and
# the broker dies at start. With no binding at all it would log nothing, not even errors.
ENDPOINT = "org.apache.kafka:kafka_2.13:{kafka}+org.slf4j:slf4j-simple:1.7.36"
LIST = Path(__file__).parents[1] / "kafka_jars.json"


def resolve(kafka: str, repository: Path) -> JarList:
    """The list for version `kafka`; jars and POMs come into `repository`, a folder laid out as Maven does."""
    from jgo.maven import MavenContext, PythonResolver
    from jgo.parse import Coordinate

    endpoint = ENDPOINT.format(kafka=kafka)
    context = MavenContext(resolver=PythonResolver(), repo_cache=repository)
    words = [replace(Coordinate.parse(word), scope="compile") for word in endpoint.split("+")]
    asked = [context.create_dependency(word) for word in words]
    inputs, transitive = context.resolver.resolve(asked)
    chosen = [*inputs, *(dependency for dependency in transitive if dependency.scope in ("compile", "runtime"))]
    jars = sorted((_hashed(dependency.artifact) for dependency in chosen), key=lambda jar: jar.coordinate)
    if len({jar.name for jar in jars}) != len(jars):
        raise SystemExit("two jars have the same file name; the cache folder keeps them by name")
    return JarList(kafka=kafka, endpoint=endpoint, jars=tuple(jars))


def _hashed(artifact: object) -> Jar:
    path = Path(artifact.resolve())  # type: ignore[attr-defined]
    coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"  # type: ignore[attr-defined]
    return Jar(coordinate=coordinate, sha256=sha256_of(path), size=path.stat().st_size)


def main(arguments: list[str]) -> None:
    """Writes the list for the version given, or for the version listed now."""
    kafka = arguments[0] if arguments else listed().kafka
    with tempfile.TemporaryDirectory() as repository:
        found = resolve(kafka, Path(repository))
    LIST.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    size_mb = sum(jar.size for jar in found.jars) / 1e6
    print(f"{LIST}: Kafka {kafka}, {len(found.jars)} jars, {size_mb:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
