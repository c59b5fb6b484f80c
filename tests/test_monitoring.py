"""Rules, dashboards and runbook speak of metrics that exist, and of each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge

from streams.runtime.metrics import AudienceMetrics, Declared, ProbeMetrics, SongsMetrics

ROOT = Path(__file__).parents[1]
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
EACH = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in EACH if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in EACH if "record" in rule}
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (Coldstart\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))

_SERIES = re.compile(r"\bcoldstart[:_][\w:]+")
_STRING = re.compile(r'"[^"]*"')


def shown() -> dict[str, set[str]]:
    """Every series that a scrape has, and its labels; what a histogram adds included."""
    found: dict[str, set[str]] = {}
    each: Declared[Any]
    for each in {*SongsMetrics.declared(), *AudienceMetrics.declared(), *ProbeMetrics.declared()}:
        suffixes = [""] if each.kind in (Counter, Gauge) else ["_bucket", "_sum", "_count"]
        for suffix in suffixes:
            found[each.name + suffix] = {*each.labels, *(["le"] if suffix == "_bucket" else [])}
    return found


SHOWN = shown()
# What Prometheus adds, and the targets' own.
_ADDED = {"job", "instance", "installation"}


def queries(board: Path) -> list[str]:
    panels = json.loads(board.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


EXPRESSIONS = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in EACH] + [
    (f"{board.stem}.json", expr) for board in BOARDS for expr in queries(board)
]


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=lambda value: value if " " not in value else "")
def test_every_series_of_a_query_is_in_the_catalogue(where: str, expr: str) -> None:
    names = set(_SERIES.findall(_STRING.sub('""', expr)))
    assert names - SHOWN.keys() - RECORDED.keys() == set(), where


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=lambda value: value if " " not in value else "")
def test_every_label_that_a_query_selects_by_is_the_metrics(where: str, expr: str) -> None:
    for name, selector in re.findall(r"\b(coldstart_\w+)\{([^}]*)\}", expr):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector))
        assert labels <= SHOWN[name] | _ADDED, f"{where}: {name}"


def test_a_misspelt_metric_would_be_seen() -> None:
    assert "coldstart_lag_second" not in SHOWN
    assert "coldstart_upload_to_push_seconds_bucket" in SHOWN
    assert _SERIES.findall("max(coldstart_lag_second) > coldstart:x:y") == ["coldstart_lag_second", "coldstart:x:y"]


def test_the_objective_lies_on_a_bucket_bound() -> None:
    bounds = {str(bound) for bound in AudienceMetrics.upload_to_push_seconds.buckets}
    rules = [rule["expr"] for name, rule in RECORDED.items() if name.startswith("coldstart:slow_pushes:")]
    assert {bound for expr in rules for bound in re.findall(r'le="([^"]+)"', expr)} == {"1.0"} <= bounds
    windows = {name: set(re.findall(r"\[(\w+)\]", rule["expr"])) for name, rule in RECORDED.items()}
    assert all(
        found == {name.removeprefix("coldstart:slow_pushes:ratio")}
        for name, found in windows.items()
        if name.startswith("coldstart:slow_pushes:")
    )


def test_every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() -> None:
    assert SECTIONS.keys() == ALERTS.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    severity, notes = rule["labels"]["severity"], rule["annotations"]
    assert severity in ("page", "ticket")
    assert notes["runbook_url"] == f"docs/how-to/runbook.md#{alert.lower()}"
    assert "{{" not in notes["summary"]
    assert "{{" in notes["description"]
    section = SECTIONS[alert]
    assert section.lstrip().startswith(f"{severity.capitalize()}.")
    for part in ("Symptom", "Confirm", "ause", "ction"):
        assert part in section or part.lower() in section, part
    assert "tried" in section or "nly promtool" in section


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.stem)
def test_a_dashboard_is_one_that_grafana_takes(board: Path) -> None:
    made = json.loads(board.read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    uids = {panel["datasource"]["uid"] for panel in made["panels"] if panel["type"] != "row"}
    assert uids == {"prometheus"}
    assert made["uid"].startswith("coldstart-")
    # No panel lies on another.
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in made["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)


def test_every_metric_worth_a_look_is_on_a_dashboard() -> None:
    drawn = {name for board in BOARDS for expr in queries(board) for name in _SERIES.findall(expr)}
    used = drawn | {name for rule in EACH for name in _SERIES.findall(rule["expr"])}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    declared = {each.name for each in {*SongsMetrics.declared(), *AudienceMetrics.declared(), *ProbeMetrics.declared()}}
    # Of these the log tells more, or another metric the same.
    left_out = {
        "coldstart_skipped_records_total",
        "coldstart_upload_to_request_seconds",
        "coldstart_requests_sent_total",
        "coldstart_restoring_seconds",
        "coldstart_restored_records_total",
    }
    assert declared - families == left_out
