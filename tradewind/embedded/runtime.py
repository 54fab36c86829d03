"""What a broker is started from: a Java runtime and the verified jars."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tradewind.embedded.jars import Progress, ensure_jars, listed
from tradewind.embedded.java import find_java
from tradewind.embedded.maven import from_maven
from tradewind.embedded.progress import silent

# A demo's broker lives for minutes on a machine it shares: C1 alone is ready in 1.6 s for 2.9 CPU seconds (format and
# start), with C2 it is 2.3 s and 5.2. The serial collector keeps it to one thread and about 300 MB.
QUICK = ("-XX:TieredStopAtLevel=1",)
# For measurements of throughput: the optimising compiler too, and room to work in.
FAST = ("-Xms512m", "-Xmx1g")

_ALWAYS = (
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",  # no files in /tmp that a killed broker would leave there
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """Java, jars and the version of Kafka they are."""

    java: Path
    jars: tuple[Path, ...]
    version: str

    def command(self, main_class: str, *arguments: str, jvm: tuple[str, ...] = (), scratch: Path) -> list[str]:
        """Words that run `main_class`; `jvm` options win over ours, `scratch` is where Java may leave files."""
        classpath = os.pathsep.join(str(jar) for jar in self.jars)
        return [str(self.java), *_ALWAYS, f"-Djava.io.tmpdir={scratch}", *jvm, "-cp", classpath, main_class, *arguments]


def prepare(
    cache: Path,
    *,
    java_home: Path | None = None,
    search_path: str | None = None,
    repository: str | None = None,
    progress: Progress = silent,
) -> Runtime:
    """A runtime that is ready to start; the first time its jars are fetched into `cache` (45 MB, about 20 s).

    `java_home` and `search_path` say where the machine's own Java may be, `repository` is the URL of a Maven repository
    (None: Maven Central). Blocks, so call it before the event loop starts. Raises `Missing` with the remedy when there
    is no Java, no network, no room or no right to write.
    """
    java = find_java(java_home, search_path)
    wanted = listed()
    jars = ensure_jars(cache.absolute(), wanted.jars, from_maven(repository), progress)
    return Runtime(java=java, jars=jars, version=wanted.kafka)
