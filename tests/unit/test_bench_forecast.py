"""The bench of forecasts reads folders as they come, scores no gap and no future, and says what it left out."""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bench import forecast, forecast_figures, forecast_rivals
from forecasting import evaluate
from forecasting.evaluate import Cell, average_precision, cells, geometric, over_at_unmet, panels
from forecasting.models.many import TELLERS, Many
from forecasting.traces import Trace, read

FOUND = {
    "minute,requests": (["0,5", "1,7", "4,9"], 60.0, [5, 7, None, None, 9]),
    "t_s,requests,x": (["0,5,1", "600,7,1", "1200,0,1"], 600.0, [5, 7, 0]),
    "series,timestamp,value": (["a,2024-01-01 00:00:00,5", "a,2024-01-01 00:05:00,6"], 300.0, [5, 6]),
    "when,load": (["2024-01-01 00:00:00,5", "2024-01-01 00:30:00,", "2024-01-01 01:00:00,7"], 1800.0, [5, None, 7]),
    "s,load": (["0,4", "30,6", "60,10", "90,20"], 60.0, [5, 15]),
    "t,load": (["0,-4", "57,6", "114,10"], 60.0, [None, 6, 10]),
}


@pytest.mark.parametrize("header", FOUND)
def test_files_are_known_by_the_columns_they_begin_with(header: str, tmp_path: Path) -> None:
    lines, step_s, values = FOUND[header]
    (tmp_path / "web_x.csv.gz").write_bytes(gzip.compress("\n".join([header, *lines]).encode()))
    (trace,) = read(tmp_path)
    assert (trace.family, trace.step_s) == ("web", step_s)
    assert trace.values.tolist() == pytest.approx([np.nan if v is None else v for v in values], nan_ok=True)


def test_what_is_absent_of_a_client_is_none_and_of_all_clients_a_gap(tmp_path: Path) -> None:
    lines = ["client_id,t_s,requests", "a,0,5", "b,0,1", "a,600,5", "a,1800,2", "b,1800,4"]
    (tmp_path / "llm_clients.csv").write_text("\n".join(lines))
    found = {trace.name: trace for trace in read(tmp_path)}
    assert found["a"].values.tolist() == pytest.approx([5, 5, np.nan, 2], nan_ok=True)
    assert found["b"].values.tolist() == pytest.approx([1, 0, np.nan, 4], nan_ok=True)
    assert found["a"].client


def test_requests_of_a_log_are_counted_in_slots_that_hold_five(tmp_path: Path) -> None:
    begin = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)
    lines = [(begin + timedelta(seconds=10 * n)).isoformat(sep=" ") for n in range(60)]
    (tmp_path / "log.csv").write_text("\n".join(["TIMESTAMP", *lines]))
    (trace,) = read(tmp_path)
    assert (trace.step_s, set(trace.values.tolist())) == (60.0, {6.0})


def test_what_cannot_be_read_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("minute,requests\n0,5\n1,6\n")
    (tmp_path / "broken.csv").write_bytes(b"minute,requests\n\xff\xfe,\x00\n")
    (tmp_path / "far.csv").write_text("minute,requests\n0,5\n1000000000000,6\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "hours.csv").write_text("t_s,requests\n0,5\n3600,6\n7200,7\n")
    left_out: dict[str, str] = {}
    (trace,) = read(tmp_path, left_out.__setitem__)
    assert trace.file == "good"
    assert left_out.keys() == {"broken.csv", "far.csv", "hours.csv/all"}
    assert "1, 5, 10 or 30 min" in left_out["hours.csv/all"]


@pytest.mark.parametrize("content", [None, "", "a,b\nx,y\n", "t,v\n1,2\n"])
def test_a_folder_without_series_is_an_error_in_one_sentence(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "x.csv").write_text(content)
    where = tmp_path if content is not None else tmp_path / "nowhere"
    monkeypatch.setattr(sys, "argv", ["bench.forecast", "--data", str(where)])
    with pytest.raises(SystemExit, match=r"bench\.forecast: .*(no series|no folder)"):
        forecast.main()


# ---------------------------------------------------------------- scores


def trace(values: list[float] | np.ndarray, step_s: float = 600.0, name: str = "a", client: bool = False) -> Trace:
    return Trace("web", "web", name, step_s, np.asarray(values, np.float32), client)


def noise(slots: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(50, slots).astype(np.float32)


def test_series_of_a_panel_have_equal_slots_and_nearly_equal_length() -> None:
    made = panels(
        [trace(noise(100)), trace(noise(101)), trace(noise(200)), trace(noise(100), 60.0), trace(noise(9))], [600.0]
    )
    assert sorted((panel.step_s, panel.values.shape) for panel in made) == [
        (60.0, (100, 1)), (600.0, (100, 2)), (600.0, (200, 1)),
    ]  # fmt: skip


def test_a_score_is_of_the_single_slot_ahead_and_scrambling_what_comes_after_changes_no_word() -> None:
    values = noise(60)
    scrambled = np.concatenate([values[:45], noise(15, seed=1)])
    (one,), (other,) = panels([trace(values)], [600.0, 1800.0]), panels([trace(scrambled)], [600.0, 1800.0])
    said = [evaluate.tested(_lived(panel), panel, TELLERS) for panel in (one, other)]
    known = said[0].slots < 45
    assert np.array_equal(said[0].quantiles["ensemble"][known], said[1].quantiles["ensemble"][known])
    assert said[0].truth[0, 0].tolist() == [values[36], values[38]]
    first, _ = cells(said[0])
    assert first.slots[0] == 35


def test_gaps_are_not_scored_and_neither_is_a_series_that_never_changes() -> None:
    values = noise(60)
    values[40:50] = np.nan
    (panel,) = panels([trace(values), trace(np.full(60, 7.0))], [600.0])
    (cell,) = cells(evaluate.tested(_lived(panel), panel, TELLERS))
    assert len(cell.truth) == 14
    assert not np.isnan(cell.truth).any()


def _lived(panel: forecast.Panel) -> Many:
    model = Many(len(panel.traces), panel.step_s, panel.lags)
    for slot in range(panel.past):
        model.learn(slot, panel.values[slot])
    return model


def cell(truth: list[float], ours: float, lv_add: float, **more: object) -> Cell:
    """One that says `ours` and `lv_add` at all quantiles."""
    count, values = len(truth), np.array(truth, np.float32)
    said = {name: np.full((count, 4), value, np.float32) for name, value in (("ensemble", ours), ("lv_add", lv_add))}
    made = Cell(
        trace(values), 600.0, 1.0, np.arange(count), values, said, values, np.full(count, ours, np.float32),
        np.linspace(0, 1, count, dtype=np.float32), np.zeros(count, np.float32),
    )  # fmt: skip
    return replace(made, **more)


def test_relspl_is_a_geometric_mean_of_costs_over_those_of_lv_add() -> None:
    half, double = cell([10.0] * 10, 9.0, 8.0), cell([10.0] * 10, 6.0, 8.0)
    assert forecast_figures.relspl([half])["overall"] == pytest.approx(0.5)
    both = forecast_figures.relspl([half, double])
    assert both["overall"] == pytest.approx(1.0)
    assert both["worst_family"] == both["families"]["web"]
    assert geometric([4.0, 1.0]) == pytest.approx(2.0)


def test_over_provision_is_measured_where_one_percent_goes_unmet() -> None:
    truth = np.array([10.0, 20.0], np.float32)
    assert over_at_unmet(truth, lambda margin: np.float32(margin) * truth) == pytest.approx(0.0, abs=1e-3)
    assert over_at_unmet(truth, lambda margin: np.full(2, margin * 5, np.float32)) == pytest.approx(9.4 / 30, rel=0.05)


def test_average_precision_is_one_where_all_that_happened_was_likeliest() -> None:
    happened = np.array([1.0, 0.0, 1.0, 0.0], np.float32)
    assert average_precision(np.array([0.9, 0.1, 0.8, 0.2], np.float32), happened) == 1.0
    assert average_precision(np.full(4, 0.5, np.float32), happened) == 0.5
    assert average_precision(np.full(4, 0.5, np.float32), np.zeros(4, np.float32)) is None


def test_spikes_are_of_steady_clients_alone_and_those_under_way_are_not_counted() -> None:
    spiked = np.array([0, 1, np.nan, 1], np.float32)
    client = cell([1.0, 2.0, 3.0, 4.0], 1, 2, spiked=spiked, trace=trace([1.0], client=True))
    said = forecast_figures.spikes([client, cell([1.0] * 4, 1, 2, spiked=np.ones(4, np.float32))])
    assert (said["ap_10min"], said["rate_10min"], said["series"]) == (1.0, pytest.approx(2 / 3, rel=1e-3), 1)
    assert said["ap_30min"] is None


def test_others_are_asked_on_series_of_every_family_at_moments_all_horizons_were_judged() -> None:
    made = [
        cell(list(range(1, 40)), 1, 2, trace=replace(trace(noise(80), name=f"s{n}"), family=f"f{n % 3}"))
        for n in range(9)
    ]
    asked = forecast_rivals.sample(made)
    assert {one.cells[0].trace.family for one in asked[:3]} == {"f0", "f1", "f2"}
    assert all(len(one.slots) == forecast_rivals.ORIGINS for one in asked)
    request = asked[0].request("AutoETS", 5)
    assert (len(request["values"]), request["lags"]) == (6, [1])


def test_the_whole_of_a_small_folder_is_one_json_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{600 * n},{value:.0f},0" for n, value in enumerate(noise(90))]
    (tmp_path / "web_total.csv").write_text("\n".join(["t_s,requests,x", *lines]))
    (tmp_path / "idle_total.csv").write_text("\n".join(["t_s,requests", *(f"{600 * n},0" for n in range(50))]))
    monkeypatch.setattr(forecast, "update_ms", lambda: 0.25)
    monkeypatch.setattr(sys, "argv", ["bench.forecast", "--data", str(tmp_path), "--json", "--quick", "--jobs", "1"])
    forecast.main()
    said = json.loads(capsys.readouterr().out)
    assert said["data"]["scored"] == {"idle": 0, "web": 1}
    assert said["data"]["not_scored"] == 1
    assert said["relspl"]["overall"] > 0
    assert said["cost"]["series_20000_s"] == 5.0
    assert {"ensemble", "lv_add", "last_value"} <= {row["model"] for row in said["rows"]}
