"""Dashboards show what is declared, and all of it; provisioning and scraping fit together."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client.metrics_core import Metric
from ruamel.yaml import YAML

from streams import signals

FOLDER = Path(__file__).parents[2] / "dashboards"
FILES = sorted((FOLDER / "grafana").glob("*.json"))
NOT_SHOWN = {
    "tradewind_build_info": "says which version runs where; asked for when two differ, not watched",
    "tradewind_records_repeated": "read again after a rebalance, as should be; tests see that none counts twice",
}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
GIVEN = {"instance", "job", "le"}
"""Labels that Prometheus and histograms add to ours."""
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def families() -> dict[str, tuple[Metric, set[str]]]:
    """Every metric of ours by family, with its labels."""
    found = {}
    for metric in vars(signals).values():
        if isinstance(metric, (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)):
            (family,) = metric.describe()
            found[family.name] = (family, set(metric._labelnames))
    return found


FAMILIES = families()
SERIES = {family.name + suffix: name for name, (family, _) in FAMILIES.items() for suffix in SUFFIXES[family.type]}


def yaml(path: str) -> Any:
    return YAML(typ="safe").load(FOLDER / path)


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["panels"]
    return [inner for panel in found for inner in (panel, *panel.get("panels", []))]


def expressions(path: Path) -> Iterator[tuple[str, str, str]]:
    """(title of the panel, expression, legend)."""
    for panel in panels(path):
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"], target["legendFormat"]


def named(expression: str) -> set[str]:
    return set(re.findall(r"\btradewind_\w+", expression))


def grouped(expression: str) -> set[str]:
    """Labels an expression groups, matches or selects by."""
    lists = re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression)
    chosen = re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression)
    return {label.strip() for labels in lists for label in labels.split(",")} | set(chosen)


def test_there_is_a_dashboard_and_the_registry_was_read() -> None:
    assert FILES
    exposed = {line.split()[2] for line in signals.exposition().decode().splitlines() if line.startswith("# HELP")}
    shown = {name + ("_total" if family.type == "counter" else "") for name, (family, _) in FAMILIES.items()}
    assert shown == {name for name in exposed if not name.endswith("_created")}


@every_file
def test_every_metric_a_panel_names_is_declared(path: Path) -> None:
    for title, expression, _ in expressions(path):
        assert named(expression), title
        assert named(expression) <= SERIES.keys(), title


@every_file
def test_every_label_a_panel_uses_is_one_of_its_metrics_and_survives_into_the_legend(path: Path) -> None:
    for title, expression, legend in expressions(path):
        declared = set.union(*(FAMILIES[SERIES[name]][1] for name in named(expression)))
        assert grouped(expression) <= declared | GIVEN, title
        assert set(re.findall(r"{{(\w+)}}", legend)) <= grouped(expression), title


@every_file
def test_counters_are_shown_as_rates_and_histograms_as_quantiles(path: Path) -> None:
    for title, expression, _ in expressions(path):
        for name in named(expression):
            if FAMILIES[SERIES[name]][0].type != "gauge":
                assert re.search(rf"rate\({name}(?:{{[^}}]*}})?\[\$__rate_interval\]\)", expression), title
            if name.endswith("_bucket"):
                assert expression.startswith("histogram_quantile(0."), title
                assert "le" in grouped(expression), title


def test_every_metric_is_on_a_panel_or_there_is_a_reason() -> None:
    shown = {SERIES[name] for path in FILES for _, expression, _ in expressions(path) for name in named(expression)}
    assert shown.isdisjoint(NOT_SHOWN), "it is shown: take its excuse away"
    assert shown | NOT_SHOWN.keys() == FAMILIES.keys()


@every_file
def test_panels_have_their_own_ids_and_places_and_say_what_they_show(path: Path) -> None:
    found = panels(path)
    assert max(Counter(panel["id"] for panel in found).values()) == 1
    taken: Counter[tuple[int, int]] = Counter()
    for panel in found:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
    assert max(taken.values()) == 1, "panels overlap"


@every_file
def test_panels_ask_the_data_source_that_is_provisioned(path: Path) -> None:
    (source,) = yaml("provisioning/datasources/prometheus.yaml")["datasources"]
    asked = [
        one["datasource"] for panel in panels(path) if panel["type"] != "row" for one in (panel, *panel["targets"])
    ]
    assert asked
    assert all(one == {"type": source["type"], "uid": source["uid"]} for one in asked)


@every_file
def test_a_dashboard_can_be_linked_to_and_is_written_in_one_way(path: Path) -> None:
    text = path.read_text("utf-8")
    dashboard = json.loads(text)
    assert re.fullmatch(r"[a-z-]{1,40}", dashboard["uid"])
    assert isinstance(dashboard["schemaVersion"], int)
    assert text == json.dumps(dashboard, indent=2) + "\n"


def test_dashboards_are_not_scraped_less_often_than_they_think() -> None:
    (source,) = yaml("provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["jsonData"]["timeInterval"] == yaml("prometheus.yml")["global"]["scrape_interval"]
