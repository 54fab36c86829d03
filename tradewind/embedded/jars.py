"""The broker's jars: a committed list, a cache folder, and the check that the one holds exactly the other.

Every start hashes every jar (45 MB, about 50 ms): a download that was cut off, a disk that went bad and a file that
somebody changed all look the same, and are fetched again. Jars come into the cache one by one, by rename, after their
hash was checked, so that an interrupted download loses only the jar it was at.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from streams.contract.errors import Missing

ROOM_BYTES = 300 * 1024 * 1024
ELSEWHERE = "or use your own Kafka with --bootstrap-servers"

Progress = Callable[[str, int, int], None]
"""Told of each piece: name of the jar, bytes fetched so far, bytes to fetch in all."""

OnBytes = Callable[[int], None]
"""Told of each piece's size in bytes as it comes."""

Fetch = Callable[["Jar", Path, OnBytes], Path]
"""Gets one jar into an empty folder, telling of each piece's bytes; the path of the file. Raises `Missing`."""


class Jar(msgspec.Struct, frozen=True):
    """One jar of the list: Maven coordinate (group:artifact:version), SHA-256 in hex, size in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """File name, as Maven gives it."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


class JarList(msgspec.Struct, frozen=True):
    """What makes a broker: its version, the Maven endpoint the list was resolved from, and the jars."""

    kafka: str
    endpoint: str
    jars: tuple[Jar, ...]


def listed() -> JarList:
    """The committed list, `tradewind/kafka_jars.json`; `python -m tradewind.embedded.lock` writes it."""
    return msgspec.json.decode(files("tradewind").joinpath("kafka_jars.json").read_bytes(), type=JarList)


def default_cache(environ: Mapping[str, str], home: Path) -> Path:
    """Folder that keeps the jars between runs: below XDG_CACHE_HOME if it is an absolute path, else below ~/.cache."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else home / ".cache") / "tradewind" / f"kafka-{listed().kafka}"


def ensure_jars(cache: Path, jars: Sequence[Jar], fetch: Fetch, progress: Progress) -> tuple[Path, ...]:
    """Paths of all `jars` in `cache`, each as listed; what is missing or differs is fetched first.

    Blocks, so call it before the event loop starts. Two at once on one cache take turns. Raises `Missing` if the folder
    cannot be written, the disk has no room, or a jar cannot be had.
    """
    if wrong_jars(cache, jars):
        with _explained(cache):
            cache.mkdir(parents=True, exist_ok=True)
            require_room(cache, ROOM_BYTES)
            with _alone(cache, progress):
                _fetch_all(cache, wrong_jars(cache, jars), fetch, progress)
    return tuple(cache / jar.name for jar in jars)


def wrong_jars(cache: Path, jars: Sequence[Jar]) -> list[Jar]:
    """Those of `jars` that `cache` lacks, or holds with other contents than listed."""
    return [jar for jar in jars if not _as_listed(cache / jar.name, jar)]


def _as_listed(path: Path, jar: Jar) -> bool:
    try:
        return path.stat().st_size == jar.size and sha256_of(path) == jar.sha256
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises `Missing` when the disk of `folder` (which exists) has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise Missing(
            f"{folder} has {free // 2**20} MiB of free disk space, {needed_bytes // 2**20} MiB are needed",
            "Make room, choose a folder on another disk, " + ELSEWHERE + ".",
        )


def _fetch_all(cache: Path, jars: Sequence[Jar], fetch: Fetch, progress: Progress) -> None:
    total = sum(jar.size for jar in jars)
    done = 0
    for jar in jars:
        _fetch_one(cache, jar, fetch, _Counter(jar.name, done, total, progress))
        done += jar.size
        progress(jar.name, done, total)


def _fetch_one(cache: Path, jar: Jar, fetch: Fetch, on_bytes: OnBytes) -> None:
    # Beside its place, hence on the same disk, where a rename is one step; what a killed run left there is swept away.
    with tempfile.TemporaryDirectory(prefix="fresh-", dir=cache) as fresh:
        path = fetch(jar, Path(fresh), on_bytes)
        if not _as_listed(path, jar):
            raise Missing(
                f"{jar.coordinate} came with other contents than listed: its SHA-256 is not {jar.sha256[:12]}…",
                f"Try again, look at what the proxy or mirror in between serves, {ELSEWHERE}.",
            )
        path.replace(cache / jar.name)


class _Counter:
    """Adds the pieces of one jar to what came before it."""

    def __init__(self, name: str, done: int, total: int, progress: Progress) -> None:
        self._name, self._done, self._total, self._progress = name, done, total, progress

    def __call__(self, piece: int) -> None:
        self._done += piece
        self._progress(self._name, min(self._done, self._total), self._total)


@contextlib.contextmanager
def _alone(cache: Path, progress: Progress) -> Iterator[None]:
    """Holds the cache's lock; the kernel gives it back even if we are killed. Sweeps what a killed run left."""
    with (cache / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another Tradewind that fetches them", 0, 1)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in cache.glob("fresh-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def _explained(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _explain(cache, error) from error


def _explain(cache: Path, error: OSError) -> Missing:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Missing(f"The disk filled up while jars came into {cache}", f"Make room, {ELSEWHERE}.")
    return Missing(
        f"The cache folder {cache} cannot be written ({error.strerror or error})",
        f"Set XDG_CACHE_HOME to a folder that can, {ELSEWHERE}.",
    )
