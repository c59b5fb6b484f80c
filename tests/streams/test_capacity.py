"""`coldstart capacity`: needs follow from figures that were measured, and say where they go beyond them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from streams.cli import app
from streams.operations import capacity
from streams.operations.capacity import EXTRAPOLATED, FIGURES, MEASURED, Demand, Need, needs
from streams.runtime.exit_codes import REFUSED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "capacity.md"


def by_name(demand: Demand) -> dict[str, Need]:
    return {each.what: each for each in needs(demand)}


def test_the_page_shows_what_the_verb_prints() -> None:
    blocks = re.findall(
        r"```sh\n(coldstart capacity [^\n]+)\n```\n\n```\n(.*?)```\n", PAGE.read_text(encoding="utf-8"), re.DOTALL
    )
    assert len(blocks) == 2
    for command, shown in blocks:
        done = CliRunner().invoke(app, command.split()[1:])
        assert done.exit_code == 0, done.output
        assert done.stdout == shown


def test_what_is_called_measured_by_the_bench_is_what_the_bench_wrote() -> None:
    found = json.loads((ROOT / "tests" / "bench" / "results.json").read_text(encoding="utf-8"))
    assert capacity.USER_BYTES.value == found["resident_mb"]
    assert capacity.CANDIDATE_S.value == found["request_ms"]["p50"] / 1000 / found["request_candidates"]
    assert capacity.LISTEN_S.value == pytest.approx(1 / found["vectors_per_s"]["listens"], rel=1e-5)
    assert (capacity.DISK_S.value, capacity.CHANGELOG_S.value) == (
        found["restore_s"]["disk"],
        found["restore_s"]["changelog"],
    )
    ours = {each.name for each in FIGURES if each.source == "make bench"}
    assert len(ours) == 7


sizes = st.builds(
    Demand,
    users=st.integers(1, 256_000_000),
    songs=st.integers(1, 20_000_000),
    uploads_per_s=st.floats(0, 100),
    listens_per_s=st.floats(0, 1e6),
)


@given(sizes)
def test_every_user_has_a_place_and_what_was_not_measured_says_so(demand: Demand) -> None:
    found = by_name(demand)
    assert found["audience partitions"].value * 250_000 >= demand.users
    workers = found["audience workers"]
    assert workers.value * 500_000 >= demand.users
    assert workers.value <= found["audience partitions"].value
    assert (workers.basis == EXTRAPOLATED) == (demand.users > 1_000_000)
    assert (found["start of a songs worker"].basis == EXTRAPOLATED) == (demand.songs > 100_000)
    assert found["memory of all"].value == pytest.approx(workers.value * found["memory of each"].value)
    assert all(each.value >= 0 for each in found.values())


@given(sizes, st.integers(0, 1_000_000))
def test_more_users_never_need_less(demand: Demand, more: int) -> None:
    larger = Demand(min(256_000_000, demand.users + more), demand.songs, demand.uploads_per_s, demand.listens_per_s)
    before, after = by_name(demand), by_name(larger)
    for name in (
        "audience partitions",
        "audience workers",
        "memory of all",
        "cores for the audience",
        "disk of the cluster",
    ):
        assert after[name].value >= before[name].value * (1 - 1e-9)


def test_more_users_than_an_installation_can_have_are_refused_with_the_setting() -> None:
    done = CliRunner().invoke(
        app, ["capacity", "--users", "300000000", "--songs", "1000", "--uploads-per-s", "1"], env={"COLUMNS": "300"}
    )
    assert done.exit_code == REFUSED
    assert "topics.audience_partitions" in done.output


def test_json_has_the_demand_the_needs_and_the_figures_behind_them() -> None:
    done = CliRunner().invoke(app, ["capacity", "--users", "1000", "--songs", "100", "--uploads-per-s", "1", "--json"])
    told = json.loads(done.stdout)
    assert told["demand"]["users"] == 1000
    assert {each["what"] for each in told["needs"]} == set(by_name(Demand(1000, 100, 1, 1)))
    assert all(each["source"] for each in told["figures"] if each["basis"] == MEASURED)
