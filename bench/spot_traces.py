"""Traces of spot pools, from files as they are published. Told by their header, not by their name.

    general   t_s,pool,ready[,failed]    a row when a pool was looked at; pool: region/zone/instance; failed: launches
                                         that failed so far
    wide      t_s,us-east-1a_v100_1,...  a column a pool (zone_gpu_count), a row a tick: replicas obtained; while fewer
                                         stand than ever did, a launch failed at each tick
    log       timestamp,event,instance_id,gpus,gpu_type,zone,...
                                         created, running, not_running, deleted, create_failed: instances that are
                                         created again when they are lost

Empty cells: nobody looked. Files may be gzipped.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

ZONE = re.compile(r"^(?P<region>.*\d)-?[a-z]$")
Rows = Iterator[dict[str, str]]


class Sample(NamedTuple):
    """One look at a pool."""

    at_s: float
    ready: int
    failed: int


@dataclass(slots=True)
class Pool:
    """A pool's samples in order of time."""

    region: str
    zone: str
    instance: str
    samples: list[Sample] = field(default_factory=list)


def read(folder: Path) -> tuple[dict[str, list[Pool]], list[str]]:
    """(pools by set, names of files that are no traces) of the CSV files in `folder`, or in its `spot/`."""
    where = folder / "spot" if (folder / "spot").is_dir() else folder
    sets: dict[str, list[Pool]] = {}
    skipped: list[str] = []
    for path in sorted([*where.glob("*.csv"), *where.glob("*.csv.gz")]):
        pools = _pools(path)
        if pools is None:
            skipped.append(path.name)
        else:
            sets[path.name.partition(".")[0]] = pools
    return sets, skipped


def _pools(path: Path) -> list[Pool] | None:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        if {"t_s", "pool", "ready"} <= columns:
            return list(_general(rows))
        if {"timestamp", "event", "instance_id", "zone"} <= columns:
            return list(_log(rows))
        if "t_s" in columns and all(name.count("_") >= 2 for name in columns - {"t_s"}):
            return list(_wide(rows))
    return None


def _general(rows: Rows) -> Iterator[Pool]:
    pools: dict[str, Pool] = {}
    for row in sorted(rows, key=lambda row: float(row["t_s"])):
        name = row["pool"]
        if name not in pools:
            region, zone, instance = name.split("/")[-3:]
            pools[name] = Pool(region, zone, instance)
        if row["ready"]:
            pools[name].samples.append(Sample(float(row["t_s"]), int(float(row["ready"])), int(row.get("failed") or 0)))
    yield from pools.values()


def _wide(rows: Rows) -> Iterator[Pool]:
    table = list(rows)
    for name in table[0]:
        if name != "t_s":
            zone, gpu, count = name.rsplit("_", 2)
            at_s = [float(row["t_s"]) for row in table if row[name]]
            ready = [int(float(row[name])) for row in table if row[name]]
            most = max(ready, default=0)
            failed = accumulate(n < most for n in ready)
            yield Pool(_region(zone), zone, f"{gpu}-{count}", list(map(Sample, at_s, ready, failed)))


def _log(rows: Rows) -> Iterator[Pool]:
    pools: dict[tuple[str, str], Pool] = {}
    lives: dict[str, tuple[str, str]] = {}
    """Instance to its pool, known from its creation on; some logs call its successor the same."""
    alive: dict[tuple[str, str], set[str]] = {}
    failed: dict[tuple[str, str], int] = {}
    for row in rows:
        name, event = row["instance_id"], row["event"]
        if event == "created":
            lives[name] = row["zone"], f"{row['gpu_type'].rsplit('-', 1)[-1]}-{row['gpus']}"
        if (at := lives.get(name)) is None:
            continue
        stands = alive.setdefault(at, set())
        if event == "created":
            stands.add(name)
        elif event in ("not_running", "deleted"):
            stands.discard(name)
        elif event == "create_failed":
            failed[at] = failed.get(at, 0) + 1
        pool = pools.setdefault(at, Pool(_region(at[0]), *at))
        pool.samples.append(Sample(_unix_s(row["timestamp"]), len(stands), failed.get(at, 0)))
    yield from pools.values()


def _unix_s(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _region(zone: str) -> str:
    """
    >>> [_region(zone) for zone in ("us-east-1a", "us-west1-b", "somewhere")]
    ['us-east-1', 'us-west1', 'somewhere']
    """
    found = ZONE.match(zone)
    return found["region"] if found else zone


def losses(pool: Pool) -> int:
    """Replicas lost in a pool."""
    return sum(max(0, a.ready - b.ready) for a, b in zip(pool.samples, pool.samples[1:], strict=False))
