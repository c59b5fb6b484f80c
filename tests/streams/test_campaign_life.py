"""When a campaign ends, and which uploads leave it no moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from streams.contract.errors import InvalidField
from streams.contract.event_time import CAMPAIGN_DAYS
from streams.contract.events import PushTarget, SongUpload
from streams.contract.internal_events import MatchRequest
from streams.runtime.settings import SongsSettings
from streams.songs.song_record import campaign_end

UPLOADED = datetime(2026, 3, 1, tzinfo=UTC)
UPLOAD = msgspec.json.decode(SongUpload.EXAMPLE, type=SongUpload)
YEAR = timedelta(days=365)


def end(**times: datetime) -> datetime:
    upload = msgspec.structs.replace(UPLOAD, **times)
    return datetime.fromtimestamp(campaign_end(upload, UPLOADED.timestamp(), 28), UTC)


def test_a_campaign_lasts_as_long_as_the_upload_says_or_else_the_settings() -> None:
    assert end() == UPLOADED + timedelta(days=28)
    assert end(expires_at=UPLOADED + timedelta(microseconds=1)) == UPLOADED + timedelta(microseconds=1)
    assert end(available_from=UPLOADED - timedelta(days=40)) == UPLOADED + timedelta(days=28)


def test_the_default_life_is_one_fact_in_settings_contract_and_examples() -> None:
    assert SongsSettings().campaign_days == CAMPAIGN_DAYS
    life = timedelta(days=CAMPAIGN_DAYS)
    asked = msgspec.json.decode(MatchRequest.EXAMPLE, type=MatchRequest)
    assert asked.expires_at - asked.uploaded_at == life
    # A push is decided a little after the upload.
    pushed = msgspec.json.decode(PushTarget.EXAMPLE, type=PushTarget)
    assert life - timedelta(seconds=1) < pushed.expires_at - pushed.decided_at <= life


def test_a_song_that_is_available_later_has_its_days_from_then() -> None:
    assert end(available_from=UPLOADED + timedelta(days=60)) == UPLOADED + timedelta(days=88)
    assert end(available_from=UPLOADED + timedelta(days=350)) == UPLOADED + YEAR


@pytest.mark.parametrize("name", ["available_from", "expires_at"])
def test_a_campaign_lies_within_a_year_of_its_upload(name: str) -> None:
    assert end(expires_at=UPLOADED + YEAR) == UPLOADED + YEAR
    for beyond in (UPLOADED + YEAR + timedelta(seconds=1), datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(InvalidField, match=f"^{name}: .*365 days"):
            end(**{name: beyond})


@pytest.mark.parametrize(
    ("times", "part"),
    [
        ({"expires_at": UPLOADED}, r"expires_at: 2026-03-01T.* is not after the upload, 2026-03-01T"),
        ({"expires_at": datetime(1970, 1, 20, tzinfo=UTC)}, r"expires_at: 1970-01-20T.* is not after the upload, 2026"),
        (
            {"available_from": UPLOADED + timedelta(days=2), "expires_at": UPLOADED + timedelta(days=1)},
            r"expires_at: 2026-03-02T.* is not after available_from, 2026-03-03T",
        ),
        ({"available_from": UPLOADED + YEAR}, r"available_from: .* leaves the campaign no time: .* 365 days"),
    ],
)
def test_an_upload_that_leaves_its_campaign_no_moment_is_refused_by_name(times: dict[str, datetime], part: str) -> None:
    with pytest.raises(InvalidField, match=f"^{part}"):
        end(**times)
