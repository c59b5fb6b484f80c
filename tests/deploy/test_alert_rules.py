"""promtool's word on the rules, and rules on a faster clock."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from scaled_rules import scaled

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"


def promtool(*words: str) -> None:
    """Ends with 0, or this test fails with what it says."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    done = subprocess.run([program, *words], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", "prometheus.yaml")


def test_every_alert_fires_stays_silent_and_resolves() -> None:
    promtool("test", "rules", "test_rules.yaml")


def test_no_alert_is_left_out_of_promtools_test() -> None:
    rules = yaml.safe_load((FOLDER / "rules.yaml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    healthy, *others = yaml.safe_load((FOLDER / "test_rules.yaml").read_text(encoding="utf-8"))["tests"]
    assert {each["alertname"] for each in healthy["alert_rule_test"]} == alerts
    assert not any(each["exp_alerts"] for each in healthy["alert_rule_test"])
    fired, resolved = set(), set()
    for test in others:
        for each in test["alert_rule_test"]:
            if each["exp_alerts"]:
                fired.add(each["alertname"])
            elif each["alertname"] in fired:
                resolved.add(each["alertname"])
    assert (fired, resolved) == (alerts, alerts)


def test_a_faster_clock_shortens_windows_offsets_and_holds_but_no_threshold() -> None:
    rule = {
        "alert": "A",
        "expr": "rate(x[1h]) > 3600 and y offset 10m > 5 and coldstart:slow:ratio5m > 1",
        "for": "5m",
        "labels": {"severity": "page"},
    }
    record = {"record": "r", "expr": "rate(x[2d])"}
    (group,) = scaled({"groups": [{"name": "g", "rules": [rule, record]}]}, 60, window_s=15, hold_s=2)["groups"]
    assert group["rules"] == [
        {**rule, "expr": "rate(x[60s]) > 3600 and y offset 15s > 5 and coldstart:slow:ratio5m > 1", "for": "5s"},
        {**record, "expr": "rate(x[2880s])"},
    ]
    (group,) = scaled({"groups": [{"name": "g", "rules": [rule]}]}, 1, window_s=15, hold_s=2)["groups"]
    assert group["rules"][0]["expr"] == "rate(x[3600s]) > 3600 and y offset 600s > 5 and coldstart:slow:ratio5m > 1"
    assert rule["for"] == "5m"
