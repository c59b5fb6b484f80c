"""What an operator sees of the campaigns, and what pushes do."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import Installation
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Campaign, CampaignCounts
from streams.contract.topics import CAMPAIGNS
from streams.operations.campaigns import current, total
from streams.operations.uplift import compared, uplift
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import REFUSED

NOW = datetime.now(UTC)


def campaign(song_id: str, age_s: float, **counts: int) -> Campaign:
    return Campaign(
        song_id=song_id,
        revision=1,
        status="active",
        started_at=NOW - timedelta(seconds=age_s),
        counts=CampaignCounts(answered=[0, 1], **counts),
        space="bcl",
    )


def record(event: Campaign) -> Record:
    return pack(event, id=event.song_id, source="test", time=NOW.timestamp())


def test_the_view_is_the_newest_record_of_each_song_and_what_was_deleted_is_gone(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", here.naming.prefix)
    gone = record(campaign("s-3", 1))
    here.send_all(
        CAMPAIGNS,
        [
            record(campaign("s-1", 60, pushed=10, held_out=5)),
            record(campaign("s-1", 60, pushed=800, held_out=400, listened=240, held_out_listened=20)),
            record(campaign("s-2", 30, pushed=200, held_out=100, listened=60, held_out_listened=5)),
            gone,
            Record(gone.key, None, []),  # type: ignore[arg-type]
        ],
    )
    found = current(here.kafka, here.naming, SystemClock())
    assert {song: each.counts.pushed for song, each in found.items()} == {"s-1": 800, "s-2": 200}
    assert total(found.values()).held_out_listened == 25

    reach = ["--bootstrap-servers", here.kafka.bootstrap_servers]
    table = CliRunner().invoke(app, ["campaigns", *reach], env={"COLUMNS": "200"})
    assert table.exit_code == 0, table.output
    assert table.output.index("s-2") < table.output.index("s-1")
    one = CliRunner().invoke(app, ["campaigns", "s-1", "--json", *reach])
    assert json.loads(one.stdout)["counts"]["pushed"] == 800
    both = CliRunner().invoke(app, ["campaigns", "--lift", "--json", *reach])
    listened = json.loads(both.stdout)[0]
    assert (listened["treated"], listened["held_out_of"], listened["clear"]) == (300, 500, True)
    single = CliRunner().invoke(app, ["campaigns", "s-2", "--lift", *reach], env={"COLUMNS": "200"})
    assert "60 of 200, 30.00%" in single.output
    unknown = CliRunner().invoke(app, ["campaigns", "s-9", *reach])
    assert unknown.exit_code == REFUSED
    assert "s-9" in unknown.output


def test_the_intervals_are_those_of_the_literature() -> None:
    # Newcombe 1998, table II: 56/70 against 48/80; method 10 gives .0524 to .3339.
    found = compared("listened", 56, 70, 48, 80)
    assert found.difference is not None
    assert found.difference.low == pytest.approx(0.0524, abs=5e-5)
    assert found.difference.high == pytest.approx(0.3339, abs=5e-5)
    assert found.ratio is not None
    spread = math.sqrt(1 / 56 - 1 / 70 + 1 / 48 - 1 / 80)
    assert found.ratio.high == pytest.approx(0.8 / 0.6 * math.exp(1.959964 * spread), rel=1e-6)
    assert found.clear
    assert found.missing == 0


def test_with_too_few_held_out_it_says_how_many_more() -> None:
    found = compared("listened", 30, 400, 1, 20)
    assert not found.clear
    assert found.missing is not None
    # As many more at the same rates show it.
    times = 1 + found.missing / 20
    assert compared("listened", round(30 * times), round(400 * times), round(1 * times), round(20 * times)).clear


def test_where_nobody_was_pushed_or_held_out_nothing_is_said() -> None:
    for found in uplift(CampaignCounts(pushed=10, listened=4)) + uplift(CampaignCounts(held_out=10)):
        assert found.difference is None
        assert found.ratio is None
        assert not found.clear
    assert compared("listened", 0, 50, 0, 50).ratio is None


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_an_interval_holds_its_estimate_and_stays_within_what_is_possible(n: int, m: int, data: st.DataObject) -> None:
    found = compared("listened", data.draw(st.integers(0, n)), n, data.draw(st.integers(0, m)), m)
    assert found.difference is not None
    assert -1 <= found.difference.low <= found.difference.mean + 1e-12
    assert found.difference.mean - 1e-12 <= found.difference.high <= 1
    if found.ratio is not None:
        assert 0 < found.ratio.low <= found.ratio.mean <= found.ratio.high
