"""The bench of spot risk reads traces as they are published, looks at no future, and is scored as it says."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import spot, spot_rows
from bench.spot_fit import chance, fit
from bench.spot_traces import Pool, Sample, losses, read
from forecasting.spot.evidence import Evidence
from forecasting.spot.hazard import FROZEN, hazard, signs

DAY_S = 86_400.0


def pools(days: float = 6.0, seed: int = 1, zones: Iterable[str] = ("r-1a", "r-1b", "s-1a")) -> list[Pool]:
    """Pools that are lost and come back by chance, each at a rate of its own; a look every five minutes."""
    rng = random.Random(seed)
    made = []
    for n, zone in enumerate(zones):
        samples, ready, failed = [], 1, 0
        for look in range(int(days * 288)):
            chance_ = 0.02 * (n + 1) if ready else 0.3
            ready = 1 - ready if rng.random() < chance_ else ready
            failed += not ready
            samples.append(Sample(look * 300.0, ready, failed))
        made.append(Pool(zone[:-1], zone, "gpu-1", samples))
    return made


def general(made: Iterable[Pool]) -> str:
    rows = [f"{s.at_s},{p.region}/{p.zone}/{p.instance},{s.ready},{s.failed}" for p in made for s in p.samples]
    return "\n".join(["t_s,pool,ready,failed", *rows])


def wide(made: list[Pool]) -> str:
    head = ",".join(["t_s", *(f"{p.zone}_gpu_1" for p in made)])
    ticks = zip(*(p.samples for p in made), strict=True)
    return "\n".join([head, *(",".join(map(str, [row[0].at_s, *(s.ready for s in row)])) for row in ticks)])


LOG = """timestamp,cloud,event,instance_id,gpus,gpu_type,zone
2020-03-15T10:00:00.000Z,aws,create_failed,,1,v100,
2020-03-15T10:00:01.000Z,aws,created,i-1,1,nvidia-tesla-v100,us-east-1b
2020-03-15T10:10:00.000Z,aws,running,i-1,,,us-east-1b
2020-03-15T10:20:00.000Z,aws,not_running,i-1,,,us-east-1b
2020-03-15T10:20:05.000Z,aws,deleted,i-1,,,
2020-03-15T10:30:00.000Z,aws,created,i-2,1,nvidia-tesla-v100,us-east-1b
"""


def test_formats_are_told_by_their_header_and_say_the_same(tmp_path: Path) -> None:
    made = pools(0.2)
    (tmp_path / "spot").mkdir()
    (tmp_path / "spot" / "general.csv").write_text(general(made))
    with gzip.open(tmp_path / "spot" / "wide.csv.gz", "wt") as file:
        file.write(wide(made))
    (tmp_path / "spot" / "log.csv").write_text(LOG)
    (tmp_path / "spot" / "prices.csv").write_text("timestamp,usd\n1,2\n")
    sets, skipped = read(tmp_path)
    assert skipped == ["prices.csv"]
    assert sets["general"] == made
    assert [(p.region, p.zone, p.instance, p.samples) for p in sets["wide"]] == [
        (p.region, p.zone, p.instance, p.samples) for p in made
    ]
    (log,) = sets["log"]
    assert (log.region, log.zone, log.instance) == ("us-east-1", "us-east-1b", "v100-1")
    assert [s.ready for s in log.samples] == [1, 1, 0, 0, 1]
    assert losses(log) == 1


def test_empty_cells_are_times_when_nobody_looked(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("t_s,r-1a_gpu_1\n0,1\n300,\n600,0\n")
    sets, _ = read(tmp_path)
    assert sets["w"][0].samples == [Sample(0.0, 1, 0), Sample(600.0, 0, 1)]


def test_columns_say_what_the_hazard_says() -> None:
    made = pools(1.0)
    table = spot_rows.table(made)
    assert table is not None
    row = int(np.flatnonzero(table.pool == 0)[40])
    at_s, seen = table.at_s[row], Evidence()
    for sample in made[0].samples:
        if sample.at_s <= at_s:
            seen = seen.reported(*sample)
    others = [next((b.at_s for a, b in reversed([*zip(p.samples, p.samples[1:], strict=False)])
                    if b.at_s <= at_s and b.ready < a.ready), None) for p in made]  # fmt: skip
    found = hazard(signs(seen, at_s, region_lost_at_s=others[1]), seen).per_h
    assert chance(table, FROZEN)[row] == pytest.approx(1 - np.exp(-found))


def test_what_is_said_at_a_time_does_not_depend_on_what_comes_later() -> None:
    one, other = pools(2.0), pools(2.0)
    for pool, changed in zip(one, other, strict=True):
        late = [s._replace(ready=1 - s.ready) for s in changed.samples if s.at_s > DAY_S]
        pool.samples = [s for s in pool.samples if s.at_s <= DAY_S]
        changed.samples = [s for s in changed.samples if s.at_s <= DAY_S] + late
    short, long = spot_rows.table(one), spot_rows.table(other)
    assert short is not None
    assert long is not None
    n = len(short.at_s)
    assert np.array_equal(short.signs, long.signs[:n])
    assert np.array_equal(short.plain, long.plain[:n])


def test_a_replica_is_lost_within_the_hour_or_it_is_not() -> None:
    samples = [Sample(n * 600.0, 0 if n in (20, 21) else 2, 0) for n in range(60)]
    table = spot_rows.table([Pool("r", "r-1a", "g", samples)])
    assert table is not None
    by_time = dict(zip(table.at_s.tolist(), table.lost.tolist(), strict=True))
    assert by_time[13 * 600.0] == 0.0
    assert by_time[14 * 600.0] == by_time[19 * 600.0] == 1.0
    assert 20 * 600.0 not in by_time, "there was nothing to lose"
    assert max(by_time) == 53 * 600.0, "what lies beyond the end is not judged"


def test_scores_and_reliability_are_of_the_last_part_alone(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text(general(pools()))
    found = spot.run(tmp_path, refit=True)
    assert set(found["brier"]) == {"ours", "gamma_poisson", "base_rate", "pool_rate", "hindsight"}
    row = found["sets"]["g"]
    assert 0 < row["events"] < row["events_in_all"]
    assert sum(each["looks"] for each in found["reliability"]) == row["looks"]
    assert found["brier"]["hindsight"] <= found["brier"]["base_rate"]
    assert set(found["without"]) == {"posterior", "calm", "region", "zone"}
    assert found["fitted"]["price"] == FROZEN.price
    spot.show(found)


def test_a_hazard_that_is_known_is_found_again() -> None:
    table = spot_rows.table(pools(20.0))
    assert table is not None
    made = replace(FROZEN, base=-1.0, posterior=0.8, calm=-0.1, region=0.0, zone=0.0)
    told = replace(table, lost=chance(table, made))
    again = fit([told])
    assert np.abs(chance(told, again) - told.lost).mean() < 0.02 < np.abs(chance(told, FROZEN) - told.lost).mean()


def test_a_folder_without_traces_ends_with_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no traces of spot pools"):
        spot.run(tmp_path)
