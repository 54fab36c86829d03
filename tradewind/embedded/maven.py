"""Gets one listed jar from a Maven repository, through jgo."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from streams.contract.errors import Missing
from tradewind.embedded.jars import ELSEWHERE, Fetch, Jar, OnBytes

_ATTEMPTS = 2  # of ninety requests one may well break off


def from_maven(repository: str | None = None) -> Fetch:
    """A `Fetch` that takes jars from `repository` (a URL; None: Maven Central) through the proxies of the environment.

    jgo is asked for exactly the file of the coordinate, so no POM is read and nothing is resolved: what runs is what
    the list says. Raises `Missing` where jgo is not installed.
    """
    maven = _jgo_maven()

    def fetch(jar: Jar, folder: Path, on_bytes: OnBytes) -> Path:
        group, artifact, version = jar.coordinate.split(":")
        for attempt in range(_ATTEMPTS):
            context = maven.MavenContext(
                resolver=maven.PythonResolver(progress_callback=_pieces(on_bytes)),
                # A new folder each time: jgo takes any file that lies there, a torn one too, for a finished one.
                repo_cache=folder / str(attempt),
                remote_repos={"maven": repository} if repository else None,
            )
            with _said_plainly(jar, last=attempt == _ATTEMPTS - 1):
                return Path(context.project(group, artifact).at_version(version).artifact().resolve())
        raise AssertionError("the last attempt comes back or raises")

    return fetch


def _jgo_maven() -> Any:
    try:
        import jgo.maven
    except ImportError:
        raise Missing(
            "The embedded Kafka needs the package jgo, which is not installed",
            f"Run `pip install 'tradewind[embedded]'`, {ELSEWHERE}.",
        ) from None
    return jgo.maven


def _pieces(on_bytes: OnBytes) -> Callable[[str, int], contextlib.AbstractContextManager[OnBytes]]:
    @contextlib.contextmanager
    def one_file(_name: str, _size: int) -> Iterator[OnBytes]:
        yield on_bytes

    return one_file


@contextlib.contextmanager
def _said_plainly(jar: Jar, *, last: bool) -> Iterator[None]:
    """Swallows a failed attempt; turns the last one into a sentence with a remedy."""
    from requests.exceptions import RequestException  # jgo's own client, so it is there when jgo is

    try:
        yield
    except RequestException as error:
        if last:
            raise _unreachable(jar, type(error).__name__) from error
    except RuntimeError as error:  # how jgo says that every repository answered, and none with 200
        if last:
            raise _unreachable(jar, "the repository does not have it, or refuses") from error


def _unreachable(jar: Jar, why: str) -> Missing:
    return Missing(
        f"{jar.coordinate} could not be fetched from Maven ({why}); it is needed once, for the first start",
        f"Connect to the network, set HTTPS_PROXY, copy a filled cache from another machine, {ELSEWHERE}.",
    )
