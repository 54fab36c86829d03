"""What `tradewind doctor` looks at on this machine: interpreter, Java, disk, ports, limits, keys, files."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp

from streams.contract.errors import Missing, Stop
from streams.settings import Settings
from tradewind import running
from tradewind.hands.checks import Check, fail, ok, skipped, warn
from tradewind.hands.listeners import listener
from tradewind.ports import is_free

OLDEST: Final = (3, 11)
LITTLE_BYTES: Final = 2 * 2**30
TOO_LITTLE_BYTES: Final = 200 * 2**20
FEW_FILES: Final = 4096
TOO_FEW_FILES: Final = 256
NETWORK_S: Final = 5.0
BROKER: Final = 19092
METRICS: Final = 9464


def python() -> Check:
    """The interpreter, and what it runs on."""
    have = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST:
        return fail("python", f"Python {have}", f"Install Python {'.'.join(map(str, OLDEST))} or later")
    if sys.platform != "linux":
        return warn("python", f"Python {have} on {sys.platform}", "Linux is what Tradewind is tested on")
    return ok("python", f"Python {have}")


def java(environ: Mapping[str, str], *, needed: bool) -> Check:
    """A Java for the embedded Kafka; `needed`: there is no other Kafka to use."""
    from tradewind.embedded.java import find_java

    home = environ.get("JAVA_HOME")
    try:
        return ok("java", str(find_java(Path(home) if home else None, environ.get("PATH"))))
    except Missing as error:
        return (fail if needed else warn)("java", error.what, error.remedy)


async def jars(environ: Mapping[str, str], home: Path, *, needed: bool) -> Check:
    """The parts of the embedded Kafka: here, or within reach."""
    from tradewind.embedded.jars import default_cache, listed, wrong_jars

    cache, wanted = default_cache(environ, home), listed()
    wrong = wrong_jars(cache, wanted.jars)
    if not wrong:
        return ok("embedded kafka", f"Kafka {wanted.kafka}, all {len(wanted.jars)} parts in {cache}")
    says = f"{len(wrong)} of {len(wanted.jars)} parts are not in {cache}"
    if (why := await _unreachable()) is None:
        return ok("embedded kafka", f"{says}; they are fetched at the first start")
    remedy = "Give this machine a way out (HTTPS_PROXY), copy the folder from another, or use your own Kafka"
    return (fail if needed else warn)("embedded kafka", f"{says}, and they cannot be fetched ({why})", remedy)


async def _unreachable() -> str | None:
    """Why parts cannot be fetched; None: they can."""
    try:
        from jgo.constants import MAVEN_CENTRAL_URL
    except ImportError:
        return "the package jgo is not installed: pip install 'tradewind[embedded]'"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=NETWORK_S), trust_env=True) as http,
            http.head(f"{MAVEN_CENTRAL_URL}/", allow_redirects=True),
        ):
            return None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return str(error) or "no answer"


def disk(state_dir: Path) -> Check:
    """Room, and the right to write, where state is kept."""
    at = next(folder for folder in (state_dir.absolute(), *state_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(at).free
    says = f"{free / 2**30:.1f} GiB free in {at}"
    if not _writable(at):
        return fail("disk", f"{at} cannot be written", "Give this user the right to, or set TRADEWIND_STATE_DIR")
    if free < TOO_LITTLE_BYTES:
        return fail("disk", says, "Make room, or set TRADEWIND_STATE_DIR to a folder on another disk")
    if free < LITTLE_BYTES:
        return warn("disk", says, "An embedded Kafka wants 2 GiB: make room, or set TRADEWIND_STATE_DIR")
    return ok("disk", says)


def _writable(folder: Path) -> bool:
    import os

    return os.access(folder, os.W_OK | os.X_OK)


def files() -> Check:
    """How many files and connections a process of ours may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} open files" if soft != resource.RLIM_INFINITY else "no limit of open files"
    if soft == resource.RLIM_INFINITY or soft >= FEW_FILES:
        return ok("file limit", says)
    most = min(hard, 65536) if hard > 0 else 65536
    remedy = f"ulimit -n {most} (systemd: LimitNOFILE=65536): a gateway takes two a request"
    return (fail if soft < TOO_FEW_FILES else warn)("file limit", says, remedy)


def ports(settings: Settings, gateways: Mapping[str, int]) -> Iterator[Check]:
    """The usual ports, and those of gateways (origin to port): free, or whose."""
    noted = running.read(settings.state_dir)
    wanted = {BROKER: "embedded Kafka", METRICS: "metrics of a worker"}
    wanted |= {port: f"gateway of {origin}" for origin, port in gateways.items()}
    ours: set[str] = set()
    if noted is not None:
        doors = (process.admin_url or "" for process in noted.processes)
        ours = {_port(url) for url in (noted.bootstrap_servers, *noted.gateways.values(), *doors)}
    local = {server.rpartition(":")[2] for server in settings.bootstrap_servers.split(",")}
    for port, use in sorted(wanted.items()):
        name = f"port {port}"
        if is_free(port):
            yield ok(name, f"free ({use})")
            continue
        whose = listener(port) or "another user's process"
        if str(port) in ours or str(port) in local or whose.startswith("tradewind"):
            yield ok(name, f"taken by {whose}, as it should be ({use})")
        else:
            yield warn(name, f"taken by {whose} ({use})", "End it, or name another port; `up` takes the next free one")


def _port(url: str) -> str:
    """
    >>> _port("http://127.0.0.1:8080/"), _port("127.0.0.1:19092")
    ('8080', '19092')
    """
    return url.rstrip("/").rpartition(":")[2]


def key(state_dir: Path) -> Check:
    """The router's private key is nobody else's to read."""
    path = state_dir / "router.key"
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return skipped("router key", f"there is no {path}; a router makes it at its first start")
    if mode & 0o077:
        return fail("router key", f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {path}; then renew it")
    return ok("router key", f"{path} has mode {mode:04o}")


def config(file: Path | None) -> tuple[Check, dict[str, int]]:
    """The configuration file, and the ports it gives to gateways by origin."""
    if file is None:
        return skipped("config", "no tradewind.yaml here; `tradewind init` writes one"), {}
    from tradewind.config.whole import read

    try:
        whole = read(file)
    except Stop as error:
        return fail("config", error.what.replace("\n", " "), f"See `tradewind config check {file}`"), {}
    ports = {o.name: whole.gateway.port(o.name, number) for number, o in enumerate(whole.fleet.origins)}
    return ok("config", f"{file} is good"), ports
