"""Who reads a million observations how fast: `python -m bench.ingest [--json] [--records N] [--runs R] [--only NAME]`.

One topic on a real Apache Kafka, the same records for everybody, one consumer at a time, its process on one core and
the broker on the other. Each keeps a rolling p95 of 200 endpoints (60 s in buckets of 1 s, or what its windows come
nearest to), and has to have seen every observation and to agree with the exact p95, or the bench fails.

Rates and CPU (user and system, of the consumer) count from the first record at hand to the last one folded; with
several runs, rows are medians. Peers live in an environment of their own (`bench/env.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer

from bench import env, many
from streams.contract import topics
from streams.contract.records import Endpoint, Fleet, Origin, RequestClass, Service
from streams.runtime import admin
from streams.settings import load
from tradewind.embedded import EmbeddedKafka, default_cache, prepare, shown_on
from tradewind.embedded.runtime import FAST

PEERS = Path(__file__).with_name("peers")
DEADLINE_S = 240.0
AGREES = 0.03
"""Largest relative difference from the exact p95; the windows of some are not closed to the very end."""
FORMS = {"one": 1, "json": 10, "msgpack": 10}
"""Prefix of topics, and how observations lie in their records (one each; 100 each as JSON; 100 each as msgpack), with
how many times as many there are: a million in 10,000 records would be read in a few fetches, too few to measure."""


class Consumer(NamedTuple):
    """One who reads: its row's name, its script in `peers/`, the form it reads, whether our edge validates."""

    name: str
    script: str
    form: str = "one"
    ours: str = ""


CONSUMERS = (
    Consumer("tradewind", "ours.py", ours="on"),
    Consumer("tradewind_unchecked", "ours.py", ours="off"),
    Consumer("tradewind_100_json", "ours.py", "json", "on"),
    Consumer("tradewind_100_json_unchecked", "ours.py", "json", "off"),
    Consumer("tradewind_100_msgpack", "ours.py", "msgpack", "on"),
    Consumer("tradewind_100_msgpack_unchecked", "ours.py", "msgpack", "off"),
    Consumer("limit", "limit.py"),
    Consumer("bytewax_window", "bytewax_window.py"),
    Consumer("quix_window", "quix_window.py"),
    Consumer("faust_event", "faust_event.py"),
)


class Sent(NamedTuple):
    """What lies on a topic: records, their bytes, and the exact p95 by endpoint."""

    records: int
    bytes: int
    p95_ms: dict[str, float]


class Bench:
    """A broker with the bench's topics on it, and those who read them one after the other."""

    def __init__(self, bootstrap: str, peers: Path, observations: int) -> None:
        self.bootstrap, self.peers, self.observations = bootstrap, peers, observations
        self.sent: dict[str, Sent] = {}

    async def produce(self, forms: Sequence[str]) -> None:
        """Make and fill the topics of `forms`."""
        for form in forms:
            settings = load(bootstrap_servers=self.bootstrap, topic_prefix=form, wide_partitions=1)
            await admin.create(settings)
            total = self.observations * FORMS[form]
            said = await self._run(self.peers, "produce.py", self.bootstrap, total, form, self._topic(form))
            sent = self.sent[form] = Sent(**said)
            await self._send_fleet(form, list(sent.p95_ms))
            _tell(f"{form}: {sent.records} records, {sent.bytes / sent.records:.0f} B each")

    async def consume(self, consumer: Consumer) -> dict[str, float]:
        """The row of one consumer. Raises RuntimeError when it missed an observation or its p95 is off."""
        sent, observations = self.sent[consumer.form], self.observations * FORMS[consumer.form]
        python = Path(sys.executable) if consumer.ours else self.peers
        ours = [sent.records, consumer.ours] if consumer.ours else []
        said = await self._run(python, consumer.script, self.bootstrap, self._topic(consumer.form), observations, *ours)
        _check(consumer.name, said, observations, sent.p95_ms)
        return {
            "obs_per_s": round(observations / said["seconds"]),
            "cpu_s_per_million": round(said["cpu_s"] / observations * 1e6, 3),
            "rss_mb": round(said["rss_mb"], 1),
        }

    @staticmethod
    def _topic(form: str) -> str:
        return topics.ENDPOINT_METRICS.full(form)

    async def _send_fleet(self, form: str, endpoints: Sequence[str]) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await producer.start()
        try:
            fleet = msgspec.json.encode(_fleet(endpoints))
            await producer.send_and_wait(topics.FLEET.full(form), fleet, key=b"default")
        finally:
            await producer.stop()

    async def _run(self, python: Path, script: str, *arguments: object) -> dict[str, Any]:
        """What a script of `peers/` says on the last line of its output."""
        command = [str(python), str(PEERS / script), *map(str, arguments)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=_environment()
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RuntimeError(f"{script} failed (exit code {process.returncode}): {err.decode()[-2000:]}")
        if not out.strip():
            raise RuntimeError(f"{script} said nothing; on stderr: {err.decode()[-2000:]}")
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(env.ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONWARNINGS": "ignore"}


def _check(name: str, said: dict[str, Any], observations: int, exact_ms: dict[str, float]) -> None:
    if said["observations"] != observations:
        raise RuntimeError(
            f"{name} saw {said['observations']} of {observations} observations: no row for a part of them"
        )
    if missing := set(exact_ms) - set(said["p95_ms"]):
        raise RuntimeError(f"{name} has no p95 of {len(missing)} endpoints, {min(missing)} among them")
    off = statistics.median(abs(said["p95_ms"][e] / p95 - 1) for e, p95 in exact_ms.items())
    if not off <= AGREES:  # NaN agrees with nothing
        raise RuntimeError(f"{name}: p95 differs by {off:.1%} from the exact one, at most {AGREES:.0%} is an estimate")


def _fleet(endpoints: Sequence[str]) -> Fleet:
    classes = (RequestClass(name="interactive", slo_p95_ms=300),)
    return Fleet(
        version=1,
        services=(Service(name="chat", classes=classes, default_class="interactive"),),
        origins=(Origin(name="eu", jurisdiction="DE", rtt_ms={"eu-west-1": 10}),),
        endpoints=tuple(
            Endpoint(
                name=name, url="http://127.0.0.1:1", services=("chat",), provider="bench", region="eu-west-1",
                zone="a", jurisdiction="IE", capacity_rps=100, price_usd_per_h=2,
            )
            for name in endpoints
        ),
    )  # fmt: skip


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[EmbeddedKafka]:
    """A fresh Kafka on the cores that consumers leave free, its data in a folder that goes with it."""
    cores = os.sched_getaffinity(0)
    java_home = os.environ.get("JAVA_HOME")
    with shown_on(sys.stderr) as progress, tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        cache = default_cache(os.environ, Path.home())
        runtime = prepare(cache, java_home=Path(java_home) if java_home else None, progress=progress)
        os.sched_setaffinity(0, cores - {0} or cores)
        try:
            async with EmbeddedKafka(runtime, Path(folder), port=None, retention_bytes=-1, jvm=FAST) as kafka:
                yield kafka
        finally:
            os.sched_setaffinity(0, cores)


async def measure(chosen: Sequence[Consumer], observations: int, runs: int) -> list[dict[str, Any]]:
    """A row for each of `chosen`: the medians of `runs` interleaved runs."""
    peers = env.peers_python()
    found: dict[str, list[dict[str, float]]] = {consumer.name: [] for consumer in chosen}
    async with broker() as kafka:
        _tell(f"Kafka {kafka.version} at {kafka.bootstrap_servers}")
        bench = Bench(kafka.bootstrap_servers, peers, observations)
        await bench.produce([form for form in FORMS if any(c.form == form for c in chosen)])
        for _ in range(runs):
            for consumer in chosen:
                row = await bench.consume(consumer)
                found[consumer.name].append(row)
                _tell(_line(consumer.name, row))
    return [{"name": name, **_median(rows)} for name, rows in found.items()]


def _median(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows with what follows from them: how ours compares, by rate and (steadier on a busy machine) by CPU."""
    rate = {row["name"]: row["obs_per_s"] for row in rows}
    cpu_s = {row["name"]: row["cpu_s_per_million"] for row in rows}
    peers = [c.name for c in CONSUMERS if not c.ours and c.name in rate and "tradewind" in rate]
    batched = {"json": rate.get("tradewind_100_json"), "binary": rate.get("tradewind_100_msgpack")}
    return {
        "rows": rows,
        "ratios": {name: round(rate["tradewind"] / rate[name], 3) for name in peers},
        "cpu_ratios": {name: round(cpu_s[name] / cpu_s["tradewind"], 3) for name in peers},
        "batched": {form: value for form, value in batched.items() if value is not None},
    }


def where() -> dict[str, Any]:
    """The machine, the commit, and how busy the machine was."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    commit = subprocess.run(
        ["git", "-C", str(env.ROOT), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {
        "machine": {"cpu": model, "cores": os.cpu_count()},
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _line(name: str, row: dict[str, Any]) -> str:
    return f"{name:<34}{row['obs_per_s']:>12,}/s {row['cpu_s_per_million']:>8.3f} CPU s/M {row['rss_mb']:>7.1f} MB"


def _table(said: dict[str, Any]) -> str:
    rows = [_line(row["name"], row) for row in said["rows"]]
    rest = [f"{key}: {json.dumps(value)}" for key, value in said.items() if key != "rows"]
    return "\n".join([*rows, *rest])


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, progress on stderr")
    parser.add_argument("--records", type=int, default=1_000_000, help="observations on each topic")
    parser.add_argument("--runs", type=int, default=1, help="interleaved runs; rows are their medians")
    names = [consumer.name for consumer in CONSUMERS]
    parser.add_argument("--only", action="append", choices=names, help="only this row; may be given again")
    asked = parser.parse_args()
    chosen = [c for c in CONSUMERS if asked.only is None or c.name in asked.only]
    about = where()
    found = report(asyncio.run(measure(chosen, asked.records, asked.runs)))
    found["many"] = many.fresh(rows=20_000) if asked.only is None else None
    said = {**found, "observations": asked.records, "runs": asked.runs, **about}
    print(json.dumps(said) if asked.json else _table(said))


if __name__ == "__main__":
    main()
