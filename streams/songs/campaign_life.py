"""When the campaign of an upload ends."""

from __future__ import annotations

from datetime import UTC, datetime

from streams.contract.errors import InvalidField
from streams.contract.event_time import LONGEST_CAMPAIGN_DAYS
from streams.contract.events import SongUpload

_DAY_S = 86_400.0


def campaign_end(upload: SongUpload, at: float, days: float) -> float:
    """The end of a song's campaign, Unix seconds.

    Args:
        at: when the broker appended the upload, Unix seconds.
        days: a campaign's life where the upload does not say.

    Raises:
        InvalidField: no moment is left for it, or it lies further ahead than may be looked.
    """
    latest = at + LONGEST_CAMPAIGN_DAYS * _DAY_S
    for name in ("available_from", "expires_at"):
        when = getattr(upload, name)
        if when is not None and when.timestamp() > latest:
            raise InvalidField(
                f"{name}: {when.isoformat()}, at most {LONGEST_CAMPAIGN_DAYS} days after the upload allowed"
            )
    begins, named = at, f"the upload, {datetime.fromtimestamp(at, UTC).isoformat()}"
    if upload.available_from is not None and upload.available_from.timestamp() > at:
        begins, named = upload.available_from.timestamp(), f"available_from, {upload.available_from.isoformat()}"
    ends = min(begins + days * _DAY_S, latest) if upload.expires_at is None else upload.expires_at.timestamp()
    if ends > begins:
        return ends
    if upload.expires_at is not None:
        raise InvalidField(f"expires_at: {upload.expires_at.isoformat()} is not after {named}")
    raise InvalidField(
        f"{named.replace(',', ':', 1)} leaves the campaign no time: "
        f"it ends {LONGEST_CAMPAIGN_DAYS} days after the upload"
    )
