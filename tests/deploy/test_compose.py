"""The compose file: loaded by the loader of ``docker compose``, and true to our settings, ports and deadlines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from toolchain import ROOT, run, tool

from streams.cli import app
from streams.runtime.settings import AudienceSettings, SongsSettings
from streams.runtime.settings_sources import load_settings

FILE = ROOT / "deploy" / "compose" / "compose.yaml"
ROLES = ("topics", "publish", "songs", "audience-0", "audience-1", "probe")


def loaded(file: Path = FILE, code: int = 0) -> str:
    return run(tool("compose-spec"), "--format", "json", file, cwd=FILE.parent, code=code)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(loaded())["services"]
    return found


def test_a_wrong_file_would_be_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {a: {image: x, restarts: always}}\n", encoding="utf-8")
    assert "restarts" in loaded(wrong, code=1)


@pytest.mark.parametrize("name", [role for role in ROLES if role != "publish"])
def test_a_role_has_real_settings_no_rights_and_time_to_drain(
    name: str, services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = services[name]
    for variable, value in service["environment"].items():
        assert variable.startswith("COLDSTART_")
        monkeypatch.setenv(variable, str(value))
    settings = load_settings()
    brokers = {each for each in services if each.startswith("kafka-")}
    assert {each.partition(":")[0] for each in settings.kafka.bootstrap_servers.split(",")} == brokers
    assert settings.topics.replication_factor == len(brokers) == 3
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["stop_grace_period"] == "30s"
    assert max(SongsSettings().shutdown_s, AudienceSettings().shutdown_s) + 5 <= 30


def test_slots_are_given_once(services: dict[str, Any]) -> None:
    slots = [each["command"][-1] for name, each in services.items() if name.startswith("audience-")]
    assert sorted(slots) == ["0", "1"]


def test_what_a_service_waits_for_is_there(services: dict[str, Any]) -> None:
    assert {name for each in services.values() for name in each.get("depends_on", {})} <= set(services)


def test_brokers_are_of_the_version_that_the_tests_run_on(services: dict[str, Any]) -> None:
    (jars,) = (ROOT / "streams/testbed/broker").glob("kafka-*.sha256")
    version = jars.name.removeprefix("kafka-").removesuffix(".sha256")
    brokers = [each for name, each in services.items() if name.startswith("kafka-")]
    assert {each["image"] for each in brokers} == {f"apache/kafka:{version}"}
    assert sorted(int(each["environment"]["KAFKA_NODE_ID"]) for each in brokers) == [1, 2, 3]


def test_prometheus_scrapes_each_role_on_its_port(services: dict[str, Any]) -> None:
    config = yaml.safe_load((FILE.parent / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = {t for job in config["scrape_configs"] for each in job["static_configs"] for t in each["targets"]}
    ports = {"songs": SongsSettings().http_port, "audience-0": AudienceSettings().http_port}
    ports["audience-1"] = ports["audience-0"]
    command = typer.main.get_command(app).commands["probe"]  # type: ignore[attr-defined]
    verb, *args = services["probe"]["command"]
    said = command.make_context(verb, args).params
    assert (said["every"], said["http_host"]) == (60, "0.0.0.0")
    ports["probe"] = said["http_port"]
    assert targets == {f"{name}:{port}" for name, port in ports.items()}
    assert set(ports) <= set(services)


def test_prometheus_judges_the_rules_and_nothing_else_by_the_labels_that_they_ask_for(services: dict[str, Any]) -> None:
    config = yaml.safe_load((FILE.parent / "prometheus.yaml").read_text(encoding="utf-8"))
    (mounted,) = [each for each in services["prometheus"]["volumes"] if each["target"] == "/etc/coldstart/prometheus"]
    folder = FILE.parent / mounted["source"]
    files = [folder / Path(each).name for each in config["rule_files"]]
    assert {str(Path(each).parent) for each in config["rule_files"]} == {mounted["target"]}
    assert files == [folder / "rules.yaml"]
    rules = files[0].read_text(encoding="utf-8")
    for job in config["scrape_configs"]:
        # The probe's alert knows an installation, wherever it is probed from.
        assert f'up{{job="{job["job_name"]}"}}' in rules or job["job_name"] == "coldstart-probe"
        assert all(each["labels"] == {"installation": "coldstart"} for each in job["static_configs"])


def test_prometheus_takes_its_configuration() -> None:
    run(tool("promtool"), "check", "config", "--syntax-only", FILE.parent / "prometheus.yaml")
