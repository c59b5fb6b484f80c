"""The chart: linted, rendered for several values, checked against Kubernetes' schemas and our own settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from toolchain import ROOT, run, tool

from streams.runtime.settings_sources import load_settings

CHART = ROOT / "deploy" / "helm" / "coldstart"
NEEDED = {"models": {"claim": "models"}}
VALUES: dict[str, dict[str, Any]] = {
    "least": NEEDED,
    "everything": NEEDED
    | {
        "settings": {
            "kafka": {"bootstrap_servers": "a:9093,b:9093", "security_protocol": "SASL_SSL", "sasl_username": "u"},
            "topics": {"audience_partitions": 64},
            "audience": {"holdout": 0.1, "half_vectors": True, "batch_records": 20000},
        },
        "secrets": {
            "COLDSTART_KAFKA__SASL_PASSWORD": {"name": "kafka", "key": "password"},
            "COLDSTART_AUDIENCE__ERASURE_KEY": {"name": "erasure", "key": "key"},
        },
        "shutdownSeconds": 45,
        "audience": {"replicas": 64, "storageClass": "fast"},
        "monitoring": {"enabled": True, "rules": "groups: []"},
        "keda": {"enabled": True},
        "networkPolicy": {"kafkaPorts": [9093]},
    },
}
# Of operators that Kubernetes does not know: their schemas are not in the package.
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}


def values(folder: Path, given: dict[str, Any]) -> Path:
    (folder / "values.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    return folder / "values.yaml"


def rendered(folder: Path, given: dict[str, Any]) -> list[dict[str, Any]]:
    text = run(tool("helm"), "template", "release", CHART, "--kube-version", "1.28", "-f", values(folder, given))
    return [each for each in yaml.safe_load_all(text) if each]


def pod(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == kind]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("name", VALUES)
def test_the_chart_is_linted_and_its_objects_are_kubernetes(name: str, tmp_path: Path) -> None:
    run(tool("helm"), "lint", "--strict", "--kube-version", "1.28", CHART, "-f", values(tmp_path, VALUES[name]))
    objects = rendered(tmp_path, VALUES[name])
    kinds = {each["kind"] for each in objects}
    assert kinds >= {"Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"}
    assert (kinds >= CUSTOM) == (name == "everything")
    files = []
    for number, each in enumerate(each for each in objects if each["kind"] not in CUSTOM):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(each), encoding="utf-8")
    run(tool("kubernetes-validate"), "--strict", "-k", "1.28", *files)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
@pytest.mark.parametrize("name", VALUES)
def test_a_pod_has_real_settings_few_rights_and_time_to_drain(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pod(rendered(tmp_path, VALUES[name]), kind)
    (container,) = spec["containers"]
    for each in container["env"]:
        if each["name"].startswith("COLDSTART_"):
            monkeypatch.setenv(each["name"], each.get("value", "secret"))
    settings = load_settings()
    drain = (settings.songs if kind == "Deployment" else settings.audience).shutdown_s
    assert spec["terminationGracePeriodSeconds"] == drain + 10 == VALUES[name].get("shutdownSeconds", 20) + 10
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert not rights["allowPrivilegeEscalation"]


def test_a_slot_is_the_ordinal(tmp_path: Path) -> None:
    (container,) = pod(rendered(tmp_path, NEEDED), "StatefulSet")["containers"]
    assert container["args"] == ["worker", "audience", "--slot", "$(SLOT)"]
    (slot,) = [each for each in container["env"] if each["name"] == "SLOT"]
    assert slot["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"


def relabelled(service: dict[str, Any], relabelings: list[dict[str, Any]]) -> dict[str, str]:
    """The labels that Prometheus gives the targets of a Service, by the rules with the default regex alone."""
    meta = {
        "__meta_kubernetes_service_label_" + re.sub(r"\W", "_", name): value
        for name, value in service["metadata"]["labels"].items()
    }
    labels = {"job": service["metadata"]["name"]}
    for rule in relabelings:
        assert set(rule) <= {"sourceLabels", "targetLabel", "replacement"}
        value = ";".join(meta.get(name, "") for name in rule.get("sourceLabels", []))
        labels[rule["targetLabel"]] = rule["replacement"].replace("$1", value)
    return labels


def test_the_alert_rules_know_the_roles_of_any_release(tmp_path: Path) -> None:
    objects = rendered(tmp_path, VALUES["everything"])
    (monitor,) = [each for each in objects if each["kind"] == "ServiceMonitor"]
    (endpoint,) = monitor["spec"]["endpoints"]
    services = [each for each in objects if each["kind"] == "Service"]
    found = [relabelled(each, endpoint["relabelings"]) for each in services]
    assert {each["job"] for each in found} == {"coldstart-songs", "coldstart-audience"}
    assert {each["installation"] for each in found} == {"release"}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= each["metadata"]["labels"].items() for each in services)
    rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text(encoding="utf-8")
    jobs = set(re.findall(r'job="([^"]+)"', rules))
    assert {each["job"] for each in found} == jobs


def test_a_new_songs_worker_is_ready_before_the_old_one_goes(tmp_path: Path) -> None:
    (songs,) = [each for each in rendered(tmp_path, NEEDED) if each["kind"] == "Deployment"]
    assert songs["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_keda_asks_for_a_metric_that_is_there(tmp_path: Path) -> None:
    (scaled,) = [each for each in rendered(tmp_path, VALUES["everything"]) if each["kind"] == "ScaledObject"]
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert query.startswith("max(coldstart_lag_seconds{")
    assert "| `coldstart_lag_seconds` |" in (ROOT / "deploy" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({}, "claim"),
        (NEEDED | {"replicas": 2}, "replicas"),
        (NEEDED | {"image": {"tag": "latest"}}, "tag"),
        (NEEDED | {"shutdownSeconds": 0}, "shutdownSeconds"),
        (NEEDED | {"settings": {"kafka": {"sasl_password": "plain"}}}, "sasl_password"),
        (NEEDED | {"settings": {"kafka": {"bootstrap_servers": "broker"}}}, "bootstrap_servers"),
        (NEEDED | {"audience": {"storage": "10"}}, "storage"),
        (NEEDED | {"audience": {"replicas": 17}}, "audience_partitions (16)"),
    ],
)
def test_wrong_values_are_refused_by_name(given: dict[str, Any], word: str, tmp_path: Path) -> None:
    assert word in run(
        tool("helm"), "template", "release", CHART, "--kube-version", "1.28", "-f", values(tmp_path, given), code=1
    )
