"""The metric catalogue: shown on the caller's registry, documented, and misspelling is an error."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from streams.runtime.metrics import AudienceMetrics, RoleMetrics, SongsMetrics, table

ROLES = (SongsMetrics, AudienceMetrics)


@pytest.mark.parametrize("role", ROLES)
def test_members_count_on_the_given_registry(role: type[RoleMetrics]) -> None:
    registry = CollectorRegistry()
    metrics = role(registry)
    metrics.dead_letters.labels("validate", "InvalidField").inc()
    labels = {"stage": "validate", "error": "InvalidField"}
    assert registry.get_sample_value("coldstart_dead_letters_total", labels) == 1
    role(CollectorRegistry())  # a second role in the same process has its own


def test_latency_promises_lie_on_bucket_bounds() -> None:
    registry = CollectorRegistry()
    AudienceMetrics(registry).upload_to_push_seconds.observe(0.15)
    bucket = "coldstart_upload_to_push_seconds_bucket"
    assert registry.get_sample_value(bucket, {"le": "0.1"}) == 0
    assert registry.get_sample_value(bucket, {"le": "0.2"}) == 1
    assert registry.get_sample_value(bucket, {"le": "0.5"}) == 1


@pytest.mark.parametrize("role", ROLES)
def test_declared_name_is_the_shown_name(role: type[RoleMetrics]) -> None:
    registry = CollectorRegistry()
    role(registry)
    shown = generate_latest(registry).decode()
    for each in role.declared():
        family = each.name.removesuffix("_total") + ("_total" if each.kind is Counter else "")
        assert f"# HELP {family} {each.meaning}" in shown


@pytest.mark.parametrize("role", ROLES)
def test_every_metric_says_what_it_means(role: type[RoleMetrics]) -> None:
    for each in role.declared():
        assert each.meaning
        assert each.unit
        if each.attribute.endswith("seconds"):
            assert each.unit == "seconds"


def test_misspelt_metric_is_an_error() -> None:
    with pytest.raises(AttributeError):
        _ = SongsMetrics(CollectorRegistry()).upload_served  # type: ignore[attr-defined]


def test_documented_table_is_the_catalogue() -> None:
    documented = Path(__file__).parents[2] / "deploy" / "metrics.md"
    assert documented.read_text(encoding="utf-8") == table() + "\n", (
        "run `python -m streams.runtime.metrics > deploy/metrics.md`"
    )


@pytest.mark.parametrize("role", ROLES)
def test_prometheus_itself_finds_nothing_to_say_of_the_names(role: type[RoleMetrics]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    registry = CollectorRegistry()
    metrics = role(registry)
    for each in role.declared():
        if each.labels:
            getattr(metrics, each.attribute).labels(*["x"] * len(each.labels))
    found = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


# What an installation has few of, and a stranger cannot make more of.
BOUNDED = {
    "stage", "error", "topic", "partition", "outcome", "space", "type", "reason", "kind", "why", "change", "activity",
    "client", "direction", "name", "tier",
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
def test_no_metric_grows_with_users_songs_or_what_strangers_send(role: type[RoleMetrics]) -> None:
    assert {label for each in role.declared() for label in each.labels} <= BOUNDED
