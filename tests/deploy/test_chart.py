"""The chart: linted, rendered for several values, checked against Kubernetes' schemas and our own settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from toolchain import ROOT, run, tool

from streams.cli import app
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


def workload(objects: list[dict[str, Any]], role: str) -> dict[str, Any]:
    kind = "StatefulSet" if role == "audience" else "Deployment"
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == f"release-{role}"]
    return found


def pod(objects: list[dict[str, Any]], role: str) -> dict[str, Any]:
    found = workload(objects, role)["spec"]["template"]["spec"]
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


@pytest.mark.parametrize("role", ["songs", "audience", "probe"])
@pytest.mark.parametrize("name", VALUES)
def test_a_pod_has_real_settings_few_rights_and_time_to_drain(
    name: str, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pod(rendered(tmp_path, VALUES[name]), role)
    (container,) = spec["containers"]
    for each in container["env"]:
        if each["name"].startswith("COLDSTART_"):
            monkeypatch.setenv(each["name"], each.get("value", "secret"))
    settings = load_settings()
    drain = VALUES[name].get("shutdownSeconds", 20)
    if role != "probe":
        assert {"songs": settings.songs, "audience": settings.audience}[role].shutdown_s == drain
    assert spec["terminationGracePeriodSeconds"] == drain + 10
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert not rights["allowPrivilegeEscalation"]


def test_a_slot_is_the_ordinal(tmp_path: Path) -> None:
    (container,) = pod(rendered(tmp_path, NEEDED), "audience")["containers"]
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
    assert {each["job"] for each in found} == {"coldstart-songs", "coldstart-audience", "coldstart-probe"}
    assert {each["installation"] for each in found} == {"release"}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= each["metadata"]["labels"].items() for each in services)
    rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text(encoding="utf-8")
    jobs = set(re.findall(r'job="([^"]+)"', rules))
    # The probe's alert knows an installation, wherever it is probed from.
    assert {each["job"] for each in found} == {*jobs, "coldstart-probe"}


def test_what_monitoring_looks_at_has_the_port_of_its_pods(tmp_path: Path) -> None:
    objects = rendered(tmp_path, VALUES["everything"])
    services = [each for each in objects if each["kind"] == "Service"]
    for service in services:
        role = service["metadata"]["name"].removeprefix("release-")
        (container,) = pod(objects, role)["containers"]
        (port,), (open_,) = service["spec"]["ports"], container["ports"]
        assert (port["name"], port["port"]) == (open_["name"], open_["containerPort"])
        labels = workload(objects, role)["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        (policy,) = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]
        assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_probe_is_one_campaign_is_scraped_on_its_port_and_can_be_left_out(tmp_path: Path) -> None:
    objects = rendered(tmp_path, VALUES["everything"])
    (container,) = pod(objects, "probe")["containers"]
    command = typer.main.get_command(app).commands["probe"]  # type: ignore[attr-defined]
    verb, *args = container["args"]
    said = command.make_context(verb, args).params
    assert (said["every"], said["name"], said["http_host"]) == (60, "release", "0.0.0.0")
    assert [each["containerPort"] for each in container["ports"]] == [said["http_port"]]
    assert workload(objects, "probe")["spec"]["strategy"] == {"type": "Recreate"}
    secrets = {each["name"] for each in container["env"] if "valueFrom" in each}
    assert secrets == {"COLDSTART_KAFKA__SASL_PASSWORD"}
    without = rendered(tmp_path, VALUES["everything"] | {"probe": {"enabled": False}})
    assert not [each for each in without if each["metadata"]["name"] == "release-probe"]


def test_a_missing_probe_is_told_though_it_is_sent_as_rarely_as_the_chart_allows() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text(encoding="utf-8")
    (minutes,) = re.findall(r'coldstart_probes_total\{outcome="answered"\}\[(\d+)m\]', rules)
    # A window of answers holds one, and the scrapes around it.
    assert schema["properties"]["probe"]["properties"]["everySeconds"]["maximum"] + 60 <= int(minutes) * 60


def test_a_new_songs_worker_is_ready_before_the_old_one_goes(tmp_path: Path) -> None:
    songs = workload(rendered(tmp_path, NEEDED), "songs")
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
        (NEEDED | {"probe": {"everySeconds": 600}}, "everySeconds"),
        (NEEDED | {"audience": {"replicas": 17}}, "audience_partitions (16)"),
    ],
)
def test_wrong_values_are_refused_by_name(given: dict[str, Any], word: str, tmp_path: Path) -> None:
    assert word in run(
        tool("helm"), "template", "release", CHART, "--kube-version", "1.28", "-f", values(tmp_path, given), code=1
    )
